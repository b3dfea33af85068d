"""What a measure sees: the test predictions of the main run as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from components.contracts import PROBABILITY

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rows:
    """N samples and K labels."""

    labels: tuple[str, ...]
    label: np.ndarray
    """int [N]: index of the true label in `labels`."""
    predicted: np.ndarray
    """int [N]."""
    confidence: np.ndarray
    """float64 [N]: probability of the predicted label."""

    def __len__(self) -> int:
        return len(self.label)

    def take(self, which: np.ndarray) -> Rows:
        """Some of the rows, by index or by mask."""
        return Rows(self.labels, self.label[which], self.predicted[which], self.confidence[which])


def from_predictions(table: pd.DataFrame) -> Rows:
    """From rows of predictions.parquet (columns label, predicted, confidence, probability.*)."""
    named = [c.removeprefix(PROBABILITY) for c in table.columns if c.startswith(PROBABILITY)]
    labels = tuple(dict.fromkeys([*named, *sorted({*table["label"], *table["predicted"]})]))
    index = {label: i for i, label in enumerate(labels)}

    def codes(values: Iterable[str]) -> np.ndarray:
        return np.array([index[v] for v in values], dtype=np.int64)

    confidence = table["confidence"].to_numpy(dtype=np.float64)
    return Rows(labels, codes(table["label"]), codes(table["predicted"]), confidence)
