"""Every strategy: trains exactly what it says, leaves the rest bit-identical, is the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from components import plugins
from components.finetune import loop
from components.finetune.team import ALONE
from components.job import Job
from components.model import TransferModel

# Canonical options: short enough for a test. A strategy without an entry fails at collection.
CANONICAL: dict[str, dict[str, Any]] = {
    "linear_probe": {"epochs": 3},
    "full": {"epochs": 2},
    "lp_ft": {"probe_epochs": 2, "epochs": 1},
}
ENOUGH: dict[str, dict[str, Any]] = {  # to learn three bright channels
    "linear_probe": {"epochs": 10},
    "full": {"epochs": 12},
    "lp_ft": {"probe_epochs": 5, "epochs": 10},
}
EPOCHS = {name: sum(options.values()) for name, options in CANONICAL.items()}
NAMES = plugins.names("finetune.strategies")
assert set(CANONICAL) == set(NAMES), f"strategies without canonical options: {set(NAMES) ^ set(CANONICAL)}"


def settings(**changed: Any) -> loop.Settings:
    given = {"seed": 3, "batch_size": 8, "patience": 9, "weight_decay": 0.01, "label_smoothing": 0.0, "warmup": 0.1,
             "max_gradient_norm": 1.0, "precision": "32-true"}  # fmt: skip
    return loop.Settings(**{**given, **changed})


def network() -> TransferModel:
    torch.manual_seed(0)
    choice = plugins.choose(
        "backbones", {"name": "timm", "model": "test_efficientnet", "weights": {"source": "random"}}
    )
    return TransferModel(choice.load().build(choice.params), 3)


def data(rows: np.ndarray, targets: np.ndarray) -> loop.Data:
    return loop.Data(rows, targets, tuple(f"s{i}" for i in range(len(rows))), lambda r: (np.asarray(r),))


def pixels(n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    targets = np.arange(n) % 3
    rows = rng.normal(0, 0.3, (n, 3, 32, 32)).astype(np.float32)
    rows[np.arange(n), targets] += 1.5  # the label is the bright channel
    return rows, targets.astype(np.int64)


def train(name: str, tmp_path: Any, options: dict[str, Any] | None = None, **changed: Any) -> TransferModel:
    choice = plugins.choose("finetune.strategies", {"name": name, **(options or CANONICAL[name])})
    model, decision = network(), plugins.load("decisions", "single_label")
    rows, targets = pixels()
    for number, phase in enumerate(choice.load().phases(choice.params)):
        given = data(rows, targets)
        if phase.cached:
            with torch.inference_mode():
                given = data(model.backbone.eval()(torch.from_numpy(rows)).numpy(), targets)
        loop.train_phase(
            model, phase, given, given, decision, settings(**changed), Job.at(tmp_path),
            Fabric(accelerator="cpu", devices=1), tmp_path / f"{number}.safetensors", name,
        )  # fmt: skip
    return model


@pytest.mark.parametrize("name", NAMES)
def test_optimiser_holds_exactly_what_trains_and_the_rest_is_bit_identical(name: str, tmp_path: Any) -> None:
    choice = plugins.choose("finetune.strategies", {"name": name, **CANONICAL[name]})
    decision = plugins.load("decisions", "single_label")
    for phase in choice.load().phases(choice.params):
        if phase.cached:
            continue
        model = network()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        rows, targets = pixels()
        loop.train_phase(
            model, phase, data(rows, targets), data(rows, targets), decision, settings(), Job.at(tmp_path),
            Fabric(accelerator="cpu", devices=1), tmp_path / "k.safetensors", name,
        )  # fmt: skip
        trains = {id(p) for g in phase.groups(model) for p in g["params"]}
        for key, parameter in model.named_parameters():
            changed = not torch.equal(before[key], parameter.detach())
            assert changed == (id(parameter) in trains), key


def test_frozen_backbone_keeps_weights_and_norm_statistics(tmp_path: Any) -> None:
    from components.finetune.phases import Phase, head_only

    model, decision = network(), plugins.load("decisions", "single_label")
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    rows, targets = pixels()
    loop.train_phase(
        model, Phase("head", 1, head_only(0.1)), data(rows, targets), data(rows, targets), decision, settings(),
        Job.at(tmp_path), Fabric(accelerator="cpu", devices=1), tmp_path / "k.safetensors", "head",
    )  # fmt: skip
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(before[key], value), key
    assert bool(model.head.weight.detach().abs().sum() > 0)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_same_weights_and_another_seed_does_not(name: str, tmp_path: Any) -> None:
    folders = [tmp_path / n for n in "abc"]
    one, two = (train(name, f).state_dict() for f in folders[:2])
    other = train(name, folders[2], seed=4).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_what_can_be_learnt(name: str, tmp_path: Any) -> None:
    model = train(name, tmp_path, ENOUGH[name]).eval()
    rows, targets = pixels()
    with torch.inference_mode():
        guess = model(torch.from_numpy(rows)).argmax(1).numpy()
    assert (guess == targets).mean() > 0.6  # chance is 1/3


@pytest.mark.parametrize(("name", "epoch"), [(n, e) for n in NAMES for e in (1, 2, 3) if e <= EPOCHS[n]])
def test_interrupted_equals_uninterrupted(name: str, epoch: int, tmp_path: Any) -> None:
    whole = train(name, tmp_path / "whole").state_dict()

    class Killed(BaseException):
        pass

    calls = 0
    real = loop.checkpoints.write

    def dying(*args: Any) -> None:
        nonlocal calls
        real(*args)
        calls += 1
        if calls == epoch:
            raise Killed

    loop.checkpoints.write = dying
    try:
        with pytest.raises(Killed):
            train(name, tmp_path / "cut")
    finally:
        loop.checkpoints.write = real
    resumed = train(name, tmp_path / "cut").state_dict()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_loss_that_is_not_a_number_stops_with_the_step_and_the_key_to_change(tmp_path: Any) -> None:
    rows, targets = pixels()
    given = data(np.full_like(rows, np.nan), targets)
    choice = plugins.choose("finetune.strategies", "full")
    decision = plugins.load("decisions", "single_label")
    phase, fabric = choice.load().phases(choice.params)[0], Fabric(accelerator="cpu", devices=1)
    keep = tmp_path / "k.safetensors"
    with pytest.raises(loop.TrainingError, match=r"epoch 1, step 1.*learning_rate"):
        loop.train_phase(network(), phase, given, given, decision, settings(), Job.at(tmp_path), fabric, keep, "full")


@pytest.mark.parametrize(("samples", "size", "sizes"), [(33, 32, {16, 17}), (64, 32, {32}), (3, 2, {3}), (1, 8, {1})])
def test_no_batch_is_left_with_one_sample(samples: int, size: int, sizes: set[int]) -> None:
    rows = np.zeros((samples, 1))
    given = data(rows, np.zeros(samples, np.int64))
    batches = list(loop._batches(given, settings(batch_size=size), 0, 1, ALONE))
    assert {len(targets) for _, targets, _ in batches} == sizes
    assert sum(len(targets) for _, targets, _ in batches) == samples
