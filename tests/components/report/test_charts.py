"""Drawings: places are right, labels are exact, text is escaped."""

from __future__ import annotations

import re

import pytest

from components.contracts import Interval
from components.report import charts
from components.report.charts import HEIGHT, WIDTH, Series, _label, _ticks


def numbers(pattern: str, drawing: str) -> list[tuple[float, ...]]:
    return [tuple(float(v) for v in found.groups()) for found in re.finditer(pattern, drawing)]


def test_a_strip_puts_value_and_interval_where_they_belong() -> None:
    drawn = charts.strip(Interval(0.5, 0.25, 0.75), 0, 1, mark=1.0)
    assert numbers(r'class="span s0" x1="([\d.]+)" y1="8" x2="([\d.]+)"', drawn) == [(42, 118)]
    assert numbers(r'cx="([\d.]+)" cy', drawn) == [(80,)]
    assert numbers(r'class="mark" x1="([\d.]+)"', drawn) == [(156,)]


def test_a_strip_stays_inside_its_scale() -> None:
    drawn = charts.strip(Interval(1.2, -0.5, 1.4), 0, 1)
    assert all(4 <= float(x) <= 156 for x in re.findall(r'(?:cx|x1|x2)="([\d.-]+)"', drawn))


def test_a_perfect_bin_lies_on_the_diagonal() -> None:
    drawn = charts.reliability([(0.0, 0.0, 5), (1.0, 1.0, 5)])
    diagonal = numbers(r'class="ideal" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', drawn)[0]
    dots = numbers(r'class="dot s0 soft" cx="([\d.]+)" cy="([\d.]+)"', drawn)
    assert dots == [diagonal[:2], diagonal[2:]]


def test_curves_rise_where_values_rise_and_stay_inside() -> None:
    drawn = charts.curves([Series("a", ((1, 0.2), (2, 0.5), (3, 0.9)))], "t", "epoch", "y", share=True)
    points = re.search(r'points="([^"]+)"', drawn)
    assert points is not None
    places = [tuple(map(float, p.split(","))) for p in points.group(1).split()]
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)
    assert "a ends at 90.0%" in drawn


@pytest.mark.parametrize(
    "points",
    [((1.0, 0.5),), ((1.0, 0.5), (2.0, 0.5)), ((1.0, 0.0), (400.0, 1e6)), ((1.0, -3.0), (2.0, 1e-9))],
)
def test_curves_of_any_values_are_drawn(points: tuple[tuple[float, float], ...]) -> None:
    drawn = charts.curves([Series("a", points)], "t", "epoch", "y")
    assert "nan" not in drawn
    assert drawn.count("<text") < 25


def test_no_points_no_drawing() -> None:
    assert charts.curves([], "t", "x", "y") == charts.curves([Series("a", ())], "t", "x", "y") == ""
    assert charts.reliability([]) == charts.strip(None, 0, 1) == ""


def test_names_in_a_drawing_are_escaped() -> None:
    drawn = charts.curves([Series('"><script>', ((1, 1.0), (2, 2.0)))], "<t>", "<x>", "&y")
    assert "<script>" not in drawn
    assert "&lt;x&gt;" in drawn


def test_ticks_surround_the_values_in_round_steps() -> None:
    for low, high in ((0, 1), (0.123, 0.91), (-5, 3), (0.5, 0.5), (1e-9, 3e-9), (0, 12345)):
        ticks = _ticks(low, high)
        assert ticks[0] <= low
        assert high <= ticks[-1]
        assert 2 <= len(ticks) <= 7, (low, high, ticks)


def test_labels_do_not_round_a_step_away() -> None:
    assert [_label(x, True, 0.025) for x in (0.025, 0.05)] == ["2.5%", "5.0%"]
    assert [_label(x, False, 0.25) for x in (0.25, 0.5)] == ["0.25", "0.50"]
    assert _label(3, False, 1) == "3"
