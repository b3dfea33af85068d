"""Intervals and tests for measures of groups.

A group where all is right has no spread to resample: the bootstrap gives [1, 1], which claims too much. So a
measure that is a proportion brings an interval of its own (`wilson`), and the bootstrap serves the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import sqrt
from statistics import NormalDist

import numpy as np

from components.bias.rows import Rows
from components.contracts import Interval

Values = Callable[[Rows, np.ndarray], np.ndarray]
"""(rows, weights [B, N]) -> one value a row of weights, [B]; NaN where it is not defined."""

_CHUNK = 4_000_000  # weights held at once: 32 MB
_TIE = 1e-12  # the same gap summed in another order differs by some 1e-16


def wilson(hits: float, num: float, level: float) -> tuple[float, float]:
    """Score interval of a proportion `hits / num`.

    Source: Wilson, Probable inference, JASA 22, 1927.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = hits / num
    middle = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z / (1 + z * z / num) * sqrt(share * (1 - share) / num + z * z / (4 * num * num))
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def bootstrap(values: Values, rows: Rows, level: float, num_bootstrap: int, seed: int) -> tuple[float, float]:
    """Percentile interval over resamples of the rows with replacement.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    rng, num = np.random.default_rng(seed), len(rows)
    drawn = np.concatenate(
        [values(rows, rng.multinomial(num, np.full(num, 1 / num), size)) for size in _chunks(num_bootstrap, num)]
    )
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) if len(drawn) else (np.nan, np.nan)
    return float(low), float(high)


def difference(larger: Interval, smaller: Interval) -> Interval:
    """`larger - smaller` of two independent groups, from their own intervals.

    It is about these two groups; that they were picked as the extremes of several is what `gap_test` accounts
    for.
    Source: Zou and Donner, Construction of confidence limits about effect measures, Statistics in Medicine
    27, 2008 (the square-and-add method; with Wilson's intervals it is Newcombe's).
    """
    value = larger.value - smaller.value
    down = sqrt((larger.value - larger.low) ** 2 + (smaller.high - smaller.value) ** 2)
    up = sqrt((larger.high - larger.value) ** 2 + (smaller.value - smaller.low) ** 2)
    return Interval(value, value - down, value + up, larger.level)


def gap_test(
    values: Values, rows: Rows, codes: np.ndarray, num_permutations: int, seed: int
) -> tuple[float, float, float]:
    """The gap between the best and the worst group, its mean under chance, and a p-value.

    `codes` [N] says which group each row belongs to. Chance: the same group sizes dealt out at random, so the
    p-value accounts for the choice of the extremes among several groups and for small groups, and is exact if
    membership is exchangeable. Source: Phipson and Smyth, Permutation p-values should never be zero, 2010.
    """
    rng = np.random.default_rng(seed)
    observed = float(_gaps(values, rows, codes[None, :])[0])
    parts = []
    for size in _chunks(num_permutations, len(rows)):
        parts.append(_gaps(values, rows, rng.permuted(np.tile(codes, (size, 1)), axis=1)))
    chance = np.concatenate(parts)
    chance = chance[np.isfinite(chance)]
    p_value = (1 + int((chance >= observed - _TIE).sum())) / (1 + len(chance))
    return observed, float(chance.mean()) if len(chance) else float("nan"), p_value


def _gaps(values: Values, rows: Rows, codes: np.ndarray) -> np.ndarray:
    each = np.stack([values(rows, (codes == group).astype(np.float64)) for group in range(int(codes.max()) + 1)])
    return each.max(axis=0) - each.min(axis=0)


def _chunks(total: int, width: int) -> Iterator[int]:
    size = max(1, _CHUNK // max(1, width))
    yield from (min(size, total - start) for start in range(0, total, size))
