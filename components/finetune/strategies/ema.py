"""EMA: every weight trains, and what is judged and kept is a running mean of the weights over the steps.

What: one phase like `full`; after step t the mean moves by 1 - d towards the weights, with
d = min(decay, (1 + t) / (10 + t)), so that it does not remember the beginning for long. The statistics of batch
normalisation, where they move, are averaged with the same d.
When: rates that stay high, small batches, labels with noise: the last steps then scatter about what their mean is near.
Not when: the rate comes down to 0 by the end, as it does here by default, over enough epochs: the last weights have
then settled, and the mean is near them.
Settings: epochs, learning_rate (head), backbone_learning_rate, decay, frozen_norm.
Cost: that of `full`, one more copy of the weights and one pass over them a step.
Evidence here: none yet but the contract tests.
Source: Polyak and Juditsky, SIAM J. Control Optim. 30 (1992), theorem 1; Tarvainen and Valpola, Mean teachers, NeurIPS
2017, section 2; the warm-up of the decay: tf.train.ExponentialMovingAverage (num_updates).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from components import params
from components.finetune.phases import Callback, Phase, Start, everything

if TYPE_CHECKING:
    import torch


class Params(params.Params):
    """Options."""

    epochs: int = Field(default=8, ge=1, le=1000)
    """Passes over the training samples."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of AdamW, for the head, on features of unit scale."""
    backbone_learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of AdamW, for the pretrained weights."""
    decay: float = Field(default=0.99, gt=0, lt=1)
    """What of the mean is left after a step, once it is warm: it spans some 1 / (1 - decay) steps."""
    frozen_norm: bool = True
    """Keep the pretraining's statistics of batch normalisation."""


def phases(params: Params) -> list[Phase]:
    """One phase over everything."""
    groups = everything(params.learning_rate, params.backbone_learning_rate)
    callback = partial(Mean, decay=params.decay)
    return [Phase("ema", params.epochs, groups, frozen_norm=params.frozen_norm, callback=callback)]


class Mean(Callback):
    """Of all weights and statistics, over the steps."""

    def __init__(self, start: Start, decay: float) -> None:
        super().__init__(start)
        from components.finetune.averaging import STATISTICS

        self.decay, self.steps = decay, 0
        model = start.model  # whose other buffers, such as a table of word vectors, do not move
        self.now = {k: v.detach() for k, v in model.named_parameters()}
        self.now |= {k: v for k, v in model.named_buffers() if k.rpartition(".")[2] in STATISTICS}
        self.mean = {k: v.detach().clone() for k, v in self.now.items()}

    def after_step(self) -> None:
        """The mean follows; what did not move stays bit-identical in it."""
        self.steps += 1
        move = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, mean in self.mean.items():
            mean.lerp_(self.now[name], move)

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Within it the model has the mean."""
        aside = {k: v.clone() for k, v in self.now.items()}
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(aside)

    def state(self) -> dict[str, torch.Tensor]:
        """The mean, and of how many steps it is."""
        import torch

        return {"steps": torch.tensor(self.steps), **{f"mean.{k}": v for k, v in self.mean.items()}}

    def resume(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing at the beginning."""
        if state:
            self.steps = int(state["steps"])
            for name, mean in self.mean.items():
                mean.copy_(state[f"mean.{name}"])

    def _put(self, state: dict[str, torch.Tensor]) -> None:
        for name, own in self.now.items():
            own.copy_(state[name])
