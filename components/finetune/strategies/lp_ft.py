"""LP-FT: first a linear probe, then full fine-tuning from it.

What: the head is fitted on frozen features, so that the first steps of fine-tuning do not tear up the backbone.
Batch normalisation keeps the pretraining's statistics in the second phase too, because the head was fitted to
features in eval mode: with statistics of the batch the first steps were a jump (validation loss 21.8 after one
epoch on the digits, 0.41 before it).
When: the data at deployment will be shifted against the training data, or `full` is unstable.
Not when: the probe alone is already good enough: the second phase then only costs.
Settings: probe_epochs, epochs, learning_rate (probe), head_learning_rate, backbone_learning_rate.
Cost: that of `linear_probe` and `full` together; the probe's share is small.
Evidence here: digits at 64 px, EfficientNet-Lite0, 20 + 3 epochs, validation split, 2026-11-21, single trials
by a script over this stage's loop that was not kept:
0.978 at rates of 5e-4, 0.970 at 1e-3; `full` reached 0.99 with 3 epochs: no gain here.
Source: Kumar et al., Fine-tuning can distort pretrained features, ICLR 2022, section 4.
"""

from __future__ import annotations

from pydantic import Field

from components import params
from components.finetune.phases import Phase, everything, head_only


class Params(params.Params):
    """Options."""

    probe_epochs: int = Field(default=20, ge=1, le=1000)
    """Passes over the cached features."""
    epochs: int = Field(default=6, ge=1, le=1000)
    """Passes of the second phase."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of the probe, on standardised features."""
    head_learning_rate: float = Field(default=5e-4, gt=0, le=1)
    """Of the head in the second phase, on features of unit scale."""
    backbone_learning_rate: float = Field(default=5e-4, gt=0, le=1)
    """Of the pretrained weights in the second phase."""


def phases(params: Params) -> list[Phase]:
    """The probe, then everything."""
    second = everything(params.head_learning_rate, params.backbone_learning_rate)
    return [
        Phase("probe", params.probe_epochs, head_only(params.learning_rate), cached=True),
        Phase("full", params.epochs, second, frozen_norm=True),
    ]
