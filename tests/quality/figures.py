"""What a file of cells says: means with intervals, differences to the best plain way, and that in words.

An interval is Student's t over the means of the seeds, which vary by the seed and by its held-out rows both, so that
their spread holds all of the variance (Cochran, Sampling Techniques, 3rd edition, 1977, chapter 10); it is never
narrower than the rows alone make it. Where seeds are independent and their means about normal it excludes the truth in
5 % of places or fewer, with two seeds already (test_intervals.py: in simulations); one seed alone gives the rows'
interval, and nothing is claimed of it. Differences are of the same rows.

Over several places: shots of the same set and seed share their held-out rows, and fewer shots' training rows are among
those of more. So a seed's mean over all shots of a set is one value, its rows' means one sample; sets are independent,
count the same, and their variances add up (degrees of freedom by Satterthwaite, 1946).

Seeds are other splits of the same set, so an interval speaks of these sets, not of others like them. The better plain
way is found by the same rows, so where both are alike a gain looks a little smaller than it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from quality import cells, plans

LEVEL = 0.95
PLAIN = ("linear_probe", "full")
JUDGED = (plans.DEFAULT, "full")
"""Rows that the promise is judged by: what ships, and the same strategy at the table's own budget."""
TOLERANCE = 0.5
"""Points that the default may lie below the better of the plain ways."""
Place = tuple[str, str]
"""A set and a number of shots."""
Pair = tuple[np.ndarray, np.ndarray]
"""Of each held-out row: is it right by the one, and by the other?"""


@dataclass(frozen=True)
class Estimate:
    """In points of accuracy."""

    value: float
    half: float
    """Of the interval's width."""
    seeds: int
    places: int = 1

    @property
    def low(self) -> float:
        """End of the interval."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """End of the interval."""
        return self.value + self.half

    def above(self, limit: float) -> bool:
        """Surely; by one seed nothing is sure."""
        return self.seeds > 1 and self.low > limit

    def below(self, limit: float) -> bool:
        """Surely; by one seed nothing is sure."""
        return self.seeds > 1 and self.high < limit

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def estimate(places: dict[Place, dict[int, Pair]]) -> Estimate | None:
    """Mean over seeds, shots and sets of the share of rows that the one has right, less that of the other."""
    from scipy import stats

    parts = [part for name in sorted({n for n, _ in places}) if (part := _of_set(name, places))]
    if not parts:
        return None
    value = np.mean([part.seeds.mean() for part in parts])
    rows = float(np.sqrt(sum(part.rows for part in parts))) * float(stats.norm.ppf((1 + LEVEL) / 2))
    fewest, half = min(len(part.seeds) for part in parts), rows
    if fewest > 1:
        variances = np.array([part.seeds.var(ddof=1) / len(part.seeds) for part in parts])
        if (total := variances.sum()) > 0:
            freedom = total**2 / sum(v**2 / (len(part.seeds) - 1) for v, part in zip(variances, parts))
            half = max(rows, float(stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(total)))
    num = sum(part.places for part in parts)
    return Estimate(100 * float(value), 100 * half / len(parts), fewest, num)


@dataclass(frozen=True)
class _Part:
    """A set."""

    seeds: np.ndarray
    """Mean difference of each seed."""
    rows: float
    """Variance of their mean by the rows alone."""
    places: int


def _of_set(name: str, places: dict[Place, dict[int, Pair]]) -> _Part | None:
    """All shots of a set together, by the seeds that all of them have; where none is in all, the shots that most have
    a seed in common."""
    own = [pairs for place, pairs in places.items() if place[0] == name and pairs]
    if not own:
        return None
    shared = set.intersection(*(set(pairs) for pairs in own))
    if not shared:
        every = sorted({seed for pairs in own for seed in pairs})
        common = max(every, key=lambda seed: sum(seed in pairs for pairs in own))
        own = [pairs for pairs in own if common in pairs]
        shared = set.intersection(*(set(pairs) for pairs in own))
    rows = [np.mean([p[seed][0] * 1.0 - p[seed][1] for p in own], axis=0) for seed in sorted(shared)]
    means = np.array([of.mean() for of in rows])
    return _Part(means, float(sum(of.var() / len(of) for of in rows)) / len(rows) ** 2, len(own))


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
        self.strategies = sorted(
            {s for s, _ in self.right}, key=lambda s: (plans.FIRST.index(s) if s in plans.FIRST else 9, s)
        )
        self.places = sorted(
            {p for _, p in self.right}, key=lambda p: (p[0], p[1].zfill(9) if p[1].isdigit() else p[1])
        )

    def of(self, strategy: str, place: Place) -> Estimate | None:
        """Mean accuracy."""
        found = self.right.get((strategy, place), {})
        return estimate({place: {seed: (rows, np.zeros_like(rows)) for seed, rows in found.items()}})

    def best(self, place: Place) -> str | None:
        """Of the plain ways the one with the higher mean over the seeds that both have."""
        both = [self.right.get((s, place), {}) for s in PLAIN]
        if shared := sorted(both[0].keys() & both[1].keys()):
            means = [np.mean([own[seed].mean() for seed in shared]) for own in both]
            return PLAIN[int(np.argmax(means))]
        return None

    def pairs(self, strategy: str, place: Place, over: str | None) -> dict[int, Pair]:
        """Its rows and those of another, of the seeds that both have."""
        mine, theirs = self.right.get((strategy, place), {}), self.right.get((over or "", place), {})
        return {seed: (mine[seed], theirs[seed]) for seed in sorted(mine.keys() & theirs.keys())}

    def gain(self, strategy: str, place: Place, over: str | None) -> Estimate | None:
        """Accuracy less that of another, over the seeds that both have."""
        return estimate({place: self.pairs(strategy, place, over)})

    def gains(self, strategy: str) -> dict[Place, Estimate]:
        """Points over the best plain way, wherever all three were measured."""
        found = {place: self.gain(strategy, place, self.best(place)) for place in self.places}
        return {place: gain for place, gain in found.items() if gain is not None}

    def total(self, strategy: str) -> Estimate | None:
        """Points over the best plain way of each place, over all of them."""
        return estimate({place: self.pairs(strategy, place, self.best(place)) for place in self.places})

    def seeds(self, strategy: str, place: Place) -> int:
        """That it and both plain ways have."""
        return len(set.intersection(*(set(self.right.get((s, place), ())) for s in (strategy, *PLAIN))))


def current(lines: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Lines of which one may be held against another, and how many of each strategy are left out.

    Of lines with different digests the newest, the last in the file, decide: of the loop's options and of a set's for
    everybody (but `default` has a loop of its own), of a strategy's on a set for its row there.
    """
    given = list(lines)
    newest = {of: part for line in given for of, part in _digests(line)}
    kept = [line for line in given if line.get("digest") and all(newest[of] == part for of, part in _digests(line))]
    left = Counter(line["strategy"] for line in given)
    left.subtract(line["strategy"] for line in kept)
    return kept, {strategy: num for strategy, num in left.items() if num}


def _digests(line: dict[str, Any]) -> list[tuple[tuple[Any, ...], str]]:
    if not line.get("digest"):
        return []
    loop, data, strategy = line["digest"].split("/")
    return [
        (("loop", line["strategy"] == plans.DEFAULT), loop),
        (("set", line["set"]), data),
        (("strategy", line["set"], line["strategy"]), strategy),
    ]


def page(file: Path) -> str:
    """All of it, as Markdown."""
    kept, left = current(cells.read(file).values())
    measured = Measured(kept)
    if not measured.strategies:
        return "\n\n".join([f"{file} holds no cell that was measured", *_remarks(left, cells.unavailable(file))])
    parts = [_table(measured, name) for name in sorted({n for n, _ in measured.places})]
    return "\n\n".join([*parts, _verdicts(measured), _rule(measured), *_remarks(left, cells.unavailable(file))])


def _remarks(left: dict[str, int], unavailable: dict[str, str]) -> list[str]:
    found = [f"- {name} could not be had: {why}" for name, why in sorted(unavailable.items())]
    found += [
        f"- {strategy}: {num} cells are left out, measured with other options than the newest, or with unknown ones"
        for strategy, num in sorted(left.items())
    ]
    return ["\n".join(["**What is not in it**", "", *found])] if found else []


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
    return " ▲" if gain.above(0) else " ▼" if gain.below(0) else ""


def _verdicts(measured: Measured) -> str:
    """Each technique in a sentence."""
    lines = [
        "**What each technique gives** over the better of linear_probe and full, which is the one with the higher mean "
        f"in each place (a set with a number of shots; {len(measured.places)} of them). Number of seeds in brackets. "
        "In up to one of 20 places an interval excludes 0 by chance.", "",
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
    gains, total = measured.gains(strategy), measured.total(strategy)
    if not gains or total is None:
        return f"{strategy}: nothing to compare it with yet"
    said = (
        "was measured with too few seeds to tell" if total.seeds < 2 else
        "helps" if total.above(0) else
        "harms" if total.below(0) else
        "gives nothing that these figures could tell"
    )  # fmt: skip
    better = [f"{p[0]} {p[1]}" for p, g in gains.items() if g.above(0)]
    worse = [f"{p[0]} {p[1]}" for p, g in gains.items() if g.below(0)]
    where = "; ".join(
        f"{what} in {', '.join(names)}" for what, names in (("better", better), ("worse", worse)) if names
    )
    return (
        f"**{strategy}** {said}: {total.value:+.2f} points [{total.low:+.2f}, {total.high:+.2f}] over {total.places} "
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
        sure = [f"{p[0]} {p[1]}" for p, g in missed.items() if g.below(-TOLERANCE)]
        worst = min(gains, key=lambda p: gains[p].value)
        lines.append(
            f"- {strategy}{' (as `new` plans it)' if strategy == plans.DEFAULT else ''}: "
            + ("yes" if not missed else f"no, missed in {len(missed)} of {len(gains)} places")
            + f"; worst {gains[worst].value:+.1f} points in {worst[0]} {worst[1]}"
            + (f"; surely missed in {', '.join(sure)}" if sure else "")
            + (f"; measured in {len(gains)} of {most} places" if len(gains) < most else "")
        )
    return "\n".join([*lines, "", *(conclusion(measured, strategy) for strategy in JUDGED), _keepers(found, most)])


def conclusion(measured: Measured, strategy: str) -> str:
    """The rule's answer for a row: of the promise as a whole only where all of the table was measured."""
    name = "The default (as `new` plans it)" if strategy == plans.DEFAULT else f"{strategy} at the table's budget"
    asked = [(name, shots) for name in plans.SETS for shots in plans.SHOTS]
    seeds = {place: num for place in asked if (num := measured.seeds(strategy, place))}
    gains = {place: gain for place in seeds if (gain := measured.gain(strategy, place, measured.best(place)))}
    if not gains:
        return f"{name} was not measured yet."
    missed = [f"{p[0]} {p[1]}" for p, gain in gains.items() if gain.value < -TOLERANCE]
    fewest = min(seeds.values())
    so_far = "" if len(seeds) == len(asked) and fewest >= plans.SEEDS else (
        f"So far, in {len(seeds)} of {len(asked)} places, {fewest} of {plans.SEEDS} seeds: "
    )  # fmt: skip
    absent = [one for one in plans.SETS if one not in {p[0] for p in seeds}]
    return (
        f"{so_far}{name} " + (f"breaks the promise in {', '.join(missed)}." if missed else "keeps the promise.")
        + (f" Not measured at all: {', '.join(absent)}." if absent else "")
    )  # fmt: skip


def _keepers(found: dict[str, dict[Place, Estimate]], most: int) -> str:
    """What else would keep it, where it was measured."""
    worst = {s: min(g.value for g in gains.values()) for s, gains in found.items() if len(gains) == most}
    keep = [s for s in sorted(worst, key=lambda s: -worst[s]) if worst[s] >= -TOLERANCE]
    if keep:
        return f"Within it in all {most} places that were measured: {', '.join(keep)}."
    if not worst:
        return "Nothing can be held against it yet."
    nearest = max(worst, key=lambda s: worst[s])
    return f"Nothing keeps it everywhere; nearest is {nearest} ({worst[nearest]:+.1f} points where it is worst)."
