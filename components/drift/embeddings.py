"""What an embedding detector gives, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.contracts import InputError

MIN_SAMPLES = 10


class TooFew(Exception):
    """Too few samples to compare: not measured, which a gate rule counts as failed."""


@dataclass(frozen=True)
class Shift:
    """How far two samples lie apart."""

    score: float
    """In the detector's unit; larger is further."""
    p_value: float
    """How often two samples of one distribution are at least so far apart."""
    num_reference: int
    num_current: int
    """Samples compared, after subsampling."""


def checked(
    reference: np.ndarray, current: np.ndarray, max_samples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 [N, D], at most `max_samples` of each, drawn without replacement.

    Raises:
        InputError: other shapes, or values that are not finite.
        TooFew: fewer than MIN_SAMPLES on one side.
    """
    if reference.ndim != 2 or current.ndim != 2 or reference.shape[1] != current.shape[1]:
        raise InputError(f"embeddings of shapes {reference.shape} and {current.shape} cannot be compared")
    if min(len(reference), len(current)) < MIN_SAMPLES:
        raise TooFew(f"{len(reference)} against {len(current)} samples; {MIN_SAMPLES} are needed on each side")
    if not (np.isfinite(reference).all() and np.isfinite(current).all()):
        raise InputError("embeddings hold values that are not finite, so the network is broken: see finetune's history")

    def some(values: np.ndarray) -> np.ndarray:
        if len(values) > max_samples:
            values = values[np.sort(rng.permutation(len(values))[:max_samples])]
        return values.astype(np.float64)

    return some(reference), some(current)
