"""Golden numbers, and the rates that the module promises, measured."""

from __future__ import annotations

import numpy as np
import pytest

from components.bias.intervals import bootstrap, difference, gap_test, wilson
from components.bias.measures import accuracy, ece, recall
from components.bias.rows import Rows
from components.contracts import Interval


def rows(right: np.ndarray, rng: np.random.Generator, num_labels: int = 10) -> Rows:
    label = rng.integers(0, num_labels, len(right))
    guess = np.where(right, label, (label + 1) % num_labels)
    return Rows(tuple(map(str, range(num_labels))), label, guess, rng.uniform(0.7, 1, len(right)))


def accuracies(given: Rows, weights: np.ndarray) -> np.ndarray:
    return accuracy.values(accuracy.Params(), given, weights)


def errors(given: Rows, weights: np.ndarray) -> np.ndarray:
    return ece.values(ece.Params(), given, weights)


def test_wilson_golden() -> None:
    # Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I
    assert wilson(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29, 0.95) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_difference_golden() -> None:
    # Newcombe, Interval estimation for the difference, 1998, table II (a), method 10: 56/70 - 48/80
    larger = Interval(56 / 70, *wilson(56, 70, 0.95))
    smaller = Interval(48 / 80, *wilson(48, 80, 0.95))
    found = difference(larger, smaller)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_a_perfect_group_is_not_called_certain() -> None:
    perfect = rows(np.ones(90, bool), np.random.default_rng(0))
    assert bootstrap(accuracies, perfect, 0.95, 200, 0) == (1.0, 1.0)  # why it is not used for proportions
    for module in (accuracy, recall):
        low, high = module.interval(module.Params(), perfect, 0.95)
        assert 0.9 < low < 0.99
        assert high == 1.0


@pytest.mark.parametrize(("module", "share"), [(accuracy, 0.97), (recall, 0.97), (recall, 0.9)])
def test_intervals_cover_about_as_often_as_they_say(module: object, share: float) -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(600):
        low, high = module.interval(module.Params(), rows(rng.random(90) < share, rng), 0.95)  # type: ignore[attr-defined]
        held += low <= share <= high
    assert 0.92 < held / 600 < 0.99


def test_bootstrap_covers_the_mean_and_follows_its_seed() -> None:
    given = rows(np.arange(200) % 5 > 0, np.random.default_rng(2))
    low, high = bootstrap(accuracies, given, 0.95, 2000, 3)
    assert (low, high) == pytest.approx((0.745, 0.855), abs=0.01)  # 0.8 -+ 1.96 sqrt(.8 .2 / 200)
    assert bootstrap(accuracies, given, 0.95, 2000, 3) == (low, high)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    given = rows(np.arange(50) % 5 > 0, np.random.default_rng(2))
    codes = np.arange(50) % 3
    whole = bootstrap(accuracies, given, 0.95, 300, 3), gap_test(accuracies, given, codes, 300, 3)
    monkeypatch.setattr("components.bias.intervals._CHUNK", 500)
    assert (bootstrap(accuracies, given, 0.95, 300, 3), gap_test(accuracies, given, codes, 300, 3)) == whole


@pytest.mark.parametrize("values", [accuracies, errors])
def test_equal_groups_alarm_as_often_as_stated(values: object) -> None:
    rng = np.random.default_rng(4)
    codes = np.repeat([0, 1, 2], [30, 60, 120])
    alarms = sum(
        gap_test(values, rows(rng.random(210) < 0.9, rng), codes, 99, trial)[2] <= 0.05  # type: ignore[arg-type]
        for trial in range(200)
    )
    assert alarms <= 20  # 10 expected; P(more than 20) is 0.001


def test_a_real_gap_is_found_and_small_gaps_are_not_called_gaps() -> None:
    rng = np.random.default_rng(5)
    codes = np.repeat([0, 1, 2], 70)
    worse = rows(rng.random(210) < np.where(codes == 0, 0.7, 0.97), rng)
    gap, chance, p_value = gap_test(accuracies, worse, codes, 999, 0)
    assert gap > 0.15 > chance
    assert p_value == pytest.approx(0.001)
    same = rows(rng.random(210) < 0.95, rng)
    gap, chance, p_value = gap_test(accuracies, same, codes, 999, 0)
    assert chance > 0.02  # the worst of three always looks worse
    assert p_value > 0.1
