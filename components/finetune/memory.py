"""What is done when memory runs out in a step: the batch is computed in pieces, whose gradients add up to its own.

The batches stay what they are, and so does what is learnt from them but for rounding, with one exception: batch
normalisation takes its statistics of a piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from components.contracts import InputError

SMALLEST = 2
"""Samples of a piece: one alone has no statistics."""
_WORDS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_REMEDY = "Take a smaller image size or backbone, or a strategy that trains less (linear_probe, partial, lora)"


class OutOfMemory(InputError):
    """It does not fit, however a batch is cut."""


@dataclass
class Pieces:
    """In how many a batch is computed."""

    num: int = 1

    def double(self, smallest_batch: int, processes: int) -> None:
        """Memory ran out.

        Raises:
            OutOfMemory: pieces would be too small, or other processes would have to know.
        """
        if processes > 1:
            raise OutOfMemory(
                "memory ran out, and several processes cannot change how they cut a batch in its middle. Lower "
                "finetune.batch_size"
            )
        if smallest_batch // (2 * self.num) < SMALLEST:
            raise OutOfMemory(f"memory ran out though a batch was computed in {self.num} pieces. {_REMEDY}")
        self.num *= 2


def ran_out(error: BaseException) -> bool:
    """Whether it says that memory ran out, on whatever device."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _WORDS)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Within it, that memory ran out is told as what the user can mend."""
    try:
        yield
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise OutOfMemory(f"memory ran out in {what}, and not in what can be computed in pieces. {_REMEDY}") from None


def moving(network: nn.Module) -> Iterator[torch.Tensor]:
    """The running statistics that a step in training moves; other buffers, a table of word vectors among them, can be
    large, and stay as they are."""
    for module in network.modules():
        if module.training:
            yield from (b for name, b in module.named_buffers(recurse=False) if name in _STATISTICS)


def kept(buffers: Iterable[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Buffers, and what they hold: a step that fails has moved some of the running statistics."""
    return [(buffer, buffer.clone()) for buffer in buffers]


def put_back(buffers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """As they were; and what the failed step had is free for the next try."""
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
