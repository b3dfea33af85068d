"""How figures are written."""

from __future__ import annotations

import math

import pytest

from components.contracts import Interval
from components.report import formats

S = formats.SPACE


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.97432, f"97.4{S}%"), (1.0, f"100.0{S}%"), (-0.01, f"−1.0{S}%"), (None, "–"), (math.nan, "–")],
)
def test_percent(value: float | None, told: str) -> None:
    assert formats.percent(value) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (1797, f"1{S}797"),
        (1797.0, f"1{S}797"),
        (0.123456, "0.1235"),
        (-0.5, "−0.5"),
        (True, "yes"),
        (None, "–"),
        (math.inf, "–"),
        ("as it is", "as it is"),
    ],
)
def test_plain(value: object, told: str) -> None:
    assert formats.plain(value) == told


def test_an_interval_is_in_its_metrics_unit() -> None:
    assert formats.span("accuracy", Interval(0.9, 0.85, 0.95)) == f"85.0 to 95.0{S}%"
    assert formats.span("log_loss", Interval(0.1, 0.05318, 0.17871)) == "0.0532 to 0.179"
    assert formats.gain_span(Interval(0.01, -0.02, 0.04)) == "−2.0 to +4.0"
    assert formats.span("accuracy", None) == formats.gain_span(None) == formats.of("accuracy", None) == "–"


def test_a_choice_is_told_in_one_line() -> None:
    spec = {"name": "timm", "model": "a", "revision": None, "weights": {"source": "hub"}, "tags": ["x", 2]}
    assert formats.spec(spec) == "timm (model a, weights (source hub), tags [x, 2])"
    assert formats.spec("full") == "full"
    assert formats.spec({}) == ""
