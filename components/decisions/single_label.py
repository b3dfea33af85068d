"""Single label: each sample has exactly one of the labels.

What: class indices, cross-entropy, softmax; the most probable label is decided for.
When: labels exclude each other: spam or ham, ten digits.
Not when: a sample may have several labels, or none.
Settings: none.
Cost: none to speak of.
Evidence here: tests/contracts/test_decisions.py; every run of the digits.
Source: Bridle, Probabilistic interpretation of feedforward classification network outputs, 1990 (softmax and
cross-entropy).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from components import params

if TYPE_CHECKING:
    import torch

OUTPUT = "label"
"""Name of the deployed network's decision: index of the label, int64 [N]."""
MEANING = "index of the most probable label in labels.json"
WORDS = {
    "answer": "one of {num} labels",
    "probabilities": "calibrated probability of each label, in the order of labels.json; they sum to 1",
    "formula": "softmax(logits / {temperature})",
    "limit": "It always answers with one of its {num} labels, whatever the {noun} is.",
}
"""What the bundle's card and signature say."""
_FLOOR = 1e-12  # log loss of a probability that underflowed to 0


class Params(params.Params):
    """No options."""


def split(value: str) -> tuple[str, ...]:
    """The labels that a sample's label text stands for."""
    return (value,)


def canonical(value: str) -> str:
    """The one way to write a sample's label text."""
    return value


def labels(values: Iterable[str]) -> tuple[str, ...]:
    """Every label, in the order of the logits."""
    return tuple(sorted(set(values)))


def targets(values: Iterable[str], labels: tuple[str, ...]) -> np.ndarray:
    """What the loss is given: class indices, int64 [N]."""
    index = {label: i for i, label in enumerate(labels)}
    return np.array([index[value] for value in values], dtype=np.int64)


def indicators(values: Iterable[str], labels: tuple[str, ...]) -> np.ndarray:
    """Which labels each sample has, bool [N, K]."""
    return np.asarray(targets(values, labels)[:, None] == np.arange(len(labels)))


def classes(values: Iterable[str]) -> np.ndarray:
    """One class a sample, for scores that know no other: int64 [N]."""
    return targets(values := list(values), labels(values))


def loss(logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy of logits [N, K] against class indices [N]."""
    import torch.nn.functional as F

    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def correct(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Whether each sample is decided rightly, bool [N]."""
    return logits.argmax(1) == targets


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / temperature), float64 [N, K]."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def predicted(probabilities: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
    """The label decided for, as text, object [N]."""
    return np.array(labels, dtype=object)[probabilities.argmax(axis=1)]


def confidence(probabilities: np.ndarray) -> np.ndarray:
    """Probability that the decision is right, float64 [N]."""
    return np.asarray(probabilities.max(axis=1))


def log_losses(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Minus the log of what each sample's own label was given; `truth` is bool [N, K]."""
    return -np.log(np.maximum(probabilities[truth], _FLOOR))


def deployed(logits: torch.Tensor, temperature: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Decision and probabilities as the exported graph gives them."""
    import torch

    return logits.argmax(dim=1), torch.softmax(logits / temperature, dim=1)
