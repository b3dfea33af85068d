"""Partial fine-tuning: the last blocks and the head train, the blocks below stay as they were pretrained.

What: one phase in which the head and the last `num_blocks` of the backbone's layers train (which those are,
components/finetune/layers.py finds); the others keep their weights and the statistics of their normalisation.
When: data of the kind that the network was pretrained on, with other labels, and too few samples for all weights.
Not when: the pixels or the words themselves are of another kind: then the first layers are what has to change
(Lee et al., Surgical fine-tuning, ICLR 2023).
Settings: epochs, num_blocks, learning_rate (head), backbone_learning_rate, frozen_norm.
Cost: forward of the whole network, backward of the blocks that train.
Evidence here: none yet but the contract tests.
Source: Yosinski et al., How transferable are features in deep neural networks?, NeurIPS 2014, section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from components import params
from components.finetune.phases import Groups, Phase, head

if TYPE_CHECKING:
    from components.model import TransferModel


class Params(params.Params):
    """Options."""

    epochs: int = Field(default=8, ge=1, le=1000)
    """Passes over the training samples."""
    num_blocks: int = Field(default=2, ge=1, le=1000)
    """Layers that train, counted from the output; as many as there are, where it is more."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of AdamW, for the head, on features of unit scale."""
    backbone_learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of AdamW, for the layers that train."""
    frozen_norm: bool = True
    """Keep the pretraining's statistics of batch normalisation in them too."""


def phases(params: Params) -> list[Phase]:
    """One phase."""

    def groups(model: TransferModel) -> Groups:
        from components.finetune.layers import layers

        top = [p for layer in layers(model.backbone)[-params.num_blocks :] for p in layer]
        backbone = {"name": "backbone", "params": top, "lr": params.backbone_learning_rate}
        return [head(model, params.learning_rate), backbone]

    return [Phase("partial", params.epochs, groups, frozen_norm=params.frozen_norm)]
