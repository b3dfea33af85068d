"""The figures of the parity check, against numbers worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from components.export import parity

LIMITS = {"probabilities": 1e-5, "embedding": 1e-5}


class _Shifted:
    """A session that gives the input back, one value moved by `shift` at one batch size."""

    def __init__(self, shift: float, at_batch: int, flip: bool = False) -> None:
        self.shift, self.at_batch, self.flip = shift, at_batch, flip

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="pixels")]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name=name) for name in ("label", "probabilities", "embedding")]

    def run(self, names: Any, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        values = feed["pixels"]
        wrong = len(values) == self.at_batch
        embedding = values.copy()
        if wrong:
            embedding[0, 0] += self.shift
        label = np.zeros(len(values), np.int64) + (1 if wrong and self.flip else 0)
        return [label, np.full((len(values), 2), 0.5, np.float32), embedding]


def _compare(session: Any, num: int = 21, lengths: np.ndarray | None = None) -> dict[str, Any]:
    rows = np.linspace(-4, 4, num * 3, dtype=np.float32).reshape(num, 3)
    halves = np.full((num, 2), 0.5, np.float32)
    expected = {"label": np.zeros(num, np.int64), "probabilities": halves, "embedding": rows}
    return parity.compare(
        expected, session, rows, lambda part: {"pixels": part}, lambda items, *_: iter(items), lengths
    )


def test_equal_outputs_differ_by_nothing() -> None:
    found = _compare(_Shifted(0.0, 7))
    assert (found["relative"], found["max_abs"], found["mean_abs"], found["flips"]) == (0, 0, 0, 0)
    parity.judge(found, {"probabilities": 1e-9, "embedding": 1e-9}, 0)


def test_a_difference_is_measured_over_the_scale() -> None:
    found = _compare(_Shifted(0.5, 5))  # the last 5 of 21 in batches of 16
    assert found["max_abs"] == 0.5
    assert found["scale"] == 4
    assert found["relative"] == 0.13  # 0.125, rounded up
    assert found["mean_abs"] == pytest.approx(0.5 / (3 * 63), rel=0.05)
    assert found["batches"]["16"]["relative"] == 0.13
    assert found["batches"]["7"]["relative"] == found["outputs"]["probabilities"]["relative"] == 0


@pytest.mark.parametrize("batch", [1, 7, 16, 5])
def test_a_fault_at_any_batch_size_is_refused(batch: int) -> None:
    with pytest.raises(parity.ParityError, match="embedding differ by"):
        parity.judge(_compare(_Shifted(0.5, batch)), LIMITS, 0)


def test_flips_are_counted_once_a_sample() -> None:
    found = _compare(_Shifted(0.0, 7, flip=True))
    assert found["flips"] == 21
    with pytest.raises(parity.ParityError, match=r"21 of 21 labels flip; export\.max_flips is 20"):
        parity.judge(found, LIMITS, 20)
    parity.judge(found, LIMITS, 21)


@pytest.mark.parametrize("behaviour", ["fail", "one row"])
def test_a_batch_size_that_is_not_taken_is_refused(behaviour: str) -> None:
    class Fussy(_Shifted):
        def run(self, names: Any, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            if behaviour == "fail" and len(feed["pixels"]) == 7:
                raise RuntimeError("dimension mismatch")
            return [part[:1] for part in super().run(names, feed)]

    with pytest.raises(parity.ParityError, match=r"batch of (7|16)"):
        _compare(Fussy(0.0, 0))


def test_not_a_number_is_refused() -> None:
    with pytest.raises(parity.ParityError):
        parity.judge(_compare(_Shifted(math.nan, 7)), dict.fromkeys(LIMITS, 0.1), 99)


def test_batch_one_sees_a_spread_of_large_splits() -> None:
    found = _compare(_Shifted(0.0, 1), num=200)
    assert found["batches"]["1"]["num_samples"] == 64
    assert found["batches"]["7"] == {"num_samples": 200, "last_batch": 4, "relative": 0.0, "flips": 0}


@pytest.mark.parametrize(("value", "told"), [(0.0, 0.0), (0.125, 0.13), (1.201e-6, 1.3e-6), (9.91, 10.0), (2.0, 2.0)])
def test_figures_are_rounded_up(value: float, told: float) -> None:
    assert parity.up(value) == told


def test_differences_are_told_by_thirds_of_the_lengths() -> None:
    lengths = np.arange(21)[::-1] + 3
    found = _compare(_Shifted(0.5, 5), lengths=lengths)["lengths"]  # the first of the last five rows: 16
    assert [(p["shortest"], p["longest"], p["num_samples"]) for p in found] == [(3, 9, 7), (10, 16, 7), (17, 23, 7)]
    assert [p["relative"] for p in found] == [0.13, 0.0, 0.0]


def test_batch_one_sees_the_shortest_and_the_longest() -> None:
    lengths = np.random.default_rng(0).permutation(500)
    seen = lengths[parity._single(500, lengths)]
    assert len(seen) == 64
    assert {int(seen.min()), int(seen.max())} == {0, 499}


def test_each_output_has_its_own_limit() -> None:
    found = _compare(_Shifted(0.5, 5))
    parity.judge(found, {"probabilities": 1e-9, "embedding": 0.13}, 0)
    with pytest.raises(parity.ParityError, match=r"export\.max_difference\.embedding"):
        parity.judge(found, {"probabilities": 0.1, "embedding": 0.12}, 0)


def test_what_rounding_explains_passes_and_no_more() -> None:
    allowed = {"probabilities": 1e-5, "embedding": 1e-5}
    yardstick = {"outputs": {"probabilities": {"torch": 1e-8}, "embedding": {"torch": 4e-5}}}
    assert parity.limits(allowed, 8, yardstick) == {"probabilities": 1e-5, "embedding": pytest.approx(3.2e-4)}
    assert parity.limits(allowed, 0, yardstick) == allowed
    assert parity.limits(allowed, 8, {"why": "this network does not run in float64"}) == allowed
