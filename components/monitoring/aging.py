"""How fast a model ages: trained on what there was up to a date, it is judged on every later period.

A *cut* is a boundary between periods; the model of a cut has seen only samples dated before it. Its *age* on a period
is the number of whole periods between them: 0 for the first one after the cut. Samples whose bytes the model could
have been trained on (copies dated later) are left out of what it is judged by. Accuracy by age pools the cuts; its
interval is Wilson's over all the answers, and the loss against the same cuts at age 0 is the difference of independent
proportions (Newcombe's square-and-add interval), since the samples of two ages are others. One sample
answers to several cuts, so the intervals are a little too narrow where there are many cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components import plugins, quality
from components.bias.intervals import difference
from components.contracts import ATTRIBUTE, InputError, Interval, read_json
from components.job import Job

if TYPE_CHECKING:
    import pandas as pd

LETTERS = {"week": "W", "month": "M", "quarter": "Q", "year": "Y"}
SHARE_WITHOUT_DATE = 0.5
MIN_A_LABEL = 5
PERIOD = "period"


@dataclass(frozen=True)
class Cell:
    """The model of one cut on one later period."""

    cut: str
    period: str
    age: int
    num: int
    num_right: int
    accuracy: Interval
    num_unknown: int
    """Samples whose label the model could not know; they count as wrong."""


@dataclass(frozen=True)
class Age:
    """All cuts at one age."""

    age: int
    num: int
    num_cuts: int
    accuracy: Interval
    loss: Interval | None
    """Accuracy of the same cuts at age 0 minus that at this age, at a level that holds for all ages together
    (Bonferroni); None at age 0, or where none was judged then."""


def dated(manifest: pd.DataFrame, column: str, period: str) -> tuple[pd.DataFrame, int]:
    """The labelled samples with the period that each falls into, and how many had no date that can be read.

    Raises:
        InputError: no such column, most values are no dates, or all fall into one period.
    """
    import pandas as pd

    name = column if column.startswith(ATTRIBUTE) else ATTRIBUTE + column
    if name not in manifest.columns:
        known = [c.removeprefix(ATTRIBUTE) for c in manifest.columns if c.startswith(ATTRIBUTE)]
        raise InputError(
            f"--date: no sample has an attribute {column!r}. Known: {', '.join(sorted(known)) or 'none'}. A table's "
            "column becomes one by ingest.source: {attributes: [...]}"
        )
    labelled = manifest[manifest["label"].fillna("").str.strip() != ""]
    days = pd.to_datetime(labelled[name].astype("string"), errors="coerce", format="ISO8601", utc=True)
    lacking = int(days.isna().sum())
    if lacking > SHARE_WITHOUT_DATE * len(labelled):
        odd = labelled.loc[days.isna(), name].dropna().astype(str).unique()[:3].tolist()
        raise InputError(
            f"--date: {lacking} of {len(labelled)} samples have no date in {column!r} of the form 2026-11-21 "
            f"(for example {odd})"
        )
    found = labelled.assign(**{PERIOD: days.dt.tz_localize(None).dt.to_period(LETTERS[period])})
    found = found[days.notna()]
    if found[PERIOD].nunique() < 2:
        raise InputError(f"--period {period}: all samples fall into {found[PERIOD].iloc[0]}; take a shorter one")
    return found, lacking


def cuts(table: pd.DataFrame, most: int, min_train: int) -> tuple[Any, ...]:
    """At most so many boundaries, evenly spread: the first periods of which the model knows nothing. Before each lie
    at least `min_train` samples, MIN_A_LABEL or more of each of two labels.

    Raises:
        InputError: there is none.
    """
    every = sorted(table[PERIOD].unique())
    good = []
    for one in every[1:]:
        before = table[table[PERIOD] < one]
        if len(before) >= min_train and (before["label"].value_counts() >= MIN_A_LABEL).sum() > 1:
            good.append(one)
    if not good:
        raise InputError(
            f"no date has {min_train} labelled samples, {MIN_A_LABEL} of each of two labels, before it and a period "
            f"after it ({len(table)} samples in {len(every)} periods); take a shorter --period or a smaller --min-train"
        )
    places = np.unique(np.linspace(0, len(good) - 1, min(most, len(good))).round().astype(int))
    return tuple(good[i] for i in places)


def answers(job: Job, folder: Path, table: pd.DataFrame, what: str) -> tuple[np.ndarray, np.ndarray]:
    """What the main run in a project's folder says of samples: bool [N] right, bool [N] its label is unknown to it.

    Paths in `table` begin at `job.root`; an unknown label is never right.
    """
    import torch

    from components.model import Feed, infer, load_run, pick_device

    model, run = load_run(folder / "artifacts" / "finetune" / "runs" / "main")
    decision = plugins.load("decisions", run.decision)
    temperature = read_json(folder / "artifacts" / "evaluate" / "calibration.json")["temperature"]["main"]
    feed = Feed.of(run.task, run.preprocessing)
    rows = feed.prepare(table, job)
    features = infer(model.backbone, rows, feed, pick_device(job.run.device), job.progress, what)
    with torch.inference_mode():
        logits = model.head.cpu()(torch.from_numpy(features)).double().numpy()
    said = decision.predicted(decision.probabilities(logits, temperature), run.labels)
    canonical = [decision.canonical(label) for label in table["label"]]
    known = set(run.labels)
    unknown = np.array([not set(decision.split(label)) <= known for label in canonical], dtype=bool)
    right = np.array([a == b for a, b in zip(said, canonical)], dtype=bool) & ~unknown
    return right, unknown


def cell(cut: Any, period: Any, right: np.ndarray, unknown: np.ndarray, level: float) -> Cell:
    """One cut on one period."""
    num, hits = len(right), int(right.sum())
    age = (period - cut).n
    return Cell(str(cut), str(period), age, num, hits, quality.wilson(hits, num, level), int(unknown.sum()))


def by_age(cells: Sequence[Cell], level: float) -> list[Age]:
    """Accuracy and loss at each age, all cuts together."""
    found: list[Age] = []
    ages = sorted({one.age for one in cells})
    sure = 1 - (1 - level) / max(1, len(ages) - 1)  # Bonferroni: no age is looked at without the others
    for age in ages:
        own = [one for one in cells if one.age == age]
        accuracy = _pooled(own, level)
        names = {one.cut for one in own}
        young = [one for one in cells if one.age == 0 and one.cut in names]
        loss = difference(_pooled(young, sure), _pooled(own, sure)) if age and young else None
        found.append(Age(age, sum(one.num for one in own), len(names), accuracy, loss))
    return found


def _pooled(cells: Sequence[Cell], level: float) -> Interval:
    return quality.wilson(sum(one.num_right for one in cells), sum(one.num for one in cells), level)


def headline(ages: Sequence[Age], period: str) -> str:
    """A sentence on how it ages; evidence is an interval of the loss that lies above 0."""
    if not ages:
        return "Nothing could be judged."
    first, last = ages[0], ages[-1]
    start = f"Accuracy is {first.accuracy.value:.1%} in the {period} after training (age {first.age})"
    if len(ages) == 1:
        return f"{start}; no older model was judged."
    worse = [one for one in ages if one.loss and one.loss.low > 0]
    if not worse:
        loss = last.loss
        bound = f", by at most {loss.high:+.1%} at age {last.age}" if loss else ""
        return f"{start}. No evidence that it ages within {last.age} {period}s{bound}."
    one = worse[0]
    assert one.loss is not None
    limits = f"{one.loss.low * 100:.1f} to {one.loss.high * 100:.1f}"
    told = f"it has lost {one.loss.value * 100:.1f} points ({limits}) at age {one.age}"
    if last is one or last.loss is None:
        return f"{start}; {told}. Retrain before that."
    if last.loss.low > 0:
        return f"{start}; {told}, and {last.loss.value * 100:.1f} at age {last.age}. Retrain before that."
    return f"{start}; {told}, but at age {last.age} there is no evidence of a loss. Look at the periods one by one."
