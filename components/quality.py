"""How good predictions are: metrics with confidence intervals, and calibration. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from components.contracts import PROBABILITY, Interval

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Scored:
    """Predictions of N samples over K labels."""

    truth: np.ndarray
    """bool [N, K]: the labels that each sample has."""
    guess: np.ndarray
    """bool [N, K]: those that were decided for."""
    shares: np.ndarray
    """float64 [N, K]: probabilities."""
    confidence: np.ndarray
    """float64 [N]: of the decision."""
    log_losses: np.ndarray
    """float64 [N]."""

    @classmethod
    def of(cls, table: pd.DataFrame, labels: tuple[str, ...], decision: ModuleType) -> Scored:
        """From rows of predictions.parquet."""
        shares = table[[PROBABILITY + label for label in labels]].to_numpy(np.float64)
        truth, guess = (decision.indicators(table[c], labels) for c in ("label", "predicted"))
        return cls.made(truth, guess, shares, decision)

    @classmethod
    def made(cls, truth: np.ndarray, guess: np.ndarray, shares: np.ndarray, decision: ModuleType) -> Scored:
        """From which labels each sample has, which were decided for, and the probabilities."""
        return cls(truth, guess, shares, decision.confidence(shares), decision.log_losses(shares, truth))

    def take(self, rows: np.ndarray) -> Scored:
        """The same for some rows."""
        return Scored(*(getattr(self, f.name)[rows] for f in fields(self)))

    @property
    def right(self) -> np.ndarray:
        """bool [N]: the decision is exactly the truth."""
        return np.asarray((self.truth == self.guess).all(axis=1))

    def __len__(self) -> int:
        return len(self.truth)


def fit_temperature(logits: np.ndarray, truth: np.ndarray, decision: ModuleType) -> float:
    """The temperature in [0.05, 20] that minimises the log loss (Guo et al., On calibration of modern neural
    networks, ICML 2017, section 4.2), by golden-section search over its logarithm, to 4 digits."""

    def log_loss(log_temperature: float) -> float:
        return float(decision.log_losses(decision.probabilities(logits, float(np.exp(log_temperature))), truth).mean())

    low, high = np.log(0.05), np.log(20.0)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if log_loss(left) <= log_loss(right) else (left, high)
    return float(f"{np.exp((low + high) / 2):.4g}")


def measure(
    scored: Scored, num_bins: int, resamples: int, level: float, rng: np.random.Generator
) -> dict[str, Interval]:
    """Every metric with its interval: Wilson's for accuracy (it does not collapse at 100 %), the percentile
    bootstrap for the others (Efron and Tibshirani, 1993, chapter 13)."""
    point = _values(scored, num_bins)
    n = len(scored)
    draws: dict[str, list[float]] = {name: [] for name in point}
    for _ in range(resamples):
        for name, value in _values(scored.take(rng.integers(0, n, n)), num_bins).items():
            draws[name].append(value)
    tail = (1 - level) / 2
    found = {}
    for name, value in point.items():
        low, high = np.quantile(draws[name], [tail, 1 - tail])
        found[name] = Interval(value, float(low), float(high), level)
    found["accuracy"] = wilson(int(scored.right.sum()), n, level)
    return found


def flat(figures: dict[str, Interval]) -> dict[str, float]:
    """As rules of the gate name them: each metric's value, and the limits of accuracy."""
    values = {name: interval.value for name, interval in figures.items()}
    return {**values, "accuracy_low": figures["accuracy"].low, "accuracy_high": figures["accuracy"].high}


def wilson(right: int, n: int, level: float) -> Interval:
    """Score interval of a proportion (Wilson, 1927)."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + level) / 2)
    p = right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, max(0.0, float(centre - half)), min(1.0, float(centre + half)), level)


def _values(scored: Scored, num_bins: int) -> dict[str, float]:
    precision, recall, f1, present = by_label(scored.truth, scored.guess)
    return {
        "accuracy": float(scored.right.mean()),
        "balanced_accuracy": float(recall[present].mean()),
        "precision_macro": float(precision[present].mean()),
        "recall_macro": float(recall[present].mean()),
        "f1_macro": float(f1[present].mean()),
        "log_loss": float(scored.log_losses.mean()),
        "ece": expected_calibration_error(scored, num_bins),
    }


def by_label(truth: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall, F1 a label (0 where undefined), and which labels occur in the truth; both are bool [N, K]."""
    k = truth.shape[1]
    hits = (truth & guess).sum(axis=0).astype(float)
    truths, guesses = truth.sum(axis=0), guess.sum(axis=0)
    precision = np.divide(hits, guesses, out=np.zeros(k), where=guesses > 0)
    recall = np.divide(hits, truths, out=np.zeros(k), where=truths > 0)
    f1 = np.divide(2 * hits, truths + guesses, out=np.zeros(k), where=truths + guesses > 0)
    return precision, recall, f1, truths > 0


def per_label(scored: Scored, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row a label: samples that have it, for which it was decided, and both. A label without test samples has null
    figures, not zeros."""
    precision, recall, f1, present = by_label(scored.truth, scored.guess)
    counts, guesses = scored.truth.sum(axis=0), scored.guess.sum(axis=0)
    hits = (scored.truth & scored.guess).sum(axis=0)
    rows = []
    for i, label in enumerate(labels):
        figures = {"precision": precision[i], "recall": recall[i], "f1": f1[i]}
        known = {k: v if present[i] else None for k, v in figures.items()}
        numbers = {"num": int(counts[i]), "num_decided": int(guesses[i]), "num_right": int(hits[i])}
        rows.append({"label": label, **numbers, **known})
    return rows


def expected_calibration_error(scored: Scored, num_bins: int) -> float:
    """Mean |confidence - accuracy| over equal-width bins, weighted by their samples (Guo et al., 2017, eq. 5)."""
    confidence, right = scored.confidence, scored.right
    which = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gaps = np.abs(np.bincount(which, confidence, num_bins) - np.bincount(which, right, num_bins))
    return float(gaps.sum() / len(right))


def reliability(scored: Scored, num_bins: int) -> list[dict[str, float]]:
    """Mean confidence and accuracy of each bin that has samples."""
    confidence, right = scored.confidence, scored.right
    which = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    return [
        {
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(right[inside].mean()),
            "num": int(inside.sum()),
        }
        for b in range(num_bins)
        if (inside := which == b).any()
    ]
