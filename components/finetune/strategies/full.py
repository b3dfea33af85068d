"""Full fine-tuning: every weight trains, the pretrained ones more slowly than the head.

What: one phase over all parameters with two learning rates.
When: hundreds of samples or more, or data unlike the pretraining's.
Not when: a handful of samples a label: `linear_probe` is then as good and cannot forget; `lp_ft` when the
data at deployment will differ from the training data.
Settings: epochs, learning_rate (head), backbone_learning_rate, frozen_norm. The default rates are for convolutional
networks; transformers want a backbone_learning_rate of 2e-5 to 1e-4 (examples/spam).
Cost: forward and backward of the whole network in every epoch.
Evidence here: digits at 64 px, EfficientNet-Lite0, 3 epochs, validation split, 2026-11-21, single trials of one split
by a script over this stage's loop that was not kept (one thread, earlier code), so not a benchmark:
frozen_norm true 0.99 to 1.00 (log loss 0.005 to 0.035), false 0.97 to
0.98 (0.10 to 0.14); from random weights 0.93. Test accuracy of the default run: README, "What it printed".
Source: Kornblith et al., Do better ImageNet models transfer better?, CVPR 2019, section 4.
"""

from __future__ import annotations

from pydantic import Field

from components import params
from components.finetune.phases import Phase, everything


class Params(params.Params):
    """Options."""

    epochs: int = Field(default=8, ge=1, le=1000)
    """Passes over the training samples."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of AdamW, for the head, on features of unit scale."""
    backbone_learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of AdamW, for the pretrained weights."""
    frozen_norm: bool = True
    """Keep the pretraining's statistics of batch normalisation. false: for thousands of steps on unlike data."""


def phases(params: Params) -> list[Phase]:
    """One phase over everything."""
    groups = everything(params.learning_rate, params.backbone_learning_rate)
    return [Phase("full", params.epochs, groups, frozen_norm=params.frozen_norm)]
