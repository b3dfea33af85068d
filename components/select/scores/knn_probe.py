"""k-NN probe: share of samples whose nearest neighbours in feature space bear their label.

What: leave-one-out accuracy of k nearest neighbours by cosine similarity; neighbours as near as the k-th
count too, and the nearer side wins a tied vote.
When: always a good first look: nothing is fitted, so nothing can overfit, and it needs few samples a label.
Not when: a label's samples lie in many small islands and there are fewer than k of each; lower k then.
Settings: k.
Cost: N^2 D; 1,000 samples of 1,280 features in well under a second.
Evidence here: golden number in tests/contracts/test_scores.py. A study of 23 scores on 16 data sets found no
score that works everywhere, and plain k-NN on frozen features ahead of all of them.
Source: Cover and Hart, Nearest neighbor pattern classification, 1967; the study is arXiv 2503.18528 (TMLR).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from components import params

BLOCK = 1024
DECIMALS = 10
"""Similarities are compared to so many decimals: the last bits depend on the order of the rows."""


class Params(params.Params):
    """Options."""

    k: int = Field(default=5, ge=1, le=1000)
    """Neighbours that vote."""


def score(features: np.ndarray, labels: np.ndarray, params: Params, seed: int) -> float:
    """Share of correct answers. features float64 [N, D], labels int [N]."""
    return float(correct(features, labels, params, seed).mean())


def correct(features: np.ndarray, labels: np.ndarray, params: Params, seed: int) -> np.ndarray:
    """Is each sample's label the one that its neighbours vote for? bool [N]."""
    del seed
    n = len(features)
    k = min(params.k, n - 1)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(length > 0, length, 1.0)
    known, index = np.unique(labels, return_inverse=True)
    member = (index[:, None] == np.arange(len(known))[None, :]).astype(np.float64)
    answers = np.empty(n, dtype=np.int64)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        similar = np.round(unit[start:stop] @ unit.T, DECIMALS)
        similar[np.arange(stop - start), np.arange(start, stop)] = -np.inf  # a sample does not vote for itself
        threshold = np.partition(similar, n - k, axis=1)[:, n - k, None]
        near = similar >= threshold
        votes = near.astype(np.float64) @ member
        nearness = np.where(near, similar, 0.0) @ member
        answers[start:stop] = (votes + nearness / (2 * n + 2)).argmax(axis=1)  # nearness only settles ties
    return answers == index
