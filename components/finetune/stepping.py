"""One step of training: the loss of a batch, its gradients, and the move of the optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from components import samples
from components.contracts import InputError
from components.finetune import hardware, memory
from components.finetune.batches import Batch
from components.finetune.memory import Pieces
from components.finetune.phases import Callback, Phase, Start, Step

NAMED = 3
"""Optimiser groups that an error names."""


class TrainingError(InputError):
    """Training cannot go on: the loss, or its gradient, is not a number any more."""


class RateTooHigh(TrainingError):
    """Most likely because of a learning rate; who knows the strategy's settings can say which to lower."""


@dataclass(frozen=True)
class Work:
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
    hooks: tuple[Any, ...]
    """Those that put them there, and drop some."""
    pieces: Pieces


def set_up(start: Start, phase: Phase, title: str) -> Work:
    model, settings = start.model, start.settings
    callback = (phase.callback or Callback)(start)
    trained: nn.Module = model.head if phase.cached else model
    groups = phase.groups(model)
    freeze_all_but(model, groups)
    device = start.fabric.device
    options = hardware.optimiser_options(device, settings.precision)
    optimiser = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, **options)
    wrapped, optimiser = start.fabric.setup(trained, optimiser)
    rates = tuple(float(g["lr"]) for g in optimiser.param_groups)
    seen: list[torch.Tensor] = []
    hooks = [model.head.register_forward_pre_hook(lambda _, inputs: seen.__setitem__(slice(None), inputs))]
    if settings.dropout:
        hooks.append(model.head.register_forward_pre_hook(_dropping(trained, settings.dropout)))
    return Work(start, phase, callback, trained, wrapped, optimiser, rates, title, seen, tuple(hooks), Pieces())


def _dropping(trained: nn.Module, share: float) -> Any:
    """Dropout of what the head's weights multiply: where it works on standardised features, a dropped one is the mean
    (0 of the raw ones may be far outside of what occurs)."""

    def drop(head: Any, inputs: tuple[torch.Tensor]) -> torch.Tensor | None:
        if not trained.training:
            return None
        (features,) = inputs
        if head.mean is None:
            return F.dropout(features, share)
        return head.mean + F.dropout(features - head.mean, share)

    return drop


def freeze_all_but(model: nn.Module, groups: list[dict[str, Any]]) -> None:
    """Only what an optimiser group holds takes a gradient."""
    trains = {id(p) for group in groups for p in group["params"]}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trains)


@dataclass(frozen=True)
class Place:
    """A step, as its errors name it."""

    work: Work
    epoch: int
    step: int
    at: int
    """Number of the step in the phase, from 0."""
    share: float
    """Of the learning rates, by the schedule."""
    batch: Batch

    def must_be_a_number(self, value: float, what: str) -> None:
        """Raises TrainingError with the likely cause."""
        if math.isfinite(value):
            return
        told = f"{what} of {self.work.title} is {value} in epoch {self.epoch}, step {self.step}"
        if wrong := self._wrong_inputs():
            raise TrainingError(f"{told}. {wrong}")
        raise RateTooHigh(f"{told}. {likely(self.work, self.share)}")

    def _wrong_inputs(self) -> str:
        wrong = [not bool(torch.isfinite(torch.from_numpy(a)).flatten(1).all()) for a in self.batch.inputs]
        if any(wrong):
            which = torch.stack([torch.isfinite(torch.from_numpy(a)).flatten(1).all(1) for a in self.batch.inputs])
            ids = [self.work.start.train.ids[self.batch.places[i]] for i in torch.where(~which.all(0))[0].tolist()]
            return (
                f"The network was given values that are no numbers, of {len(ids)} samples, the first {ids[0]}: "
                "look at augment.policy and at the preprocessing's mean and std."
            )
        return ""


def likely(work: Work, share: float) -> str:
    """The likely cause of what is no number: the learning rates, the highest first, at a share by the schedule."""
    groups = [(str(g.get("name", i)), rate) for i, (g, rate) in enumerate(zip(work.optimiser.param_groups, work.rates))]
    groups.sort(key=lambda group: -group[1])
    rates = ", ".join(f"{rate * share:.2g} ({name})" for name, rate in groups[:NAMED])
    more = f" and {len(groups) - NAMED} lower ones" if len(groups) > NAMED else ""
    exact = work.start.settings.precision == "32-true"
    remedy = "." if exact else ", or the numbers too short: finetune.precision: 32 has longer ones."
    return f"Most likely a learning rate is too high: {rates}{more}{remedy}"


def gradients(place: Place) -> float:
    """Leaves the gradients of this process's part of a batch where they belong. Its loss: summed over the processes it
    is the batch's mean."""
    work = place.work
    while True:
        before = memory.kept(memory.moving(work.trained))
        torch.manual_seed(samples.keyed_seed(work.start.settings.seed, work.phase.name, place.at, *work.start.team.key))
        work.optimiser.zero_grad()
        try:
            return sum(_backward(place, piece) for piece in place.batch.pieces(work.pieces.num))
        except RuntimeError as error:
            if not memory.ran_out(error):
                raise
        work.seen.clear()  # they hold the failed step's graph
        memory.put_back(before)
        work.pieces.double(len(place.batch.places), work.start.team.size)
        work.start.job.say(
            f"{work.title}: memory ran out in epoch {place.epoch}, step {place.step}; from here on each batch is "
            f"computed in {work.pieces.num} pieces"
        )


def _backward(place: Place, piece: Batch) -> float:
    work, start = place.work, place.work.start
    value = _loss(work, piece)
    if len(piece.places) != piece.num:
        value = value * (len(piece.places) / piece.num)
    found = float(value.detach())
    place.must_be_a_number(found, "the loss")
    start.fabric.backward(value)
    return found


def _loss(work: Work, batch: Batch) -> torch.Tensor:
    """Mean over this process's part of a batch, or a piece of it, and the phase's penalty."""
    start, mix = work.start, batch.mix
    device, smoothing = start.fabric.device, start.settings.label_smoothing
    with start.team.statistics():
        logits = work.wrapped(*(hardware.put(a, device) for a in batch.inputs))
    targets = torch.from_numpy(start.train.targets[batch.places]).to(device)
    value: torch.Tensor = start.decision.loss(logits, targets, smoothing)
    if mix is not None:
        others = torch.from_numpy(start.train.targets[mix.partners]).to(device)
        value = mix.share * value + (1 - mix.share) * start.decision.loss(logits, others, smoothing)
    step = Step(batch.places, work.seen[0], logits, targets, *((mix.partners, mix.share) if mix else ()))
    penalty = work.callback.penalty(step)
    return value if penalty is None else value + penalty


def move(place: Place) -> None:
    """One step of the optimiser."""
    work, start = place.work, place.work.start
    start.team.sum_gradients(p for group in work.optimiser.param_groups for p in group["params"])
    settings = start.settings
    norm = start.fabric.clip_gradients(
        work.wrapped, work.optimiser, max_norm=settings.max_gradient_norm, error_if_nonfinite=False
    )
    if settings.precision != "16-mixed":  # there the scale of the loss falls, and the step is left out
        place.must_be_a_number(float(norm), "the length of the gradient")
    work.optimiser.step()
