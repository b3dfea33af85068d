"""Every strategy: trains exactly what it says, leaves the rest bit-identical, is the same each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training
from training import data, network, pixels, settings, start

from components import plugins
from components.finetune import batches, loop
from components.finetune.phases import Groups, Phase, head_only
from components.finetune.team import ALONE
from components.model import TransferModel

# Canonical options: short enough for a test. A strategy without an entry fails at collection.
CANONICAL: dict[str, dict[str, Any]] = {
    "linear_probe": {"epochs": 3},
    "full": {"epochs": 2},
    "lp_ft": {"probe_epochs": 2, "epochs": 1},
    "partial": {"epochs": 2},
    "llrd": {"epochs": 2},
    "gradual_unfreeze": {"num_stages": 2, "stage_epochs": 1, "epochs": 1},
    "l2_sp": {"epochs": 2},
    "ewc": {"epochs": 2, "num_fisher_samples": 4},
    "bss": {"epochs": 2},
    "lwf": {"probe_epochs": 1, "epochs": 1},
    "co_tuning": {"epochs": 2},
    "lora": {"epochs": 2, "rank": 2},
    "wise_ft": {"probe_epochs": 1, "epochs": 1, "num_alphas": 3},
    "soup": {"probe_epochs": 1, "epochs": 1, "backbone_learning_rates": [5e-4, 1e-3]},
    "ema": {"epochs": 2},
}
ENOUGH: dict[str, dict[str, Any]] = {  # to learn three bright channels
    "linear_probe": {"epochs": 10},
    "full": {"epochs": 12},
    "lp_ft": {"probe_epochs": 5, "epochs": 10},
    "partial": {"epochs": 12},
    "llrd": {"epochs": 12},
    "gradual_unfreeze": {"epochs": 12},
    "l2_sp": {"epochs": 12},
    "ewc": {"epochs": 12, "num_fisher_samples": 4},
    "bss": {"epochs": 12},
    "lwf": {"probe_epochs": 5, "epochs": 10},
    "co_tuning": {"epochs": 12},
    "lora": {"epochs": 8},
    "wise_ft": {"probe_epochs": 5, "epochs": 10, "num_alphas": 3},
    "soup": {"probe_epochs": 5, "epochs": 5, "backbone_learning_rates": [5e-4, 1e-3]},
    "ema": {"epochs": 12},
}
CHOOSERS = tuple(
    n for n in plugins.names("finetune.strategies") if hasattr(plugins.load("finetune.strategies", n), "choose")
)
"""Those that take another one: no phases of their own, and held by tests/components/finetune/test_auto.py."""
NAMES = tuple(n for n in plugins.names("finetune.strategies") if n not in CHOOSERS)
assert set(CANONICAL) == set(NAMES), f"strategies without canonical options: {set(NAMES) ^ set(CANONICAL)}"


def phases(name: str) -> list[Phase]:
    choice = plugins.choose("finetune.strategies", {"name": name, **CANONICAL[name]})
    found: list[Phase] = choice.load().phases(choice.params)
    return found


@pytest.mark.parametrize("name", plugins.names("finetune.strategies"))
def test_a_strategy_either_trains_or_takes_another(name: str) -> None:
    module = plugins.load("finetune.strategies", name)
    assert hasattr(module, "phases") != hasattr(module, "choose")


EPOCHS = {name: sum(phase.epochs for phase in phases(name)) for name in NAMES}


def train(name: str, tmp_path: Path, options: dict[str, Any] | None = None, **changed: Any) -> TransferModel:
    return training.run(name, tmp_path, options or CANONICAL[name], **changed)[0]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_phase_does_not_train_stays_bit_identical_and_all_else_moves(name: str, tmp_path: Path) -> None:
    """By the values of the network without what a callback adds: adapters that were merged have moved their layer."""
    for number, phase in enumerate(p for p in phases(name) if not p.cached):
        model = network()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        begun = start(model, phase, tmp_path, data(*pixels()))
        trained: set[str] = set()

        def groups(model: TransferModel, phase: Phase = phase, trained: set[str] = trained) -> Groups:
            found = phase.groups(model)
            own = {id(p) for group in found for p in group["params"]}
            for module_name, module in model.named_modules():
                if any(id(p) in own for p in module.parameters(recurse=False)):
                    trained.add(module_name)
            return found

        loop.train_phase(begun, replace(phase, groups=groups), tmp_path / f"{number}.safetensors", name)
        for key, value in model.state_dict().items():
            home = key.rpartition(".")[0]
            if home not in trained and not any(adapter.startswith(f"{home}.") for adapter in trained):
                assert torch.equal(before[key], value), key
        moved = {k.rpartition(".")[0] for k, v in model.named_parameters() if not torch.equal(before[k], v.detach())}
        assert moved, "something was trained"
        assert {home for home in trained if home in dict(model.named_modules())} <= moved
        assert set(model.state_dict()) == set(before), "nothing is left of what was added"


def test_frozen_backbone_keeps_weights_and_norm_statistics(tmp_path: Path) -> None:
    model = network()
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    phase = Phase("head", 1, head_only(0.1))
    loop.train_phase(start(model, phase, tmp_path, data(*pixels())), phase, tmp_path / "k.safetensors", "head")
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(before[key], value), key
    assert bool(model.head.weight.detach().abs().sum() > 0)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_same_weights_and_another_seed_does_not(name: str, tmp_path: Path) -> None:
    folders = [tmp_path / n for n in "abc"]
    one, two = (train(name, f).state_dict() for f in folders[:2])
    other = train(name, folders[2], seed=4).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_what_can_be_learnt(name: str, tmp_path: Path) -> None:
    model = train(name, tmp_path, ENOUGH[name]).eval()
    rows, targets = pixels()
    with torch.inference_mode():
        guess = model(torch.from_numpy(rows)).argmax(1).numpy()
    assert (guess == targets).mean() > 0.6  # chance is 1/3


@pytest.mark.parametrize(("name", "epoch"), [(n, e) for n in NAMES for e in (1, 2, 3) if e <= EPOCHS[n]])
def test_interrupted_equals_uninterrupted(name: str, epoch: int, tmp_path: Path) -> None:
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


def test_loss_that_is_not_a_number_stops_with_the_step_and_the_key_to_change(tmp_path: Path) -> None:
    rows, targets = pixels()
    phase = phases("full")[0]
    begun = start(network(), phase, tmp_path, data(np.full_like(rows, np.nan), targets))
    with pytest.raises(loop.TrainingError, match=r"epoch 1, step 1.*no numbers, of 8 samples, the first s"):
        loop.train_phase(begun, phase, tmp_path / "k.safetensors", "full")


@pytest.mark.parametrize(("samples", "size", "sizes"), [(33, 32, {16, 17}), (64, 32, {32}), (3, 2, {3}), (1, 8, {1})])
def test_no_batch_is_left_with_one_sample(samples: int, size: int, sizes: set[int]) -> None:
    given = data(np.zeros((samples, 1)), np.zeros(samples, np.int64))
    found = list(batches.batches(given, settings(batch_size=size), 0, 1, ALONE))
    assert {len(batch.places) for batch in found} == sizes
    assert sorted(np.concatenate([batch.places for batch in found])) == list(range(samples))
