"""What is decided by the device: number format, batch size, optimiser, memory layout, compilation.

On a CPU training is in float32 unless bf16 is asked for: even where the processor has it a step took 1.3 to 4 times as
long (EfficientNet-Lite0 at 64 and 128 px, ResNet-18 at 64 px, torch 2.13, AMD EPYC with avx512_bf16, two cores,
2026-11; single trials by a script that was not kept). What follows for a GPU is decided by pure functions, which are
tested; none of it was run on a GPU here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from components.contracts import InputError
from components.features import has_bfloat16
from components.finetune import memory

ON_CPU = 32
"""Samples of a batch where the size is left to us and there is no GPU."""
LARGEST = 1024
LEAST_STEPS = 16
"""Batches of an epoch that a batch size found by itself leaves at least, down to ON_CPU samples."""
MEMORY_SHARE = 0.9
"""Of the device's memory that a trial step may have taken."""
COMPILE_SECONDS = 90.0
"""What compiling forward and backward is taken to cost, for training and for judging: assumed, not measured."""
SAVED = 0.15
"""Share of a step that compiling is taken to save (assumed: the least that is told of vision transformers)."""
MACS_A_SECOND = 2e13
"""What a GPU is taken to do in 16 bits: a fast one, for which compiling pays back late."""
MARGIN = 2.0
"""Compiling must save so many times what it costs."""
_FIRST_SCALE = 65536.0


def precision(wanted: str, device: torch.device, instruction_set: str) -> str:
    """Fabric's name of finetune.precision on a device.

    Raises:
        InputError: the device has not what was asked for.
    """
    if wanted == "32":
        return "32-true"
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        if wanted == "bf16" and not able:
            raise InputError("finetune.precision is bf16, which this GPU does not have; take auto, fp16 or 32")
        return "bf16-mixed" if wanted == "bf16" or (wanted == "auto" and able) else "16-mixed"
    if wanted == "fp16":
        raise InputError("finetune.precision: fp16 is for GPUs, and this run is on a CPU; take auto or 32")
    if wanted == "bf16" and not (instruction_set == "native" and has_bfloat16()):
        raise InputError(
            "finetune.precision: bf16 on a CPU needs one that has it and run.instruction_set: native; elsewhere it is "
            "emulated, and slower. Take auto or 32"
        )
    return "bf16-mixed" if wanted == "bf16" else "32-true"


def optimiser_options(device: torch.device, precision: str) -> dict[str, Any]:
    """Of AdamW: one fused kernel on a GPU, but not with a scaled loss, whose gradients must be clipped before."""
    return {"fused": True} if device.type == "cuda" and precision != "16-mixed" else {}


def put(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An input on its device; images on a GPU with their channels last, as the weights have them."""
    found = torch.from_numpy(array).to(device)
    if device.type == "cuda" and found.dim() == 4:
        return found.contiguous(memory_format=torch.channels_last)
    return found


def largest_batch(fits: Callable[[int], bool], num_samples: int) -> int:
    """The largest power of two that fits and leaves LEAST_STEPS batches an epoch.

    Raises:
        OutOfMemory: not even 2 samples fit.
    """
    most = min(LARGEST, max(ON_CPU, num_samples // LEAST_STEPS))
    size = 2 ** int(math.log2(most))
    while not fits(size):
        if size <= memory.SMALLEST:
            raise memory.OutOfMemory("finetune.batch_size: auto found that not even 2 samples fit into memory")
        size //= 2
    return size


def fits(network: nn.Module, example: Callable[[int], tuple[np.ndarray, ...]], fabric: Fabric) -> Callable[[int], bool]:
    """Whether a step of training with so many samples, all weights moving, fits into a GPU's memory."""

    def one(num: int) -> bool:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(fabric.device)
        try:
            optimiser = torch.optim.AdamW(network.train().parameters())
            with fabric.autocast():
                value = network(*(put(a, fabric.device) for a in example(num))).float().square().mean()
            value.backward()
            optimiser.step()
        except RuntimeError as error:
            if not memory.ran_out(error):
                raise
            return False
        finally:
            network.zero_grad()
        total = torch.cuda.get_device_properties(fabric.device).total_memory
        return bool(torch.cuda.max_memory_reserved(fabric.device) <= MEMORY_SHARE * total)

    return one


def compiling_pays(steps: int, samples: int, macs: float) -> bool:
    """Whether torch.compile saves MARGIN times what it costs in a phase of so many steps of so many samples, each with
    `macs` multiply-adds forward. By counts alone, never by a clock, so that a run that goes on decides the same."""
    seconds = 3 * samples * macs / MACS_A_SECOND  # backward is twice forward
    return steps * seconds * SAVED >= MARGIN * COMPILE_SECONDS


def macs_of(network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> float:
    """Multiply-adds of a forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    training = network.training
    with torch.inference_mode(), counter:
        network.eval()(*inputs)
    network.train(training)
    return counter.get_total_flops() / 2


def compile_where_it_pays(
    backbone: nn.Module, inputs: tuple[np.ndarray, ...], device: torch.device, steps: int, samples: int
) -> bool:
    """Compile a backbone in place, on a GPU; `inputs` are those of one sample. Names and weights stay."""
    if device.type != "cuda":
        return False
    if not compiling_pays(steps, samples, macs_of(backbone, tuple(put(a, device) for a in inputs))):
        return False
    backbone.compile(dynamic=True)
    return True


def uncompile(backbone: nn.Module) -> None:
    """As it was."""
    backbone._compiled_call_impl = None


def scaler(fabric: Fabric) -> dict[str, Any]:
    """The state of the loss's scale: {} where there is none."""
    found: dict[str, Any] = fabric.strategy.precision.state_dict()
    return found


def set_scaler(fabric: Fabric, state: dict[str, Any]) -> None:
    """`state`, or as each phase begins, whatever was trained before."""
    now = scaler(fabric)
    if now:
        fabric.strategy.precision.load_state_dict(state or {**now, "scale": _FIRST_SCALE, "_growth_tracker": 0})
