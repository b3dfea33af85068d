"""BSS, batch spectral shrinkage: fine-tuning that gives up the directions of the features in which little lies.

What: one phase over all parameters, as `full`, with weight * sum of the `num_values` smallest squared singular values
of the batch's features [n, D] in the loss. The features are on the scale that the head works on, so that `weight`
means the same for every network.
When: few samples a label and a task unlike the pretraining's, where old features stand in the way (negative transfer).
Not when: there are many samples: small directions then are learnt, not left over, and the paper's gains vanish too.
With batches of more samples than features it is the features that decide, otherwise the samples.
Settings: epochs, weight, num_values, learning_rate (head), backbone_learning_rate, frozen_norm. Several processes,
and the pieces of a batch that memory had no room for, are each taken for themselves, so their number matters.
Cost: that of `full`, and a singular value decomposition of [n, D] a step: some milliseconds.
Evidence here: none yet but the contract tests and tests/components/finetune/test_regularisers.py.
Source: Chen, Wang, Fu, Long and Wang, Catastrophic forgetting meets negative transfer: batch spectral shrinkage for
safe transfer learning, NeurIPS 2019, section 4.2 (weight 0.001, one value).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from components import params
from components.finetune.phases import Callback, Phase, Start, Step, everything

if TYPE_CHECKING:
    import torch


class Params(params.Params):
    """Options."""

    epochs: int = Field(default=8, ge=1, le=1000)
    """Passes over the training samples."""
    weight: float = Field(default=1e-3, ge=0, le=1e6)
    """Of the penalty (the paper's eta)."""
    num_values: int = Field(default=1, ge=1, le=10_000)
    """Singular values that are made smaller, counted from the smallest (the paper's k)."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of AdamW, for the head, on features of unit scale."""
    backbone_learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of AdamW, for the pretrained weights."""
    frozen_norm: bool = True
    """Keep the pretraining's statistics of batch normalisation."""


def phases(params: Params) -> list[Phase]:
    """One phase over everything."""
    groups = everything(params.learning_rate, params.backbone_learning_rate)
    callback = partial(Shrinkage, weight=params.weight, num_values=params.num_values)
    return [Phase("bss", params.epochs, groups, frozen_norm=params.frozen_norm, callback=callback)]


class Shrinkage(Callback):
    """The penalty on each batch."""

    def __init__(self, start: Start, weight: float, num_values: int) -> None:
        super().__init__(start)
        self.weight, self.num_values = weight, num_values

    def penalty(self, step: Step) -> torch.Tensor | None:
        """Of the features as the head takes them."""
        scale = self.start.model.head.scale
        features = step.features.float() if scale is None else step.features.float() / scale
        return self.weight * smallest(features, self.num_values)


def smallest(features: torch.Tensor, num: int) -> torch.Tensor:
    """Sum of the `num` smallest squared singular values of features [n, D], of which there are min(n, D)."""
    import torch

    return torch.linalg.svdvals(features)[-num:].square().sum()
