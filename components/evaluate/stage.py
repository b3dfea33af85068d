"""Predict once on held-out data with every run, and say how good it is, how sure that is, and whether transfer helped.

Reads: validate/accepted.parquet (validation and test splits), finetune/runs (with source_head.safetensors), and what
`source_proxy` names: labelled samples of the backbone's old task.
Writes: predictions.parquet (every run, both splits; columns in components/contracts.py plus probability.<label>),
embeddings.safetensors (the main run's features, rows in id order), calibration.json (a temperature a run, fitted on
validation), quality.json (metrics with intervals, and the settings behind them), transfer.json (main against every
reference on the same test rows; what the backbone forgot, see forgetting.py; accuracy by share of the training labels),
label_efficiency.csv (that curve), confusion.csv, reliability.csv (main, test).
Decides: the accepted samples and the runs; run.seed for the resamples.
Fails: a run whose labels are not those of the accepted samples, samples of the old task that cannot be used
(InputError).
Does not check: whether the figures are good enough. That is `gate`. The training split is never scored.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from components import params, plugins, quality, samples
from components.contracts import (
    ATTRIBUTE,
    PROBABILITY,
    PROPERTY,
    InputError,
    Interval,
    RunRecord,
    read_table,
    write_atomic,
    write_json,
    write_table,
)
from components.job import Job
from components.plugins import Choice, Family

if TYPE_CHECKING:
    import pandas as pd

    from components.evaluate.proxy import Old
    from components.model import TransferModel

NEEDS = ("validate", "finetune")

HELD_OUT = ("validation", "test")
NO_PROXY = "artifacts/validate/accepted.parquet"
"""A file that is there in any case, because dvc.yaml names what `source_proxy.data` says."""
OLD = "samples of the old task"


class SourceProxy(params.Params):
    """Labelled samples of what the backbone was pretrained for, or near it."""

    data: str = Field(min_length=1)
    """artifacts/validate/accepted.parquet: there are none. Otherwise what `source` reads; DVC watches it."""
    source: Annotated[Choice, Family("ingest.sources")] | None = None
    """How samples are found in it, as in ingest."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.data == NO_PROXY and self.source is not None:
            raise ValueError(f"{NO_PROXY} stands for no samples of the old task and takes no `source`; take it out")
        if self.data != NO_PROXY and self.source is None:
            known = ", ".join(plugins.names("ingest.sources"))
            raise ValueError(f"data of the old task needs `source: {{name: ...}}`, one of: {known}")
        return self


class Params(params.Params):
    """Section `evaluate`."""

    num_bootstrap: int = Field(ge=100, le=100_000)
    """Resamples behind every interval that has no closed form."""
    level: float = Field(gt=0.5, lt=1)
    """Confidence level of the intervals."""
    num_bins: int = Field(ge=2, le=100)
    """Bins of the calibration error and of the reliability plot."""
    source_proxy: SourceProxy
    """On which it is measured what training for the new task cost the old one."""


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns the main run's test metrics, with `_low` and `_high` for those that have an interval in the gate."""
    table = read_table(job.source("validate", "accepted.parquet"))
    held = {s: table[table["split"] == s].sort_values("id").reset_index(drop=True) for s in HELD_OUT}
    for split, part in held.items():
        if part.empty:
            raise InputError(
                f"validate.split.{split}: no sample fell into it, so nothing can be judged; raise its share"
            )
    folder = job.source("finetune", "runs")
    names = ["main", *sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name != "main")]
    predictions: list[pd.DataFrame] = []
    temperatures: dict[str, float] = {}
    records: dict[str, RunRecord] = {}
    features: dict[str, np.ndarray] = {}
    remembered: dict[str, np.ndarray] = {}
    old = _old(params, folder, job)
    for name in names:
        outputs, records[name] = _predict(folder / name, held, job, old)
        if OLD in outputs:
            remembered[name] = outputs.pop(OLD)[0]
        if records[name].label_share == 1:
            features[name] = outputs["test"][0]
        if name == "main":
            _write_embeddings(job, {s: o[0] for s, o in outputs.items()})
        tables, temperatures[name] = _probabilities(name, {s: o[1] for s, o in outputs.items()}, held, records[name])
        predictions += tables
    found = _forgotten(features, records, (old, remembered), params, job)
    return _write(predictions, temperatures, records, found, params, job)


def _old(params: Params, folder: Path, job: Job) -> Old | None:
    from components.evaluate import proxy
    from components.model import load_run

    """Samples of the old task; None where none are named, or there is no frozen backbone to compare with."""
    given = params.source_proxy
    if given.source is None or not (folder / "frozen_probe").is_dir():
        return None
    return proxy.read(given.data, given.source, load_run(folder / "main")[1], job)


def _predict(
    folder: Path, held: dict[str, pd.DataFrame], job: Job, old: Old | None
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], RunRecord]:
    """Split -> (features [N, D], logits [N, K]); with samples of the old task, those too, as OLD."""
    from components.model import Feed, infer, load_run, pick_device

    model, record = load_run(folder)
    feed = Feed.of(record.task, record.preprocessing)
    decision = plugins.load("decisions", record.decision)
    strange = sorted(set().union(*(decision.labels(part["label"]) for part in held.values())) - set(record.labels))
    if strange:
        raise InputError(f"held-out samples have labels that {record.run} was not trained on: {strange[:10]}")
    device = pick_device(job.run.device)
    outputs = {}
    given = {split: feed.prepare(part, job) for split, part in held.items()}
    if old is not None and record.label_share == 1:
        given[OLD] = old.rows
    for split, rows in given.items():
        features = infer(model.backbone, rows, feed, device, job.progress, f"{record.run} on {split}")
        outputs[split] = (features, _logits(model, features))
    return outputs, record


def _logits(model: TransferModel, features: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return model.head.cpu()(torch.from_numpy(features)).numpy()


def _probabilities(
    name: str, logits: dict[str, np.ndarray], held: dict[str, pd.DataFrame], record: RunRecord
) -> tuple[list[pd.DataFrame], float]:
    import pandas as pd

    decision = plugins.load("decisions", record.decision)
    truth = decision.indicators(held["validation"]["label"], record.labels)
    temperature = quality.fit_temperature(logits["validation"], truth, decision)
    tables = []
    for split, part in held.items():
        shares = decision.probabilities(logits[split], temperature)
        own = pd.DataFrame(
            {
                "run": name,
                "id": part["id"],
                "split": split,
                "label": part["label"],
                "predicted": decision.predicted(shares, record.labels),
                "confidence": decision.confidence(shares),
            }
        )
        columns = pd.DataFrame(shares, columns=[PROBABILITY + label for label in record.labels])
        extra = [c for c in part.columns if c.startswith((ATTRIBUTE, PROPERTY))]
        tables.append(pd.concat([own, columns, part[extra]], axis=1))
    return tables, temperature


def _forgotten(
    features: dict[str, np.ndarray],
    records: dict[str, RunRecord],
    remembered: tuple[Old | None, dict[str, np.ndarray]],
    params: Params,
    job: Job,
) -> dict[str, Any]:
    """What the runs lost of what their backbone knew; `features` of the test rows, and of samples of the old task."""
    from safetensors.numpy import load_file

    from components.evaluate import forgetting, proxy

    place = job.source("finetune", "runs") / "source_head.safetensors"
    head = forgetting.Head(**load_file(place)) if place.exists() else None
    rules = forgetting.Rules(
        params.level, params.num_bootstrap, lambda what: samples.keyed_rng(job.run.seed, 0, f"forgetting, {what}")
    )
    old, own = remembered
    kept = None if old is None else proxy.measure(own, old, params.level)
    return forgetting.measure(features, records, head, rules, kept)


def _write(
    predictions: list[pd.DataFrame],
    temperatures: dict[str, float],
    records: dict[str, RunRecord],
    found: dict[str, Any],
    params: Params,
    job: Job,
) -> dict[str, float]:
    import pandas as pd

    from components.evaluate import forgetting, label_efficiency, transfer

    table = pd.concat(predictions).sort_values(["run", "split", "id"], kind="stable").reset_index(drop=True)
    labels, decision = records["main"].labels, plugins.load("decisions", records["main"].decision)
    figures = _figures(table, records["main"], params, job)
    main = table[(table["run"] == "main") & (table["split"] == "test")]
    scored = quality.Scored.of(main, labels, decision)
    test = table[table["split"] == "test"]
    comparisons = transfer.compare(test, figures, records, params.level)
    curve = label_efficiency.curve(test, figures, records, params.level)
    write_table(job.out("predictions.parquet"), table)
    write_json(job.out("calibration.json"), {"temperature": temperatures, "fitted_on": "validation"})
    write_json(
        job.out("quality.json"),
        {
            "labels": labels,
            "runs": figures,
            "per_label": quality.per_label(scored, labels),
            "settings": params.model_dump(exclude={"source_proxy"}),
        },
    )
    write_json(job.out("transfer.json"), {**comparisons, "forgetting": found, "label_efficiency": curve})
    points = pd.DataFrame(label_efficiency.rows(figures, records), columns=list(label_efficiency.COLUMNS))
    points.to_csv(job.out("label_efficiency.csv"), index=False, float_format="%.6f")
    for told in (comparisons, found, *([curve] if curve["points"] else [])):
        job.say(told["headline"])
    main[["label", "predicted"]].to_csv(job.out("confusion.csv"), index=False)
    bins = quality.reliability(scored, params.num_bins)
    pd.DataFrame(bins).to_csv(job.out("reliability.csv"), index=False, float_format="%.6f")
    return {**_metrics(figures["main"]["test"], comparisons, len(main)), **forgetting.flat(found)}


def _figures(
    table: pd.DataFrame, main: RunRecord, params: Params, job: Job
) -> dict[str, dict[str, dict[str, Interval]]]:
    """Run -> split -> metric, each with its interval."""
    decision = plugins.load("decisions", main.decision)
    figures: dict[str, dict[str, dict[str, Interval]]] = {}
    for (name, split), part in table.groupby(["run", "split"]):
        rng = samples.keyed_rng(job.run.seed, 0, f"bootstrap {split}")  # the same resamples for every run
        scored = quality.Scored.of(part, main.labels, decision)
        figures.setdefault(str(name), {})[str(split)] = quality.measure(
            scored, params.num_bins, params.num_bootstrap, params.level, rng
        )
    return figures


def _metrics(figures: dict[str, Interval], comparisons: dict[str, Any], num_test: int) -> dict[str, float]:
    flat = quality.flat(figures)
    for comparison in comparisons["comparisons"]:
        prefix = (
            "transfer_gain" if comparison["reference"] == "from_scratch" else f"gain_over_{comparison['reference']}"
        )
        gain: Interval = comparison["gain"]
        flat |= {prefix: gain.value, f"{prefix}_low": gain.low, f"{prefix}_high": gain.high}
    return {**flat, "num_test": float(num_test)}


def _write_embeddings(job: Job, features: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save

    whole = {s: np.ascontiguousarray(f, np.float32) for s, f in features.items()}
    write_atomic(job.out("embeddings.safetensors"), save(whole))
