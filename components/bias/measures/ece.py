"""Expected calibration error: how far confidence and accuracy lie apart, in a group.

What: sum over bins b of n_b / N * |accuracy_b - mean confidence_b|, bins of equal width over confidence.
When: someone acts on the confidence, and it must mean the same for every group.
Not when: groups are small: it is biased upwards (0 cannot be reached by chance), more so in smaller groups,
so compare groups of like size, and trust the permutation test, which deals out the same sizes.
Settings: num_bins.
Cost: num_bins passes over the samples a resample.
Evidence here: golden values in tests/contracts/test_measures.py; false alarms of the gap's test in
tests/components/bias/test_intervals.py.
Source: Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI
2015.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from components import params
from components.bias.rows import Rows

BETTER = "lower"


class Params(params.Params):
    """Options."""

    num_bins: int = Field(default=10, ge=2, le=100)
    """Bins of equal width over 0..1."""


def values(params: Params, rows: Rows, weights: np.ndarray) -> np.ndarray:
    """Weighted error, [B] for weights [B, N]; NaN where all weights are zero."""
    edges = np.linspace(0, 1, params.num_bins + 1)[1:-1]
    of = (np.digitize(rows.confidence, edges, right=True)[:, None] == np.arange(params.num_bins)).astype(np.float64)
    off = (rows.label == rows.predicted).astype(np.float64) - rows.confidence
    apart = np.abs(weights @ (of * off[:, None])).sum(axis=1)
    total = weights.sum(axis=1)
    return np.divide(apart, total, out=np.full(len(weights), np.nan), where=total > 0)
