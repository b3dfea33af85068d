"""Predict once on held-out data with every run, and say how good it is, how sure that is, and whether transfer helped.

Reads: validate/accepted.parquet (validation and test splits), finetune/runs.
Writes: predictions.parquet (every run, both splits; columns in components/contracts.py plus probability.<label>),
embeddings.safetensors (the main run's features, rows in id order), calibration.json (a temperature a run, fitted on
validation), quality.json (metrics with intervals, and this section's settings), transfer.json (main against every
reference on the same test rows), confusion.csv, reliability.csv (main, test).
Decides: the accepted samples and the runs; run.seed for the resamples.
Fails: a run whose labels are not those of the accepted samples (InputError).
Does not check: whether the figures are good enough. That is `gate`. The training split is never scored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

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

if TYPE_CHECKING:
    import pandas as pd

    from components.model import TransferModel

NEEDS = ("validate", "finetune")

HELD_OUT = ("validation", "test")


class Params(params.Params):
    """Section `evaluate`."""

    num_bootstrap: int = Field(ge=100, le=100_000)
    """Resamples behind every interval that has no closed form."""
    level: float = Field(gt=0.5, lt=1)
    """Confidence level of the intervals."""
    num_bins: int = Field(ge=2, le=100)
    """Bins of the calibration error and of the reliability plot."""


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
    for name in names:
        outputs, records[name] = _predict(folder / name, held, job)
        if name == "main":
            _write_embeddings(job, {s: o[0] for s, o in outputs.items()})
        tables, temperatures[name] = _probabilities(name, {s: o[1] for s, o in outputs.items()}, held, records[name])
        predictions += tables
    return _write(predictions, temperatures, records, params, job)


def _predict(
    folder: Any, held: dict[str, pd.DataFrame], job: Job
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], RunRecord]:
    """Split -> (features [N, D], logits [N, K])."""
    from components.model import Feed, infer, load_run, pick_device

    model, record = load_run(folder)
    feed = Feed.of(record.task, record.preprocessing)
    decision = plugins.load("decisions", record.decision)
    strange = sorted(set().union(*(decision.labels(part["label"]) for part in held.values())) - set(record.labels))
    if strange:
        raise InputError(f"held-out samples have labels that {record.run} was not trained on: {strange[:10]}")
    device = pick_device(job.run.device)
    outputs = {}
    for split, part in held.items():
        rows = feed.prepare(part, job)
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


def _write(
    predictions: list[pd.DataFrame],
    temperatures: dict[str, float],
    records: dict[str, RunRecord],
    params: Params,
    job: Job,
) -> dict[str, float]:
    import pandas as pd

    from components.evaluate import transfer

    table = pd.concat(predictions).sort_values(["run", "split", "id"], kind="stable").reset_index(drop=True)
    labels, decision = records["main"].labels, plugins.load("decisions", records["main"].decision)
    figures: dict[str, dict[str, dict[str, Interval]]] = {}
    for (name, split), part in table.groupby(["run", "split"]):
        rng = samples.keyed_rng(job.run.seed, 0, f"bootstrap {split}")  # the same resamples for every run
        scored = quality.Scored.of(part, labels, decision)
        figures.setdefault(str(name), {})[str(split)] = quality.measure(
            scored, params.num_bins, params.num_bootstrap, params.level, rng
        )
    main = table[(table["run"] == "main") & (table["split"] == "test")]
    scored = quality.Scored.of(main, labels, decision)
    comparisons = transfer.compare(table[table["split"] == "test"], figures, records, params.level)
    write_table(job.out("predictions.parquet"), table)
    write_json(job.out("calibration.json"), {"temperature": temperatures, "fitted_on": "validation"})
    write_json(
        job.out("quality.json"),
        {
            "labels": labels,
            "runs": figures,
            "per_label": quality.per_label(scored, labels),
            "settings": params.model_dump(),
        },
    )
    write_json(job.out("transfer.json"), comparisons)
    main[["label", "predicted"]].to_csv(job.out("confusion.csv"), index=False)
    bins = quality.reliability(scored, params.num_bins)
    pd.DataFrame(bins).to_csv(job.out("reliability.csv"), index=False, float_format="%.6f")
    return _metrics(figures["main"]["test"], comparisons, len(main))


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
