"""LogME: how well a Bayesian linear model explains the labels, from the features alone.

What: each label's one-hot target y is modelled as N(0, I/beta + F F'/alpha), a linear model with Gaussian
weights. The score is the log evidence per sample at the best alpha and beta, averaged over the labels. Exact
for N < D too.
When: many candidates, no time for training.
Not when: it would decide alone. Over unlike candidates published accuracy is the better guide (see Evidence).
Settings: none.
Cost: one eigendecomposition of the smaller Gram matrix, min(N, D)^2 max(N, D).
Evidence here: equals the dense log density within 1e-6 for N<D, N=D, N>D and rank-deficient features (`pytest
tests/contracts/test_scores.py`, November 2026). The widely used reference code leaves out D - k terms of the
determinant when N < D: +88.85 where the evidence is -0.152 (N=100, D=2048). On 11 networks and 11 data sets
LogME ranks with weighted tau 0.51, ImageNet accuracy alone with 0.65: read it beside the prior.
Source: You et al., LogME, ICML 2021, section 4. The maximum is sought over t = alpha/beta; beta follows from
t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from components import params

FLOOR, CEILING = 1e-8, 1e10
"""t = alpha/beta is sought between these multiples of the largest eigenvalue. Below the floor rounding rules:
labels explained to the last bit have evidence without bound. At the ceiling the weights are 0."""


class Params(params.Params):
    """No options."""


@dataclass(frozen=True)
class Evidence:
    """One entry a label."""

    per_sample: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray


def score(features: np.ndarray, labels: np.ndarray, params: Params, seed: int) -> float:
    """Mean log evidence per sample, nats. features float64 [N, D], labels int [N]."""
    del params, seed
    targets = (labels[:, None] == np.unique(labels)[None, :]).astype(np.float64)
    return float(evidence(features, targets).per_sample.mean())


def evidence(features: np.ndarray, targets: np.ndarray) -> Evidence:
    """Largest log density of each column of targets [N, C] under N(0, I/beta + F F'/alpha), over N."""
    n = len(features)
    spectrum, energy, rest = _spectrum(features, targets)
    top = float(spectrum.max(initial=0.0)) or 1.0

    def noise(log_t: np.ndarray) -> np.ndarray:
        """y' (I + F F'/t)^-1 y of each label at its own t; given t, the best beta is n over it."""
        t = np.exp(log_t)[:, None]
        return ((t / (t + spectrum)) * energy.T).sum(axis=1) + rest

    def profile(log_t: np.ndarray) -> np.ndarray:
        return _per_sample(noise(log_t), np.log1p(spectrum / np.exp(log_t)[:, None]).sum(axis=1), n)

    grid = np.linspace(np.log(FLOOR * top), np.log(CEILING * top), 121)
    t = np.exp(grid)[:, None]
    determinants = np.log1p(spectrum / t).sum(axis=1, keepdims=True)
    on_grid = _per_sample((t / (t + spectrum)) @ energy + rest, determinants, n)  # [grid, C]
    best = on_grid.argmax(axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, len(grid) - 1)]
    log_t = _golden_section(profile, low, high)
    beta = n / noise(log_t)
    return Evidence(profile(log_t), np.exp(log_t) * beta, beta)


def _spectrum(features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues of F F' that matter [k], targets' energy along each [k, C] and beside all of them [C]."""
    n, d = features.shape
    if n <= d:
        values, vectors = np.linalg.eigh(features @ features.T)
        return np.maximum(values, 0.0), (vectors.T @ targets) ** 2, np.zeros(targets.shape[1])
    values, vectors = np.linalg.eigh(features.T @ features)
    keep = values > max(values[-1], 0.0) * n * np.finfo(np.float64).eps  # below lies rounding, not signal
    values = values[keep]
    energy = (vectors[:, keep].T @ (features.T @ targets)) ** 2 / values[:, None]
    return values, energy, np.maximum((targets**2).sum(axis=0) - energy.sum(axis=0), 0.0)


def _per_sample(noise: np.ndarray, log_determinant: np.ndarray, n: int) -> np.ndarray:
    """Log evidence over n, from y' (I + F F'/t)^-1 y and log |I + F F'/t|, at beta = n / noise."""
    return -0.5 * (np.log(2 * np.pi * noise / n) + 1 + log_determinant / n)


def _golden_section(
    function: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray, steps: int = 40
) -> np.ndarray:
    """Where function, one value an entry, is largest between low and high; all entries together."""
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(steps):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        rises = function(right) > function(left)
        low, high = np.where(rises, left, low), np.where(rises, high, right)
    return (low + high) / 2
