"""What is deployed: the trained network, its temperature, and its decision, as one graph."""

from __future__ import annotations

import torch
from torch import nn

from components.model import TransferModel

OUTPUTS = ("label", "probabilities", "embedding")


class Deployed(nn.Module):
    """Network inputs -> label [N] int64, probabilities [N, K] and embedding [N, D] float32.

    Probabilities are softmax(logits / temperature): Guo et al., On Calibration of Modern Neural Networks,
    2017.
    """

    def __init__(self, model: TransferModel, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The three outputs, in the order of OUTPUTS."""
        embedding = self.model.backbone(*inputs)
        logits = self.model.head(embedding)
        return logits.argmax(dim=1), torch.softmax(logits / self.temperature, dim=1), embedding
