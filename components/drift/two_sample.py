"""Chi-square for two samples of a category, for detectors to share."""

from __future__ import annotations

import numpy as np

MIN_EXPECTED = 5.0


def chi_square(reference: np.ndarray, current: np.ndarray) -> float:
    """p-value of homogeneity of the 2 x K table of counts.

    Categories are put together, rarest first, until each expects at least 5 in both rows (Cochran 1954); with
    one left there is nothing to compare and p is 1. Both samples are taken as random: a test that holds the
    reference for the truth alarms far too often when it is as small as the current sample.
    """
    from scipy.stats import chi2

    values = np.concatenate([reference, current]).astype(str)
    _, codes = np.unique(values, return_inverse=True)
    counts = np.stack([np.bincount(part, minlength=codes.max() + 1) for part in np.split(codes, [len(reference)])])
    counts = _pooled(counts.astype(np.float64))
    if counts.shape[1] < 2:
        return 1.0
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), counts.shape[1] - 1))


def _pooled(counts: np.ndarray) -> np.ndarray:
    counts = counts[:, np.argsort(counts.sum(axis=0), kind="stable")]
    least = MIN_EXPECTED * counts.sum() / counts.sum(axis=1).min()  # what a category needs in all
    while counts.shape[1] > 1 and counts[:, 0].sum() < least:
        counts = np.concatenate([counts[:, :2].sum(axis=1, keepdims=True), counts[:, 2:]], axis=1)
        counts = counts[:, np.argsort(counts.sum(axis=0), kind="stable")]
    return counts
