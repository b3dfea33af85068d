"""The table's intervals in simulations in which there is nothing to find: how often do they find it?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from quality import figures
from quality.figures import Pair, Place

SETS, SHOTS = ("a", "b", "c", "d"), ("5", "16", "50", "all")
TABLES = 400
MOST = 0.05 + 2.3 * np.sqrt(0.05 * 0.95 / TABLES)
"""Of tables whose interval excludes 0, where the truth is 5 %, by chance at the most (one in a hundred)."""


def _table(rng: np.random.Generator, sets: int, shots: int, seeds: int, spread: float) -> dict[Place, dict[int, Pair]]:
    """No gain in the mean. Of a set and seed all shots have the same rows, of which many are hard for all of them, and
    a seed is lucky for all of its shots in part."""
    found: dict[Place, dict[int, Pair]] = {}
    for name in SETS[:sets]:
        for seed in range(seeds):
            luck, hard, same = rng.normal(0, spread), rng.random(200), rng.random((2, 200))
            for size in SHOTS[:shots]:
                own = 0.7 * luck + 0.7 * rng.normal(0, spread)
                noise = np.where(rng.random((2, 200)) < 0.7, same, rng.random((2, 200)))
                pair = [0.5 * hard + 0.5 * part < 0.7 + sign * own / 2 for part, sign in zip(noise, (1, -1))]
                found.setdefault((name, size), {})[seed] = (pair[0], pair[1])
    return found


def _found(
    of: Callable[[dict[Place, dict[int, Pair]]], figures.Estimate | None],
    sets: int,
    shots: int,
    seeds: int,
    spread: float,
) -> float:
    rng = np.random.default_rng(1)
    given = [of(_table(rng, sets, shots, seeds, spread)) for _ in range(TABLES)]
    return float(np.mean([one is not None and (one.low > 0 or one.high < 0) for one in given]))


@pytest.mark.parametrize("spread", [0.0, 0.05])
@pytest.mark.parametrize("seeds", [2, 5])
def test_a_place_without_a_gain_shows_one_in_5_percent_or_fewer(seeds: int, spread: float) -> None:
    assert _found(figures.estimate, 1, 1, seeds, spread) <= MOST


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_so_does_the_mean_over_places_that_share_rows_and_luck(spread: float) -> None:
    assert 0.005 <= _found(figures.estimate, 4, 4, 5, spread) <= MOST


def test_places_taken_as_independent_would_not() -> None:
    """So the simulation can tell."""

    def alone(table: dict[Place, dict[int, Pair]]) -> figures.Estimate:
        each = [one for place, pairs in table.items() if (one := figures.estimate({place: pairs}))]
        half = np.sqrt(sum(one.half**2 for one in each)) / len(each) / 2.776 * 1.96
        return figures.Estimate(float(np.mean([one.value for one in each])), float(half), 5)

    assert _found(alone, 4, 4, 5, 0.05) > 0.12


def test_the_interval_of_seeds_that_differ_is_students() -> None:
    pairs = {s: (np.arange(400) < 400 * share, np.zeros(400, bool)) for s, share in enumerate((0.6, 0.7, 0.8))}
    varied = figures.estimate({("a", "5"): pairs})
    alike = figures.estimate({("a", "5"): dict.fromkeys(range(3), pairs[1])})
    assert varied is not None
    assert alike is not None
    assert varied.half == pytest.approx(4.3027 * 10 / np.sqrt(3), rel=1e-4)  # t of 2 degrees, deviation of 10 points
    assert alike.half == pytest.approx(1.95996 * 100 * np.sqrt(0.7 * 0.3 / 1200), rel=1e-4)


def test_of_one_seed_nothing_is_claimed() -> None:
    one = figures.estimate({("a", "5"): {0: (np.ones(100, bool), np.zeros(100, bool))}})
    assert one is not None
    assert (one.low, one.above(0), one.below(1000)) == (100, False, False)


def test_only_seeds_that_all_shots_of_a_set_have_are_taken_together() -> None:
    yes, no = np.ones(10, bool), np.zeros(10, bool)
    found = figures.estimate({("a", "5"): {0: (yes, no), 1: (no, no)}, ("a", "16"): {0: (yes, no)}, ("b", "5"): {}})
    assert found is not None
    assert (found.value, found.seeds, found.places) == (100, 1, 2)
    apart = figures.estimate({("a", "5"): {0: (yes, no), 1: (no, no)}, ("a", "16"): {2: (yes, no)}})
    assert apart is not None
    assert (apart.value, apart.seeds, apart.places) == (50, 2, 1)
