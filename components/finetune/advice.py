"""Which strategy fits the data and the network: what is measured, and the rule of thumb in words.

Measured on the training split alone, frozen network, samples as they are:

`per_label`: harmonic mean of the samples a label, which is what the uncertainty of a mean label goes by: few samples of
one label weigh, and do not count for the whole.

`distance` from the data that the network was pretrained on: batch normalisation carries their statistics. Of each
such layer's inputs the Kullback-Leibler divergence of the samples' normal distribution from the one that the layer
carries, the median channel (one dead channel would be the mean), and of these the median layer. None where a network
has none (transformers). With EfficientNet-Lite0 (100 or more images each): parts of scikit-learn's two photographs
0.12, 0.04, 0.02 at 64, 128, 224 px; emoji 0.22 at 48 px, then 0.16, 0.09, 0.10; digits 0.48 at 32 px, then 0.30, 0.25,
0.32; MNIST 0.43 at 32 px; noise 0.45, 0.41, 0.35. FAR lies between (2026-11-22).

`held`: how much of the labels a linear reading of the frozen features holds: leave-one-out accuracy of ridge
regression, 0 where it is that of the most frequent answer, 1 where all are right. With 600 digits 0.91 and 600 emoji of
nine categories 0.54 at 64 px; the ridge of 0.1 was the best or next to it of 0.001 to 10 at 5 to 67 samples a label.
Of few samples it is too low: spam, MiniLM, 0.0 of 10 mails, 0.69 of 32, 0.78 of 100; so below ENOUGH nothing is
concluded from a low one.

`source_confidence`: mean of the greatest probability that the pretrained classifier gives. Told and not used: digits
had 0.03 at 32 px, 0.85 at 64 px and 0.37 at 128 px, emoji 0.76 and 0.55, the photographs 0.90 and 0.55, so it says more
about the size of the image than about what is in it.

What was better (single runs, test rows; full against linear_probe): at 16 a label digits 0.94 and 0.68, MNIST 0.82 and
0.52 (both 32 px), emoji 0.49 and 0.48 (48 px), spam 0.86 and 0.80; at 5 a label digits 0.88 and 0.69 (64 px), with
wise_ft 0.74. So FEW is low, and on unlike data `full` comes first with few samples too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from components import plugins, samples
from components.finetune.batches import num_batches
from components.model import TransferModel, infer
from components.plugins import Choice

if TYPE_CHECKING:
    from components.finetune.runs import Line

FEW = 10
"""Samples a label from which on training the whole network is the first advice on data like the pretraining's."""
FAR = 0.23
"""Distance from which on the data are unlike the pretraining's."""
HELD = 0.98
"""Share of the labels in frozen features from which on there is nothing to gain by training more."""
LOOSE, ENOUGH = 0.5, 50
"""Holding less of at least so many samples, the data count as unlike where there is no distance."""
RIDGE = 0.1
MOST, SOME = 1000, 256
"""Samples that tell what is held, and those that tell the distance."""
LAYER_NORM_RATE = 1e-4
MOST_EPOCHS = 1000
"""That strategies take."""

ORDERS = {
    ("held", "few"): ("linear_probe", "full", "wise_ft", "llrd"),
    ("held", "many"): ("linear_probe", "full", "wise_ft", "llrd"),
    ("near", "few"): ("linear_probe", "full", "wise_ft", "llrd"),
    ("near", "many"): ("full", "wise_ft", "llrd", "linear_probe"),
    ("far", "few"): ("full", "wise_ft", "linear_probe", "llrd"),
    ("far", "many"): ("full", "llrd", "wise_ft", "linear_probe"),
}
"""(how near, how many) -> strategies, the first choice first."""
WHY = {
    ("held", "few"): "frozen features hold the labels already, so a linear head on them: training more has little to "
    "gain, and forgets",
    ("near", "few"): "few samples, and data like the pretraining's: extract, a linear head on frozen features",
    ("near", "many"): "samples enough to move the whole network: fine-tune",
    ("far", "few"): "data unlike the pretraining's: adapt the whole network, though samples are few",
    ("far", "many"): "data unlike the pretraining's, and samples enough: fine-tune all of it, the first layers too",
}
WHY["held", "many"] = WHY["held", "few"]


@dataclass(frozen=True)
class Facts:
    """What was measured; see above."""

    num_samples: int
    num_labels: int
    per_label: float
    smallest_label: int
    balance: float
    """Samples of the smallest label over those of the mean one."""
    held: float
    distance: float | None
    source_confidence: float | None


@dataclass(frozen=True)
class Advice:
    """Strategies, the best guess first, and the reasons in words."""

    order: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Given:
    """The facts, and with what options a strategy would train here."""

    facts: Facts
    epochs: int
    learning_rate: float | None
    """Of the pretrained weights; None: the strategy's own."""
    capped: str = ""
    """That there would be more epochs, in words."""

    def choice(self, name: str) -> Choice:
        """A strategy as it would be trained; passes over cached features cost nothing, so they stay its own."""
        spec: dict[str, Any] = {"name": name}
        if name != "linear_probe":
            spec |= {"epochs": self.epochs}
            spec |= {"backbone_learning_rate": self.learning_rate} if self.learning_rate else {}
        return plugins.choose("finetune.strategies", spec)


def advise(facts: Facts) -> Advice:
    """The rule of thumb."""
    many = "many" if facts.per_label >= FEW else "few"
    far = facts.held < LOOSE and facts.num_samples >= ENOUGH if facts.distance is None else facts.distance >= FAR
    near = "held" if facts.held >= HELD else "far" if far else "near"
    order = ORDERS[near, many]
    reasons = [
        f"{facts.num_samples} training samples of {facts.num_labels} labels, {facts.per_label:.4g} a label "
        f"({many}; many from {FEW} on)" + _uneven(facts),
        _nearness(facts, far),
        f"frozen features hold {facts.held:.1%} of the labels beyond guessing (nothing to gain from {HELD:.0%} on)",
    ]
    if facts.source_confidence is not None:
        reasons.append(f"the pretrained classifier's confidence is {facts.source_confidence:.2f} (told, not used)")
    reasons.append(f"so {order[0]}: {WHY[near, many]}. Then {order[1]}, {order[2]}")
    return Advice(order, tuple(reasons))


def _nearness(facts: Facts, far: bool) -> str:
    if facts.distance is None:
        return f"no batch normalisation to tell a distance: unlike is what less than {LOOSE:.0%} is held of"
    return f"distance from the pretraining's data {facts.distance:.2g}: {'un' * far}like them (unlike from {FAR} on)"


def _uneven(facts: Facts) -> str:
    if facts.balance >= 0.5:
        return ""
    return f"; uneven: the smallest label has {facts.smallest_label}, {facts.balance:.0%} of the mean one"


def given(line: Line, epochs: int, min_steps: int, learning_rate: float | None) -> Given:
    """Measure. `epochs` is raised until there are `min_steps` steps, and no rate means one that fits the network."""
    model = line.network()
    facts = measured(line, model)
    line.team.must_agree("the facts that the advice rests on", repr(facts))
    kinds = {type(module).__name__ for module in model.backbone.modules()}
    if learning_rate is None and any("LayerNorm" in kind or "RMSNorm" in kind for kind in kinds):
        learning_rate = LAYER_NORM_RATE
    steps = num_batches(facts.num_samples, line.settings.batch_size)
    wanted = max(epochs, math.ceil(min_steps / steps))
    return Given(facts, min(wanted, MOST_EPOCHS), learning_rate, capped(wanted, steps, min_steps))


def capped(wanted: int, steps: int, min_steps: int) -> str:
    """Why there are fewer steps than were asked for; nothing where there are not."""
    if wanted <= MOST_EPOCHS:
        return ""
    return (
        f"min_steps: {min_steps} would take {wanted} epochs of {steps} steps; {MOST_EPOCHS} are the most, "
        f"{MOST_EPOCHS * steps} steps"
    )


def measured(line: Line, model: TransferModel) -> Facts:
    """The facts, rounded: what is decided by them is decided by what is written."""
    labels = list(line.tables["train"]["label"])
    truth = line.decision.indicators(labels, line.labels)
    counts = np.maximum(truth.sum(axis=0), 1)
    order = samples.keyed_rng(line.settings.seed, 0, "advice").permutation(len(truth))
    most, some = np.sort(order[:MOST]), np.sort(order[:SOME])
    features = line.features("train", model)
    source = line.source_head()
    distance = _distance(line, model, some)
    return Facts(
        num_samples=len(truth),
        num_labels=len(line.labels),
        per_label=round(float(len(counts) / (1 / counts).sum()), 2),
        smallest_label=int(counts.min()),
        balance=round(float(counts.min() / counts.mean()), 4),
        held=round(held(features[most], truth[most]), 4),
        distance=None if distance is None else round(distance, 3),
        source_confidence=None if source is None else round(confidence(source, features), 3),
    )


def held(features: np.ndarray, truth: np.ndarray) -> float:
    """Leave-one-out accuracy of ridge regression of `truth` (bool [N, K]) on features [N, D], standardised; 0 where it
    is that of always giving the most frequent answer, or worse. Where a sample has not just one label, of each label.

    Left out is each sample in closed form: residual / (1 - leverage) (Cook, 1977).
    """
    rows = features.astype(np.float64)
    scale = rows.std(axis=0)
    scale = np.where(scale > 1e-6 * max(float(scale.max()), 1e-12), scale, 1.0)
    rows = (rows - rows.mean(axis=0)) / scale
    values, vectors = np.linalg.eigh(rows @ rows.T / rows.shape[1])
    values = np.maximum(values, 0)
    hat = (vectors * (values / (values + RIDGE))) @ vectors.T + 1 / len(rows)
    targets = truth.astype(np.float64)
    left_out = targets - (targets - hat @ targets) / np.maximum(1 - np.diag(hat), 1e-9)[:, None]
    if (truth.sum(axis=1) == 1).all():
        right, guessed = (
            float(truth[np.arange(len(truth)), left_out.argmax(axis=1)].mean()),
            float(targets.mean(0).max()),
        )
    else:
        right = float(((left_out >= 0.5) == truth).mean())
        guessed = float(np.maximum(targets.mean(0), 1 - targets.mean(0)).mean())
    return max(0.0, (right - guessed) / (1 - guessed)) if guessed < 1 else 0.0


@torch.inference_mode()
def confidence(head: nn.Linear, features: np.ndarray) -> float:
    """Mean over the samples of the greatest probability."""
    logits = head(torch.from_numpy(np.ascontiguousarray(features)).to(head.weight.device))
    return float(logits.double().softmax(dim=1).amax(dim=1).mean())


def _distance(line: Line, model: TransferModel, some: np.ndarray) -> float | None:
    with watched(model.backbone) as layers:
        if not layers:
            return None
        infer(model.backbone, line.rows["train"][some], line.feed, line.fabric.device, line.job.progress, "statistics")
    return distance(layers)


@dataclass
class Seen:
    """What a layer of batch normalisation was given, and what it carries."""

    norm: Any
    num: int = 0
    total: Any = 0.0
    squares: Any = 0.0

    def add(self, given: torch.Tensor) -> None:
        """Of a batch [N, C, ...]."""
        values = given.detach().double().transpose(0, 1).flatten(1)
        self.num += values.shape[1]
        self.total = self.total + values.sum(dim=1)
        self.squares = self.squares + values.square().sum(dim=1)

    def divergence(self) -> float:
        """Of the samples' normal distribution from the layer's, the median channel."""
        mean, carried = self.total / self.num, self.norm.running_var.double() + self.norm.eps
        ratio = ((self.squares / self.num - mean.square()).clamp(min=0) + 1e-8) / carried
        shift = (mean - self.norm.running_mean.double()).square() / carried
        return float((0.5 * (ratio - 1 - ratio.log() + shift)).median())


@contextmanager
def watched(network: nn.Module) -> Iterator[list[Seen]]:
    """Within it, what every layer of batch normalisation is given is counted."""
    norms = [module for module in network.modules() if getattr(module, "running_mean", None) is not None]
    seen = [Seen(norm) for norm in norms]

    def counted(one: Seen) -> Any:
        return lambda _, inputs: one.add(inputs[0])

    hooks = [one.norm.register_forward_pre_hook(counted(one)) for one in seen]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def distance(layers: list[Seen]) -> float:
    """The median over the layers."""
    return float(np.median([layer.divergence() for layer in layers]))


def told(facts: Facts, advised: Advice, chosen: Choice, race: dict[str, Any]) -> dict[str, Any]:
    """advice.json of a run whose strategy was found."""
    runners_up = [name for name in advised.order if name != chosen.name][:2]
    raced = "after a race" if race["rungs"] else "by the advice alone"
    return {
        "asked": True, "facts": asdict(facts), "reasons": advised.reasons, "order": advised.order, "race": race,
        "chosen": chosen.spec(), "runners_up": runners_up,
        "headline": f"auto took {chosen.name} {raced}; runners-up: {', '.join(runners_up)}",
    }  # fmt: skip


def not_asked(chosen: Choice) -> dict[str, Any]:
    """The same of one whose strategy was named."""
    return {
        "asked": False, "chosen": chosen.spec(),
        "headline": f"{chosen.name} was named in finetune.strategy; no advice was asked for",
    }  # fmt: skip
