"""The two sides that are compared: what the model was made on, and what it meets now.

Properties of the samples are held against the *training* split. What comes out of the network (embeddings,
predicted label, confidence) is held against the *validation* split, because the network has seen the training
samples and knows them better than any others: against them it would always alarm.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components import plugins, samples
from components.contracts import PROPERTY, Found, InputError, inputs_of, read_json, read_table
from components.drift.columns import Column, column
from components.job import Job
from components.plugins import Choice

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Side:
    """Samples with their properties, and what the network makes of them."""

    table: pd.DataFrame
    """id, label, property.*; one row a sample."""
    outputs: pd.DataFrame
    """predicted, confidence."""
    embeddings: np.ndarray
    """float32 [N, D], rows as in `outputs`."""
    unreadable: dict[str, int] = field(default_factory=dict)
    """Reason -> count."""


def reference(job: Job) -> Side:
    """Properties of the training split; outputs and embeddings of the validation split."""
    accepted = read_table(job.source("validate", "accepted.parquet"))
    return Side(accepted[accepted["split"] == "train"], *_evaluated(job, "validation"))


def own_test(job: Job) -> Side:
    """The test split of the same data."""
    accepted = read_table(job.source("validate", "accepted.parquet"))
    return Side(accepted[accepted["split"] == "test"], *_evaluated(job, "test"))


def found(data: str, source: Choice, job: Job) -> Side:
    """Samples that a source finds in `data`, read, and passed through the main run.

    Raises:
        InputError: nothing there, nothing readable, or a source that gives not what the task needs.
    """
    import pandas as pd

    from components.model import load_run

    place = samples.locate(job.root, data)
    if not place.exists():
        raise InputError(f"drift.current.data: {data} is not there. Put the data there, or name its folder.")
    model, run = load_run(job.source("finetune", "runs") / "main")
    task = plugins.load("tasks", run.task)
    module = source.load()
    samples.must_give(module, task, "drift.current.source")
    # A source may write the samples it makes below its job's folder; here it must not outlive the stage.
    inner = Job("ingest", job.run, job.work("current"), ())
    try:
        inner.clear()  # what a killed run left
        inner.out("samples/.keep").touch()
        rows, unreadable = _read(module.find(source.params, place.resolve(), inner), task, run.decision, inner, job)
        if not rows:
            seen = (
                f"none of {sum(unreadable.values())} samples can be used: {unreadable}" if unreadable else "no samples"
            )
            raise InputError(f"drift.current.data: {data}: {seen}. {module.EXPECTS}")
        table = pd.DataFrame(rows).sort_values("id", kind="stable").reset_index(drop=True)
        if run.inputs and (given := inputs_of(table)) != run.inputs:
            raise InputError(
                f"drift.current.source: {source.name} gives {', '.join(given)} of each sample, but the model was "
                f"trained on {', '.join(run.inputs)}. Set its options as those of ingest.source."
            )
        outputs, embeddings = _infer(model, run, task, table, inner.root, job)
    finally:
        shutil.rmtree(inner.root, ignore_errors=True)
    return Side(table, outputs, embeddings, unreadable)


def columns(before: Side, now: Side, *, with_labels: bool) -> list[Column]:
    """Every measured property that both sides have, what the network says, and the true labels if asked."""
    shared = [c for c in before.table.columns if c.startswith(PROPERTY) and c in now.table.columns]
    found = [
        column(c.removeprefix(PROPERTY), "numeric", before.table[c].to_numpy(), now.table[c].to_numpy(), "train")
        for c in sorted(shared)
    ]
    said, says = before.outputs["predicted"].to_numpy(), now.outputs["predicted"].to_numpy()
    found.append(column("predicted label", "categorical", said, says, "validation"))
    sure, surer = before.outputs["confidence"].to_numpy(), now.outputs["confidence"].to_numpy()
    found.append(column("confidence", "numeric", sure, surer, "validation"))
    if with_labels:
        trained, true = (t["label"].to_numpy(dtype=object) for t in (before.table, now.table))
        found.append(column("true label", "categorical", trained, true, "train"))
    return found


def _evaluated(job: Job, split: str) -> tuple[pd.DataFrame, np.ndarray]:
    from safetensors.numpy import load_file

    table = read_table(job.source("evaluate", "predictions.parquet"))
    table = table[(table["run"] == "main") & (table["split"] == split)].sort_values("id", kind="stable")
    embeddings = load_file(job.source("evaluate", "embeddings.safetensors"))[split]
    assert len(embeddings) == len(table), "one embedding a prediction"
    return table[["predicted", "confidence"]].reset_index(drop=True), embeddings


def _read(
    listed: Iterable[Found], task: Any, decided: str, inner: Job, job: Job
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    decision = plugins.load("decisions", decided)
    rows: list[dict[str, Any]] = []
    unreadable: Counter[str] = Counter()
    listed = list(listed)
    results = samples.inspected(listed, task, inner, job.run.threads)
    for one, inputs, seen in job.progress(results, "reading the current samples", len(listed)):
        if isinstance(seen, task.Unreadable):
            unreadable[seen.reason] += 1
            continue
        label = decision.canonical(one.label) if one.label and one.label.strip() else None  # as validate writes it
        row = {"id": one.id, "sha256": seen.sha256, "label": label}
        row |= {f"input.{k}": v for k, v in inputs.items()} | {PROPERTY + k: v for k, v in seen.properties.items()}
        rows.append(row)
    return rows, dict(sorted(unreadable.items()))


def _infer(
    model: Any, run: Any, task: Any, table: pd.DataFrame, root: Path, job: Job
) -> tuple[pd.DataFrame, np.ndarray]:
    """As `evaluate` does it, with the temperature that it fitted."""
    import pandas as pd
    import torch

    from components.model import Feed, infer, pick_device

    feed = Feed(task, run.preprocessing)
    rows = feed.prepare(table, job, root)
    features = infer(model.backbone, rows, feed, pick_device(job.run.device), job.progress, "current samples")
    temperature = read_json(job.source("evaluate", "calibration.json"))["temperature"]["main"]
    with torch.inference_mode():
        logits = model.head.cpu()(torch.from_numpy(features)).double().numpy()
    decision = plugins.load("decisions", run.decision)
    shares = decision.probabilities(logits, temperature)
    said = {"predicted": decision.predicted(shares, run.labels), "confidence": decision.confidence(shares)}
    return pd.DataFrame(said), features
