"""Every strategy: trains exactly what it says, leaves the rest bit-identical, is the same each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training
from training import data, network, pixels, settings, start

from components import plugins
from components.finetune import batches, course, loop
from components.finetune.phases import End, Groups, Phase, head_only
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
    "full": {"epochs": 3},
    "lp_ft": {"probe_epochs": 4, "epochs": 3},
    "partial": {"epochs": 3},
    "llrd": {"epochs": 3},
    "gradual_unfreeze": {"epochs": 3},
    "l2_sp": {"epochs": 3},
    "ewc": {"epochs": 3, "num_fisher_samples": 4},
    "bss": {"epochs": 3},
    "lwf": {"probe_epochs": 4, "epochs": 3},
    "co_tuning": {"epochs": 3},
    "lora": {"epochs": 3},
    "wise_ft": {"probe_epochs": 4, "epochs": 3, "num_alphas": 3},
    "soup": {"probe_epochs": 4, "epochs": 3, "backbone_learning_rates": [5e-4, 1e-3]},
    "ema": {"epochs": 3},
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


Weights = dict[str, torch.Tensor]


class Killed(BaseException):
    pass


def train(name: str, tmp_path: Path, **changed: Any) -> Weights:
    return training.run(name, tmp_path, CANONICAL[name], **changed)[0].state_dict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Weights]:
    """What a strategy's run that nothing interrupts ends with; each is trained once."""
    kept: dict[str, Weights] = {}

    def of(name: str) -> Weights:
        if name not in kept:
            kept[name] = train(name, tmp_path_factory.mktemp(name))
        return kept[name]

    return of


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
def test_same_seed_gives_same_weights_and_another_seed_does_not(
    name: str, whole: Callable[[str], Weights], tmp_path: Path
) -> None:
    one, two, other = whole(name), train(name, tmp_path / "two"), train(name, tmp_path / "other", seed=4)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_what_can_be_learnt(name: str, tmp_path: Path) -> None:
    model = training.run(name, tmp_path, ENOUGH[name])[0].eval()
    rows, targets = pixels(60, seed=9)  # which it has not seen
    with torch.inference_mode():
        guess = model(torch.from_numpy(rows)).argmax(1).numpy()
    assert (guess == targets).mean() > 0.8  # chance is 1/3


@pytest.mark.parametrize(("name", "epoch"), [(n, e) for n in NAMES for e in (1, 2, 3) if e <= EPOCHS[n]])
def test_interrupted_equals_uninterrupted(
    name: str, epoch: int, whole: Callable[[str], Weights], tmp_path: Path
) -> None:
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
    expected, resumed = whole(name), train(name, tmp_path / "cut")
    assert all(torch.equal(expected[k], resumed[k]) for k in expected)


@pytest.mark.parametrize("name", [n for n in NAMES if any(phase.finish for phase in phases(n))])
def test_killed_while_it_chooses_it_ends_with_the_same_weights(
    name: str, whole: Callable[[str], Weights], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it judges for the second time; for the first where there is no other."""
    real = course._end

    def killed(at: int) -> bool:
        calls = 0

        def end(*given: Any) -> End:
            found = real(*given)

            def judge() -> dict[str, float]:
                nonlocal calls
                calls += 1
                if calls == at:
                    raise Killed
                return found.judge()

            return replace(found, judge=judge)

        with monkeypatch.context() as patch:
            patch.setattr(course, "_end", end)
            try:
                train(name, tmp_path / str(at))
            except Killed:
                return True
        return False

    at = next(at for at in (2, 1) if killed(at))
    expected, resumed = whole(name), train(name, tmp_path / str(at))
    assert all(torch.equal(expected[k], resumed[k]) for k in expected)


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
