"""The one training loop. What differs between strategies is in their phases.

Every random number is keyed: the order of samples by (seed, epoch), augmentation by (seed, epoch, sample id),
dropout by (seed, phase, step) and, beyond the first, by process. So a run that was killed goes on from its last epoch
and ends with the very same weights, and the number of threads that prepare batches does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from components import samples
from components.contracts import InputError
from components.finetune import checkpoints
from components.finetune.checkpoints import State
from components.finetune.phases import Phase
from components.finetune.team import ALONE, Team, digest
from components.job import Job
from components.model import TransferModel

Array = np.ndarray
POOL = 64
"""Batches whose samples are sorted by length together."""
MANY = 64
"""So many samples of a kind in a pool have an order of their own."""


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


@dataclass(frozen=True)
class Data:
    """One split, ready to be batched."""

    rows: Array
    """Prepared rows of the task, or features [N, D] in a cached phase."""
    targets: Array
    """int64 [N], or what the decision has instead."""
    ids: tuple[str, ...]
    collate: Callable[[Array], tuple[Array, ...]]
    augment: Callable[[Array, np.random.Generator], Array] | None = None
    lengths: Array | None = None
    """int [N] where rows differ in length: like is then batched with like."""
    kinds: Array | None = None
    """int [N]: what a batch should be a mixture of though its rows are of one length: labels."""


def train_phase(
    model: TransferModel,
    phase: Phase,
    train: Data,
    validation: Data,
    decision: ModuleType,
    settings: Settings,
    job: Job,
    fabric: Fabric,
    keep: Path,
    title: str,
    team: Team = ALONE,
) -> State:
    """Train one phase in place and leave the weights of its best epoch in `model`.

    `keep` is where the phase's checkpoint lies; with one there, goes on from it. `team`: the processes that do it.
    """
    work = _set_up(model, phase, decision, settings, fabric, title, team)
    with team.as_first_has_it(keep) as found:
        state, best = checkpoints.resume(found, work.trained, work.optimiser, fabric.device)
    while not state.finished:
        what = f"{title} {phase.name} epoch {state.epoch + 1}/{phase.epochs}"
        train_loss, rate = _train_epoch(work, train, state.epoch, job, what)
        figures = measure(work.wrapped, validation, decision, settings.batch_size, fabric.device, team)
        state = _after_epoch(state, phase, figures, train_loss, rate, len(train.rows), settings)
        if state.best_epoch == state.epoch:
            best = {k: v.detach().cpu().clone() for k, v in work.trained.state_dict().items()}
        team.must_agree(f"the weights after {what}", digest(work.trained.state_dict()) if team.size > 1 else "")
        if team.rank == 0:
            checkpoints.write(keep, work.trained, work.optimiser, best, state)
        row = state.history[-1]
        job.say(
            f"{what}: loss {row['train_loss']:.4f}, on validation {row['validation_loss']:.4f}, "
            f"accuracy {row['validation_accuracy']:.4f}"
        )
    work.trained.load_state_dict(best)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return state


@dataclass(frozen=True)
class _Work:
    """A phase under way: what each of its steps takes."""

    model: TransferModel
    phase: Phase
    trained: nn.Module
    """The model, or its head alone."""
    wrapped: Any
    """The same as Fabric has it."""
    optimiser: Any
    rates: tuple[float, ...]
    """Learning rate of each of the optimiser's groups, before the schedule."""
    decision: ModuleType
    settings: Settings
    fabric: Fabric
    title: str
    team: Team


def _set_up(
    model: TransferModel, phase: Phase, decision: ModuleType, settings: Settings, fabric: Fabric, title: str, team: Team
) -> _Work:
    trained: nn.Module = model.head if phase.cached else model
    groups = phase.groups(model)
    freeze_all_but(model, groups)
    optimiser = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    wrapped, optimiser = fabric.setup(trained, optimiser)
    rates = tuple(float(g["lr"]) for g in optimiser.param_groups)
    return _Work(model, phase, trained, wrapped, optimiser, rates, decision, settings, fabric, title, team)


def _train_epoch(work: _Work, train: Data, epoch: int, job: Job, what: str) -> tuple[float, float]:
    """Mean loss, and the first group's learning rate at the end."""
    steps = _num_batches(len(train.rows), work.settings.batch_size)
    total = 0.0
    work.wrapped.train()
    _frozen_in_eval(work.model, work.phase.frozen_norm)
    batches = _batches(train, work.settings, epoch, job.run.threads, work.team)
    for step, (inputs, targets, num) in enumerate(job.progress(batches, what, steps)):
        at = epoch * steps + step
        share = _schedule(at, work.phase.epochs * steps, work.settings.warmup)
        for group, rate in zip(work.optimiser.param_groups, work.rates):
            group["lr"] = rate * share
        torch.manual_seed(samples.keyed_seed(work.settings.seed, work.phase.name, at, *work.team.key))
        value = _loss(work, inputs, targets, num)
        _finite(value, work.title, epoch, step, share * max(work.rates))
        _step(work, value)
        total += float(value.detach()) * num
    total = float(work.team.total(torch.tensor(total, dtype=torch.float64)))
    return total / len(train.rows), work.rates[0] * share


def _loss(work: _Work, inputs: tuple[Array, ...], targets: Array, num: int) -> torch.Tensor:
    """Of this process's part of a batch of `num` samples: summed over the processes it is the batch's mean."""
    team, device = work.team, work.fabric.device
    with team.statistics():
        logits = work.wrapped(*(torch.from_numpy(a).to(device) for a in inputs))
    value: torch.Tensor = work.decision.loss(
        logits, torch.from_numpy(targets).to(device), work.settings.label_smoothing
    )
    if team.size > 1:
        value = value * (len(targets) / num)
    if work.phase.penalty is not None:
        value = value + work.phase.penalty(work.model) / team.size
    return value


def _step(work: _Work, value: torch.Tensor) -> None:
    work.optimiser.zero_grad()
    work.fabric.backward(value)
    work.team.sum_gradients(p for group in work.optimiser.param_groups for p in group["params"])
    work.fabric.clip_gradients(work.wrapped, work.optimiser, max_norm=work.settings.max_gradient_norm)
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


def _num_batches(num_samples: int, batch_size: int) -> int:
    """Batches are of nearly equal size: a rest of one sample would have no statistics of its own."""
    return max(1, min(math.ceil(num_samples / batch_size), num_samples // 2))


def cuts(
    num_samples: int, lengths: Array | None, kinds: Array | None, batch_size: int, seed: int, epoch: int
) -> list[Array]:
    """Which samples make up each batch of an epoch, in the order of training.

    Where samples differ in length, POOL batches' worth at a time are sorted by it (ties as they were drawn) and
    the batches shuffled. Where long texts are of one label, that alone would make batches of one label, which
    train badly: so each kind is sorted by itself, and its shortest go with the others' shortest.
    """
    rng = samples.keyed_rng(seed, epoch, "order of samples")
    batches = np.array_split(rng.permutation(num_samples), _num_batches(num_samples, batch_size))
    if lengths is None:
        return batches
    found: list[Array] = []
    for start in range(0, len(batches), POOL):
        group = batches[start : start + POOL]
        pool = np.concatenate(group)
        pool = pool[np.argsort(_places(lengths[pool], None if kinds is None else kinds[pool]), kind="stable")]
        found += np.split(pool, np.cumsum([len(batch) for batch in group])[:-1])
    return [found[i] for i in rng.permutation(len(found))]


def _places(lengths: Array, kinds: Array | None) -> Array:
    """Where each sample stands in the order of length, 0 to 1; of a kind with MANY samples, in that of its kind."""

    def places(values: Array) -> Array:
        return np.asarray((np.argsort(np.argsort(values, kind="stable"), kind="stable") + 0.5) / len(values))

    found = places(lengths)
    for kind in [] if kinds is None else np.unique(kinds):
        own = np.flatnonzero(kinds == kind)
        if len(own) >= MANY:
            found[own] = places(lengths[own])
    return found


def computed_over_real(lengths: Array, batches: list[Array]) -> float:
    """What the network computes, padding included, over what the samples hold."""
    return sum(len(b) * int(lengths[b].max()) for b in batches) / int(lengths.sum())


def _batches(
    data: Data, settings: Settings, epoch: int, threads: int, team: Team
) -> Iterator[tuple[tuple[Array, ...], Array, int]]:
    """Of each batch this process's part: inputs and targets; and the samples of the whole batch."""
    batches = cuts(len(data.rows), data.lengths, data.kinds, settings.batch_size, settings.seed, epoch)
    team.check_batches(batches)

    def make(batch: Array) -> tuple[tuple[Array, ...], Array, int]:
        cut = team.part(batch)
        rows = data.rows[np.sort(cut)][np.argsort(np.argsort(cut))]  # a memory map likes rising indices
        if data.augment is not None:
            rngs = (samples.keyed_rng(settings.seed, epoch, data.ids[i]) for i in cut)
            rows = np.stack([data.augment(row, rng) for row, rng in zip(rows, rngs)])
        return data.collate(rows), data.targets[cut], len(batch)

    return samples.in_threads(make, batches, threads)


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
