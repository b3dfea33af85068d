"""L2-SP: fine-tuning in which the pretrained weights are pulled to where they began, and not to 0.

What: one phase over all parameters, as `full`, with weight / 2 * |theta - theta_0|^2 over the backbone in the loss.
Of the backbone finetune.weight_decay is then left out; the head keeps it (the paper's beta).
When: few samples on data like the pretraining's; where `full` forgets, or wanders off.
Not when: data unlike the pretraining's: what has to change is what is held.
Settings: epochs, weight (0 is `full` without weight decay on the backbone), learning_rate (head),
backbone_learning_rate, frozen_norm. The paper searched 1e-3 to 1 under SGD, and 0.1 was right most often; under Adam
the same number holds more firmly, as the gradient's size does not count there.
Cost: that of `full`, a copy of the weights in memory, and a pass over the weights a step.
Evidence here: none yet but the contract tests and tests/components/finetune/test_regularisers.py (drift falls as the
weight grows).
Source: Li, Grandvalet and Davoine, Explicit inductive bias for transfer learning with convolutional networks, ICML
2018, section 3.
"""

from __future__ import annotations

from functools import partial

from pydantic import Field

from components import params
from components.finetune.anchor import Anchor, everything_held
from components.finetune.phases import Phase


class Params(params.Params):
    """Options."""

    epochs: int = Field(default=8, ge=1, le=1000)
    """Passes over the training samples."""
    weight: float = Field(default=0.01, ge=0, le=1e6)
    """Of the penalty: how firmly the pretrained weights are held (the paper's alpha)."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of AdamW, for the head, on features of unit scale."""
    backbone_learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of AdamW, for the pretrained weights."""
    frozen_norm: bool = True
    """Keep the pretraining's statistics of batch normalisation."""


def phases(params: Params) -> list[Phase]:
    """One phase over everything."""
    groups = everything_held(params.learning_rate, params.backbone_learning_rate)
    callback = partial(Anchor, weight=params.weight)
    return [Phase("l2_sp", params.epochs, groups, frozen_norm=params.frozen_norm, callback=callback)]
