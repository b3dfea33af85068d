"""Multi-label: each sample has any number of the labels, or none of them.

What: a label text is a set, written `sport;politics` (semicolons, any order) or `(none)`; one sigmoid and one binary
cross-entropy a label; every label whose probability is at least 1/2 is decided for.
When: labels do not exclude each other: topics of an article, faults of a part.
Not when: exactly one label is right (`single_label` is then better calibrated), or a label is so rare that no
probability reaches 1/2.
Settings: none; the threshold is 1/2 for every label.
Cost: none to speak of.
Evidence here: tests/contracts/test_decisions.py; the whole line in tests/e2e/test_text_line.py.
Source: Read, Pfahringer, Holmes and Frank, Classifier chains for multi-label classification, 2009, section 2 (binary
relevance, exact match, label powerset).

Accuracy is that of the whole set (exact match); precision, recall and F1 are of each label over all samples. The
confidence of a decision is the product of its labels' probabilities, as if they were independent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from components import params

if TYPE_CHECKING:
    import torch

OUTPUT = "labels"
"""Name of the deployed network's decision: 1 for each label that is decided for, int64 [N, K]."""
MEANING = "1 for each label of labels.json whose probability is at least 1/2, else 0"
WORDS = {
    "answer": "any of {num} labels",
    "probabilities": "calibrated probability of each label, in the order of labels.json; each stands for itself",
    "formula": "sigmoid(logits / {temperature})",
    "limit": "It knows its {num} labels alone, and tells none where none is probable, whatever the {noun} is.",
}
"""What the bundle's card and signature say."""
NONE = "(none)"
"""The text of a sample that has no label at all; an empty text means that nobody labelled it."""
_FLOOR = 1e-12  # log loss of a probability that underflowed to 0


class Params(params.Params):
    """No options."""


def split(value: str) -> tuple[str, ...]:
    """The labels that a sample's label text stands for, sorted, each once."""
    return tuple(sorted({part.strip() for part in value.split(";")} - {"", NONE}))


def joined(names: Iterable[str]) -> str:
    """The inverse of `split`."""
    return ";".join(sorted(names)) or NONE


def canonical(value: str) -> str:
    """The one way to write a sample's label text: sorted, each once."""
    return joined(split(value))


def labels(values: Iterable[str]) -> tuple[str, ...]:
    """Every label, in the order of the logits."""
    return tuple(sorted({label for value in values for label in split(value)}))


def indicators(values: Iterable[str], labels: tuple[str, ...]) -> np.ndarray:
    """Which labels each sample has, bool [N, K]."""
    index = {label: i for i, label in enumerate(labels)}
    rows = [[index[label] for label in split(value)] for value in values]
    found = np.zeros((len(rows), len(labels)), dtype=bool)
    for row, own in zip(found, rows):
        row[own] = True
    return found


def targets(values: Iterable[str], labels: tuple[str, ...]) -> np.ndarray:
    """What the loss is given: 1 for each label that a sample has, float32 [N, K]."""
    return indicators(values, labels).astype(np.float32)


def classes(values: Iterable[str]) -> np.ndarray:
    """One class a sample, for scores that know no other: each set of labels is one (label powerset), int64 [N]."""
    sets = [canonical(value) for value in values]
    index = {one: i for i, one in enumerate(sorted(set(sets)))}
    return np.array([index[one] for one in sets], dtype=np.int64)


def loss(logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Binary cross-entropy of logits [N, K] against 0 or 1 [N, K], its mean over samples and labels."""
    import torch.nn.functional as F

    smooth = targets * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, smooth)


def correct(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Whether each sample's whole set is decided rightly, bool [N]."""
    return ((logits >= 0) == (targets > 0.5)).all(dim=1)


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """The logistic function of logits / temperature, float64 [N, K]."""
    scaled = logits.astype(np.float64) / temperature
    return np.asarray(0.5 * (1 + np.tanh(scaled / 2)))  # does not overflow


def predicted(probabilities: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
    """The sets decided for, as text, object [N]."""
    found = np.empty(len(probabilities), dtype=object)
    found[:] = [joined(np.array(labels, dtype=object)[row]) for row in probabilities >= 0.5]
    return found


def confidence(probabilities: np.ndarray) -> np.ndarray:
    """Probability that the whole set is right if labels are independent, float64 [N]."""
    return np.asarray(np.maximum(probabilities, 1 - probabilities).prod(axis=1))


def log_losses(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Binary cross-entropy, mean over the labels, float64 [N]; `truth` is bool [N, K]."""
    return -np.log(np.maximum(np.where(truth, probabilities, 1 - probabilities), _FLOOR)).mean(axis=1)


def deployed(logits: torch.Tensor, temperature: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Decision and probabilities as the exported graph gives them."""
    import torch

    return (logits >= 0).to(torch.int64), torch.sigmoid(logits / temperature)
