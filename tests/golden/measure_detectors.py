"""Measures what the cards of components/drift/detectors state: false alarms, power, cost. Five minutes.

Run: python tests/golden/measure_detectors.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from scipy.stats import chisquare

from components.drift.columns import Column
from components.drift.detectors import classifier_two_sample, ks, permutation_mmd
from components.drift.two_sample import chi_square


def normal(sizes: tuple[int, int], dims: int, shift: float, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of N(0, I), the second stretched and moved in every dimension."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(sizes[0], dims)), rng.normal(size=(sizes[1], dims)) * spread + shift


def alarms(
    detector: Any,
    trials: int,
    sizes: tuple[int, int],
    dims: int,
    alpha: float,
    shift: float = 0,
    spread: float = 1,
) -> int:
    """How many of the trials alarm."""
    options = detector.Params(alpha=alpha, num_permutations=300)
    found = 0
    for trial in range(trials):
        pair = normal(sizes, dims, shift, spread, 10_000 * trials + trial)
        found += detector.score_embeddings(options, *pair, trial).p_value <= alpha
    return found


def embeddings(detector: Any) -> None:
    """False alarms, power and cost of one detector."""
    name, wide = detector.__name__.rsplit(".", 1)[-1], (270, 270)
    print(f"{name}: null, alpha 0.05: {alarms(detector, 400, wide, 384, 0.05)} of 400")
    print(f"{name}: null, alpha 0.01: {alarms(detector, 200, wide, 384, 0.01)} of 200")
    print(f"{name}: null, 60 against 40, D = 8, alpha 0.01: {alarms(detector, 3000, (60, 40), 8, 0.01)} of 3000")
    for shift in (0.05, 0.1):
        print(f"{name}: shift {shift}: {alarms(detector, 100, wide, 384, 0.01, shift)} of 100")
    print(f"{name}: spread 1.05: {alarms(detector, 100, wide, 384, 0.01, 0, 1.05)} of 100")
    pair, start = normal((1000, 1000), 1280, 0, 1, 0), time.perf_counter()
    detector.score_embeddings(detector.Params(), *pair, 0)
    print(f"{name}: 1000 against 1000, D = 1280: {time.perf_counter() - start:.1f} s")


def columns(trials: int = 2000) -> None:
    """False alarms at 0.05 for a column, and Evidently's own chi-square beside ours."""
    for sizes in ((270, 270), (1258, 270)):
        ours = evidently = numbers = 0
        for trial in range(trials):
            rng = np.random.default_rng(trial)
            first, second = (rng.integers(0, 10, n) for n in sizes)
            ours += chi_square(first, second) <= 0.05
            before, now = (np.bincount(v, minlength=10) for v in (first, second))
            evidently += chisquare(now, before * (sizes[1] / sizes[0]))[1] < 0.05  # as in its chisquare_stattest.py
            one = Column("x", "numeric", rng.normal(size=sizes[0]), rng.normal(size=sizes[1]), "train")
            numbers += ks.score_columns(ks.Params(), [one], Path)["x"] <= 0.05
        told = f"ours {ours / trials:.3f}, Evidently's {evidently / trials:.3f}, numbers {numbers / trials:.3f}"
        print(f"columns, null, {sizes}: {told}")
    found = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        one = Column("x", "numeric", rng.normal(size=1258), rng.normal(size=270) + 0.3, "train")
        found += ks.score_columns(ks.Params(), [one], Path)["x"] * 8 <= 0.05
    print(f"columns, a shift of 0.3 in one of eight: {found} of 200")


if __name__ == "__main__":
    columns()
    embeddings(permutation_mmd)
    embeddings(classifier_two_sample)
