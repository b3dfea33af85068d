"""Gradual unfreezing: the head first, then the last layers, and so on down to the first, the lower the more slowly.

What: `num_stages` short phases of `stage_epochs` each, the first with the head alone (on cached features), each next
one with another share of the layers, then a last phase of `epochs` with all of them. Rates fall with depth by `decay`,
and each phase warms up and comes down again (finetune.warmup), as the slanted triangles of the paper do.
When: texts with few labels; where `full` forgets.
Not when: time is short, or thousands of samples are there: by the paper's own ablation (table 7) it gives nothing
without the rates that fall with depth, and little with much data.
Settings: num_stages, stage_epochs, epochs, learning_rate (head), backbone_learning_rate (last layer), decay.
Cost: a little less an epoch than `full` until all layers train.
Evidence here: none yet but the contract tests.
Source: Howard and Ruder, Universal language model fine-tuning for text classification, ACL 2018, sections 3.2 and 3.3.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from components import params
from components.finetune.phases import Groups, Phase, head, head_only

if TYPE_CHECKING:
    from components.model import TransferModel


class Params(params.Params):
    """Options."""

    num_stages: int = Field(default=3, ge=1, le=100)
    """Phases before the one in which all layers train; the first of them trains the head alone."""
    stage_epochs: int = Field(default=1, ge=1, le=1000)
    """Passes over the training samples in each of them."""
    epochs: int = Field(default=6, ge=1, le=1000)
    """Passes with all layers."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of AdamW, for the head, on features of unit scale."""
    backbone_learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of AdamW, for the last layer of the backbone."""
    decay: float = Field(default=1 / 2.6, gt=0, le=1)
    """A layer's rate over that of the layer above it; the paper's 1/2.6 is for the four layers of its network."""


def phases(params: Params) -> list[Phase]:
    """The head, more layers each time, all."""

    def groups(model: TransferModel, share: float) -> Groups:
        from components.finetune.layers import by_depth

        own = by_depth(model.backbone, params.backbone_learning_rate, params.decay)
        return [head(model, params.learning_rate), *own[len(own) - max(1, round(share * len(own))) :]]

    first = Phase("head", params.stage_epochs, head_only(params.learning_rate), cached=True)
    num = params.num_stages
    stages = [
        Phase(f"top {i} of {num}", params.stage_epochs, partial(groups, share=i / num), frozen_norm=True)
        for i in range(1, num)
    ]
    return [first, *stages, Phase("all", params.epochs, partial(groups, share=1.0), frozen_norm=True)]
