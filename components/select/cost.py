"""What a candidate costs: parameters and multiplications are counted, latency is measured."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

ROUNDS, REPEATS, WARM_UP, SECONDS = 3, 15, 3, 1.0


@dataclass(frozen=True)
class Cost:
    """Of the backbone without its classifier; the same wherever it is counted."""

    parameters_millions: float
    gmacs: float
    """10^9 multiply-accumulates of convolutions and matrix products for one sample."""


def count(network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Cost:
    """Cost of a network on inputs of batch 1. Puts it in eval mode."""
    network.eval()
    # Fused attention on CPUs is an operator that the counter does not know; MATH is plain matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(*inputs)
    tables = sum(b.numel() for b in network.buffers() if b.is_floating_point() and b.ndim > 1)  # frozen word vectors
    parameters = tables + sum(p.numel() for p in network.parameters())
    return Cost(round(parameters / 1e6, 6), round(counter.get_total_flops() / 2e9, 6))


def latency_ms(network: nn.Module, inputs: tuple[torch.Tensor, ...], device: torch.device) -> float:
    """Milliseconds for one call: the smallest of three rounds' medians, so a busy moment decides nothing."""
    network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    inputs = tuple(i.to(device) for i in inputs)
    with torch.inference_mode():
        for _ in range(WARM_UP):
            _call_ms(network, inputs, device)
        return min(_median_ms(network, inputs, device) for _ in range(ROUNDS))


def _median_ms(network: nn.Module, inputs: tuple[torch.Tensor, ...], device: torch.device) -> float:
    taken: list[float] = []
    started = time.perf_counter()
    while len(taken) < REPEATS and (len(taken) < 3 or time.perf_counter() - started < SECONDS):
        taken.append(_call_ms(network, inputs, device))
    return sorted(taken)[len(taken) // 2]


def _call_ms(network: nn.Module, inputs: tuple[torch.Tensor, ...], device: torch.device) -> float:
    started = time.perf_counter()
    network(*inputs)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - started)
