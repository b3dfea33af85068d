"""The head on features of a scale of 1 while it trains: a learning rate fits one scale only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from components.model import Head


@contextmanager
def on_scale(head: Head, features: np.ndarray, *, each: bool) -> Iterator[None]:
    """Within it the head works on features [N, D] of a scale of 1; on leaving, that is folded into its weights.

    `each` feature is standardised by its own mean and deviation, which frozen features allow. Else all are divided
    by one number, so that a feature which hardly varied before the network was trained cannot grow out of all
    proportion.
    """
    rows = np.asarray(features, dtype=np.float64)
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    if each:
        scale = np.where(scale > 1e-6 * max(float(scale.max()), 1e-12), scale, 1.0)
    else:
        mean, scale = np.zeros_like(mean), np.full_like(scale, float(np.sqrt((scale**2).mean())) or 1.0)
    with standardised(head, torch.from_numpy(mean), torch.from_numpy(scale)):
        yield


@contextmanager
def standardised(head: Head, mean: torch.Tensor, scale: torch.Tensor) -> Iterator[None]:
    """The same by a mean and a scale [D] that are known."""
    head.standardise(mean, scale)
    yield
    head.fold()
