"""What a file of cells says: means with intervals, differences to the best plain way, and that in words.

An interval is the percentile bootstrap over seeds and, within each, over its held-out rows (both drawn again, with
replacement), so that few seeds do not make it narrow; differences are of the same rows. Seeds are other splits of the
same set, so an interval speaks of the set, not of others like it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from quality import cells

from components.samples import keyed_rng

DRAWS, LEVEL = 4000, 0.95
PLAIN = ("linear_probe", "full")
DEFAULT = "full"
TOLERANCE = 0.5
"""Points that the default may lie below the better of the plain ways."""
Place = tuple[str, str]
"""A set and a number of shots."""


@dataclass(frozen=True)
class Estimate:
    """In points of accuracy."""

    value: float
    draws: np.ndarray
    seeds: int

    @property
    def low(self) -> float:
        """End of the interval."""
        return float(np.quantile(self.draws, (1 - LEVEL) / 2))

    @property
    def high(self) -> float:
        """End of the interval."""
        return float(np.quantile(self.draws, (1 + LEVEL) / 2))

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


class Measured:
    """The cells that were measured: strategy, set, shots -> which held-out rows of each seed are right."""

    def __init__(self, lines: Iterable[dict[str, Any]]) -> None:
        self.right: dict[tuple[str, Place], dict[int, np.ndarray]] = {}
        self.not_run: dict[tuple[str, str], str] = {}
        for line in lines:
            if "right" not in line:
                self.not_run[line["strategy"], line["set"]] = line["not_run"]
                continue
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(line["right"]), np.uint8))[: line["num_test"]]
            own = self.right.setdefault((line["strategy"], (line["set"], line["shots"])), {})
            own[line["seed"]] = bits.astype(bool)
        self.strategies = sorted({s for s, _ in self.right}, key=lambda s: (PLAIN.index(s) if s in PLAIN else 9, s))
        self.places = sorted(
            {p for _, p in self.right}, key=lambda p: (p[0], p[1].zfill(9) if p[1].isdigit() else p[1])
        )

    def of(self, strategy: str, place: Place) -> Estimate | None:
        """Mean accuracy."""
        found = self.right.get((strategy, place), {})
        return _estimate([(seed, rows, np.zeros_like(rows)) for seed, rows in found.items()], f"{strategy} {place}")

    def best(self, place: Place) -> str | None:
        """Of the plain ways the one with the higher mean over the seeds that both have."""
        both = [self.right.get((s, place), {}) for s in PLAIN]
        if shared := sorted(both[0].keys() & both[1].keys()):
            means = [np.mean([own[seed].mean() for seed in shared]) for own in both]
            return PLAIN[int(np.argmax(means))]
        return None

    def gain(self, strategy: str, place: Place, over: str | None) -> Estimate | None:
        """Accuracy less that of another, over the seeds that both have."""
        mine, theirs = self.right.get((strategy, place), {}), self.right.get((over or "", place), {})
        shared = sorted(mine.keys() & theirs.keys())
        return _estimate([(s, mine[s], theirs[s]) for s in shared], f"{strategy} {over} {place}")

    def gains(self, strategy: str) -> dict[Place, Estimate]:
        """Points over the best plain way, wherever all three were measured."""
        found = {place: self.gain(strategy, place, self.best(place)) for place in self.places}
        return {place: gain for place, gain in found.items() if gain is not None}


def _estimate(pairs: list[tuple[int, np.ndarray, np.ndarray]], name: str) -> Estimate | None:
    """Mean over seeds of the share of rows that the one has right, less that of the other."""
    if not pairs:
        return None
    rng = keyed_rng(0, 0, name)
    num = np.array([len(a) for _, a, _ in pairs])
    up = np.array([(a & ~b).mean() for _, a, b in pairs])
    down = np.array([(~a & b).mean() for _, a, b in pairs])
    seeds = rng.integers(0, len(pairs), (DRAWS, len(pairs)))
    shares = np.stack([up, down, np.maximum(0.0, 1 - up - down)], axis=1)[seeds]
    counts = rng.multinomial(num[seeds], shares)
    draws = 100 * ((counts[..., 0] - counts[..., 1]) / num[seeds]).mean(axis=1)
    return Estimate(100 * float((up - down).mean()), draws, len(pairs))


def mean(found: list[Estimate]) -> Estimate:
    """Over places, each counting the same."""
    draws = np.mean([e.draws for e in found], axis=0)
    return Estimate(float(np.mean([e.value for e in found])), draws, min(e.seeds for e in found))


def page(file: Path) -> str:
    """All of it, as Markdown."""
    measured = Measured(cells.read(file).values())
    if not measured.strategies:
        return f"{file} holds no cell that was measured"
    parts = [_table(measured, name) for name in sorted({n for n, _ in measured.places})]
    return "\n\n".join([*parts, _verdicts(measured), _rule(measured)])


def _table(measured: Measured, name: str) -> str:
    """A set: a row a strategy, accuracy and the difference to the best plain way by shots."""
    places = [p for p in measured.places if p[0] == name]
    heads = [f"{p[1]} shots (best plain: {measured.best(p)})" for p in places]
    lines = [f"**{name}**: accuracy in %, and points over the best plain way", "",
             f"| strategy | {' | '.join(heads)} |", "|---" * (len(places) + 1) + "|"]  # fmt: skip
    for strategy in measured.strategies:
        columns = []
        for place in places:
            one, gain = measured.of(strategy, place), measured.gain(strategy, place, measured.best(place))
            plain = strategy == measured.best(place)
            columns.append("—" if one is None else f"{one} ({one.seeds})" + ("" if plain or gain is None else
                           f"; {gain.value:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]{_mark(gain)}"))  # fmt: skip
        if any(c != "—" for c in columns):
            lines.append(f"| {strategy} | {' | '.join(columns)} |")
    return "\n".join(lines)


def _mark(gain: Estimate) -> str:
    return " ▲" if gain.low > 0 else " ▼" if gain.high < 0 else ""


def _verdicts(measured: Measured) -> str:
    """Each technique in a sentence."""
    lines = [
        "**What each technique gives** over the better of linear_probe and full, which is the one with the higher mean "
        f"in each place (a set with a number of shots; {len(measured.places)} of them). Number of seeds in brackets. "
        "In one of 20 places an interval excludes 0 by chance.", "",
    ]  # fmt: skip
    for strategy in measured.strategies:
        if strategy not in PLAIN:
            lines.append(f"- {verdict(measured, strategy)}")
    told = {(s, text): [n for (t, n), u in measured.not_run.items() if t == s and u == text]
            for (s, _), text in measured.not_run.items()}  # fmt: skip
    lines += [f"- {strategy} was not run on {', '.join(names)}: {text}" for (strategy, text), names in told.items()]
    return "\n".join(lines)


def verdict(measured: Measured, strategy: str) -> str:
    """In words: over all places, at few shots and at many, and where it stands out."""
    gains = measured.gains(strategy)
    if not gains:
        return f"{strategy}: nothing to compare it with yet"
    total = mean(list(gains.values()))
    said = (
        "helps" if total.low > 0 else
        "harms" if total.high < 0 else
        "gives nothing that these figures could tell"
    )  # fmt: skip
    better = [f"{p[0]} {p[1]}" for p, g in gains.items() if g.low > 0]
    worse = [f"{p[0]} {p[1]}" for p, g in gains.items() if g.high < 0]
    where = "; ".join(
        f"{what} in {', '.join(names)}" for what, names in (("better", better), ("worse", worse)) if names
    )
    return (
        f"**{strategy}** {said}: {total.value:+.2f} points [{total.low:+.2f}, {total.high:+.2f}] over {len(gains)} "
        f"places ({total.seeds}+ seeds)" + (f"; {where}" if where else "; no place stands out")
    )


def _rule(measured: Measured) -> str:
    """Whether the default keeps its promise, and what would."""
    lines = [f"**Within {TOLERANCE} points of the better of linear_probe and full everywhere?** By the means; "
             "surely missed: where even the interval's upper end lies below that.", ""]  # fmt: skip
    found = {s: gains for s in measured.strategies if (gains := measured.gains(s))}
    most = max((len(g) for g in found.values()), default=0)
    ranked = sorted(found, key=lambda s: (-len(found[s]), -min(g.value for g in found[s].values())))
    for strategy in ranked:
        gains = found[strategy]
        missed = {p: g for p, g in gains.items() if g.value < -TOLERANCE}
        sure = [f"{p[0]} {p[1]}" for p, g in missed.items() if g.high < -TOLERANCE]
        worst = min(gains, key=lambda p: gains[p].value)
        lines.append(
            f"- {strategy}{' (the default)' if strategy == DEFAULT else ''}: "
            + ("yes" if not missed else f"no, missed in {len(missed)} of {len(gains)} places")
            + f"; worst {gains[worst].value:+.1f} points in {worst[0]} {worst[1]}"
            + (f"; surely missed in {', '.join(sure)}" if sure else "")
            + (f"; measured in {len(gains)} of {most} places" if len(gains) < most else "")
        )
    return "\n".join([*lines, "", conclusion(found, most)])


def conclusion(found: dict[str, dict[Place, Estimate]], most: int) -> str:
    """The rule's answer for the default, and the strategies that keep it."""
    worst = {s: min(g.value for g in gains.values()) for s, gains in found.items() if len(gains) == most}
    if DEFAULT not in worst:
        return f"The default ({DEFAULT}) was not measured everywhere yet."
    keep = [s for s in sorted(worst, key=lambda s: -worst[s]) if worst[s] >= -TOLERANCE]
    if DEFAULT in keep:
        return f"The default ({DEFAULT}) keeps the promise."
    if keep:
        return f"The default ({DEFAULT}) breaks the promise; these keep it: {', '.join(keep)}."
    nearest = max(worst, key=lambda s: worst[s])
    return (f"The default ({DEFAULT}) breaks the promise, and so does every other; nearest to it is {nearest} "
            f"({worst[nearest]:+.1f} points where it is worst).")  # fmt: skip
