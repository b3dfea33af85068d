"""What goes into the model and what comes out, for whoever calls it without our code."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def describe(
    export: dict[str, Any], spec: dict[str, Any], num_labels: int, sight: ModuleType, decision: ModuleType
) -> dict[str, Any]:
    """Inputs and outputs by name, shape, dtype, meaning and range, and what of the preprocessing is inside the model.
    `sight` is a module of components/preprocessing, `decision` one of components/decisions."""
    told = sight.describe(spec)
    outputs = {
        decision.OUTPUT: (decision.MEANING, [0, 1 if several(export) else num_labels - 1]),
        "probabilities": (decision.WORDS["probabilities"], [0.0, 1.0]),
        "embedding": ("features before the last layer; for similarity and drift, without a unit", None),
    }
    return {
        "inputs": [{**one, **told["inputs"][one["name"]]} for one in export["inputs"]],
        "outputs": [{**one, **dict(zip(("meaning", "range"), outputs[one["name"]]))} for one in export["outputs"]],
        "free_dimensions": {"batch": "any number from 1 on", **told["free"]},
        "preprocessing": export["inside"],
    }


def several(export: dict[str, Any]) -> bool:
    """Whether the model decides about each label, not for one of them."""
    return len(export["outputs"][0]["shape"]) > 1


def example(told: dict[str, Any], summary: dict[str, Any], export: dict[str, Any]) -> dict[str, Any]:
    """One golden example (an entry of expected.json), its inputs in short, and what comes out."""
    decided, names = told["predicted"], list(told["probabilities"])
    index = [int(name in decided) for name in names] if several(export) else names.index(decided)
    return {
        "in": {"file": f"example/{told['file']}", **summary},
        "out": {export["outputs"][0]["name"]: index, "probabilities": list(told["probabilities"].values())},
    }
