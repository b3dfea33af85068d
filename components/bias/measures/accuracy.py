"""Share of samples whose predicted label is the true one.

What: accuracy = sum of [predicted = label] / N.
When: always; it is what most gates rest on.
Not when: labels are rare and matter as much as frequent ones: use recall beside it.
Settings: none.
Cost: none to speak of.
Evidence here: of nominal 95 % intervals, Wilson's held the true accuracy of 0.99 in 93.4 % of 4,000 groups of
90 samples, the percentile bootstrap in 59.0 %: it gives [1, 1] where all are right (pytest
tests/components/bias/test_intervals.py repeats it smaller; 2026-11-21).
Source: Wilson, Probable inference, JASA 22, 1927, for the interval.
"""

from __future__ import annotations

import numpy as np

from components import params
from components.bias.intervals import wilson
from components.bias.rows import Rows

BETTER = "higher"


class Params(params.Params):
    """No options."""


def values(params: Params, rows: Rows, weights: np.ndarray) -> np.ndarray:
    """Weighted accuracy, [B] for weights [B, N]; NaN where all weights are zero."""
    del params
    total = weights.sum(axis=1)
    hits = weights @ (rows.label == rows.predicted).astype(np.float64)
    return np.divide(hits, total, out=np.full(len(weights), np.nan), where=total > 0)


def interval(params: Params, rows: Rows, level: float) -> tuple[float, float]:
    """Wilson's interval."""
    del params
    return wilson(float((rows.label == rows.predicted).sum()), len(rows), level)
