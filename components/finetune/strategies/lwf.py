"""LwF, learning without forgetting: fine-tuning in which the pretrained classifier must go on answering as it did.

What: first a linear probe (the paper's warm-up), then everything trains, with weight * KL(before || now) in the loss:
the pretrained classifier's answers at `temperature`, on the training samples by the pretrained backbone against the
backbone as it is. It needs no source data. Unlike in the paper the old classifier itself stays as it was pretrained:
it is thrown away in the end, and what is to be kept is what the backbone gives it.
When: what the network could do before matters beside the new task; data near the pretraining's, or `lp_ft` forgets.
Not when: the data are far from the pretraining's: the old answers on them are then nearly noise. Augmentation that
changes a sample much: the answers kept are those on the sample as it is (of Mixup and CutMix, on both). Networks
without a classifier (texts; refused).
Settings: probe_epochs, epochs, weight, temperature, learning_rate (probe), head_learning_rate, backbone_learning_rate.
Cost: that of `lp_ft`, and the classifier twice a step.
Evidence here: none yet but the contract tests and tests/components/finetune/test_regularisers.py.
Source: Li and Hoiem, Learning without forgetting, ECCV 2016, section 3 (temperature 2, weight 1).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from components import params
from components.finetune.phases import Callback, Phase, Start, Step, everything, head_only
from components.finetune.source_task import over_mixture, source_head

if TYPE_CHECKING:
    import numpy as np
    import torch


class Params(params.Params):
    """Options."""

    probe_epochs: int = Field(default=20, ge=1, le=1000)
    """Passes over the cached features."""
    epochs: int = Field(default=6, ge=1, le=1000)
    """Passes of the second phase."""
    weight: float = Field(default=1.0, ge=0, le=1e6)
    """Of the old answers against the new labels (the paper's lambda)."""
    temperature: float = Field(default=2.0, gt=0, le=100)
    """The old classifier's logits are divided by it; above 1 its small probabilities count for more."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of the probe, on standardised features."""
    head_learning_rate: float = Field(default=5e-4, gt=0, le=1)
    """Of the head in the second phase, on features of unit scale."""
    backbone_learning_rate: float = Field(default=5e-4, gt=0, le=1)
    """Of the pretrained weights in the second phase."""


def phases(params: Params) -> list[Phase]:
    """The probe, then everything. Norm statistics stay: head and old answers are of features in eval mode."""
    second = everything(params.head_learning_rate, params.backbone_learning_rate)
    callback = partial(OldAnswers, weight=params.weight, temperature=params.temperature)
    return [
        Phase("probe", params.probe_epochs, head_only(params.learning_rate), cached=True, callback=_asking),
        Phase("lwf", params.epochs, second, frozen_norm=True, callback=callback),
    ]


def _asking(start: Start) -> Callback:
    """Nothing trains where there is no classifier to keep the answers of."""
    source_head(start, "lwf")
    return Callback(start)


class OldAnswers(Callback):
    """The penalty on answers that are not what they were."""

    def __init__(self, start: Start, weight: float, temperature: float) -> None:
        super().__init__(start)
        self.weight, self.temperature = weight, temperature
        self.classifier = source_head(start, "lwf").requires_grad_(False)
        self.before = start.features()  # their logits would be larger: 1000 labels against some hundred features

    def penalty(self, step: Step) -> torch.Tensor | None:
        """Mean over the samples."""
        import torch

        features = step.features.float()
        now = self.classifier(features)

        def lost(places: np.ndarray) -> torch.Tensor:
            before = self.classifier(torch.from_numpy(self.before[places]).to(features))
            return divergence(before, now, self.temperature)

        return self.weight * over_mixture(step, lost)


def divergence(before: torch.Tensor, now: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(softmax(before / T) || softmax(now / T)) of logits [n, S], mean over n. The paper's cross-entropy less the
    entropy of what was before, which no weight changes, so that nothing forgotten is 0."""
    import torch.nn.functional as F

    old, new = (F.log_softmax(logits / temperature, dim=1) for logits in (before, now))
    return F.kl_div(new, old, reduction="batchmean", log_target=True)
