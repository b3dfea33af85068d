"""Drawings as inline SVG: no library, no script, no file beside the page, the same bytes each time.

Colours and fonts come from the page's style sheet by class, so a drawing is light or dark as the page is. One
that says more than the text beside it has a role and a description; the others are hidden from readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from components.contracts import Interval

WIDTH, HEIGHT = 380, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 20, 10, 38
NUM_COLOURS = 6
"""Classes s0..s5 of the style sheet; more series than that share colours and differ by dashes."""


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    points: tuple[tuple[float, float], ...]


def curves(series: Sequence[Series], title: str, x_title: str, y_title: str, *, share: bool = False) -> Markup:
    """Lines over a whole-numbered x axis. `share`: y is written in percent."""
    points = [p for s in series for p in s.points]
    if not points:
        return Markup("")
    ys = _ticks(min(y for _, y in points), max(y for _, y in points))
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    frame = _Frame(x_low, x_high if x_high > x_low else x_low + 1, ys[0], ys[-1])
    parts = [frame.axes(_whole(x_low, x_high), ys, x_title, y_title, share)]
    for index, one in enumerate(series):
        path = " ".join(f"{_n(frame.x(x))},{_n(frame.y(y))}" for x, y in one.points)
        kind = f"s{index % NUM_COLOURS}"
        if len(one.points) > 1:
            parts.append(Markup('<polyline class="line {} d{}" points="{}"/>').format(kind, index % 4, path))
        x, y = one.points[-1]
        parts.append(
            Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"/>').format(kind, _n(frame.x(x)), _n(frame.y(y)))
        )
    ends = "; ".join(f"{s.name} ends at {_label(s.points[-1][1], share, 0.001)}" for s in series if s.points)
    return _svg(title, f"{y_title} by {x_title}. {ends}.", parts)


def reliability(bins: Sequence[tuple[float, float, int]]) -> Markup:
    """Accuracy against stated confidence, a dot a bin, its area by the number of samples."""
    if not bins:
        return Markup("")
    frame = _Frame(0, 1, 0, 1)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    parts = [frame.axes(ticks, ticks, "stated confidence", "accuracy", True, x_share=True)]
    ideal = Markup('<line class="ideal" x1="{}" y1="{}" x2="{}" y2="{}"/>')
    parts.append(ideal.format(_n(frame.x(0)), _n(frame.y(0)), _n(frame.x(1)), _n(frame.y(1))))
    most = max(num for _, _, num in bins)
    for confidence, accuracy, num in bins:
        x, y = _n(frame.x(confidence)), _n(frame.y(accuracy))
        stem = Markup('<line class="stem" x1="{}" y1="{}" x2="{}" y2="{}"/>')
        parts.append(stem.format(x, y, x, _n(frame.y(confidence))))
        radius = _n(2.5 + 6.5 * math.sqrt(num / most))
        dot = Markup('<circle class="dot s0 soft" cx="{}" cy="{}" r="{}"><title>{}</title></circle>')
        told = f"{num} samples: stated {confidence:.0%}, right {accuracy:.0%}"
        parts.append(dot.format(x, y, radius, told))
    told = f"{len(bins)} bins of confidence against accuracy; on the diagonal, confidence is what it says."
    return _svg("Reliability plot", told, parts)


def strip(interval: Interval | None, low: float, high: float, mark: float | None = None, kind: str = "s0") -> Markup:
    """A value with its interval on a line from low to high; `mark` is a reference. Numbers stand beside."""
    if interval is None or high <= low:
        return Markup("")

    def at(value: float) -> str:
        return _n(4 + 152 * (min(max(value, low), high) - low) / (high - low))

    parts = [Markup('<line class="rail" x1="4" y1="8" x2="156" y2="8"/>')]
    if mark is not None:
        parts.append(Markup('<line class="mark" x1="{0}" y1="1" x2="{0}" y2="15"/>').format(at(mark)))
    span = Markup('<line class="span {}" x1="{}" y1="8" x2="{}" y2="8"/>')
    parts.append(span.format(kind, at(interval.low), at(interval.high)))
    parts.append(Markup('<circle class="dot {}" cx="{}" cy="8" r="4"/>').format(kind, at(interval.value)))
    return _small(parts)


def bar(share: float, kind: str = "s0", mark: float | None = None) -> Markup:
    """A bar from 0 to 1; `mark` is a limit on it."""
    length = 152 * min(max(share, 0.0), 1.0)
    parts = [Markup('<rect class="rail-box" x="4" y="4" width="152" height="8" rx="2"/>')]
    parts.append(Markup('<rect class="bar {}" x="4" y="4" width="{}" height="8" rx="2"/>').format(kind, _n(length)))
    if mark is not None:
        parts.append(Markup('<line class="mark" x1="{0}" y1="1" x2="{0}" y2="15"/>').format(_n(4 + 152 * mark)))
    return _small(parts)


@dataclass(frozen=True)
class _Frame:
    """From values to places on the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (value - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - self.y_low) / (self.y_high - self.y_low)

    def axes(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        x_title: str,
        y_title: str,
        share: bool,
        x_share: bool = False,
    ) -> Markup:
        parts: list[Markup] = []
        step = abs(ys[1] - ys[0])
        for y in ys:
            place = _n(self.y(y))
            line = Markup('<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/>')
            parts.append(line.format(_LEFT, place, WIDTH - _RIGHT, place))
            text = Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>')
            parts.append(text.format(_LEFT - 6, _n(self.y(y) + 4), _label(y, share, step)))
        for x in xs:
            text = Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>')
            parts.append(text.format(_n(self.x(x)), HEIGHT - _BOTTOM + 15, _label(x, x_share, 0.01 if x_share else 1)))
        name = Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>')
        parts.append(name.format(_n((_LEFT + WIDTH - _RIGHT) / 2), HEIGHT - 5, x_title))
        side = Markup('<text class="axis" transform="translate(11 {}) rotate(-90)" text-anchor="middle">{}</text>')
        parts.append(side.format(_n((_TOP + HEIGHT - _BOTTOM) / 2), y_title))
        return Markup("").join(parts)


def _svg(title: str, told: str, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}. {}">')
    return head.format(WIDTH, HEIGHT, title, told) + Markup("").join(parts) + Markup("</svg>")


def _small(parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg class="strip" viewBox="0 0 160 16" aria-hidden="true" focusable="false">')
    return head + Markup("").join(parts) + Markup("</svg>")


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _label(value: float, share: bool, step: float) -> str:
    scale, unit = (100, "%") if share else (1, "")
    return f"{scale * value:.{_digits(scale * step)}f}{unit}"


def _digits(step: float) -> int:
    """Decimals that a step needs: 0.025 -> 3."""
    return next((d for d in range(9) if abs(round(step, d) - step) < 1e-9), 9)


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers around the values."""
    if high - low < 1e-9:
        low, high = low - max(abs(low) * 0.05, 0.005), high + max(abs(high) * 0.05, 0.005)
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _whole(low: float, high: float) -> list[float]:
    step = max(1, math.ceil((high - low) / 7))
    return [float(x) for x in range(math.ceil(low), math.floor(high) + 1, step)]
