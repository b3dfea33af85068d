"""The one training loop. What differs between strategies is in their phases.

Every random number is keyed: the order of samples by (seed, epoch), augmentation by (seed, epoch, sample id),
mixtures by (seed, epoch, batch), dropout by (seed, phase, step) and, beyond the first, by process. So a run that was
killed goes on from its last epoch and ends with the very same weights, and the number of threads that prepare batches
does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from components.finetune import checkpoints, hardware, live, memory, schedules
from components.finetune.batches import batches, num_batches
from components.finetune.checkpoints import State
from components.finetune.judging import measure, renew_statistics
from components.finetune.phases import Phase, Start
from components.finetune.stepping import (
    Place,
    RateTooHigh,
    TrainingError,
    Work,
    freeze_all_but,
    gradients,
    likely,
    move,
    set_up,
)
from components.finetune.team import digest

__all__ = ["RateTooHigh", "Settings", "TrainingError", "freeze_all_but", "measure", "renew_statistics", "train_phase"]


@dataclass(frozen=True)
class Settings:
    """Options of the loop, the same for every strategy."""

    seed: int
    batch_size: int
    patience: int
    weight_decay: float
    label_smoothing: float
    warmup: float
    max_gradient_norm: float
    precision: str
    schedule: str = "cosine"
    mixup: float = 0.0
    cutmix: float = 0.0
    dropout: float = 0.0


def train_phase(start: Start, phase: Phase, keep: Path, title: str, earlier: Sequence[dict[str, Any]] = ()) -> State:
    """Train one phase in place and leave the weights of its best epoch in the model.

    `keep` is where the phase's checkpoint lies; with one there, goes on from it. `earlier`: the run's history so far.
    """
    work = set_up(start, phase, title)
    team, callback = start.team, work.callback
    with team.as_first_has_it(keep) as found:
        state, best, own = checkpoints.resume(found, work.trained, work.optimiser, start.fabric.device)
        callback.resume(own)
    work.pieces.num = state.pieces
    hardware.set_scaler(start.fabric, state.scaler)
    if not phase.cached and not state.finished:
        _compile(work)
    if team.rank == 0 and state.history:
        live.write(start.job, title, _numbered(earlier, state))
    while not state.finished:
        what = f"{title} {phase.name} epoch {state.epoch + 1}/{phase.epochs}"
        with memory.told(f"{what}, at the end of a step"):
            train_loss, rate = _train_epoch(work, state.epoch, what)
        with callback.judged():
            batch = max(1, start.settings.batch_size // work.pieces.num)
            with memory.told(f"{what}, on validation"):
                figures = measure(work.wrapped, start.validation, start.decision, batch, start.fabric.device, team)
            state = _after_epoch(work, state, figures, train_loss, rate)
            if state.best_epoch == state.epoch:
                best = {k: v.detach().cpu().clone() for k, v in work.trained.state_dict().items()}
        team.must_agree(f"the weights after {what}", digest(work.trained.state_dict()) if team.size > 1 else "")
        if team.rank == 0:
            checkpoints.write(keep, work.trained, work.optimiser, best, callback.state(), state)
            live.write(start.job, title, _numbered(earlier, state))
        start.job.say(f"{what}: {_figures(state.history[-1])}")
    work.trained.load_state_dict(best)
    for hook in work.hooks:
        hook.remove()
    callback.close()
    hardware.uncompile(start.model.backbone)
    for parameter in start.model.parameters():
        parameter.requires_grad_(True)
    return state


def _compile(work: Work) -> None:
    train, size = work.start.train, work.start.settings.batch_size
    if work.start.fabric.device.type != "cuda":
        return
    steps, one = work.phase.epochs * num_batches(len(train.rows), size), train.collate(train.rows[:1])
    if hardware.compile_where_it_pays(work.start.model.backbone, one, work.start.fabric.device, steps, size):
        work.start.job.say(
            f"{work.title} {work.phase.name}: the backbone is compiled, which pays back in {steps} steps"
        )


def _train_epoch(work: Work, epoch: int, what: str) -> tuple[float, float]:
    """Mean loss, and the first group's learning rate at the end."""
    train, settings, team, job = work.start.train, work.start.settings, work.start.team, work.start.job
    steps = num_batches(len(train.rows), settings.batch_size)
    total = 0.0
    work.wrapped.train()
    _frozen_in_eval(work.start.model, work.phase.frozen_norm)
    given = batches(train, settings, epoch, job.run.threads, team)
    for step, batch in enumerate(job.progress(given, what, steps)):
        at = epoch * steps + step
        share = _set_rates(work, at, work.phase.epochs * steps)
        place = Place(work, epoch + 1, step + 1, at, share, batch)
        total += gradients(place) * batch.num
        move(place)
        work.callback.after_step()
    total = float(team.total(torch.tensor(total, dtype=torch.float64)))
    return total / len(train.rows), work.rates[0] * share


def _set_rates(work: Work, at: int, steps: int) -> float:
    """The schedule's share of the rates in a step, which the optimiser then has."""
    settings = work.start.settings
    share = schedules.share(settings.schedule, at, steps, settings.warmup)
    momentum = schedules.momentum(settings.schedule, at, steps, settings.warmup)
    for group, rate in zip(work.optimiser.param_groups, work.rates):
        group["lr"] = rate * share
        if momentum is not None:
            group["betas"] = (momentum, group["betas"][1])
    return share


def _frozen_in_eval(model: nn.Module, frozen_norm: bool) -> None:
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        keeps_statistics = frozen_norm and getattr(module, "running_mean", None) is not None
        if keeps_statistics or (own and not any(p.requires_grad for p in own)):
            module.eval()


def _after_epoch(work: Work, state: State, figures: dict[str, float], train_loss: float, rate: float) -> State:
    phase, settings = work.phase, work.start.settings
    row = {"phase": phase.name, "epoch": state.epoch + 1, "train_loss": train_loss, **figures, "learning_rate": rate}
    if not math.isfinite(figures["validation_loss"]):
        raise RateTooHigh(
            f"the loss of {work.title} on validation is {figures['validation_loss']} after epoch {state.epoch + 1} of "
            f"{phase.name}. {likely(work, 1.0)}"
        )
    better = figures["validation_loss"] < state.best_loss
    epoch = state.epoch + 1
    best_epoch = epoch if better else state.best_epoch
    return State(
        epoch=epoch,
        best_epoch=best_epoch,
        best_loss=figures["validation_loss"] if better else state.best_loss,
        num_samples_seen=state.num_samples_seen + len(work.start.train.rows),
        finished=epoch >= phase.epochs or epoch - best_epoch >= settings.patience,
        history=[*state.history, row],
        pieces=work.pieces.num,
        scaler=hardware.scaler(work.start.fabric),
    )


def _numbered(earlier: Sequence[dict[str, Any]], state: State) -> list[dict[str, Any]]:
    """The run's history so far, its epochs counted through the phases."""
    return [*earlier, *({**row, "epoch": len(earlier) + 1 + i} for i, row in enumerate(state.history))]


def _figures(row: dict[str, Any]) -> str:
    rest = ("loss", "accuracy", "precision", "recall", "f1")
    return f"loss {row['train_loss']:.4f}; on validation " + ", ".join(
        f"{name} {row[f'validation_{name}']:.4f}" for name in rest
    )
