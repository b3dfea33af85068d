"""Identity: training samples as they are.

What: nothing.
When: to see what a policy gains; with a frozen backbone whose features are computed once; when no variation keeps the
label.
Not when: few samples and many epochs; the network then learns them by heart.
Settings: none.
Cost: none.
Evidence here: tests/contracts/test_policies.py: the very pixels come back.
Source: none needed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from components import params

TASKS = ("image_classification",)


class Params(params.Params):
    """No options."""


def build(params: Params) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """A function from a prepared row, uint8 [height, width, 3], and random numbers to a new row."""
    del params

    def vary(row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        del rng
        return np.array(row)

    return vary
