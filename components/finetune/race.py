"""A race between strategies: successive halving by short runs, judged on validation, within a budget of samples.

All entrants train for a few epochs, each with its whole schedule in them; the advised one and the best other then train
again for twice as many, which must be half of what is decided about at least: on 160 digits 2 epochs of 12 threw out
the one that was the best by far after 12. A strategy whose backbone is frozen costs nothing and runs at full length.
How long the runs are follows from the budget and the number of samples, never from measured time, so the choice is the
same each time.
A killed race goes on: the runs that have ended are read from their checkpoints.

Short runs favour what learns fast. That, and a validation split that may be small, is why the advised one stays unless
it is beaten by more than the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from components import plugins
from components.model import infer
from components.plugins import Choice

if TYPE_CHECKING:
    from components.finetune.runs import Line


@dataclass(frozen=True, eq=False)
class Ran:
    """One short run."""

    choice: Choice
    """As it ran."""
    loss: float
    accuracy: float
    right: np.ndarray
    """Is each validation sample decided rightly? bool [V]."""


@dataclass(frozen=True)
class Result:
    """What was taken, and why."""

    chosen: Choice
    why: str
    rungs: list[list[Ran]] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As it stands in advice.json."""
        return {
            "why": self.why,
            "rungs": [
                [{"strategy": r.choice.spec(), "validation_loss": r.loss, "validation_accuracy": r.accuracy}
                 for r in rung]
                for rung in self.rungs
            ],
        }  # fmt: skip


def race(line: Line, entrants: list[Choice], epochs: int, budget: int) -> Result:
    """The first of `entrants` is the advised one; each would train for `epochs`, and is taken as it stands there."""
    num = len(line.tables["train"])
    paying = sum(not free(choice) for choice in entrants)
    lengths = rungs(paying, budget // num, epochs)
    if not lengths:
        need = num * cost(paying, math.ceil(epochs / 2))
        why = f"no race: it needs {need} samples, race_samples is {budget}" if budget else "no race was asked for"
        return Result(entrants[0], f"{why}; {entrants[0].name} by the advice")
    first = [_run(line, choice, lengths[0]) for choice in entrants]
    best = max(first[1:], key=lambda ran: (ran.accuracy, -ran.loss))  # the first of equal ones
    pair = [entrants[0], entrants[first.index(best)]]
    last = [_run(line, choice, lengths[1]) for choice in pair]
    taken, why = decide(*last)
    return Result(pair[taken], why, [first, last])


def cost(paying: int, long: int) -> int:
    """Epochs of a race in all, whose second rung has so many."""
    return paying * max(1, long // 2) + min(2, paying) * long


def rungs(paying: int, budget: int, epochs: int) -> tuple[int, int] | None:
    """Epochs of each run in the first and in the second rung, of a budget of so many in all: as many as a run that
    they decide about, and at least half of that. None: not enough."""
    for long in range(epochs, math.ceil(epochs / 2) - 1, -1):
        if cost(paying, long) <= budget:
            return max(1, long // 2), long
    return None


def decide(advised: Ran, other: Ran) -> tuple[int, str]:
    """0: the advised one stays; 1: the other is better by more than one standard error of the paired difference in
    right answers (McNemar, 1947: of those that only one of them has right)."""
    gained = int((other.right & ~advised.right).sum())
    lost = int((advised.right & ~other.right).sum())
    one, two, num = advised.choice.name, other.choice.name, len(advised.right)
    told = (
        f"of {num} validation samples {two} has {gained} right that {one} has not, and {one} {lost} that {two} has not"
    )
    if gained - lost > math.sqrt(gained + lost):
        return 1, f"race: {two} instead of the advised {one}: {told}"
    return 0, f"race: the advised {one} stays: {told}"


def free(choice: Choice) -> bool:
    """Its backbone is frozen in every phase."""
    return all(phase.cached for phase in choice.load().phases(choice.params))


def _run(line: Line, choice: Choice, epochs: int) -> Ran:
    """A frozen one runs once: the second time it is read from its checkpoint."""
    name, short = f"race_{choice.name}", choice
    if not free(choice):
        name, short = f"{name}_{epochs}", plugins.choose(choice.family, {**choice.spec(), "epochs": epochs})
    done = line.train(name, short.spec(), short.load().phases(short.params), pretrained=True)
    right = _right(line, done.model)
    line.team.must_agree(f"what {name} has right", np.packbits(right).tobytes().hex())
    return Ran(short, done.course.figures["validation_loss"], float(right.mean()), right)


def _right(line: Line, model: nn.Module) -> np.ndarray:
    table = line.tables["validation"]
    logits = infer(model, line.rows["validation"], line.feed, line.fabric.device, line.job.progress, "race")
    targets = torch.from_numpy(line.decision.targets(table["label"], line.labels))
    return np.asarray(line.decision.correct(torch.from_numpy(logits), targets).numpy())
