"""Identity: training samples as they are.

What: nothing.
When: to see what a policy gains; with a frozen backbone whose features are computed once; when no variation keeps the
label.
Not when: few samples and many epochs; the network then learns them by heart.
Settings: none.
Cost: none.
Evidence here: tests/contracts/test_policies.py: the very pixels and texts come back.
Source: none needed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from components import params

Row = TypeVar("Row")

TASKS = ("image_classification", "text_classification")


class Params(params.Params):
    """No options."""


def build(
    params: Params, *, cache: Path | None = None, device: str = "cpu"
) -> Callable[[Row, np.random.Generator], Row]:
    """A function from a prepared row of any task and random numbers to a copy of it."""
    del params, cache, device

    def vary(row: Row, rng: np.random.Generator) -> Row:
        del rng
        return copy.copy(row)

    return vary
