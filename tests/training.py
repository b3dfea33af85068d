"""A phase's start, and a whole run of a strategy, without the stage around them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from components import plugins
from components.finetune import course, loop
from components.finetune.batches import Data
from components.finetune.course import Course
from components.finetune.phases import Phase, Start
from components.finetune.scaling import on_scale
from components.finetune.team import ALONE
from components.job import Job
from components.model import TransferModel

NUM_SOURCE = 5
"""Labels of the made-up classifier that networks here were pretrained with."""


def settings(**changed: Any) -> loop.Settings:
    """Of the loop, for a handful of samples."""
    given = {"seed": 3, "batch_size": 8, "patience": 9, "weight_decay": 0.01, "label_smoothing": 0.0, "warmup": 0.1,
             "max_gradient_norm": 1.0, "precision": "32-true"}  # fmt: skip
    return loop.Settings(**{**given, **changed})


def network() -> TransferModel:
    """A tiny timm network of random weights, three labels."""
    torch.manual_seed(0)
    choice = plugins.choose(
        "backbones", {"name": "timm", "model": "test_efficientnet", "weights": {"source": "random"}}
    )
    return TransferModel(choice.load().build(choice.params), 3)


def data(rows: np.ndarray, targets: np.ndarray, name: str = "s") -> Data:
    """A split of these rows."""
    return Data(rows, targets, tuple(f"{name}{i}" for i in range(len(rows))), lambda r: (np.asarray(r),))


def pixels(n: int = 24, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Noise images float32 [N, 3, 32, 32] whose label is the bright channel, and the labels."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 3
    rows = rng.normal(0, 0.3, (n, 3, 32, 32)).astype(np.float32)
    rows[np.arange(n), targets] += 1.5
    return rows, targets.astype(np.int64)


def source_head(width: int) -> nn.Linear:
    """The same each time."""
    head = nn.Linear(width, NUM_SOURCE)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(np.random.default_rng(2).normal(0, 1, (NUM_SOURCE, width))))
        head.bias.zero_()
    return head.eval()


def features(model: TransferModel, rows: np.ndarray) -> np.ndarray:
    """By the backbone as it is; its mode stays."""
    modes = {module: module.training for module in model.backbone.modules()}
    with torch.inference_mode():
        found: np.ndarray = model.backbone.eval()(torch.from_numpy(rows)).numpy()
    for module, mode in modes.items():
        module.training = mode
    return found


def start(
    model: TransferModel,
    phase: Phase,
    place: Path,
    train: Data,
    validation: Data | None = None,
    *,
    decision: str = "single_label",
    head: bool = True,
    **changed: Any,
) -> Start:
    """What a phase of a run begins with. `head`: whether the network came with a classifier."""
    validation = validation or train
    given = [train, validation]
    if phase.cached:
        given = [data(features(model, one.rows), one.targets) for one in given]
    width = model.head.in_features
    return Start(
        model, *given, plugins.load("decisions", decision), settings(**changed), Job.at(place),
        Fabric(accelerator="cpu", devices=1), ALONE, lambda: features(model, train.rows),
        lambda: source_head(width) if head else None,
    )  # fmt: skip


def scaled(phase: Phase, begun: Start) -> AbstractContextManager[None]:
    """As a line has it for a pretrained network."""
    head = begun.model.head
    if phase.cached:
        return on_scale(head, begun.train.rows, each=True)
    return on_scale(head, features(begun.model, begun.train.rows), each=False)


def run(
    name: str, place: Path, options: dict[str, Any], model: TransferModel | None = None, **changed: Any
) -> tuple[TransferModel, Course]:
    """A whole run of a strategy on the bright channels."""
    choice = plugins.choose("finetune.strategies", {"name": name, **options})
    model = model or network()
    whole = {"train": data(*pixels()), "validation": data(*pixels(15, seed=5), "v")}
    place.mkdir(parents=True, exist_ok=True)
    done = course.run(
        model, choice.load().phases(choice.params),
        lambda phase: start(model, phase, place, *whole.values(), **changed), whole, scaled, place, name,
    )  # fmt: skip
    return model, done
