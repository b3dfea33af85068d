"""Does a varied sample keep its label? Asked of the frozen probe, which has never seen a varied one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from components import samples
from components.finetune.batches import Data

MOST, BATCH, TOLD = 500, 64, 10
Vary = Callable[[Any, np.random.Generator], Any]


@dataclass(frozen=True)
class Keeping:
    """What was found."""

    rate: float | None
    """Share of the samples whose varied version is still decided rightly; None where there was none to ask."""
    num: int
    """Samples that were asked: training samples that the probe decides rightly as they are."""
    changed: tuple[str, ...]
    """Ids of at most ten that were not."""


def label_keeping(
    train: Data, vary: Vary, probe: nn.Module, decision: ModuleType, seed: int, device: torch.device
) -> Keeping:
    """Of at most 500 training samples that the probe decides rightly, the share that it decides rightly still when the
    policy has varied them as in the first epoch.

    1.0 does not show that a policy helps, and less is not all the policy's fault: a probe near its boundary turns with
    any change. It shows the policy that destroys what the label rests on. `train` has prepared rows, not features;
    `probe` takes what `train.collate` gives. Which 500 are asked goes by a hash of the ids.
    """
    probe = probe.to(device).eval()
    order = sorted(range(len(train.ids)), key=lambda i: samples.keyed_seed(seed, "label keeping", train.ids[i]))
    right: list[int] = []
    for start in range(0, len(order), BATCH):
        some = np.sort(order[start : start + BATCH])  # a memory map likes rising indices
        right += some[_right(probe, train.rows[some], train, some, decision, device)].tolist()
        if len(right) >= MOST:
            break
    right = sorted(right[:MOST])
    changed: list[str] = []
    for start in range(0, len(right), BATCH):
        some = np.array(right[start : start + BATCH])
        rows = train.rows[some]  # a copy
        for i, place in enumerate(some):
            rows[i] = vary(train.rows[place], samples.keyed_rng(seed, 0, train.ids[place]))
        kept = _right(probe, rows, train, some, decision, device)
        changed += [train.ids[i] for i in some[~kept]]
    rate = 1 - len(changed) / len(right) if right else None
    return Keeping(rate, len(right), tuple(sorted(changed)[:TOLD]))


@torch.inference_mode()
def _right(
    probe: nn.Module, rows: np.ndarray, train: Data, which: np.ndarray, decision: ModuleType, device: torch.device
) -> np.ndarray:
    """Whether each row is decided rightly, bool [N]."""
    inputs = (torch.from_numpy(a).to(device) for a in train.collate(rows))
    targets = torch.from_numpy(train.targets[which]).to(device)
    return np.asarray(decision.correct(probe(*inputs).float(), targets).cpu().numpy())
