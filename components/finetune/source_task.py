"""What rests on the task that a network was pretrained on: its own classifier, or the plain word that there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from components.contracts import InputError
from components.finetune.phases import Start, Step

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn


class NoSourceHead(InputError):
    """The strategy rests on the pretrained classifier, and the chosen network came without one."""


def source_head(start: Start, strategy: str) -> nn.Linear:
    """The pretrained classifier: features [N, D] -> logits of the labels that it was pretrained on [N, S].

    Raises:
        NoSourceHead: the backbone's weights have none.
    """
    found = start.source_head()
    if found is None:
        raise NoSourceHead(
            f"finetune.strategy: {strategy} rests on the classifier that the backbone was pretrained with, and the "
            "chosen one has none (networks for texts and of random weights have not, nor have files without it). "
            "Take l2_sp, ewc or bss, which hold the backbone without it, or a candidate of select.candidates that has "
            "one (an image network of timm with its whole pretrained file)."
        )
    return found


def over_mixture(step: Step, loss: Callable[[np.ndarray], torch.Tensor]) -> torch.Tensor:
    """A loss against what belongs to some training samples (their places, [n]); with Mixup or CutMix, that of both of
    each mixture by their shares, as the loss on the labels is."""
    value = loss(step.places)
    return value if step.partners is None else step.share * value + (1 - step.share) * loss(step.partners)
