"""Layer-wise learning-rate decay: every weight trains, the nearer to the input the more slowly.

What: one phase over all parameters; the last layer has `backbone_learning_rate`, each one below `decay` times the rate
of the next (components/finetune/layers.py finds the layers), the head its own.
When: transformers above all; where `full` overfits or is unstable though all layers should move.
Not when: the first layers have to change most, as with pixels of another kind.
Settings: epochs, learning_rate (head), backbone_learning_rate, decay (0.65 to 0.9; the more layers the nearer to 1),
frozen_norm.
Cost: that of `full`.
Evidence here: none yet but the contract tests.
Source: Howard and Ruder, Universal language model fine-tuning, ACL 2018, section 3.2 (discriminative fine-tuning);
Clark et al., ELECTRA, ICLR 2020, appendix A.2 (as a power of the depth).
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
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of AdamW, for the head, on features of unit scale."""
    backbone_learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of AdamW, for the last layer of the backbone."""
    decay: float = Field(default=0.75, gt=0, le=1)
    """A layer's rate over that of the layer above it."""
    frozen_norm: bool = True
    """Keep the pretraining's statistics of batch normalisation."""


def phases(params: Params) -> list[Phase]:
    """One phase over everything."""

    def groups(model: TransferModel) -> Groups:
        from components.finetune.layers import by_depth

        own = by_depth(model.backbone, params.backbone_learning_rate, params.decay)
        return [head(model, params.learning_rate), *own]

    return [Phase("llrd", params.epochs, groups, frozen_norm=params.frozen_norm)]
