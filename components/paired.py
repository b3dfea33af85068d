"""The difference of two accuracies on the same samples, with its interval."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from components.contracts import Interval


def paired_gain(ours: np.ndarray, theirs: np.ndarray, level: float) -> Interval:
    """Difference of two accuracies on the same rows, bool [N] each.

    Interval of Agresti and Min (Statistics in Medicine 24, 2005): Wald's after adding 1/2 to each cell of the
    2x2 table. It does not collapse to a point when the two agree everywhere.
    """
    n = len(ours)
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    z = NormalDist().inv_cdf((1 + level) / 2)
    b, c, total = only_ours + 0.5, only_theirs + 0.5, n + 2.0
    centre = (b - c) / total
    half = z * float(np.sqrt(b + c - (b - c) ** 2 / total)) / total
    return Interval((only_ours - only_theirs) / n, max(-1.0, centre - half), min(1.0, centre + half), level)
