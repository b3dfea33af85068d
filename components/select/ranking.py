"""From scores to a choice: mean ranks, ties to the cheaper one, and whether a difference is noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from components.samples import keyed_rng

PRIOR, CLEAR = "prior", "clear"
RESAMPLES, LEVEL = 1000, 0.95


@dataclass
class Entry:
    """One row of the leaderboard."""

    title: str
    backbone: dict[str, Any]
    prior: float | None
    cost: dict[str, float]
    pretrained: bool = True
    excluded_because: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    fit: dict[str, float] = field(default_factory=dict)
    """How well its preprocessing fits the samples; empty where the task measures nothing."""
    answers: dict[str, np.ndarray] = field(default_factory=dict)
    """Score -> was each sample answered rightly, bool [N]; of the scores that tell."""
    ranks: dict[str, float] = field(default_factory=dict)
    mean_rank: float | None = None
    rank: int | None = None


def rank(entries: Sequence[Entry]) -> list[Entry]:
    """Entries best first, by the mean of their ranks, which are filled in.

    Ranks are by every score, and by the published prior as one more where every entry has one. A tie goes to
    fewer multiplications, then to fewer parameters.
    """
    columns = {name: [e.scores[name] for e in entries] for name in entries[0].scores}
    priors = [e.prior for e in entries]
    if all(p is not None for p in priors):
        columns[PRIOR] = [float(p) for p in priors if p is not None]
    for name, values in columns.items():
        for entry, place in zip(entries, places(values)):
            entry.ranks[name] = place
    for entry in entries:
        entry.mean_rank = round(float(np.mean(list(entry.ranks.values()))), 6)
    ordered = sorted(entries, key=lambda e: (e.mean_rank, e.cost["gmacs"], e.cost["parameters_millions"]))
    for number, entry in enumerate(ordered, start=1):
        entry.rank = number
    return ordered


def places(values: Sequence[float]) -> list[float]:
    """1 for the highest; equal ones share the mean of their places."""
    return [1 + sum(w > v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def share_won(entry: Entry, num: int) -> float:
    """Share of comparisons with the other entries that it won, over all scores; 1 for an only candidate."""
    return 1.0 if num == 1 else round((num - float(entry.mean_rank or num)) / (num - 1), 6)


def prior_agrees(ordered: Sequence[Entry]) -> bool | None:
    """Would the published accuracy alone choose the same? None where not every entry states it."""
    priors = [e.prior for e in ordered]
    if any(p is None for p in priors):
        return None
    return priors[0] == max(p for p in priors if p is not None)


def difference(first: Entry, second: Entry, seed: int) -> dict[str, Any] | None:
    """Share of samples that `first` answers rightly less that of `second`, with a paired bootstrap interval.

    Averaged over the scores that tell their answer a sample; None where none does. The interval is for other
    samples, not for another training: folds share samples, so it is on the narrow side.
    """
    shared = sorted(first.answers.keys() & second.answers.keys())
    if not shared:
        return None
    gain = np.mean([first.answers[s].astype(float) - second.answers[s] for s in shared], axis=0)
    drawn = keyed_rng(seed, 0, "select difference").integers(0, len(gain), (RESAMPLES, len(gain)))
    low, high = np.quantile(gain[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        "runner_up": second.title,
        "scores": shared,
        "value": round(float(gain.mean()), 6),
        "low": round(float(low), 6),
        "high": round(float(high), 6),
        "level": LEVEL,
        "verdict": CLEAR if low > 0 or high < 0 else "too close to call",
    }


def why(ordered: Sequence[Entry], apart: Mapping[str, Any] | None, agrees: bool | None) -> str:
    """The choice in plain words."""
    best = ordered[0]
    if len(ordered) == 1:
        return f"{best.title}: the only candidate within the budget."
    by = ", ".join("published accuracy" if name == PRIOR else name for name in best.ranks)
    told = f"{best.title}: best mean rank, {best.mean_rank:.2f} of {len(ordered)} candidates by {by}"
    if ordered[1].mean_rank == best.mean_rank:
        told += f" (a tie with {ordered[1].title} goes to fewer multiplications)"
    told += "."
    if apart:
        points = 100 * apart["value"]
        told += (
            f" By {' and '.join(apart['scores'])} it is right on {abs(points):.1f} points "
            f"{'more' if points >= 0 else 'fewer'} samples than {ordered[1].title} (95 % interval "
            f"{100 * apart['low']:.1f} to {100 * apart['high']:.1f}): {apart['verdict']}."
        )
        share = ordered[1].cost["gmacs"] / best.cost["gmacs"] if best.cost["gmacs"] else 1.0
        if apart["verdict"] != CLEAR and share < 1:
            told += f" {ordered[1].title} costs {share:.0%} of its multiplications."
    if agrees is not None:
        told += f" Published accuracy alone would choose {'the same' if agrees else 'another'}."
    return told
