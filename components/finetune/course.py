"""The phases of one training run, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from components.contracts import write_atomic
from components.finetune import loop, memory
from components.finetune.batches import Data
from components.finetune.checkpoints import State
from components.finetune.phases import End, Phase, Start
from components.model import TransferModel

Scaled = Callable[[Phase, Start], AbstractContextManager[None]]
"""Within it the head works on features of a scale of 1 (components.model.Head)."""


@dataclass(frozen=True)
class Course:
    """What a run's phases left behind, beside the weights."""

    history: list[dict[str, Any]]
    best_epoch: int
    """Row of the history, from 1, whose weights were kept, or with which the last phase's choice began."""
    num_samples_seen: int
    found: dict[str, float]
    """What was chosen on validation, by name."""
    figures: dict[str, float]
    """Of the weights that it ended with, on validation."""
    pieces: int = 1
    """The most that a batch was computed in, since memory had run out."""


def run(
    model: TransferModel,
    phases: list[Phase],
    start_of: Callable[[Phase], Start],
    whole: dict[str, Data],
    scaled: Scaled,
    keep: Path,
    title: str,
) -> Course:
    """Train `model` in place. `start_of` makes what a phase begins with; `whole` has "train" and "validation" as they
    are, not augmented and not features; checkpoints lie below `keep`, and with some there, it goes on from them."""
    ended = _Ended(keep, any(p.begins_after is not None or p.finish for p in phases))
    ended.add(-1, model)
    history: list[dict[str, Any]] = []
    found: dict[str, float] = {}
    figures: dict[str, float] = {}
    state, seen, pieces = State(), 0, 1
    for number, phase in enumerate(phases):
        if phase.begins_after is not None:
            model.load_state_dict(ended.of(phase.begins_after))
        with memory.told(f"{title} {phase.name}, before or after its epochs"):
            start = start_of(phase)
            with scaled(phase, start):
                state = loop.train_phase(start, phase, keep / f"{number}.safetensors", title, history)
            figures = {k: v for k, v in state.history[state.best_epoch - 1].items() if k.startswith("validation_")}
            if phase.finish is not None:
                end = _end(start, whole, ended, state.pieces)
                found |= phase.finish(end)
                figures = end.judge()
        ended.add(number, model)
        history += [{**row, "epoch": len(history) + 1 + i} for i, row in enumerate(state.history)]
        seen += state.num_samples_seen
        pieces = max(pieces, state.pieces)
    return Course(history, len(history) - len(state.history) + state.best_epoch, seen, found, figures, pieces)


def _end(start: Start, whole: dict[str, Data], ended: _Ended, pieces: int) -> End:
    """`pieces`: in how many memory was enough for a batch."""
    batch, device = max(memory.SMALLEST, start.settings.batch_size // pieces), start.fabric.device
    settings = replace(start.settings, batch_size=batch)

    def judge() -> dict[str, float]:
        return loop.measure(start.model, whole["validation"], start.decision, batch, device, start.team)

    def renew() -> None:
        loop.renew_statistics(start.model, whole["train"], settings, device)

    return End(start, ended.of, judge, renew)


@dataclass(frozen=True)
class _Ended:
    """The weights that the phases ended with; in files, and only where a phase goes back to them."""

    folder: Path
    asked: bool

    def add(self, number: int, model: TransferModel) -> None:
        """A phase has ended, with these weights; -1: before the first."""
        if self.asked:
            state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
            write_atomic(self.folder / f"ended{number}.safetensors", save(state))

    def of(self, number: int) -> dict[str, torch.Tensor]:
        """Weights and statistics at a phase's end."""
        return load_file(self.folder / f"ended{number}.safetensors")
