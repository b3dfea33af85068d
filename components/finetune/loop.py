"""The one training loop. What differs between strategies is in their phases.

Every random number is keyed: the order of samples by (seed, epoch), augmentation by (seed, epoch, sample id),
dropout by (seed, phase, step) and, beyond the first, by process. So a run that was killed goes on from its last epoch
and ends with the very same weights, and the number of threads that prepare batches does not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from components import samples
from components.contracts import InputError
from components.finetune import checkpoints
from components.finetune.batches import Data, batches, num_batches
from components.finetune.checkpoints import State
from components.finetune.phases import Callback, Phase, Start, Step
from components.finetune.team import ALONE, Team, digest

Array = np.ndarray


class TrainingError(InputError):
    """Training cannot go on: the loss is not a number any more."""


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


def train_phase(start: Start, phase: Phase, keep: Path, title: str) -> State:
    """Train one phase in place and leave the weights of its best epoch in the model.

    `keep` is where the phase's checkpoint lies; with one there, goes on from it.
    """
    work = _set_up(start, phase, title)
    team, callback = start.team, work.callback
    with team.as_first_has_it(keep) as found:
        state, best, own = checkpoints.resume(found, work.trained, work.optimiser, start.fabric.device)
        callback.resume(own)
    while not state.finished:
        what = f"{title} {phase.name} epoch {state.epoch + 1}/{phase.epochs}"
        train_loss, rate = _train_epoch(work, state.epoch, what)
        with callback.judged():
            figures = measure(
                work.wrapped, start.validation, start.decision, start.settings.batch_size, start.fabric.device, team
            )
            state = _after_epoch(state, phase, figures, train_loss, rate, len(start.train.rows), start.settings)
            if state.best_epoch == state.epoch:
                best = {k: v.detach().cpu().clone() for k, v in work.trained.state_dict().items()}
        team.must_agree(f"the weights after {what}", digest(work.trained.state_dict()) if team.size > 1 else "")
        if team.rank == 0:
            checkpoints.write(keep, work.trained, work.optimiser, best, callback.state(), state)
        row = state.history[-1]
        start.job.say(
            f"{what}: loss {row['train_loss']:.4f}, on validation {row['validation_loss']:.4f}, "
            f"accuracy {row['validation_accuracy']:.4f}"
        )
    work.trained.load_state_dict(best)
    work.watched.remove()
    callback.close()
    for parameter in start.model.parameters():
        parameter.requires_grad_(True)
    return state


@dataclass(frozen=True)
class _Work:
    """A phase under way: what each of its steps takes."""

    start: Start
    phase: Phase
    callback: Callback
    trained: nn.Module
    """The model, or its head alone."""
    wrapped: Any
    """The same as Fabric has it."""
    optimiser: Any
    rates: tuple[float, ...]
    """Learning rate of each of the optimiser's groups, before the schedule."""
    title: str
    seen: list[torch.Tensor]
    """The features that the head was last given."""
    watched: Any
    """The hook that puts them there."""


def _set_up(start: Start, phase: Phase, title: str) -> _Work:
    model = start.model
    callback = (phase.callback or Callback)(start)
    trained: nn.Module = model.head if phase.cached else model
    groups = phase.groups(model)
    freeze_all_but(model, groups)
    optimiser = torch.optim.AdamW(groups, weight_decay=start.settings.weight_decay)
    wrapped, optimiser = start.fabric.setup(trained, optimiser)
    rates = tuple(float(g["lr"]) for g in optimiser.param_groups)
    seen: list[torch.Tensor] = []
    watched = model.head.register_forward_pre_hook(lambda _, inputs: seen.__setitem__(slice(None), inputs))
    return _Work(start, phase, callback, trained, wrapped, optimiser, rates, title, seen, watched)


def _train_epoch(work: _Work, epoch: int, what: str) -> tuple[float, float]:
    """Mean loss, and the first group's learning rate at the end."""
    train, settings, team, job = work.start.train, work.start.settings, work.start.team, work.start.job
    steps = num_batches(len(train.rows), settings.batch_size)
    total = 0.0
    work.wrapped.train()
    _frozen_in_eval(work.start.model, work.phase.frozen_norm)
    given = batches(train, settings, epoch, job.run.threads, team)
    for step, (inputs, places, num) in enumerate(job.progress(given, what, steps)):
        at = epoch * steps + step
        share = _schedule(at, work.phase.epochs * steps, settings.warmup)
        for group, rate in zip(work.optimiser.param_groups, work.rates):
            group["lr"] = rate * share
        torch.manual_seed(samples.keyed_seed(settings.seed, work.phase.name, at, *team.key))
        value = _loss(work, inputs, places, num)
        _finite(value, work.title, epoch, step, share * max(work.rates))
        _step(work, value)
        work.callback.after_step()
        total += float(value.detach()) * num
    total = float(team.total(torch.tensor(total, dtype=torch.float64)))
    return total / len(train.rows), work.rates[0] * share


def _loss(work: _Work, inputs: tuple[Array, ...], places: Array, num: int) -> torch.Tensor:
    """Of this process's part of a batch of `num` samples: summed over the processes it is the batch's mean."""
    start = work.start
    device = start.fabric.device
    with start.team.statistics():
        logits = work.wrapped(*(torch.from_numpy(a).to(device) for a in inputs))
    targets = torch.from_numpy(start.train.targets[places]).to(device)
    value: torch.Tensor = start.decision.loss(logits, targets, start.settings.label_smoothing)
    penalty = work.callback.penalty(Step(places, work.seen[0], logits, targets))
    if penalty is not None:
        value = value + penalty
    return value * (len(places) / num) if start.team.size > 1 else value


def _step(work: _Work, value: torch.Tensor) -> None:
    work.optimiser.zero_grad()
    work.start.fabric.backward(value)
    work.start.team.sum_gradients(p for group in work.optimiser.param_groups for p in group["params"])
    work.start.fabric.clip_gradients(work.wrapped, work.optimiser, max_norm=work.start.settings.max_gradient_norm)
    work.optimiser.step()


def freeze_all_but(model: nn.Module, groups: list[dict[str, Any]]) -> None:
    """Only what an optimiser group holds takes a gradient."""
    trains = {id(p) for group in groups for p in group["params"]}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trains)


def _frozen_in_eval(model: nn.Module, frozen_norm: bool) -> None:
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        keeps_statistics = frozen_norm and getattr(module, "running_mean", None) is not None
        if keeps_statistics or (own and not any(p.requires_grad for p in own)):
            module.eval()


@torch.inference_mode()
def measure(
    network: nn.Module, data: Data, decision: ModuleType, batch: int, device: torch.device, team: Team = ALONE
) -> dict[str, float]:
    """Mean loss and accuracy of a network in eval mode. Processes take batches in turn; their number changes no bit."""
    network.eval()
    order = np.arange(len(data.rows)) if data.lengths is None else np.argsort(-data.lengths, kind="stable")
    starts = range(0, len(data.rows), batch)
    found = torch.zeros(len(starts), 2, dtype=torch.float64)
    for number in range(team.rank, len(starts), team.size):
        cut = order[starts[number] : starts[number] + batch]
        inputs = (torch.from_numpy(a).to(device) for a in data.collate(data.rows[cut]))
        targets = torch.from_numpy(data.targets[cut]).to(device)
        logits = network(*inputs).float()
        found[number, 0] = float(decision.loss(logits, targets)) * len(targets)
        found[number, 1] = int(decision.correct(logits, targets).sum())
    total, right = (sum(column) for column in zip(*team.total(found).tolist()))
    return {"validation_loss": total / len(data.rows), "validation_accuracy": int(right) / len(data.rows)}


def renew_statistics(network: nn.Module, data: Data, settings: Settings, device: torch.device) -> None:
    """Running statistics of batch normalisation become the means over the samples: those of weights that were averaged
    are neither's (Izmailov et al., Averaging weights leads to wider optima, UAI 2018, section 3.2). Of networks with
    one input: those for texts have no batch normalisation."""
    torch.manual_seed(samples.keyed_seed(settings.seed, "statistics"))  # of dropout
    starts = range(0, len(data.rows), settings.batch_size)
    given = (torch.from_numpy(data.collate(data.rows[at : at + settings.batch_size])[0]) for at in starts)
    torch.optim.swa_utils.update_bn(given, network, device)


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a cosine down to 0 (Loshchilov and Hutter, 2017)."""
    first = max(1, round(warmup * steps))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, steps - first)))


def _finite(value: torch.Tensor, title: str, epoch: int, step: int, rate: float) -> None:
    if not math.isfinite(float(value.detach())):
        raise TrainingError(
            f"the loss of {title} is {float(value.detach())} in epoch {epoch + 1}, step {step + 1}, at learning rate "
            f"{rate:.2g}. Most likely the rate is too high: lower finetune.strategy.learning_rate "
            "(and backbone_learning_rate), or set finetune.precision: 32."
        )


def _after_epoch(
    state: State, phase: Phase, figures: dict[str, float], train_loss: float, rate: float, seen: int, settings: Settings
) -> State:
    row = {"phase": phase.name, "epoch": state.epoch + 1, "train_loss": train_loss, **figures, "learning_rate": rate}
    if not math.isfinite(figures["validation_loss"]):
        raise TrainingError(
            f"the loss on validation is {figures['validation_loss']} after epoch {state.epoch + 1} of {phase.name}. "
            "Most likely the learning rate is too high: lower finetune.strategy.learning_rate."
        )
    better = figures["validation_loss"] < state.best_loss
    epoch = state.epoch + 1
    best_epoch = epoch if better else state.best_epoch
    return State(
        epoch=epoch,
        best_epoch=best_epoch,
        best_loss=figures["validation_loss"] if better else state.best_loss,
        num_samples_seen=state.num_samples_seen + seen,
        finished=epoch >= phase.epochs or epoch - best_epoch >= settings.patience,
        history=[*state.history, row],
    )
