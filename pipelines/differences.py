"""The difference of one figure on two sides, with an interval, and which side is better; loads nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LOWER_IS_BETTER = ("log_loss", "ece", "share_of_columns", "embeddings_drifted", "size_mb", "flips")


def difference(metric: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """b minus a with an interval from those of both (MOVER: Zou and Donner, Statistics in Medicine 27, 2008).

    It takes the two as independent. On the same test samples it is too wide, so evidence it finds is evidence.
    """
    told = {"metric": metric, "a": _told(a), "b": _told(b), "difference": None, "low": None, "high": None}
    values = [one.get(key) for one in (a, b) for key in ("value", "low", "high")]
    if a.get("value") is None or b.get("value") is None:
        return {**told, "verdict": "not measured on both sides"}
    told["difference"] = gap = b["value"] - a["value"]
    if any(value is None for value in values):
        return {**told, "verdict": "equal" if gap == 0 else "no interval"}
    low = gap - math.hypot(b["value"] - b["low"], a["high"] - a["value"])
    high = gap + math.hypot(b["high"] - b["value"], a["value"] - a["low"])
    worse, better = ("better", "worse") if lower_is_better(metric) else ("worse", "better")
    verdict = better if low > 0 else worse if high < 0 else "equal" if gap == 0 else "no evidence"
    return {**told, "low": low, "high": high, "verdict": verdict}


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of a metric is the better one."""
    name = metric.rpartition(".")[2]
    return name in LOWER_IS_BETTER or name.endswith("_gap")


def _told(one: Mapping[str, Any]) -> dict[str, Any]:
    return {key: one.get(key) for key in ("value", "low", "high")}
