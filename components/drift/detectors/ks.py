"""Kolmogorov-Smirnov for numbers and chi-square for categories, column by column.

What: numbers: largest distance between the two cumulative shares. Categories: chi-square of the 2 x K table
of counts, categories that expect under 5 in either row put together. Each gives a p-value; the stage adjusts
them over columns.
When: a plain answer without Evidently and its import.
Not when: samples are so many that a difference nobody would mind has p near 0.
Settings: alpha.
Cost: milliseconds a column.
Evidence here: null draws at alpha 0.05, 2,000 each: numbers alarmed in 5.1 % (270 against 270) and 4.8 %
(1,258 against 270), ten categories in 5.1 % and 4.7 %. A shift of 0.3 deviations in one of eight columns,
1,258 against 270, is found in 92 % (python tests/golden/measure_detectors.py; 2026-11-21).
Source: Hodges, The significance probability of the Smirnov two-sample test, Arkiv foer Matematik 3, 1958;
Cochran, Some methods for strengthening the common chi-square tests, Biometrics 10, 1954 (the rule of 5).
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from components import params
from components.drift.columns import Column, Report
from components.drift.two_sample import chi_square

KINDS = ("columns",)
DIRECTION = "below"
"""Drift where the p-value is at most alpha."""


class Params(params.Params):
    """Options."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """How often any column at all may alarm where nothing has changed."""


def score_columns(params: Params, columns: Sequence[Column], report: Report) -> dict[str, float]:
    """Column name -> p-value."""
    del params, report
    return {one.name: _p_value(one) for one in columns}


def _p_value(one: Column) -> float:
    from scipy.stats import ks_2samp

    if one.kind == "categorical":
        return chi_square(one.reference, one.current)
    exact = max(len(one.reference), len(one.current)) <= 1000
    return float(ks_2samp(one.reference, one.current, method="exact" if exact else "asymp").pvalue)
