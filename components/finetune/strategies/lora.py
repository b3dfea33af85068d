"""LoRA: the pretrained weights stay as they are, and each layer learns a correction of low rank beside them.

What: the head trains, and next to every linear and convolution layer of the backbone (which those are is found by a
forward pass, see components/finetune/adapters.py) two small matrices whose product is added to its weight. When
training ends they are merged into the weights, and it is checked that layers and logits stay the same; so the model
that is kept, and all that is made from it, is a plain one.
When: transformers; memory for the optimiser's state is short; few samples for all weights.
Not when: convolutional networks with depthwise layers on unlike data: convolutions in groups (and norms, embeddings,
layers that a network calls in a way of its own) get no adapter and stay as they were pretrained.
Settings: epochs, rank, alpha (the correction is scaled by alpha / rank), dropout (of the adapters' input),
learning_rate (head), backbone_learning_rate (adapters; higher than for weights themselves).
Cost: forward and backward of the whole network and the adapters' own; the optimiser holds the adapters and the head
alone (`trainable_share` in the metrics). Importing peft takes some 5 s.
Evidence here: none yet but the contract tests.
Source: Hu et al., LoRA, ICLR 2022, section 4; by peft 0.21.2.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from components import params, samples
from components.contracts import InputError
from components.finetune.phases import Callback, Groups, Phase, Start, head

if TYPE_CHECKING:
    import torch

    from components.model import TransferModel

ROWS = 8
"""Samples that show which layers the network calls, and that merging changed nothing."""


class Params(params.Params):
    """Options."""

    epochs: int = Field(default=8, ge=1, le=1000)
    """Passes over the training samples."""
    rank: int = Field(default=8, ge=1, le=1024)
    """Of the correction of each layer."""
    alpha: int = Field(default=16, ge=1, le=4096)
    """The correction is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapters' inputs that is left out in a step."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of AdamW, for the head, on features of unit scale."""
    backbone_learning_rate: float = Field(default=2e-3, gt=0, le=1)
    """Of AdamW, for the adapters."""


def phases(params: Params) -> list[Phase]:
    """One phase; the metrics get the share of the network's weights that trained."""
    told: dict[str, float] = {}

    def groups(model: TransferModel) -> Groups:
        from components.finetune.adapters import weights

        own = {"name": "adapters", "params": weights(model.backbone), "lr": params.backbone_learning_rate}
        return [head(model, params.learning_rate), own]

    callback = partial(Adapters, params=params, told=told)
    return [Phase("lora", params.epochs, groups, callback=callback, finish=lambda _: dict(told))]


class Adapters(Callback):
    """Beside every layer that can have one, until the phase ends."""

    def __init__(self, start: Start, params: Params, told: dict[str, float]) -> None:
        super().__init__(start)
        from components.finetune import adapters

        backbone, head = start.model.backbone, start.model.head
        whole = sum(p.numel() for p in start.model.parameters())
        layers = adapters.adaptable(backbone, self._inputs())
        if not layers:
            raise InputError(
                "finetune.strategy: lora found no linear or convolution layer in this backbone that it could adapt; "
                "take full, llrd or partial"
            )
        seed = samples.keyed_seed(start.settings.seed, "adapters")
        adapters.add(backbone, layers, params.rank, params.alpha, params.dropout, seed)
        own = sum(p.numel() for p in [*adapters.weights(backbone), *head.parameters()])
        told["trainable_share"] = round(own / whole, 6)
        start.job.say(f"lora: {len(layers)} layers adapted, {own} weights train, {own / whole:.2%} of the network's")

    def close(self) -> None:
        """The adapters are merged into the weights, and gone."""
        from components.finetune import adapters

        off = adapters.merge(self.start.model, self._inputs())
        self.start.job.say(f"lora: merged; the logits of {ROWS} samples differ by at most {off:.1e} of the largest one")

    def _inputs(self) -> list[torch.Tensor]:
        import torch

        data, device = self.start.validation, self.start.fabric.device
        return [torch.from_numpy(a).to(device) for a in data.collate(data.rows[:ROWS])]
