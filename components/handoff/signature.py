"""What goes into the model and what comes out, for whoever calls it without our code."""

from __future__ import annotations

from typing import Any

import numpy as np

from components.preprocessing import image_classification as pixels
from components.preprocessing.image_classification import Preprocessing

OUTPUTS = {
    "label": "index of the most probable label in labels.json",
    "probabilities": "calibrated probability of each label, in the order of labels.json; they sum to 1",
    "embedding": "features before the last layer; for similarity and drift, without a unit",
}


def describe(
    export: dict[str, Any],
    spec: dict[str, Any],
    labels: tuple[str, ...],
    example: dict[str, Any],
    content: bytes,
) -> dict[str, Any]:
    """Inputs and outputs by name, shape, dtype, meaning and range, with one example in and out."""
    how = Preprocessing.read(spec)
    low = min((0 - m) / s for m, s in zip(how.mean, how.std))
    high = max((1 - m) / s for m, s in zip(how.mean, how.std))
    ranges = {"label": [0, len(labels) - 1], "probabilities": [0.0, 1.0], "embedding": None}
    meaning = (
        f"RGB image of {how.width}x{how.height} px, channels first (batch, channel, row, column); each value "
        "is (v / 255 - mean) / std of its channel, with v in 0..255"
    )
    inputs = [
        {
            **one,
            "meaning": meaning,
            "mean": how.mean,
            "std": how.std,
            "range": [round(low, 6), round(high, 6)],
        }
        for one in export["inputs"]
    ]
    outputs = [{**one, "meaning": OUTPUTS[one["name"]], "range": ranges[one["name"]]} for one in export["outputs"]]
    tensor = pixels.normalise(pixels.load(content, how)[None], how)[0]
    middle = tensor[:, how.height // 2, how.width // 2]
    return {
        "inputs": inputs,
        "outputs": outputs,
        "free_dimension": "batch: any number from 1 on",
        "example": {
            "in": {
                "file": f"example/{example['file']}",
                "shape": list(tensor.shape),
                "mean_by_channel": _rounded(tensor.mean(axis=(1, 2), dtype=np.float64)),
                "first_pixel": _rounded(tensor[:, 0, 0]),
                "middle_pixel": _rounded(middle),
            },
            "out": {
                "label": labels.index(example["predicted"]),
                "probabilities": [example["probabilities"][label] for label in labels],
            },
        },
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(v), 5) for v in values]
