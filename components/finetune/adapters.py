"""Adapters of low rank (LoRA) beside a backbone's layers: where they can stand, how they become part of its weights.

peft makes and merges them. What is checked here is that the merged network is the one that was trained.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from components.contracts import InputError
from components.model import TransferModel

LAYER_ROUNDING, NETWORK_ROUNDING = 1e-4, 1e-3
"""Of the largest value. Rounding in float32 stays far below both (at most 4e-6 in eleven networks of timm, random
weights, 2026-11-22, by a script that was not kept); a layer that is merged wrongly is off by the size of its
correction."""
Watch = Callable[[str, Any, tuple[Any, ...], torch.Tensor], None]
"""Of a layer that the network calls: its name, itself, what it was given, what it gave."""


class MergeError(InputError):
    """The network with merged weights is not the one that was trained."""


def adaptable(backbone: nn.Module, inputs: list[torch.Tensor]) -> list[str]:
    """Names of the layers that an adapter can be merged into: linear ones, and convolutions but for those in groups.

    The network must call them as modules, as it does with `inputs`, and their output must be linear in a weight that
    is theirs alone: that of a convolution which standardises its weight is not, and nothing can be merged into it.
    """
    from transformers.pytorch_utils import Conv1D

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, Conv1D)
    holders = Counter(id(p) for module in backbone.modules() for p in module.parameters(recurse=False))
    named = backbone.named_modules()
    layers = {n: m for n, m in named if isinstance(m, kinds) and _plain(m) and holders[id(m.weight)] == 1}
    found: list[str] = []

    def watch(name: str, layer: Any, given: tuple[Any, ...], output: torch.Tensor) -> None:
        none, twice = (functional_call(layer, {"weight": factor * layer.weight}, given) for factor in (0.0, 2.0))
        moves = bool((output - none).any())  # of one that gives nothing yet, it cannot be told
        if moves and _off(twice - none, 2 * (output - none), output) <= LAYER_ROUNDING:
            found.append(name)

    _watched(backbone, layers, inputs, watch)
    return found


def _plain(layer: Any) -> bool:
    """peft's adapter of a convolution has its kernel, stride and padding, and nothing else of it."""
    ones = {1}
    return not isinstance(layer, nn.Conv1d | nn.Conv2d) or (
        layer.groups == 1 and {*layer.dilation} == ones and layer.padding_mode == "zeros"
    )


def add(backbone: nn.Module, layers: list[str], rank: int, alpha: int, dropout: float, seed: int) -> None:
    """An adapter beside each of the layers, which does nothing yet."""
    from peft import LoraConfig, inject_adapter_in_model

    pattern = "|".join(map(re.escape, layers))
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=pattern)
    torch.manual_seed(seed)
    with warnings.catch_warnings():  # peft sees for itself that GPT-2 has its weights transposed
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set")
        inject_adapter_in_model(config, backbone)


def weights(backbone: nn.Module) -> list[nn.Parameter]:
    """Of the adapters alone."""
    return [p for layer in _adapted(backbone).values() for name, p in layer.named_parameters() if "lora_" in name]


def merge(model: TransferModel, inputs: list[torch.Tensor]) -> float:
    """The adapters become part of the layers' weights, and are gone. Returns how far logits moved by that, over the
    largest of them.

    Raises:
        MergeError: by more than rounding, in one layer or in all.
    """
    layers = _adapted(model.backbone)

    def watch(name: str, layer: Any, given: tuple[Any, ...], output: torch.Tensor) -> None:
        base = layer.get_base_layer()
        merged = {"weight": base.weight + layer.get_delta_weight(layer.active_adapters[0])}
        found = functional_call(base, merged, given)
        _must(LAYER_ROUNDING, _off(found, output, output), f"{name} ({type(base).__name__})")

    before = _watched(model, {f"backbone.{name}": layer for name, layer in layers.items()}, inputs, watch)
    for name, layer in layers.items():
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(model.backbone.get_submodule(parent), own, layer.get_base_layer())
    del model.backbone.peft_config
    off = _off(_watched(model, {}, inputs, watch), before, before)
    _must(NETWORK_ROUNDING, off, "the network")
    return off


def _adapted(backbone: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in backbone.named_modules() if isinstance(module, LoraLayer)}


@torch.no_grad()
def _watched(network: nn.Module, layers: Mapping[str, nn.Module], inputs: list[torch.Tensor], watch: Watch) -> Any:
    """What the network gives in eval mode; `watch` sees each of the layers at its first call."""
    seen: set[str] = set()

    def hook(name: str, layer: nn.Module, given: tuple[Any, ...], output: torch.Tensor) -> None:
        if name not in seen:
            seen.add(name)  # before, as watching calls the layer again
            watch(name, layer, given, output)

    handles = [layer.register_forward_hook(partial(hook, name)) for name, layer in layers.items()]
    network.eval()
    try:
        with _in_float32():
            return network(*inputs)
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _in_float32() -> Iterator[None]:
    """Within it products are of 24 bits on a GPU too, which by itself takes 11 for convolutions: two of them then
    differ by more than a rounding may."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        cudnn = torch.backends.cudnn
        with cudnn.flags(
            enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _off(found: torch.Tensor, expected: torch.Tensor, scale: torch.Tensor) -> float:
    """The largest difference, over the largest value."""
    return float((found - expected).abs().max()) / max(float(scale.abs().max()), 1e-12)


def _must(limit: float, off: float, what: str) -> None:
    if not off <= limit:
        raise MergeError(
            f"finetune.strategy: lora was merged, but {what} then gives something else (by {off:.1e} of its largest "
            f"value; rounding explains {limit:.0e}). Nothing was kept. Take full, llrd or partial for this backbone."
        )
