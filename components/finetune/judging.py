"""How good a network is on the validation split, and its statistics of normalisation taken anew."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from components import quality, samples
from components.finetune import hardware
from components.finetune.batches import Data, cuts
from components.finetune.team import ALONE, Team

if TYPE_CHECKING:
    from components.finetune.loop import Settings


@torch.inference_mode()
def measure(
    network: nn.Module, data: Data, decision: ModuleType, batch: int, device: torch.device, team: Team = ALONE
) -> dict[str, float]:
    """Of a network in eval mode: mean loss, accuracy, and precision, recall and F1, each its mean over the labels that
    occur. Processes take batches in turn; their number changes no bit."""
    network.eval()
    order = np.arange(len(data.rows)) if data.lengths is None else np.argsort(-data.lengths, kind="stable")
    starts = range(0, len(data.rows), batch)
    found = torch.zeros(len(starts), 2, dtype=torch.float64)
    decided = torch.zeros(data.targets.shape, dtype=torch.float64)
    one = torch.ones((), device=device)
    for number in range(team.rank, len(starts), team.size):
        cut = order[starts[number] : starts[number] + batch]
        inputs = (hardware.put(a, device) for a in data.collate(data.rows[cut]))
        targets = torch.from_numpy(data.targets[cut]).to(device)
        logits = network(*inputs).float()
        found[number, 0] = float(decision.loss(logits, targets)) * len(targets)
        found[number, 1] = int(decision.correct(logits, targets).sum())
        decided[torch.from_numpy(cut)] = decision.deployed(logits, one)[0].cpu().double()
    total, right = (sum(column) for column in zip(*team.total(found).tolist()))
    return {
        "validation_loss": total / len(data.rows),
        "validation_accuracy": int(right) / len(data.rows),
        **_by_label(data.targets, team.total(decided).numpy()),
    }


def _by_label(targets: np.ndarray, decided: np.ndarray) -> dict[str, float]:
    """Macro figures of class indices [N], or of 0 or 1 for each label [N, K]."""
    if targets.ndim == 1:
        labels = np.arange(1 + max(int(targets.max()), int(decided.max())))
        targets, decided = targets[:, None] == labels, decided[:, None] == labels
    precision, recall, f1, present = quality.by_label(targets > 0.5, decided > 0.5)
    figures = {"precision": precision, "recall": recall, "f1": f1}
    return {f"validation_{name}": float(v[present].mean()) if present.any() else 0.0 for name, v in figures.items()}


@torch.no_grad()
def renew_statistics(network: nn.Module, data: Data, settings: Settings, device: torch.device) -> None:
    """Running statistics of batch normalisation become the means over the samples of what batches as in training have:
    those of weights that were averaged are neither's (Izmailov et al., Averaging weights leads to wider optima, UAI
    2018, section 3.2). A batch counts by its samples."""
    norms: list[Any] = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return
    torch.manual_seed(samples.keyed_seed(settings.seed, "statistics"))  # of dropout
    momenta, training, seen = [norm.momentum for norm in norms], network.training, 0
    for norm in norms:
        norm.reset_running_stats()
    network.train()
    for cut in cuts(len(data.rows), data.lengths, data.kinds, settings.batch_size, settings.seed, 0):
        seen += len(cut)
        for norm in norms:
            norm.momentum = len(cut) / seen  # of the first 1, so nothing is left of what was before
        network(*(hardware.put(a, device) for a in data.collate(data.rows[np.sort(cut)])))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    network.train(training)
