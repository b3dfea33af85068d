"""Weights of several runs of one network, mixed into one and judged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from components.finetune.phases import End

State = dict[str, torch.Tensor]
STATISTICS = ("running_mean", "running_var")
"""Last parts of the names of what normalisation keeps beside its weights."""


def mixed(states: Sequence[State], shares: Sequence[float]) -> State:
    """The sum of `shares` times `states`, tensor by tensor, taken in float64; counts are those of the last state.

    What all of them have in common, bit for bit, stays so.
    """
    found: State = {}
    for name, last in states[-1].items():
        each = [state[name] for state in states]
        if not last.is_floating_point() or all(torch.equal(one, last) for one in each):
            found[name] = last
            continue
        total = torch.zeros_like(last, dtype=torch.float64)
        for share, one in zip(shares, each):
            total += share * one.double()
        found[name] = total.to(last.dtype)
    return found


def take(end: End, states: Sequence[State], shares: Sequence[float]) -> None:
    """The model gets the mixture, and, where states that have a share in it differ in the statistics of normalisation,
    statistics of its own."""
    used = [(state, share) for state, share in zip(states, shares) if share]
    some = [state for state, _ in used]
    end.start.model.load_state_dict(mixed(some, [share for _, share in used]))
    told = [{k: v for k, v in state.items() if k.rpartition(".")[2] in STATISTICS} for state in some]
    if any(not torch.equal(one[name], told[-1][name]) for one in told for name in one):
        end.renew_statistics()


def loss(end: End, states: Sequence[State], shares: Sequence[float]) -> float:
    """Log loss of the mixture on validation; the model has it then. Infinite where it is not a number."""
    take(end, states, shares)
    found = end.judge()["validation_loss"]
    return found if math.isfinite(found) else math.inf


def now(end: End) -> State:
    """A copy of the model's weights and statistics."""
    return {k: v.detach().cpu().clone() for k, v in end.start.model.state_dict().items()}
