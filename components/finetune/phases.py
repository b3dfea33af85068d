"""What a strategy says: the phases of a training run. Light, so that a strategy loads torch only when it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from components.model import TransferModel

Groups = list[dict[str, Any]]
"""Optimiser groups: {"name": str, "params": [tensors], "lr": float}. What is in none of them is frozen."""


@dataclass(frozen=True)
class Phase:
    """One stretch of training in which the same parameters train.

    A module whose own parameters are all frozen runs in eval mode, so its norm statistics stay as they were.
    """

    name: str
    epochs: int
    groups: Callable[[TransferModel], Groups]
    cached: bool = False
    """The backbone is frozen, so its features are computed once and augmentation is not used."""
    frozen_norm: bool = False
    """Normalisation layers keep the pretraining's running statistics though their weights train: needed where
    batches are few, or where the head was fitted on features in eval mode."""
    penalty: Callable[[TransferModel], torch.Tensor] | None = None
    """Added to the loss, for strategies that hold the weights back."""


def head_only(learning_rate: float) -> Callable[[TransferModel], Groups]:
    """The head trains, the backbone does not."""
    return lambda model: [{"name": "head", "params": list(model.head.parameters()), "lr": learning_rate}]


def everything(learning_rate: float, backbone_learning_rate: float) -> Callable[[TransferModel], Groups]:
    """Head and backbone train, at rates of their own."""
    return lambda model: [
        {"name": "head", "params": list(model.head.parameters()), "lr": learning_rate},
        {"name": "backbone", "params": list(model.backbone.parameters()), "lr": backbone_learning_rate},
    ]
