"""What is deployed: the trained network, its temperature, and its decision, as one graph."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import nn

from components.model import TransferModel

SCALED = ("probabilities", "embedding")
"""Outputs that are compared by value; the first one is the decision."""


class Deployed(nn.Module):
    """Network inputs -> the decision (int64, see components/decisions), probabilities [N, K] and embedding
    [N, D] float32; `outputs` are their names.

    Logits are divided by the temperature first: Guo et al., On Calibration of Modern Neural Networks, 2017.
    """

    def __init__(self, model: TransferModel, temperature: float, decision: ModuleType) -> None:
        super().__init__()
        self.model, self.decision = model, decision
        self.outputs = (decision.OUTPUT, *SCALED)
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The three outputs, in the order of `outputs`."""
        embedding = self.model.backbone(*inputs)
        logits = self.model.head(embedding)
        decided, probabilities = self.decision.deployed(logits, self.temperature)
        return decided, probabilities, embedding
