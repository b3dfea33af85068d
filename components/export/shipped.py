"""What the file that ships is worth by itself: its quality on the test split, and the gate's rules judged on it.

`evaluate` measured the trained network; a variant with fewer bits is another model. The same code and settings are used
on what the file answers, float32's too. What rests on more than these answers (the gain over other runs, groups, drift)
was measured of the trained network alone, and stays so.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from components import contracts, quality
from components.contracts import Interval, Rule, Verdict
from components.export.ladder import guessed
from components.export.network import SCALED
from components.samples import keyed_rng

STAGE = "evaluate."
"""Metrics of this stage are those that the file's own answers can tell."""


def measure(
    outputs: Mapping[str, np.ndarray], truth: np.ndarray, decision: ModuleType, settings: Mapping[str, Any], seed: int
) -> dict[str, Interval]:
    """The metrics of `evaluate` from a model's answers on the test split, with the resamples that it drew."""
    shares = outputs["probabilities"].astype(np.float64)
    scored = quality.Scored.made(truth, guessed(outputs[decision.OUTPUT], truth.shape[1]), shares, decision)
    rng = keyed_rng(seed, 0, "bootstrap test")
    return quality.measure(scored, settings["num_bins"], settings["num_bootstrap"], settings["level"], rng)


def judged_again(gate: Verdict, measures: dict[str, Interval], num: int, variant: str) -> tuple[list[Rule], list[str]]:
    """The gate's rules that these measures answer, judged on them; and the names of the others."""
    figures = {**quality.flat(measures), "num_test": float(num)}
    judged, others = [], []
    for rule in gate.rules:
        name = rule.metric.removeprefix(STAGE)
        if not rule.metric.startswith(STAGE) or name not in figures or rule.limit is None:
            others.append(rule.name)
            continue
        margin, told = contracts.margin(figures[name], rule.side, rule.limit)
        why = f"measured on the file that ships: {told}"
        own = (f"{rule.name}, of {variant}", margin >= 0, figures[name], rule.limit, margin, why)
        judged.append(Rule(*own, metric=rule.metric, side=rule.side))
    return judged, others


def packed(outputs: Mapping[str, np.ndarray]) -> bytes:
    """probabilities [N, K] and embedding [N, D], float32, as a safetensors file."""
    from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(outputs[name], np.float32) for name in SCALED}))
