"""Auto: advice from the data and the network decides, and a short race where its budget allows one.

What: measures samples a label, how far the data are from the pretraining's and how much of the labels the frozen
features hold (components/finetune/advice.py: what, how, and the limits with the figures behind them); by the rule of
thumb that gives an order of linear_probe, wise_ft, full and llrd. Its first three race (components/finetune/race.py):
short runs on the training split judged on validation, the better ones again and longer. The advised one is left only
for one that is better by more than the noise of the comparison. advice.json has it all, with the two runners-up; the
run's record names the strategy that was taken, as if params.yaml had.
When: you do not know yet which strategy fits, or many data sets are trained with the same params.
Not when: you know; or every run counts: name the strategy then, with the rates that you have found.
Settings: epochs (of the pretrained weights), min_steps (raises it where samples are few), backbone_learning_rate,
race_samples. The budget is in samples that pass through the network and not in minutes: with minutes a busy machine
would choose something else than an idle one, and no run could be made again.
Cost: a pass of the backbone over the training samples, which `linear_probe` and the frozen probe need too, then at most
`race_samples` samples forward and backward; with 8 epochs the default is enough for a race on 1,400 samples. Where it
is not, there is none, and the advice decides: too short a race is worse than no race (components/finetune/race.py).
Evidence here: of the measures and of what the order rests on, single runs in components/finetune/advice.py, and a race
that was too short in components/finetune/race.py (2026-11-22); of the choices as a whole none yet but the tests.
Source: Yosinski et al., How transferable are features in deep neural networks?, 2014 (the rule of thumb); Jamieson and
Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016 (successive halving).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from components import params

if TYPE_CHECKING:
    from components.finetune.runs import Line
    from components.plugins import Choice


class Params(params.Params):
    """Options."""

    epochs: int = Field(default=8, ge=1, le=1000)
    """Passes over the training samples where the pretrained weights train."""
    min_steps: int = Field(default=100, ge=1, le=100_000)
    """But so many that the steps are no fewer: with few samples an epoch is only a few of them. 1000 at most."""
    backbone_learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Of the pretrained weights; null: the strategy's own, which is for convolutions, and 1e-4 for networks with layer
    normalisation, such as transformers."""
    race_samples: int = Field(default=20_000, ge=0)
    """Training samples that may pass through the network in the race; 0: no race, the advice decides."""


def choose(params: Params, line: Line) -> tuple[Choice, dict[str, Any]]:
    """The strategy to train by, and what stands in advice.json."""
    from components.finetune import advice, race

    given = advice.given(line, params.epochs, params.min_steps, params.backbone_learning_rate)
    advised = advice.advise(given.facts)
    if given.capped:
        advised = replace(advised, reasons=(given.capped, *advised.reasons))
    for reason in advised.reasons:
        line.job.say(f"auto: {reason}")
    result = race.race(line, [given.choice(name) for name in advised.order[:3]], given.epochs, params.race_samples)
    line.job.say(f"auto: {result.why}")
    return result.chosen, advice.told(given.facts, advised, result.chosen, result.record())
