"""Has the data changed since the model was made? Samples, predictions and embeddings, now against then.

Reads: validate/accepted.parquet, evaluate/predictions.parquet, evaluate/embeddings.safetensors; for current
data from elsewhere also that data, finetune/runs and evaluate/calibration.json.
Writes: drift.json (every column and the embeddings with score, threshold, direction), columns.csv (for
plots); the column detector may write a page into reports/drift/.
Decides: the current data (the test split, or what a source finds at `current.data`), the two detectors and
their alpha. Properties are held against the training split, what the network gives against the validation
split: see components/drift/sides.py. p-values of columns are adjusted by Holm, so that any false alarm at all
among them has probability at most alpha. True labels are compared where every current sample of another
source has one.
Fails: current data that is not there or not readable (InputError); samples that cannot be read are counted.
Too few samples do not fail the stage: what was not measured is absent from the metrics, so a gate rule on it
fails.
Does not check: whether a drift does harm; that needs labels, and `evaluate`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from components import params, plugins
from components.contracts import write_json
from components.job import Job
from components.plugins import Choice, Family
from components.samples import keyed_seed

if TYPE_CHECKING:
    from components.drift.columns import Judged
    from components.drift.sides import Side

NEEDS = ("evaluate", "finetune", "validate")
OWN_TEST = "artifacts/validate/accepted.parquet"


class Current(params.Params):
    """What is held against the reference."""

    data: str = Field(min_length=1)
    """artifacts/validate/accepted.parquet: its test split. Otherwise what `source` reads; DVC watches it."""
    source: Annotated[Choice, Family("ingest.sources")] | None = None
    """How samples are found in data from elsewhere, as in ingest."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.data == OWN_TEST and self.source is not None:
            raise ValueError(f"{OWN_TEST} is the project's own test split and takes no `source`; take it out")
        if self.data != OWN_TEST and self.source is None:
            known = ", ".join(plugins.names("ingest.sources"))
            raise ValueError(f"data from elsewhere needs `source: {{name: ...}}`, one of: {known}")
        return self


class Params(params.Params):
    """Section `drift`."""

    current: Current
    """The data that may have drifted."""
    columns: Annotated[Choice, Family("drift.detectors")]
    """How properties and predictions are compared, column by column."""
    embeddings: Annotated[Choice, Family("drift.detectors")]
    """How the network's features are compared, as a whole."""

    @field_validator("columns", "embeddings")
    @classmethod
    def _kind(cls, choice: Choice, info: Any) -> Choice:
        return plugins.comparing(info.field_name, choice)


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns num_columns (compared), num_columns_drifted, share_of_columns, embeddings_score,
    embeddings_p_value, embeddings_drifted, num_current, num_unreadable; what could not be measured is
    absent."""
    from components.drift import compared, sides

    before = sides.reference(job)
    current = params.current
    now = sides.own_test(job) if current.source is None else sides.found(current.data, current.source, job)
    with_labels = current.source is not None and bool(now.table["label"].notna().all())
    judged = compared.columns(params.columns, before, now, with_labels, job.report)
    seed = keyed_seed(job.run.seed, "drift", params.embeddings.name)
    whole = compared.embeddings(params.embeddings, before, now, seed)
    told = "the test split" if current.source is None else current.data.rstrip("/").rsplit("/", 1)[-1]
    headline = compared.headline(judged, whole, told)
    write_json(
        job.out("drift.json"),
        {
            "reference": f"{len(before.table)} training samples for the properties, {len(before.outputs)} "
            "validation samples for what the network gives",
            "current": f"{len(now.table)} samples of {told}",
            "columns": judged,
            "embeddings": whole,
            "headline": headline,
            "unreadable": now.unreadable,
            "unknown_labels": _unknown_labels(before, now, job),
        },
    )
    _write_csv(judged, job)
    job.say(headline)
    counts = {"num_current": float(len(now.table)), "num_unreadable": float(sum(now.unreadable.values()))}
    return counts | compared.figures(judged, whole)


def _unknown_labels(before: Side, now: Side, job: Job) -> dict[str, int]:
    decision = plugins.load("decisions", job.run.decision)
    known, counts = (
        Counter(label for text in side.table["label"].dropna() for label in decision.split(text))
        for side in (before, now)
    )
    return {label: num for label, num in sorted(counts.items()) if label not in known}


def _write_csv(judged: list[Judged], job: Job) -> None:
    import pandas as pd

    names = ["column", "share_of_threshold", "score", "drifted"]
    lines = [{name: getattr(one, name) for name in names} for one in judged]
    lines.sort(key=lambda line: (-line["share_of_threshold"], line["column"]))
    pd.DataFrame(lines, columns=names).to_csv(job.out("columns.csv"), index=False, float_format="%.6g")
