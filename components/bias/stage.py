"""How the shipped model does by group: named attributes, and measured properties cut into thirds.

Reads: evaluate/predictions.parquet (the run `main` on the split `test`, and nothing else of it).
Writes: groups.json (every group with every measure and its interval; a grouping's gap with its interval, what
chance alone gives, and a p-value; what was left out and why), groups.csv (accuracy by group, for plots).
Decides: the groups, the measures, and the level. A gap is the best group minus the worst, among groups of at
least `min_group_size`. Its p-value is that of dealing the same group sizes out at random, so it accounts for
the choice of the worst among several; Holm's adjustment accounts for all groupings and measures together.
Intervals are the measure's own where it has one, else a percentile bootstrap.
Fails: an attribute or property that the samples do not have, or that is an identifier (InputError). Too few
samples do not fail the stage: what could not be measured is absent from the metrics, so a gate rule on it
fails.
Does not check: whether a gap matters or is just, combinations of attributes, and groups nobody named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from components import holm, params
from components.bias import groups as grouping_rules
from components.bias.groups import Grouping
from components.bias.intervals import Values, bootstrap, difference, gap_test
from components.bias.rows import Rows, from_predictions
from components.contracts import InputError, Interval, read_table, write_json
from components.job import Job
from components.plugins import Choice, Family, load
from components.samples import keyed_seed

NEEDS = ("evaluate",)


class Params(params.Params):
    """Section `bias`."""

    attributes: list[str]
    """Attributes of the samples (columns that the source was told to keep) whose values are the groups."""
    properties: list[str]
    """Measured properties, cut into thirds: brightness, contrast, width, ..."""
    measures: list[Annotated[Choice, Family("bias.measures")]] = Field(min_length=1)
    """What is compared between groups."""
    min_group_size: int = Field(ge=2)
    """Smaller groups are shown and marked, and neither the worst group nor a gap is taken from them."""
    num_bootstrap: int = Field(ge=100, le=100_000)
    """Resamples behind an interval that has no closed form."""
    num_permutations: int = Field(ge=99, le=100_000)
    """Random groupings behind a p-value; it cannot be below 1 / (num_permutations + 1)."""
    level: float = Field(gt=0.5, lt=1)
    """Confidence level of the intervals; 1 - level is how often "evidence" may be said where there is no
    gap."""

    @field_validator("measures")
    @classmethod
    def _each_once(cls, measures: list[Choice]) -> list[Choice]:
        titles = [_title(m) for m in measures]
        if len(titles) != len(set(titles)):
            raise ValueError(f"each measure may be named once; given: {', '.join(titles)}")
        return measures


@dataclass(frozen=True)
class Measure:
    """A chosen measure, bound to its options."""

    title: str
    higher_is_better: bool
    values: Values
    interval: Any
    """(rows, level) -> (low, high), or None: bootstrap."""


@dataclass
class Gap:
    """The best judged group of a grouping minus the worst, for one measure."""

    grouping: str
    measure: str
    worst: str
    best: str
    gap: Interval
    gap_by_chance: float
    """Mean gap of random groups of the same sizes."""
    p_value: float
    adjusted_p_value: float = 1.0
    """Holm's, over every gap of the stage."""
    verdict: str = "no evidence"


@dataclass
class Figures:
    """All that is measured."""

    overall: dict[str, Interval] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns num_groups, num_small_groups, and a measure: worst_group_<m> with _low and _high, <m>_gap (the
    largest of the groupings) with _low, _high and _p_value (its grouping's, adjusted). What could not be
    measured is absent.
    """
    table = read_table(job.source("evaluate", "predictions.parquet"))
    table = table[(table["run"] == "main") & (table["split"] == "test")].reset_index(drop=True)
    if table.empty:
        raise InputError("validate.split.test: no sample fell into it, so no group can be judged")
    rows = from_predictions(table, load("decisions", job.run.decision))
    groupings, skipped = grouping_rules.find(table, params.attributes, params.properties)
    measures = [_bind(choice) for choice in params.measures]
    figures = Figures(overall={m.title: _measured(m, rows, params, job, "all") for m in measures})
    for grouping in job.progress(groupings, "comparing groups", len(groupings)):
        _add_groups(figures, grouping, rows, measures, params, job)
        _add_gaps(figures, grouping, rows, measures, params, job)
    for gap, adjusted in zip(figures.gaps, holm.adjust([g.p_value for g in figures.gaps])):
        gap.adjusted_p_value = adjusted
        gap.verdict = "evidence of a gap" if adjusted <= 1 - params.level else "no evidence"
    headline = _headline(figures, measures, params, skipped)
    write_json(
        job.out("groups.json"),
        {
            "groups": figures.groups,
            "gaps": figures.gaps,
            "headline": headline,
            "num_samples": len(rows),
            "overall": figures.overall,
            "skipped": skipped,
            "split": "test",
            "level": params.level,
            "min_group_size": params.min_group_size,
        },
    )
    _write_csv(groupings, rows, params, job)
    job.say(headline)
    return _metrics(figures, measures)


def _title(choice: Choice) -> str:
    module = choice.load()
    return str(module.title(choice.params)) if hasattr(module, "title") else choice.name


def _bind(choice: Choice) -> Measure:
    module = choice.load()
    interval = partial(module.interval, choice.params) if hasattr(module, "interval") else None
    return Measure(_title(choice), module.BETTER == "higher", partial(module.values, choice.params), interval)


def _measured(measure: Measure, rows: Rows, params: Params, job: Job, key: str) -> Interval:
    value = float(measure.values(rows, np.ones((1, len(rows))))[0])
    if measure.interval is not None:
        low, high = measure.interval(rows, params.level)
    else:
        seed = keyed_seed(job.run.seed, "bias", measure.title, key)
        low, high = bootstrap(measure.values, rows, params.level, params.num_bootstrap, seed)
        low, high = min(low, value), max(high, value)  # a biased measure's resamples can all lie on one side
    return Interval(value, low, high, params.level)


def _add_groups(
    figures: Figures, grouping: Grouping, rows: Rows, measures: list[Measure], params: Params, job: Job
) -> None:
    for code, name in enumerate(grouping.groups):
        own = rows.take(grouping.codes == code)
        key = f"{grouping.name}: {name}"
        figures.groups.append(
            {
                "grouping": grouping.name,
                "group": name,
                "num": len(own),
                "small": len(own) < params.min_group_size,
                "measures": {m.title: _measured(m, own, params, job, key) for m in measures},
            }
        )


def _add_gaps(
    figures: Figures, grouping: Grouping, rows: Rows, measures: list[Measure], params: Params, job: Job
) -> None:
    judged = [g for g in figures.groups if g["grouping"] == grouping.name and not g["small"]]
    if len(judged) < 2:
        return
    index = [grouping.groups.index(g["group"]) for g in judged]
    inside = np.isin(grouping.codes, index)
    codes = np.searchsorted(index, grouping.codes[inside])
    for measure in measures:
        ranked = sorted(judged, key=lambda g: g["measures"][measure.title].value)
        lowest, highest = ranked[0], ranked[-1]
        worst, best = (lowest, highest) if measure.higher_is_better else (highest, lowest)
        apart = difference(highest["measures"][measure.title], lowest["measures"][measure.title])
        seed = keyed_seed(job.run.seed, "bias", measure.title, grouping.name, "permutations")
        _, chance, p_value = gap_test(measure.values, rows.take(inside), codes, params.num_permutations, seed)
        figures.gaps.append(Gap(grouping.name, measure.title, worst["group"], best["group"], apart, chance, p_value))


def _worst(figures: Figures, measure: Measure) -> dict[str, Any] | None:
    judged = [g for g in figures.groups if not g["small"]]
    pick = min if measure.higher_is_better else max
    return pick(judged, key=lambda g: g["measures"][measure.title].value) if judged else None


def _metrics(figures: Figures, measures: list[Measure]) -> dict[str, float]:
    flat = {
        "num_groups": float(len(figures.groups)),
        "num_small_groups": float(sum(g["small"] for g in figures.groups)),
    }
    for measure in measures:
        worst = _worst(figures, measure)
        if worst is not None:
            flat |= _flat(f"worst_group_{measure.title}", worst["measures"][measure.title])
        gaps = [g for g in figures.gaps if g.measure == measure.title]
        if gaps:
            largest = max(gaps, key=lambda g: g.gap.value)
            flat |= _flat(f"{measure.title}_gap", largest.gap)
            flat[f"{measure.title}_gap_p_value"] = largest.adjusted_p_value
    return flat


def _flat(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _headline(figures: Figures, measures: list[Measure], params: Params, skipped: list[dict[str, str]]) -> str:
    first = measures[0]
    worst = _worst(figures, first)
    if worst is None:
        if figures.groups:
            return f"No group has {params.min_group_size} samples, so none was judged."
        why = "; ".join(s["why"] for s in skipped) or "none are named in params"
        return f"There are no groups to compare: {why}."
    value = worst["measures"][first.title]
    told = (
        f"Worst group by {first.title}: {worst['grouping']}: {worst['group']}, {value.value:.3f} "
        f"({value.low:.3f} to {value.high:.3f}, {worst['num']} samples)."
    )
    shown = sorted((g for g in figures.gaps if g.verdict != "no evidence"), key=lambda g: g.adjusted_p_value)
    if shown:
        parts = [f"{g.measure} by {g.grouping} ({g.worst} against {g.best}, gap {g.gap.value:.3f})" for g in shown[:3]]
        return f"{told} Evidence of a gap: {'; '.join(parts)}."
    if not figures.gaps:
        return f"{told} No two groups are large enough to compare."
    least = min(g.adjusted_p_value for g in figures.gaps)
    count = len(figures.gaps)
    return f"{told} No evidence of a gap beyond chance in {count} comparisons (smallest adjusted p {least:.2g})."


def _write_csv(groupings: list[Grouping], rows: Rows, params: Params, job: Job) -> None:
    """Accuracy, whatever was asked for: the plot in dvc.yaml shows it. The first row is all samples."""
    import pandas as pd

    module = load("bias.measures", "accuracy")
    accuracy = Measure(
        "accuracy", True, partial(module.values, module.Params()), partial(module.interval, module.Params())
    )
    parts = [("all", rows)]
    parts += [
        (f"{grouping.name}: {name}", rows.take(grouping.codes == code))
        for grouping in groupings
        for code, name in enumerate(grouping.groups)
    ]
    lines = []
    for name, own in parts:
        value = _measured(accuracy, own, params, job, name)
        lines.append({"group": name, "accuracy": value.value, "low": value.low, "high": value.high, "num": len(own)})
    pd.DataFrame(lines).to_csv(job.out("groups.csv"), index=False, float_format="%.6f")
