"""The learning rate's course over a phase, as a share of the rate that the phase asks for."""

from __future__ import annotations

import math

FIRST, LAST = 1 / 25, 1 / 250_000
"""Shares that one_cycle begins and ends with."""
MOMENTA = (0.95, 0.85)
"""Of one_cycle: at the lowest rate, and at the highest."""


def share(schedule: str, step: int, steps: int, warmup: float) -> float:
    """Of the rate in a step, counted from 0, of `steps`; `warmup` is the share of them over which it rises.

    cosine: linear, then a cosine down to 0 (Loshchilov and Hutter, SGDR, 2017). one_cycle: a cosine up from FIRST and
    one down to LAST (Smith and Topin, Super-convergence, 2019, with the shape that Howard and Gugger gave it).
    """
    if schedule == "one_cycle":
        rises, done = _part(step, steps, warmup)
        return _cosine(FIRST, 1.0, done) if rises else _cosine(1.0, LAST, done)
    first = max(1, round(warmup * steps))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, steps - first)))


def momentum(schedule: str, step: int, steps: int, warmup: float) -> float | None:
    """AdamW's first beta in a step, low where the rate is high; None: as it is."""
    if schedule != "one_cycle":
        return None
    slow, fast = MOMENTA
    rises, done = _part(step, steps, warmup)
    return _cosine(slow, fast, done) if rises else _cosine(fast, slow, done)


def _part(step: int, steps: int, warmup: float) -> tuple[bool, float]:
    """Whether the rate rises in this step, and how much of the rise, or of the fall, is done."""
    first = round(warmup * steps)
    if step < first:
        return True, step / first
    return False, (step - first) / max(1, steps - 1 - first)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))
