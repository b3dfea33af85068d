"""Every plugin of drift.detectors, found by itself: quiet on the same, loud on a shift, louder as it grows,
and false alarms as often as stated. A detector without an entry in CANONICAL fails at collection.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from components import plugins
from components.contracts import InputError
from components.drift.columns import Column, column, judge, why_not
from components.drift.embeddings import TooFew
from components.drift.two_sample import chi_square

FAMILY = "drift.detectors"
# name -> (options, golden of the fixed pair below, null draws, alarms that would be too many)
# Too many at alpha 0.05: more than 12 of 100 and more than 3 of 10 both have probability 0.001.
CANONICAL: dict[str, tuple[dict[str, Any], Any, int, int]] = {
    "classifier_two_sample": ({"alpha": 0.05, "num_permutations": 199}, (0.626, 0.05), 100, 12),
    "evidently_columns": ({}, {"a": 0.0329449, "b": 0.5524618, "c": 0.8599141}, 10, 3),
    "ks": ({}, {"a": 0.0329449, "b": 0.5524618, "c": 0.8599141}, 100, 12),
    "permutation_mmd": ({"alpha": 0.05, "num_permutations": 199}, (0.0272326, 0.005), 100, 12),
}
NAMES = plugins.names(FAMILY)
assert set(NAMES) == set(CANONICAL), f"detectors without canonical setting: {sorted(set(NAMES) ^ set(CANONICAL))}"
KINDS = {name: plugins.load(FAMILY, name).KINDS for name in NAMES}
OF_EMBEDDINGS = [n for n in NAMES if "embeddings" in KINDS[n]]
OF_COLUMNS = [n for n in NAMES if "columns" in KINDS[n]]


def settings(name: str) -> tuple[Any, Any]:
    module = plugins.load(FAMILY, name)
    return module, module.Params(**CANONICAL[name][0])


def cloud(num: int, seed: int, shift: float = 0.0, dims: int = 8) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(num, dims)) + shift).astype(np.float32)


@pytest.fixture
def of_columns(tmp_path: Path) -> Callable[..., dict[str, float]]:
    def score(name: str, columns: list[Column]) -> dict[str, float]:
        module, options = settings(name)
        return module.score_columns(options, columns, lambda file: tmp_path / file)

    return score


def of_embeddings(name: str, before: np.ndarray, now: np.ndarray, seed: int = 0) -> Any:
    module, options = settings(name)
    return module.score_embeddings(options, before, now, seed)


def trio(shift: float, seed: int = 0, sizes: tuple[int, int] = (120, 80)) -> list[Column]:
    """A number that moves, a number that stays, and a category that moves."""
    rng = np.random.default_rng(seed)
    weights = np.array([0.25 + shift / 8, 0.25 - shift / 8, 0.25, 0.25])
    words = np.array(["w", "x", "y", "z"], dtype=object)
    draws = [
        ("a", "numeric", rng.normal(size=sizes[0]), rng.normal(size=sizes[1]) + shift),
        ("b", "numeric", rng.normal(size=sizes[0]), rng.normal(size=sizes[1])),
        ("c", "categorical", words[rng.integers(0, 4, sizes[0])], words[rng.choice(4, sizes[1], p=weights)]),
    ]
    return [column(name, kind, before, now, "train") for name, kind, before, now in draws]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_compares_and_which_way_is_drift(name: str) -> None:
    module, options = settings(name)
    assert set(module.KINDS) <= {"columns", "embeddings"}
    assert module.DIRECTION == "below"
    assert 0 < options.alpha < 0.5


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_embeddings_golden(name: str) -> None:
    score, p_value = CANONICAL[name][1]
    shift = of_embeddings(name, cloud(100, 1), cloud(80, 2, 0.3))
    assert shift.score == pytest.approx(score, rel=1e-4)
    assert shift.p_value == pytest.approx(p_value)


@pytest.mark.parametrize("name", OF_COLUMNS)
def test_columns_golden(name: str, of_columns: Any) -> None:
    assert of_columns(name, trio(0.5)) == pytest.approx(CANONICAL[name][1], rel=1e-5)


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_the_same_sample_is_quiet_and_a_shift_is_loud(name: str) -> None:
    one = cloud(100, 3)
    assert of_embeddings(name, one, one).p_value > 0.2
    assert of_embeddings(name, one, cloud(100, 4, 1.0)).p_value <= 0.01


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_embeddings_are_louder_as_the_shift_grows(name: str) -> None:
    scores = [of_embeddings(name, cloud(150, 5), cloud(150, 6, shift)).score for shift in (0.0, 0.3, 0.6, 1.2)]
    assert scores == sorted(scores)
    assert scores[0] < scores[1] < scores[2]


@pytest.mark.parametrize("name", OF_COLUMNS)
def test_columns_same_quiet_shift_loud_louder_as_it_grows(name: str, of_columns: Any) -> None:
    same = [Column(c.name, c.kind, c.reference, c.reference, "train") for c in trio(0)]
    assert min(of_columns(name, same).values()) > 0.9
    values = [of_columns(name, trio(shift, sizes=(300, 300))) for shift in (0.0, 0.3, 0.8, 1.6)]
    for moving in ("a", "c"):
        p_values = [v[moving] for v in values]
        assert p_values == sorted(p_values, reverse=True)
        assert p_values[-1] < 1e-6
    assert {v["b"] for v in values} == {values[0]["b"]}  # what does not move does not care


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_false_alarms_on_null_draws_are_within_bound(name: str) -> None:
    _, _, draws, too_many = CANONICAL[name]
    alarms = sum(of_embeddings(name, cloud(40, 1000 + t), cloud(30, 5000 + t), t).p_value <= 0.05 for t in range(draws))
    assert alarms <= too_many


@pytest.mark.parametrize("name", OF_COLUMNS)
def test_any_false_alarm_among_all_columns_is_within_bound(name: str, of_columns: Any) -> None:
    _, _, draws, too_many = CANONICAL[name]
    alarms = 0
    for trial in range(draws):
        columns = trio(0, 100 + trial, (60, 60))
        alarms += any(one.drifted for one in judge(columns, of_columns(name, columns), name, 0.05))
    assert alarms <= too_many


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_embeddings_follow_the_seed_and_the_limit(name: str) -> None:
    before, now = cloud(60, 1), cloud(50, 2, 0.1)
    assert of_embeddings(name, before, now, 5) == of_embeddings(name, before, now, 5)
    module, options = settings(name)
    few = module.score_embeddings(options.model_copy(update={"max_samples": 20}), before, now, 5)
    assert (few.num_reference, few.num_current) == (20, 20)


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_embeddings_that_cannot_be_compared(name: str) -> None:
    with pytest.raises(TooFew, match="9 against 50"):
        of_embeddings(name, cloud(9, 1), cloud(50, 2))
    with pytest.raises(InputError, match="cannot be compared"):
        of_embeddings(name, cloud(30, 1), cloud(30, 2, dims=9))
    broken = cloud(30, 1)
    broken[3, 2] = np.nan
    with pytest.raises(InputError, match="not finite"):
        of_embeddings(name, cloud(30, 2), broken)


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_constant_embeddings_are_quiet_and_a_constant_that_moved_is_loud(name: str) -> None:
    flat = np.ones((30, 8), np.float32)
    assert of_embeddings(name, flat, flat).p_value == 1.0
    assert of_embeddings(name, flat, 2 * flat).p_value <= 0.01
    ties = np.repeat([[0.0], [1.0]], [29, 1], axis=0) * np.ones(8)  # the median distance is 0
    assert of_embeddings(name, ties, ties).p_value > 0.2


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_settings_that_could_never_alarm_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="must be at least 99"):
        plugins.load(FAMILY, name).Params(num_permutations=50, alpha=0.01)


def test_evidently_and_scipy_agree_on_ties_constants_and_missing_values(of_columns: Any) -> None:
    rng = np.random.default_rng(7)
    width = np.where(rng.random(60) < 0.1, np.nan, 8.0)
    columns = [
        column("num_bytes", "numeric", rng.integers(0, 4, 70), rng.integers(0, 4, 50), "train"),
        column("width", "numeric", width, np.full(40, 16.0), "train"),  # constant, and another constant now
        column(
            "rare",
            "categorical",
            np.array(["a"] * 58 + ["b", None], object),
            np.array(["a"] * 30 + ["c"], object),
            "train",
        ),
    ]
    plain, evidently = of_columns("ks", columns), of_columns("evidently_columns", columns)
    assert evidently == pytest.approx(plain, rel=1e-9)
    assert plain["width"] < 1e-12
    assert plain["rare"] == 1.0  # too rare to say


def test_evidentlys_page_lies_where_it_was_asked_for(of_columns: Any, tmp_path: Path) -> None:
    of_columns("evidently_columns", trio(0.5))
    page = (tmp_path / "evidently.html").read_text("utf-8")
    assert page.lstrip().startswith("<!DOCTYPE html>")
    assert "two-sample chi-square p_value" in page


def test_columns_that_cannot_be_compared_say_why() -> None:
    flat = column("width", "numeric", np.full(50, 8.0), np.full(20, 8.0), "train")
    few = column("x", "numeric", np.r_[np.zeros(9), np.nan, np.inf], np.zeros(20), "train")
    fine = column("y", "numeric", np.arange(20), np.arange(20), "train")
    assert why_not(flat) == "no drift: 8.0 on both sides"
    assert why_not(few) == "not compared: 9 values on one side, 10 are needed"
    assert why_not(fine) == ""
    judged = judge([flat, few, fine], {"y": 0.01}, "ks", 0.05)
    assert [one.drifted for one in judged] == [False, False, True]
    assert [one.score for one in judged] == [None, None, 0.01]
    assert judged[2].share_of_threshold == pytest.approx(np.log(0.01) / np.log(0.05))
    assert judge([fine], {"y": 0.0}, "ks", 0.05)[0].share_of_threshold == 10.0


def test_mmd_is_the_formula_of_the_paper() -> None:
    from itertools import combinations

    before, now = cloud(12, 1, dims=3).astype(float), cloud(15, 2, 0.5, dims=3).astype(float)
    pooled = [*before, *now]
    width = np.median([((a - b) ** 2).sum() for a, b in combinations(pooled, 2)])

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / (2 * width)))

    within = [np.mean([k(a, b) for a, b in combinations(side, 2)]) for side in (before, now)]
    expected = sum(within) - 2 * np.mean([k(a, b) for a in before for b in now])
    assert of_embeddings("permutation_mmd", before, now).score == pytest.approx(expected, rel=1e-9)


def test_ks_is_scipys() -> None:
    from scipy.stats import chi2_contingency, ks_2samp

    a, _, c = trio(0.5)
    module, options = settings("ks")
    table = [[(side == word).sum() for word in "wxyz"] for side in (c.reference, c.current)]
    found = module.score_columns(options, [a, c], Path)
    assert found["a"] == pytest.approx(ks_2samp(a.reference, a.current).pvalue)
    assert found["c"] == pytest.approx(chi2_contingency(table, correction=False).pvalue)


def test_chi_square_golden() -> None:
    # [[20, 30], [30, 20]]: expected 25 everywhere, chi-square 4, one degree of freedom
    before, now = np.array(["a"] * 20 + ["b"] * 30), np.array(["a"] * 30 + ["b"] * 20)
    assert chi_square(before, now) == pytest.approx(0.04550026)


def test_chi_square_puts_rare_categories_together() -> None:
    before = np.array(["a"] * 50 + ["b"] * 40 + ["c"] * 6 + ["d"] * 4)
    now = np.array(["a"] * 50 + ["b"] * 42 + ["e"] * 8)  # c, d and e expect under 5 in a row of 100
    rare = {"c": "r", "d": "r", "e": "r"}
    assert chi_square(before, now) == chi_square(*(np.array([rare.get(v, v) for v in side]) for side in (before, now)))
