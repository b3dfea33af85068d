"""The processes that train one model together: which part of a batch is whose, and what they add up.

A batch is cut by position, so the batch as a whole is the one that a single process would take. The loss of a part is
weighted by its samples and gradients are summed in one vector, and normalisation takes its statistics over the whole
batch: so several processes compute what one does, but for rounding (and dropout, which each draws for itself). The
vector is summed as a whole after each backward pass, and not in buckets while it runs, as DistributedDataParallel does:
that would be faster where the network between processes is slow, but the order of its sums depends on the step at which
a killed run goes on.

Tried with gloo on CPUs. NCCL, which is what CUDA devices get, was never run here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from components.contracts import InputError

PATIENCE = timedelta(hours=24)
"""One process may prepare data while others wait; that one is dead is noticed by whoever started them."""


class Differ(InputError):
    """The processes do not train the same."""


@dataclass(frozen=True)
class Team:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those of this machine."""

    @property
    def key(self) -> tuple[object, ...]:
        """What of it decides random numbers that belong to no sample, such as dropout's."""
        return ("rank", self.rank) if self.rank else ()

    def part(self, cut: np.ndarray) -> np.ndarray:
        """The part of a batch that is this process's."""
        return np.array_split(cut, self.size)[self.rank]

    def check_batches(self, batches: Iterable[np.ndarray]) -> None:
        """Raises InputError where a batch has fewer samples than there are processes."""
        smallest = min(len(batch) for batch in batches)
        if smallest < self.size:
            raise InputError(
                f"finetune.processes is {self.size}, but a batch has {smallest} samples, and each process needs one. "
                "Take fewer processes, or raise finetune.batch_size."
            )

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Sum over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def sum_gradients(self, parameters: Iterable[torch.Tensor]) -> None:
        """Each gradient becomes its sum over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(part.view_as(gradient))  # in place, as its layout decides the order of later sums

    def statistics(self) -> AbstractContextManager[Any]:
        """Within it batch normalisation in training takes its statistics over the whole batch."""
        return _WholeBatch() if self.size > 1 else nullcontext()

    @contextmanager
    def first_of_machine(self) -> Iterator[None]:
        """One process of each machine goes through alone, then the others; for what is cached in files."""
        if self.size > 1 and self.local_rank:
            dist.barrier()
        yield
        if self.size > 1 and not self.local_rank:
            dist.barrier()

    @contextmanager
    def as_first_has_it(self, path: Path) -> Iterator[Path]:
        """A file as the first process has it (or has not), wherever this one runs."""
        if self.size == 1:
            yield path
            return
        content = [path.read_bytes() if self.rank == 0 and path.exists() else None]
        dist.broadcast_object_list(content)
        if self.rank == 0 or content[0] is None:
            yield path if self.rank == 0 else path.with_name(".is not there")
            return
        with TemporaryDirectory() as aside:
            copy = Path(aside) / path.name
            copy.write_bytes(content[0])
            yield copy

    def must_agree(self, what: str, digest: str) -> None:
        """Raises Differ where another process has another digest."""
        if self.size == 1:
            return
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, digest)
        others = [str(rank + 1) for rank, other in enumerate(found) if other != found[0]]
        if others:
            raise Differ(f"finetune: {what} of process {', '.join(others)} of {self.size} is not that of process 1")


ALONE = Team()


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of weights and statistics."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@contextmanager
def joined(team: Team, store: Any = None) -> Iterator[None]:
    """This process is one of the team; `store` is where they find each other, None: as torchrun's variables say."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=team.rank, world_size=team.size, timeout=PATIENCE)
    yield
    dist.destroy_process_group()  # not after a fault: it would wait for those that wait for us


class _Sum(torch.autograd.Function):
    """Sum over the processes; a gradient of it is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        del ctx
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        del ctx
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


class _WholeBatch(TorchFunctionMode):
    """Whatever module calls for batch normalisation: torch's own SyncBatchNorm has no CPU version."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    values: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    if not training:
        return F.batch_norm(values, running_mean, running_var, weight, bias, False, momentum, eps)
    x = values.float()
    axes = [axis for axis in range(x.dim()) if axis != 1]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    num = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
    dist.all_reduce(num)
    mean = _sum(x.sum(axes)) / num
    centred = x - mean.view(shape)
    variance = _sum((centred * centred).sum(axes)) / num
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean), momentum)
        if running_var is not None:
            running_var.lerp_((variance * num / (num - 1)).to(running_var), momentum)
    normal = centred * torch.rsqrt(variance + eps).view(shape)
    if weight is not None:
        normal = normal * weight.view(shape)
    if bias is not None:
        normal = normal + bias.view(shape)
    return normal.to(values.dtype)


def _sum(value: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = _Sum.apply(value)
    return found
