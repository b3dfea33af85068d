"""Model soup: the mean of the weights of several runs of fine-tuning that began with the same probe.

What: a linear probe, then from it one run of everything for each rate in `backbone_learning_rates`. They are ordered by
their log loss on validation; the best one begins the soup, and each next one is taken in where the mean of all in it is
then no worse. Where their statistics of batch normalisation differ, those of the mean are taken anew from the training
samples.
When: the best rate is not known and trying several is affordable: instead of all but one being thrown away, they help.
Not when: rates so far apart that the runs end in different valleys: the soup is then its best member alone.
Settings: probe_epochs, epochs (each member's), learning_rate (probe), backbone_learning_rates, head_learning_rate,
frozen_norm.
Cost: that of `lp_ft` times the number of rates; on disk a copy of the weights for each while it trains. What is
deployed is one network. `num_averaged` and `takes_member_1`, ... are in the metrics.
Evidence here: none yet but the contract tests.
Source: Wortsman et al., Model soups, ICML 2022, recipe 1 (greedy soup; by log loss here, as a small validation split
has many equal accuracies); members that differ in more than the rate and its noise are not made.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from components import params
from components.finetune.phases import End, Phase, everything, head_only

Rate = Annotated[float, Field(gt=0, le=1)]


class Params(params.Params):
    """Options."""

    probe_epochs: int = Field(default=20, ge=1, le=1000)
    """Passes over the cached features."""
    epochs: int = Field(default=6, ge=1, le=1000)
    """Passes of each member."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Of the probe, on standardised features."""
    head_learning_rate: float = Field(default=5e-4, gt=0, le=1)
    """Of the head in every member, on features of unit scale."""
    backbone_learning_rates: list[Rate] = Field(default=[2e-4, 5e-4, 1e-3], min_length=2, max_length=32)
    """Of the pretrained weights, one a member."""
    frozen_norm: bool = True
    """Keep the pretraining's statistics of batch normalisation."""

    @field_validator("backbone_learning_rates")
    @classmethod
    def _differ(cls, rates: list[float]) -> list[float]:
        if len({*rates}) < len(rates):
            raise ValueError(f"{rates} has a rate twice; its members would be nearly the same")
        return rates


def phases(params: Params) -> list[Phase]:
    """The probe, the members, and the soup at the last one's end."""
    rates = params.backbone_learning_rates

    def finish(end: End) -> dict[str, float]:
        return _soup(end, len(rates))

    members = [
        Phase(
            f"member {i}", params.epochs, everything(params.head_learning_rate, rate), frozen_norm=params.frozen_norm,
            begins_after=0, finish=finish if i == len(rates) else None,
        )
        for i, rate in enumerate(rates, 1)
    ]  # fmt: skip
    return [Phase("probe", params.probe_epochs, head_only(params.learning_rate), cached=True), *members]


def _soup(end: End, num: int) -> dict[str, float]:
    from components.finetune import averaging

    members = {i: end.ended(i) if i < num else averaging.now(end) for i in range(1, num + 1)}

    def loss(chosen: list[int]) -> float:
        found = averaging.loss(end, [members[i] for i in chosen], [1 / len(chosen)] * len(chosen))
        end.start.job.say(f"soup: member {' and '.join(map(str, chosen))}, loss on validation {found:.4f}")
        return found

    alone = {i: loss([i]) for i in members}
    first, *others = sorted(members, key=lambda i: (alone[i], i))
    chosen, best = [first], alone[first]
    for i in others:
        if (now := loss([*chosen, i])) <= best:
            chosen, best = [*chosen, i], now
    averaging.take(end, [members[i] for i in chosen], [1 / len(chosen)] * len(chosen))
    return {"num_averaged": float(len(chosen)), **{f"takes_member_{i}": float(i in chosen) for i in members}}
