"""How figures are written on the page: one place, so that the same figure looks the same everywhere."""

from __future__ import annotations

import math
from typing import Any

from components.contracts import Interval

NONE = "–"
SPACE = "\u00a0"
"""Does not break, so that a number keeps its unit."""

_NAMES = {
    "ece": "calibration error (ECE)",
    "f1": "F1",
    "f1_macro": "F1, mean of labels",
    "gmacs": "GMACs",
    "knn_probe": "kNN probe",
    "logme": "LogME",
    "parameters_millions": "parameters, millions",
    "precision_macro": "precision, mean of labels",
    "recall_macro": "recall, mean of labels",
    "tokens_mean": "tokens, mean",
    "tokens_p95": "tokens, 95th percentile",
    "truncated_share": "texts cut",
    "unknown_share": "tokens unknown",
}
_SHARES = (
    "accuracy", "balanced_accuracy", "ece", "f1", "f1_macro", "precision", "precision_macro", "recall",
    "recall_macro", "selection_rate", "coverage", "truncated_share", "unknown_share",
)  # fmt: skip


def is_share(metric: str) -> bool:
    """Whether a metric is a share of 1 and is written in percent."""
    return metric in _SHARES


def percent(value: float | None, digits: int = 1) -> str:
    """0.9743 -> '97.4 %'."""
    return NONE if _absent(value) else f"{100 * float(value or 0):.{digits}f}{SPACE}%".replace("-", "−")


def points(value: float | None) -> str:
    """0.031 -> '+3.1': percentage points with their sign."""
    return NONE if _absent(value) else f"{100 * float(value or 0):+.1f}".replace("-", "−")


def plain(value: Any, digits: int = 4) -> str:
    """A number with at most so many significant digits, thousands apart; text as it is."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", SPACE).replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−") if isinstance(value, float) else str(value)


def figure(metric: str, value: float | None) -> str:
    """A value in its metric's unit."""
    if is_share(metric):
        return percent(value)
    return plain(value, 3) if value is None or abs(value) < 100 else plain(float(round(value)))


def of(metric: str, interval: Interval | None) -> str:
    """The value of an interval in its metric's unit."""
    return figure(metric, interval.value if interval else None)


def gain(interval: Interval | None) -> str:
    """A difference of two shares in points."""
    return points(interval.value if interval else None)


def gain_span(interval: Interval | None) -> str:
    """'+1.2 to +5.0': the interval of a difference in points."""
    return NONE if interval is None else f"{points(interval.low)} to {points(interval.high)}"


def span(metric: str, interval: Interval | None) -> str:
    """'96.1 to 98.4 %': the interval alone."""
    if interval is None:
        return NONE
    if is_share(metric):
        return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}{SPACE}%".replace("-", "−")
    return f"{plain(float(interval.low), 3)} to {plain(float(interval.high), 3)}"


def level(interval: Interval | None) -> str:
    """'95 %'."""
    return f"{100 * (interval.level if interval else 0.95):.4g}{SPACE}%"


def name(metric: str) -> str:
    """A metric's or score's name for people."""
    return _NAMES.get(metric, metric.replace("_", " "))


def count(number: float, noun: str, plural: str = "") -> str:
    """'1 rule', '2 rules'."""
    return f"{plain(int(number))} {noun if number == 1 else plural or noun + 's'}"


def short(digest: str) -> str:
    """The first twelve digits of a hash."""
    return digest[:12]


def spec(choice: Any) -> str:
    """A plugin's choice in one line, as in params.yaml: 'lp_ft (probe_epochs 20, epochs 6)'."""
    if not isinstance(choice, dict):
        return plain(choice)
    options = ", ".join(f"{k} {_option(v)}" for k, v in choice.items() if k != "name" and v is not None)
    title = str(choice.get("name", ""))
    return f"{title} ({options})" if title and options else title or options


def _option(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_option(v) for v in value) + "]"
    return f"({spec(value)})" if isinstance(value, dict) else plain(value)


def _absent(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
