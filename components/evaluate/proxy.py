"""What a backbone still makes of samples of its old task, before and after it was trained for the new one.

A nearest-mean classifier on its features, because the old labels need not be those that it was pretrained with:
features are centred and brought to length 1, each sample is judged by the class means of the other folds (Wang et al.,
SimpleShot, 2019, section 3), once with the pretrained backbone and once with the trained one, on the same folds. So
what is measured is whether the classes still lie apart, not what the old classifier says.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from components import samples
from components.contracts import Found, InputError, RunRecord, inputs_of
from components.evaluate.forgetting import PROBE
from components.job import Job
from components.paired import paired_gain
from components.plugins import Choice
from components.quality import wilson

if TYPE_CHECKING:
    import pandas as pd

NUM_FOLDS = 5
KEY = "evaluate.source_proxy"


@dataclass(frozen=True)
class Old:
    """Labelled samples of the old task, prepared as the runs take them."""

    rows: np.ndarray
    labels: tuple[str, ...]
    folds: np.ndarray
    """int [N]"""


def read(data: str, source: Choice, run: RunRecord, job: Job) -> Old:
    """The samples that a source finds in `data`.

    Raises:
        InputError: it is not there, is not what the task needs, or has fewer than 2 labels of 2 different samples.
    """
    from components.model import Feed

    place = samples.locate(job.root, data)
    if not place.exists():
        raise InputError(f"{KEY}.data: {data} is not there. Put the data there, or name its folder.")
    module, feed = source.load(), Feed.of(run.task, run.preprocessing)
    samples.must_give(module, feed.task, f"{KEY}.source")
    # A source may write the samples it makes below its job's folder; here it must not outlive the stage.
    inner = Job("ingest", job.run, job.work("source proxy"), ())
    try:
        inner.clear()  # what a killed run left
        inner.out("samples/.keep").touch()
        table = _usable(_read(list(module.find(source.params, place.resolve(), inner)), feed.task, inner, job))
        if table is None:
            raise InputError(
                f"{KEY}.data: {data} has not 2 labels of 2 different samples each that can be read. {module.EXPECTS}"
            )
        if run.inputs and (given := inputs_of(table)) != run.inputs:
            raise InputError(
                f"{KEY}.source: {source.name} gives {', '.join(given)} of each sample, but the model was trained on "
                f"{', '.join(run.inputs)}. Set its options as those of ingest.source."
            )
        rows = np.array(feed.prepare(table, job, inner.root))
    finally:
        shutil.rmtree(inner.root, ignore_errors=True)
    return Old(rows, tuple(table["label"]), folds(list(table["label"]), list(table["sha256"]), job.run.seed))


def _read(found: Sequence[Found], task: Any, inner: Job, job: Job) -> pd.DataFrame:
    import pandas as pd

    rows = []
    results = samples.inspected(found, task, inner, job.run.threads)
    for one, inputs, seen in job.progress(results, "reading the samples of the old task", len(found)):
        if isinstance(seen, task.Unreadable) or not (one.label and one.label.strip()):
            continue
        inner_row = {f"input.{name}": value for name, value in inputs.items()}
        rows.append({"id": one.id, "sha256": seen.sha256, "label": one.label.strip(), **inner_row})
    return pd.DataFrame(rows, columns=None if rows else ["id", "sha256", "label"])


def _usable(table: pd.DataFrame) -> pd.DataFrame | None:
    """Those of labels with two different samples at least; None where there are not two such labels."""
    different = table.groupby("label")["sha256"].transform("nunique")
    table = table[different >= 2].sort_values("id", kind="stable").reset_index(drop=True)
    return table if table["label"].nunique() >= 2 else None


def folds(labels: Sequence[str], contents: Sequence[str], seed: int) -> np.ndarray:
    """int [N]: stratified by label, copies together; a class of fewer samples than folds is in some of them alone."""
    of: defaultdict[str, set[str]] = defaultdict(set)
    for label, content in zip(labels, contents):
        of[label].add(content)
    which: dict[tuple[str, str], int] = {}
    for label, own in of.items():
        ordered = sorted(own, key=lambda content: samples.keyed_seed(seed, "fold", content))
        which |= {(label, content): place % NUM_FOLDS for place, content in enumerate(ordered)}
    return np.array([which[label, content] for label, content in zip(labels, contents)])


def right(features: np.ndarray, labels: Sequence[str], fold: np.ndarray) -> np.ndarray:
    """Whether each sample [N, D] is nearest to the mean of its own class, taken from the other folds; bool [N]."""
    names, truth = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)
    rows = features.astype(np.float64)
    found = np.zeros(len(rows), dtype=bool)
    for one in np.unique(fold):
        held, known = fold == one, fold != one
        centred = rows - rows[known].mean(axis=0)
        centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
        counts = np.bincount(truth[known], minlength=len(names))
        means = np.zeros((len(names), rows.shape[1]))
        np.add.at(means, truth[known], centred[known])
        means /= np.maximum(counts, 1)[:, None]
        distances = (means**2).sum(axis=1) - 2 * centred[held] @ means.T
        found[held] = np.where(counts > 0, distances, np.inf).argmin(axis=1) == truth[held]
    return found


def measure(features: Mapping[str, np.ndarray], old: Old, level: float) -> dict[str, dict[str, Any]]:
    """Run -> accuracy on the old task before (of the frozen probe's backbone) and after, and how much of it is lost,
    with its paired interval; `features` [N, D] of the old samples by run. Nothing where there is no frozen probe."""
    if PROBE not in features:
        return {}
    rights = {run: right(own, old.labels, old.folds) for run, own in features.items()}
    before = rights.pop(PROBE)
    return {
        run: {
            "num_source_samples": len(after),
            "num_source_labels": len(Counter(old.labels)),
            "source_accuracy_before": wilson(int(before.sum()), len(before), level),
            "source_accuracy_after": wilson(int(after.sum()), len(after), level),
            "forgetting": paired_gain(before, after, level),
        }
        for run, after in rights.items()
    }
