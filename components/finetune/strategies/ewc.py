"""EWC, elastic weight consolidation: each pretrained weight is held as firmly as what was learnt before rests on it.

What: `l2_sp` whose pull on a weight is its Fisher information, weight / 2 * sum of F_i (theta_i - theta_0,i)^2. F is
taken before training on the target's samples as they are, one gradient a sample, with labels drawn from the pretrained
classifier's own answers (the true Fisher, not the empirical one). Without a classifier its place is taken by the
features themselves, as the mean of a Gaussian of unit variance: F is then the sum over features of their squared
gradients, estimated by random signs (Hutchinson). F is divided by its mean, so that `weight` is that of `l2_sp` on
average, whatever the network.
When: forgetting matters, or few samples on data like the pretraining's.
Not when: the source's samples are to be had: the paper takes F on them, and so should you; here it is F on other
data than what was learnt before. Or time is short: Li et al. (2018, section 5) found no gain over `l2_sp` from it.
Settings: epochs, weight, fisher, num_fisher_samples, learning_rate (head), backbone_learning_rate, frozen_norm.
Cost: that of `l2_sp`, and num_fisher_samples forward and backward passes of one sample before the first step.
Evidence here: none yet but the contract tests and tests/components/finetune/test_regularisers.py (F against
per-sample gradients by torch.func; drift falls as the weight grows).
Source: Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks, PNAS 114, 2017, equation 3. Signs:
Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from components import params, samples
from components.finetune.anchor import Anchor, everything_held
from components.finetune.phases import Phase, Start
from components.finetune.source_task import source_head

if TYPE_CHECKING:
    import torch
    from torch import nn


class Params(params.Params):
    """Options."""

    epochs: int = Field(default=8, ge=1, le=1000)
    """Passes over the training samples."""
    weight: float = Field(default=0.01, ge=0, le=1e6)
    """Of the penalty (the paper's lambda, for a Fisher information whose mean is 1)."""
    fisher: Literal["auto", "source_head", "features"] = "auto"
    """Of what: the pretrained classifier's answers, or the features; auto: the first where there is one."""
    num_fisher_samples: int = Field(default=256, ge=1, le=1_000_000)
    """Training samples that it is taken on; all of them where there are fewer."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of AdamW, for the head, on features of unit scale."""
    backbone_learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of AdamW, for the pretrained weights."""
    frozen_norm: bool = True
    """Keep the pretraining's statistics of batch normalisation."""


def phases(params: Params) -> list[Phase]:
    """One phase over everything."""

    def callback(start: Start) -> Anchor:
        classifier = _classifier(start, params.fisher)
        found = fisher(start, classifier, params.num_fisher_samples)
        of = "features" if classifier is None else "pretrained classifier's answers"
        start.job.say(f"ewc: Fisher information of the {of}")
        return Anchor(start, params.weight, normalised(found))

    groups = everything_held(params.learning_rate, params.backbone_learning_rate)
    return [Phase("ewc", params.epochs, groups, frozen_norm=params.frozen_norm, callback=callback)]


def fisher(start: Start, classifier: nn.Linear | None, num_samples: int) -> list[torch.Tensor]:
    """Diagonal of the Fisher information, one tensor a parameter of the backbone: mean over the samples of squared
    gradients, of the log-probability of a label that the classifier drew, or of the features by random signs."""
    import torch

    backbone, train, seed = start.model.backbone.eval(), start.train, start.settings.seed
    parameters = list(backbone.parameters())
    found = [torch.zeros_like(p) for p in parameters]
    if not parameters:
        return found
    order = samples.keyed_rng(seed, 0, "samples of the Fisher information").permutation(len(train.rows))[:num_samples]
    for place in start.job.progress(np.sort(order), "Fisher information", len(order)):
        inputs = (torch.from_numpy(a).to(start.fabric.device) for a in train.collate(train.rows[place : place + 1]))
        rng = samples.keyed_rng(seed, 0, f"Fisher information {train.ids[place]}")
        value = drawn(backbone(*inputs), classifier, rng)
        for total, gradient in zip(found, torch.autograd.grad(value, parameters, allow_unused=True)):
            if gradient is not None:
                total += gradient.square() / len(order)
    return found


def drawn(features: torch.Tensor, classifier: nn.Linear | None, rng: np.random.Generator) -> torch.Tensor:
    """A scalar of one sample's features [1, D] whose squared gradient is the Fisher information on average."""
    import torch

    if classifier is None:
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], features.shape[1])).to(features)
        return (features[0] * signs).sum()
    logs = torch.log_softmax(classifier(features)[0], dim=0)
    chances = np.cumsum(logs.detach().double().exp().cpu().numpy())
    return logs[min(int(np.searchsorted(chances, rng.random() * chances[-1], side="right")), len(chances) - 1)]


def normalised(found: list[torch.Tensor]) -> list[torch.Tensor]:
    """Divided by the mean of all; as it is where that is 0."""
    mean = sum(float(f.double().sum()) for f in found) / max(1, sum(f.numel() for f in found))
    return [f / (mean or 1.0) for f in found]


def _classifier(start: Start, of: str) -> nn.Linear | None:
    if of == "source_head":
        return source_head(start, "ewc with fisher: source_head")
    return start.source_head() if of == "auto" else None
