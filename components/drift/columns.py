"""What a column detector sees, and how its p-values become a verdict for each column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Literal

import numpy as np

from components import holm

MIN_SAMPLES = 10
"""With fewer values on either side a column is shown and not judged."""
_FLOOR = 1e-300

Report = Callable[[str], Path]
"""Name -> where a detector may write what people look at (job.report)."""


@dataclass(frozen=True)
class Column:
    """One quantity on both sides, missing values taken out."""

    name: str
    kind: Literal["numeric", "categorical"]
    reference: np.ndarray
    """float64 or text, [N]."""
    current: np.ndarray
    """[M]."""
    reference_name: str
    """Which samples the reference is: "train", "validation"."""


@dataclass(frozen=True)
class Judged:
    """A column's row in drift.json."""

    column: str
    detector: str
    reference: str
    num_reference: int
    num_current: int
    p_value: float | None = None
    """The detector's own; None where the column was not compared."""
    score: float | None = None
    """The p-value after Holm's adjustment over all columns compared."""
    threshold: float | None = None
    direction: str = ""
    """below: drifted where score is at most the threshold."""
    drifted: bool = False
    share_of_threshold: float = 0.0
    """log(score) / log(threshold): 0 at p = 1, from 1 on it is drift; shown up to 10."""
    note: str = ""


def column(
    name: str, kind: Literal["numeric", "categorical"], reference: np.ndarray, current: np.ndarray, side: str
) -> Column:
    """A column without its missing values (NaN, infinite, None)."""

    def known(values: np.ndarray) -> np.ndarray:
        if kind == "numeric":
            values = np.asarray(values, dtype=np.float64)
            return values[np.isfinite(values)]
        return np.array([str(v) for v in values if v is not None and v == v], dtype=object)

    return Column(name, kind, known(reference), known(current), side)


def why_not(one: Column) -> str:
    """Why a column cannot be compared; "" if it can."""
    least = min(len(one.reference), len(one.current))
    if least < MIN_SAMPLES:
        return f"not compared: {least} values on one side, {MIN_SAMPLES} are needed"
    values = {*one.reference.tolist(), *one.current.tolist()}
    return f"no drift: {next(iter(values))} on both sides" if len(values) == 1 else ""


def judge(columns: list[Column], p_values: dict[str, float], detector: str, alpha: float) -> list[Judged]:
    """A verdict a column. `p_values` has those that were compared."""
    names = [one.name for one in columns if one.name in p_values]
    adjusted = dict(zip(names, holm.adjust([p_values[n] for n in names])))
    judged = []
    for one in columns:
        sides = (one.name, detector, one.reference_name, len(one.reference), len(one.current))
        if one.name not in adjusted:
            judged.append(Judged(*sides, note=why_not(one)))
            continue
        score = adjusted[one.name]
        share = log(max(score, _FLOOR)) / log(alpha)
        judged.append(
            Judged(
                *sides,
                p_value=_rounded(p_values[one.name]),
                score=_rounded(score),
                threshold=alpha,
                direction="below",
                drifted=score <= alpha,
                share_of_threshold=round(min(share, 10.0) + 0.0, 6),
            )
        )
    return judged


def _rounded(value: float) -> float:
    """Ten digits: more than anyone reads, fewer than libraries disagree in."""
    return float(f"{value:.10g}")
