"""Costs against hand counts and published figures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from components.select import cost


def test_multiplications_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16 * 16, 10))
    counted = cost.count(network, (torch.zeros(1, 3, 16, 16),))
    assert counted.gmacs == round((16 * 16 * 8 * 3 * 9 + 8 * 16 * 16 * 10) / 1e9, 6)
    assert counted.parameters_millions == round((3 * 8 * 9 + 8 + 8 * 256 * 10 + 10) / 1e6, 6)


@pytest.mark.parametrize(
    ("model", "millions", "gmacs"), [("resnet18", 11.18, 1.81), ("vit_tiny_patch16_224", 5.52, 1.25)]
)
def test_published_costs(model: str, millions: float, gmacs: float) -> None:
    """resnet18: He et al. 2016, table 1, 1.8e9. The ViT counts its attention: 1.25 with it, 1.07 without."""
    import timm

    network = timm.create_model(model, pretrained=False, num_classes=0)
    counted = cost.count(network, (torch.zeros(1, 3, 224, 224),))
    assert counted.parameters_millions == pytest.approx(millions, abs=0.01)
    assert counted.gmacs == pytest.approx(gmacs, abs=0.01)


def test_latency_is_the_best_rounds_median(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0] * cost.WARM_UP + [5.0, 90.0, 5.0] * 5 + [70.0] * 15 + [4.0, 4.0, 80.0] * 5)
    monkeypatch.setattr(cost, "_call_ms", lambda *_: next(times))
    assert cost.latency_ms(nn.Identity(), (), torch.device("cpu")) == 4.0


def test_latency_is_measured() -> None:
    inputs = (torch.zeros(1, 3, 32, 32),)
    assert 0 < cost.latency_ms(nn.Conv2d(3, 4, 3), inputs, torch.device("cpu")) < 1000
