"""Linear probe: the pretrained network stays as it is, a linear head learns on its features.

What: features of every training sample are computed once and kept; the head trains on them, standardised (the
scaling is folded into the head afterwards, so nothing is left to do at deployment).
When: few samples, data like the pretraining's, or a first number within seconds.
Not when: the data look unlike the pretraining's: on the digits it stays points behind `full`.
Settings: epochs, learning_rate. Augmentation is not used, and the run's record says so.
Cost: one pass of the backbone over the data, then milliseconds an epoch.
Evidence here: digits at 64 px, EfficientNet-Lite0, validation split, 30 epochs, 2026-11-21 (by a script over this
stage's loop that was not kept;
learning_rate 3e-4, 1e-3, 3e-3, 1e-2): accuracy 0.896, 0.896, 0.900, 0.892 and log loss 0.36, 0.33, 0.33, 0.49; `full`
reached 0.99 there. So it is a baseline, not a finish, on data unlike the pretraining's.
Source: Alain and Bengio, Understanding intermediate layers using linear classifier probes, 2016, section 3.
"""

from __future__ import annotations

from pydantic import Field

from components import params
from components.finetune.phases import Phase, head_only


class Params(params.Params):
    """Options."""

    epochs: int = Field(default=30, ge=1, le=1000)
    """Passes over the cached features."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of AdamW, on standardised features."""


def phases(params: Params) -> list[Phase]:
    """One phase, on cached features."""
    return [Phase("probe", params.epochs, head_only(params.learning_rate), cached=True)]
