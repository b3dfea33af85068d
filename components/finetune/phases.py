"""What a strategy says: the phases of a training run. Light, so that a strategy loads torch only when it trains.

A strategy is one module with `phases(params) -> list[Phase]`. A phase says which weights train at which rate
(`groups`); what goes beyond that is in its `callback`, while it trains, and in its `finish`, once it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np
    import torch
    from lightning_fabric import Fabric
    from torch import nn

    from components.finetune.batches import Data
    from components.finetune.loop import Settings
    from components.finetune.team import Team
    from components.job import Job
    from components.model import TransferModel

Groups = list[dict[str, Any]]
"""Optimiser groups: {"name": str, "params": [tensors], "lr": float}. What is in none of them is frozen."""


@dataclass(frozen=True)
class Start:
    """What a phase begins with."""

    model: TransferModel
    """With the weights that the phase begins with, on its device."""
    train: Data
    """Training samples; features [N, D] in a cached phase."""
    validation: Data
    decision: ModuleType
    settings: Settings
    job: Job
    fabric: Fabric
    team: Team
    features: Callable[[], np.ndarray]
    """Of the training samples as they are (not augmented), by the backbone that the phase begins with, which is the
    pretrained one where no phase before has trained it: float32 [N, D]. To be asked before training."""
    source_head: Callable[[], nn.Linear | None]
    """The pretrained network's own classifier, features [N, D] -> logits of the labels that it was pretrained on
    [N, S], a new one each time; None where the weights have none."""


@dataclass(frozen=True)
class Step:
    """One step of training, as a penalty sees it: this process's part of a batch of n samples."""

    places: np.ndarray
    """int [n]: which of the training samples these are."""
    features: torch.Tensor
    """[n, D], with gradient."""
    logits: torch.Tensor
    """[n, K], with gradient."""
    targets: torch.Tensor
    partners: np.ndarray | None = None
    """int [n]: with Mixup or CutMix, which training sample each is mixed with; `places` and `targets` are those of the
    sample that most of the mixture is of."""
    share: float = 1.0
    """Of that sample in the mixture."""


class Callback:
    """What a phase does besides lowering the loss; made when the phase begins, before the optimiser is.

    It may add modules to `start.model`, which then stand in its state, and takes them out in `close`. All that it
    draws must be keyed (components.samples), so that a run that was killed ends with the same bytes.
    """

    def __init__(self, start: Start) -> None:
        self.start = start

    def penalty(self, step: Step) -> torch.Tensor | None:
        """A scalar to be added to the loss, the mean over the step's samples where it is of samples; None: nothing."""
        del step
        return None

    def after_step(self) -> None:
        """The optimiser has moved the weights."""

    def judged(self) -> AbstractContextManager[Any]:
        """Within it the model has the weights that are judged on validation and kept."""
        return nullcontext()

    def state(self) -> dict[str, torch.Tensor]:
        """What going on after a kill needs, beside the model's and the optimiser's state."""
        return {}

    def resume(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put `state` back."""

    def close(self) -> None:
        """The phase has ended and the model has the weights of its best epoch: make it a plain model again."""


@dataclass(frozen=True)
class End:
    """What a strategy may do with once a phase is over; the model in `start` has the weights that it ended with."""

    start: Start
    ended: Callable[[int], dict[str, torch.Tensor]]
    """Weights and statistics that an earlier phase (0, 1, ...) ended with; -1: those before the first."""
    judge: Callable[[], dict[str, float]]
    """validation_loss and validation_accuracy of the model as it is."""
    renew_statistics: Callable[[], None]
    """Take the running statistics of normalisation anew from the training samples, as they are after averaging."""


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
    callback: Callable[[Start], Callback] | None = None
    """What it does besides lowering the loss."""
    begins_after: int | None = None
    """Number of the phase whose weights it begins with; None: the one before."""
    finish: Callable[[End], dict[str, float]] | None = None
    """Once it is over: leaves the chosen weights in the model, and returns what was chosen, by name."""


def head_only(learning_rate: float) -> Callable[[TransferModel], Groups]:
    """The head trains, the backbone does not."""
    return lambda model: [head(model, learning_rate)]


def head(model: TransferModel, learning_rate: float) -> dict[str, Any]:
    """The head's group."""
    return {"name": "head", "params": list(model.head.parameters()), "lr": learning_rate}


def everything(learning_rate: float, backbone_learning_rate: float) -> Callable[[TransferModel], Groups]:
    """Head and backbone train, at rates of their own."""
    return lambda model: [
        head(model, learning_rate),
        {"name": "backbone", "params": list(model.backbone.parameters()), "lr": backbone_learning_rate},
    ]
