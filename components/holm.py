"""Several tests at once: Holm's adjustment of p-values.

Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6,
1979.
"""

from __future__ import annotations

from collections.abc import Sequence


def adjust(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the same order: reject where at most alpha, and any false alarm among all has
    probability at most alpha, however the tests depend on each other."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
