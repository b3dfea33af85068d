"""What a measure sees: the test predictions of the main run as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from components.contracts import PROBABILITY

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rows:
    """N samples and T label texts; a text is a label, or stands for several or none."""

    labels: tuple[str, ...]
    """The texts."""
    label: np.ndarray
    """int [N]: index of the true label text in `labels`."""
    predicted: np.ndarray
    """int [N]."""
    confidence: np.ndarray
    """float64 [N]: probability of the predicted label."""
    held: tuple[tuple[str, ...], ...] = ()
    """The labels that each text stands for; not given, each text is one label."""

    def __len__(self) -> int:
        return len(self.label)

    def take(self, which: np.ndarray) -> Rows:
        """Some of the rows, by index or by mask."""
        return replace(
            self, label=self.label[which], predicted=self.predicted[which], confidence=self.confidence[which]
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Every label by itself, K of them."""
        return tuple(dict.fromkeys(name for own in self.held for name in own)) if self.held else self.labels

    @property
    def truth(self) -> np.ndarray:
        """Which labels each sample has, bool [N, K]."""
        return np.asarray(self._holds()[self.label])

    @property
    def guess(self) -> np.ndarray:
        """Which labels are decided for, bool [N, K]."""
        return np.asarray(self._holds()[self.predicted])

    def _holds(self) -> np.ndarray:
        index = {name: k for k, name in enumerate(self.names)}
        found = np.zeros((len(self.labels), len(index)), dtype=bool)
        for row, own in zip(found, self.held or [(name,) for name in self.labels]):
            row[[index[name] for name in own]] = True
        return found


def from_predictions(table: pd.DataFrame, decision: ModuleType) -> Rows:
    """From rows of predictions.parquet (columns label, predicted, confidence, probability.*)."""
    named = [c.removeprefix(PROBABILITY) for c in table.columns if c.startswith(PROBABILITY)]
    labels = tuple(dict.fromkeys([*named, *sorted({*table["label"], *table["predicted"]})]))
    index = {label: i for i, label in enumerate(labels)}

    def codes(values: Iterable[str]) -> np.ndarray:
        return np.array([index[v] for v in values], dtype=np.int64)

    confidence = table["confidence"].to_numpy(dtype=np.float64)
    held = tuple(decision.split(text) for text in labels)
    return Rows(labels, codes(table["label"]), codes(table["predicted"]), confidence, held)
