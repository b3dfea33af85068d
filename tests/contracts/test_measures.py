"""Every plugin of bias.measures, found by itself: golden values, and what the stage relies on.

A measure without an entry in GOLDEN fails at collection.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from components import plugins
from components.bias.intervals import wilson
from components.bias.rows import Rows

FAMILY = "bias.measures"
# Ten samples of three labels, worked out by hand.
TEN = Rows(
    ("a", "b", "c"),
    label=np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2]),
    predicted=np.array([0, 0, 0, 1, 1, 1, 0, 2, 2, 0]),
    confidence=np.array([0.95, 0.95, 0.95, 0.55, 0.95, 0.95, 0.55, 0.95, 0.55, 0.55]),
)
GOLDEN: dict[str, tuple[dict[str, Any], float]] = {
    "accuracy": ({}, 0.7),
    "recall": ({}, (3 / 4 + 2 / 3 + 2 / 3) / 3),
    # six of ten at 0.95, all right: 0.6 * 0.05; four at 0.55, one right: 0.4 * 0.30
    "ece": ({"num_bins": 10}, 0.15),
    "selection_rate": ({"label": "a"}, 0.5),
}
NAMES = plugins.names(FAMILY)
assert set(NAMES) == set(GOLDEN), f"measures without golden value: {sorted(set(NAMES) ^ set(GOLDEN))}"


@pytest.fixture(params=NAMES)
def measure(request: pytest.FixtureRequest) -> tuple[ModuleType, Any, float]:
    options, expected = GOLDEN[request.param]
    module = plugins.load(FAMILY, request.param)
    return module, module.Params(**options), expected


def random_rows(num: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, num)
    guess = np.where(rng.random(num) < 0.8, label, rng.integers(0, 3, num))
    return Rows(("a", "b", "c"), label, guess, rng.uniform(0.34, 1, num))


def value(measure: Any, rows: Rows, weights: np.ndarray | None = None) -> float:
    module, options, _ = measure
    weights = np.ones(len(rows)) if weights is None else weights
    return float(module.values(options, rows, weights[None])[0])


def test_golden_value(measure: Any) -> None:
    assert value(measure, TEN) == pytest.approx(measure[2], abs=1e-12)


def test_it_says_which_way_is_better(measure: Any) -> None:
    assert measure[0].BETTER in ("higher", "lower")


def test_a_weight_is_a_repetition(measure: Any) -> None:
    rows, weights = random_rows(40, 1), np.random.default_rng(2).integers(0, 4, 40)
    assert value(measure, rows, weights.astype(float)) == pytest.approx(
        value(measure, rows.take(np.repeat(np.arange(40), weights)))
    )


def test_the_order_of_samples_does_not_matter(measure: Any) -> None:
    rows = random_rows(40, 3)
    assert value(measure, rows) == pytest.approx(value(measure, rows.take(np.random.default_rng(0).permutation(40))))


def test_many_weights_at_once_are_as_one_by_one(measure: Any) -> None:
    module, options, _ = measure
    rows = random_rows(30, 4)
    weights = np.random.default_rng(5).integers(0, 3, (6, 30)).astype(float)
    together = module.values(options, rows, weights)
    assert together.shape == (6,)
    assert together == pytest.approx([value(measure, rows, w) for w in weights])


def test_no_weight_is_not_a_number_and_warns_nothing(measure: Any) -> None:
    assert np.isnan(value(measure, TEN, np.zeros(10)))


def test_one_sample_is_fine(measure: Any) -> None:
    assert 0 <= value(measure, TEN.take(np.array([3]))) <= 1


def test_its_own_interval_holds_the_value_and_narrows(measure: Any) -> None:
    module, options, _ = measure
    if not hasattr(module, "interval"):
        pytest.skip("the stage's bootstrap serves it")
    widths = []
    for num in (30, 300, 3000):
        rows = random_rows(num, 6)
        low, high = module.interval(options, rows, 0.95)
        assert 0 <= low <= value(measure, rows) <= high <= 1
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]
    wide = module.interval(options, random_rows(300, 6), 0.99)
    assert wide[1] - wide[0] > widths[1]


# Six samples with sets of labels: a in five predictions and three truths, b in two predictions and three truths.
SETS = Rows(
    ("a", "b", "a;b", "(none)"),
    label=np.array([0, 2, 2, 1, 3, 3]),
    predicted=np.array([0, 2, 0, 2, 3, 0]),
    confidence=np.full(6, 0.9),
    held=(("a",), ("b",), ("a", "b"), ()),
)
SETS_GOLDEN = {
    "accuracy": 3 / 6,  # the whole set
    "recall": (3 / 3 + 2 / 3) / 2,
    "ece": 0.4,
    "selection_rate": 5 / 6,
}


def test_golden_value_of_sets_of_labels(measure: Any) -> None:
    name = measure[0].__name__.rpartition(".")[2]
    assert value(measure, SETS) == pytest.approx(SETS_GOLDEN[name], abs=1e-12)
    if hasattr(measure[0], "interval"):
        low, high = measure[0].interval(measure[1], SETS, 0.95)
        assert 0 <= low <= value(measure, SETS) <= high <= 1


def test_groups_without_any_label_have_no_recall_and_every_interval() -> None:
    recall = plugins.load(FAMILY, "recall")
    none = SETS.take(np.array([4, 5]))
    assert np.isnan(recall.values(recall.Params(), none, np.ones((1, 2)))).all()
    assert recall.interval(recall.Params(), none, 0.95) == (0.0, 1.0)


def test_labels_of_one_sample_count_once_in_the_interval_of_recall() -> None:
    """Every sample has both labels, found or missed together: 40 samples, not 80."""
    recall = plugins.load(FAMILY, "recall")
    found = np.arange(40) % 4 > 0
    rows = Rows(("x;y", "(none)"), np.zeros(40, int), np.where(found, 0, 1), np.full(40, 0.9), (("x", "y"), ()))
    assert recall.interval(recall.Params(), rows, 0.95) == pytest.approx(wilson(30, 40, 0.95))
