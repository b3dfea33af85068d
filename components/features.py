"""Features of frozen networks: by the fastest way that gives the same, and kept, so that nobody computes them twice."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from components.contracts import whole
from components.model import Feed, Progress, infer

COMPARED = 32
"""Samples on which a faster way is held against float32; with fewer than MANY in all it would not pay."""
MANY = 8 * COMPARED
ALIKE = 0.999
"""Least cosine, for every one of them, of features less the mean, between the two ways."""


def extract(
    network: nn.Module,
    rows: np.ndarray,
    feed: Feed,
    device: torch.device,
    progress: Progress,
    what: str,
    instruction_set: str,
) -> np.ndarray:
    """`infer` of a frozen network, by the fastest way that gives like features where run.instruction_set is native.

    That is with batch normalisation folded into the convolutions, and in bfloat16 where the processor has it. Both are
    held against float32 on the first samples: EfficientNets lose too much in bfloat16, transformers do not. Pinned to
    avx2 nothing is changed: bfloat16 is emulated there, and slower.
    """
    if instruction_set != "native" or device.type != "cpu" or len(rows) < MANY:
        return infer(network, rows, feed, device, progress, what)
    some = rows[:COMPARED]
    exact = infer(network, some, feed, device, _silent, what)
    first = [torch.from_numpy(a) for a in feed.collate(some[:2])]
    for quick, dtype in ((_folded(network, first), torch.bfloat16), (_folded(network, first), torch.float32)):
        if (dtype == torch.float32 or has_bfloat16()) and _alike(
            exact, infer(quick, some, feed, device, _silent, what, dtype=dtype)
        ):
            return infer(quick, rows, feed, device, progress, what, dtype=dtype)
    return infer(network, rows, feed, device, progress, what)


def _silent(items: Iterable[Any], what: str, total: int) -> Iterator[Any]:
    del what, total
    return iter(items)


def has_bfloat16() -> bool:
    """Whether this processor multiplies matrices in bfloat16, and may, as the process was started."""
    able = torch.cpu.get_capabilities()
    allowed = torch.backends.cpu.get_cpu_capability().startswith("AVX512")  # ATEN_CPU_CAPABILITY may forbid it
    return allowed and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _alike(exact: np.ndarray, other: np.ndarray) -> bool:
    """Whether every sample's features point where they should from the mean of all."""
    middle = exact.mean(axis=0, dtype=np.float64)
    one, two = exact - middle, other - middle
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return bool(np.all(np.sum(one * two, axis=1) >= ALIKE * lengths))


@torch.inference_mode()
def _folded(network: nn.Module, inputs: list[torch.Tensor]) -> nn.Module:
    """A copy in which batch normalisation that comes right after a convolution is part of it.

    Which ones do is seen in one pass. What else a convolution's output might go to is not: the caller compares.
    """
    copied = copy.deepcopy(network).eval()
    made: dict[int, nn.Conv2d] = {}
    pairs: list[tuple[nn.Conv2d, str]] = []
    kept: list[torch.Tensor] = []  # alive, so that no other gets its id
    hooks = []
    for name, module in copied.named_modules():
        if isinstance(module, nn.Conv2d):

            def note(conv: nn.Conv2d, _: Any, output: torch.Tensor) -> None:
                made[id(output)] = conv
                kept.append(output)

            hooks.append(module.register_forward_hook(note))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:

            def meet(_: nn.Module, given: Any, name: str = name) -> None:
                if (conv := made.pop(id(given[0]), None)) is not None:
                    pairs.append((conv, name))

            hooks.append(module.register_forward_pre_hook(meet))
    copied(*inputs)
    for hook in hooks:
        hook.remove()
    for conv, name in pairs:
        norm: Any = copied.get_submodule(name)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        after = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part is not None]
        copied.set_submodule(name, nn.Sequential(*after))  # timm's has an activation of its own
    return copied


def _code_of(network: nn.Module) -> str:
    """What runs in a forward pass: our own modules by their content, those of libraries by their version."""
    homes = {type(module).__module__ for module in network.modules()}
    ours = [__name__, *sorted(home for home in homes if home.split(".")[0] == "components")]
    hashes = [hashlib.sha256(Path(str(sys.modules[home].__file__)).read_bytes()).hexdigest() for home in ours]
    libraries = sorted({home.split(".")[0] for home in homes} - {"components"})
    versions = [f"{name} {getattr(sys.modules.get(name), '__version__', '')}" for name in libraries]
    return json.dumps([hashes, versions])


def cached_features(
    network: nn.Module,
    key: str,
    cache: Path,
    compute: Callable[[], np.ndarray],
    instruction_set: str = "avx2",
) -> np.ndarray:
    """Features of frozen weights, kept under `cache`; the key adds the weights' own bytes and the code.

    `key` names the samples and the preprocessing (Feed.key), `instruction_set` is that of `extract`. The network is
    already on its device. What is returned is read through a memory map, as far as it is asked for; writing into it
    changes no file.
    """
    digest = hashlib.sha256(key.encode())
    arithmetic = (
        f"{torch.__version__}/{torch.get_num_threads()}/{torch.backends.cpu.get_cpu_capability()}/{instruction_set}"
    )
    digest.update(arithmetic.encode())
    digest.update(repr(network).encode())  # the same weights with other padding: other features
    digest.update(_code_of(network).encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name}/{tensor.device.type}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    place = cache / f"{digest.hexdigest()[:32]}.npy"
    if not place.exists():
        features = compute()
        with whole(place) as store:
            np.save(store, features)
    found: np.ndarray = np.load(place, mmap_mode="c")
    return found
