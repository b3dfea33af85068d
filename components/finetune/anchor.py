"""Pretrained weights that are held where a phase found them, some more firmly than others. Light: torch when it trains.

    weight / 2 * sum over i of importance_i * (theta_i - theta_i at the start)^2

over all parameters of the backbone; the head has no place that it began at worth keeping. The penalty stands in the
loss, as its authors have it, so Adam scales its gradient together with the loss's (it is not decoupled, as AdamW's
weight decay is), and train_loss in history.csv has it in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from components.finetune.phases import Callback, Groups, Start, Step, head

if TYPE_CHECKING:
    import torch

    from components.model import TransferModel


class Anchor(Callback):
    """Holds the backbone's parameters."""

    def __init__(self, start: Start, weight: float, importance: Sequence[torch.Tensor] | None = None) -> None:
        """`importance`: one tensor a parameter of the backbone, of its shape; None: 1 everywhere."""
        super().__init__(start)
        parameters = list(start.model.backbone.parameters())
        self.weight = weight
        # Taken from the weights that the phase begins with, which are there again when it goes on after a kill.
        self.held = [(p, p.detach().clone()) for p in parameters]
        self.importance = None if importance is None else list(importance)
        assert self.importance is None or [f.shape for f in self.importance] == [p.shape for p in parameters]

    def penalty(self, step: Step) -> torch.Tensor | None:
        """Of the weights as they are; the samples play no part."""
        import torch

        del step
        squares = [(now - before).square() for now, before in self.held]
        if self.importance is not None:
            squares = [square * importance for square, importance in zip(squares, self.importance)]
        return self.weight / 2 * torch.stack([square.sum() for square in squares]).sum() if squares else None


def everything_held(learning_rate: float, backbone_learning_rate: float) -> Callable[[TransferModel], Groups]:
    """Head and backbone train; the backbone's pull is to where it began, so none to 0 (finetune.weight_decay)."""
    return lambda model: [
        head(model, learning_rate),
        {
            "name": "backbone",
            "params": list(model.backbone.parameters()),
            "lr": backbone_learning_rate,
            "weight_decay": 0.0,
        },
    ]
