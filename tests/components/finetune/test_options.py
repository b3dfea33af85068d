"""Options of the loop: schedules, Mixup and CutMix, dropout; and what is told while it trains."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training
from sklearn.metrics import precision_recall_fscore_support
from tiny_training import digests, run, upstream
from training import data, network, pixels, settings, start

from components import plugins
from components.contracts import InputError, read_json
from components.finetune import batches, judging, live, loop, mixing, schedules
from components.finetune.phases import Callback, Phase, Step, everything
from components.finetune.team import ALONE, Team
from components.job import Job

FULL = Phase("full", 1, everything(0.01, 0.001))


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_rate_rises_over_the_warmup_and_falls_to_nothing(schedule: str) -> None:
    shares = [schedules.share(schedule, i, 100, 0.3) for i in range(100)]
    assert np.argmax(shares) in (29, 30)
    assert max(shares) == pytest.approx(1)
    assert (np.diff(shares[:30]) > 0).all()
    assert (np.diff(shares[31:]) < 0).all()
    assert shares[-1] < 1e-3


def test_golden_shares_and_momentum() -> None:
    one = [
        (schedules.share("one_cycle", i, 11, 0.4), schedules.momentum("one_cycle", i, 11, 0.4)) for i in (0, 2, 4, 7)
    ]
    assert one == [
        (pytest.approx(0.04), pytest.approx(0.95)),
        (pytest.approx(0.52), pytest.approx(0.90)),
        (pytest.approx(1.0), pytest.approx(0.85)),
        (pytest.approx(0.500002), pytest.approx(0.90)),
    ]
    assert [schedules.share("cosine", i, 11, 0.2) for i in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert schedules.momentum("cosine", 3, 11, 0.2) is None


def test_one_cycle_is_torchs(tmp_path: Path) -> None:
    """Which counts the steps of the rise from the first one that it has moved."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, 21, pct_start=6 / 21)
    for step in range(21):
        group = optimiser.param_groups[0]
        assert group["lr"] == pytest.approx(schedules.share("one_cycle", step, 21, 5 / 21), abs=1e-6)
        assert group["betas"][0] == pytest.approx(schedules.momentum("one_cycle", step, 21, 5 / 21))
        optimiser.step()
        theirs.step()


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixtures_are_of_two_samples_by_their_shares(mixup: float, cutmix: float) -> None:
    """Rows that hold their own number in every pixel tell what each was mixed of."""
    num, boxes = 40, 0
    rows = np.broadcast_to(np.arange(num, dtype=np.float32)[:, None, None, None], (num, 3, 16, 8)).copy()
    given = replace(data(rows, np.zeros(num, np.int64)), mixed=True)
    for batch in batches.batches(given, settings(mixup=mixup, cutmix=cutmix), 0, 2, ALONE):
        assert batch.mix is not None
        expected = batch.mix.share * batch.places + (1 - batch.mix.share) * batch.mix.partners
        assert np.allclose(batch.inputs[0].mean(axis=(1, 2, 3)), expected, rtol=1e-5)
        assert 0.5 <= batch.mix.share <= 1
        assert sorted(batch.mix.partners) == sorted(batch.places)
        boxes += batch.mix.box is not None
    assert (boxes > 0) == (cutmix > 0)
    assert (boxes < 5) == (mixup > 0)


def test_shares_are_of_the_distribution_that_was_asked_for() -> None:
    drawn = [mixing.draw(8, 0.2, 0, (8, 8), 3, 0, i).share for i in range(2000)]
    folded = np.random.default_rng(0).beta(0.2, 0.2, 20000)
    assert np.mean(drawn) == pytest.approx(np.maximum(folded, 1 - folded).mean(), abs=0.01)


def test_boxes_are_the_papers() -> None:
    """Of any area, cut at the edge; by hand of as many draws from numpy."""
    drawn = [mixing.draw(8, 0, 1, (32, 32), 3, 0, i) for i in range(3000)]
    areas = np.array([one.share if one.own_inside else 1 - one.share for one in drawn])
    assert [one.own_inside for one in drawn] == [area > 0.5 for area in areas]
    rng = np.random.default_rng(0)
    half = 32 * np.sqrt(1 - rng.random((20000, 1))) / 2
    centre = rng.integers(0, 32, (20000, 2))
    by_hand = np.prod(np.clip(np.round(centre + half), 0, 32) - np.clip(np.round(centre - half), 0, 32), 1) / 32**2
    assert np.mean(areas) == pytest.approx(by_hand.mean(), abs=0.012)
    assert by_hand.mean() == pytest.approx(0.32, abs=0.01)
    assert (areas > 0.5).mean() == pytest.approx((by_hand > 0.5).mean(), abs=0.02)
    assert areas.max() > 0.9


def test_a_box_of_more_than_half_of_the_image_is_the_samples_own() -> None:
    own, other = np.zeros((1, 3, 4, 4)), np.ones((1, 3, 4, 4))
    box = (slice(0, 3), slice(0, 4))
    inside = mixing.Mix(np.array([0]), 0.75, box, own_inside=True)
    assert inside.apply(own, other)[0, 0].sum(axis=1).tolist() == [0, 0, 0, 4]
    assert inside.part(slice(0, 1)).own_inside
    around = mixing.Mix(np.array([0]), 0.25, box)
    assert around.apply(own, other)[0, 0].sum(axis=1).tolist() == [4, 4, 4, 0]


def test_processes_mix_what_one_does() -> None:
    rows, targets = pixels()
    given = replace(data(rows, targets), mixed=True)
    options = settings(mixup=0.4, cutmix=1.0)
    whole = list(batches.batches(given, options, 1, 1, ALONE))
    parts = [list(batches.batches(given, options, 1, 1, Team(rank, 2, rank))) for rank in (0, 1)]
    for one, *two in zip(whole, *parts):
        assert np.array_equal(one.inputs[0], np.concatenate([part.inputs[0] for part in two]))
        assert one.mix is not None
        assert np.array_equal(one.mix.partners, np.concatenate([p.mix.partners for p in two if p.mix]))


def test_a_penalty_knows_what_was_mixed_and_the_loss_is_of_both(tmp_path: Path) -> None:
    seen: list[Step] = []

    class Watching(Callback):
        def penalty(self, step: Step) -> None:
            seen.append(step)

    phase = replace(FULL, callback=Watching)
    given = replace(data(*pixels()), mixed=True)
    state = loop.train_phase(
        start(network(), phase, tmp_path, given, mixup=1.0, batch_size=24), phase, tmp_path / "k.safetensors", "mixed"
    )
    (step,) = seen
    assert step.partners is not None
    logits, targets = step.logits.detach(), torch.from_numpy(pixels()[1])
    losses = [torch.nn.functional.cross_entropy(logits, targets[which]) for which in (step.places, step.partners)]
    expected = step.share * losses[0] + (1 - step.share) * losses[1]
    assert state.history[0]["train_loss"] == pytest.approx(float(expected))
    assert step.share < 1


def test_dropout_is_of_what_the_weights_multiply_and_only_in_training(tmp_path: Path) -> None:
    model = network()
    head = model.head
    head.standardise(torch.full((head.in_features,), 100.0), torch.ones(head.in_features))
    phase = Phase("head", 1, lambda m: [{"name": "head", "params": list(m.head.parameters()), "lr": 0.0}])
    begun = start(model, phase, tmp_path, data(*pixels()), dropout=0.5)
    inner: list[torch.Tensor] = []
    modes: list[bool] = []

    def look(module: torch.nn.Module, inputs: tuple[torch.Tensor], _: Any) -> None:
        inner.append(inputs[0].detach())
        modes.append(module.training)

    watched = head.register_forward_hook(look)
    loop.train_phase(begun, phase, tmp_path / "k.safetensors", "dropped")
    watched.remove()
    for features, training_mode in zip(inner, modes):
        assert bool((features == 100).any()) is training_mode
    assert set(modes) == {True, False}
    head.fold()
    assert not head._forward_pre_hooks


OPTIONS: dict[str, Any] = {"schedule": "one_cycle", "mixup": 0.4, "cutmix": 1.0, "dropout": 0.3}


def test_with_all_options_it_is_the_same_each_time(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path, {"name": "light"})
    short = {"strategy": {"name": "full", "epochs": 1}, "references": []}
    once, again = (digests(run(make_job, tmp_path, **short, **OPTIONS)[1].building) for _ in range(2))
    assert once == again


def test_each_option_changes_the_weights(tmp_path: Path) -> None:
    found: list[bytes] = []
    for name, value in {"patience": 9, **OPTIONS}.items():
        model, given = network(), replace(data(*pixels()), mixed=True)
        begun = start(model, FULL, tmp_path, given, batch_size=12, **{name: value})
        loop.train_phase(begun, FULL, tmp_path / f"{name}.safetensors", name)
        found.append(model.head.weight.detach().numpy().tobytes())
    assert len(set(found)) == 1 + len(OPTIONS)


def test_frozen_features_are_not_mixed_and_it_is_said(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path)
    probe = {"strategy": {"name": "linear_probe", "epochs": 1}, "references": []}
    _, job = run(make_job, tmp_path, **probe, mixup=0.4)
    assert "no mixup or cutmix" in read_json(job.building / "runs/main/run.json")["note"]


def test_what_is_no_image_is_not_mixed() -> None:
    mixing.must_be_images([np.zeros((1, 3, 8, 8))], "image_classification")
    with pytest.raises(InputError, match=r"finetune.mixup .* text_classification: set both to 0"):
        mixing.must_be_images([np.zeros((1, 8)), np.zeros((1, 8))], "text_classification")


@pytest.mark.parametrize("decision", ["single_label", "multi_label"])
def test_figures_on_validation_are_sklearns(decision: str) -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 1, (40, 4)).astype(np.float32)
    single = decision == "single_label"
    targets = rng.integers(0, 3, 40) if single else (rng.random((40, 4)) < 0.4).astype(np.float32)
    guess = logits.argmax(1) if single else logits >= 0
    given = data(logits, targets)
    found = judging.measure(torch.nn.Identity(), given, plugins.load("decisions", decision), 7, torch.device("cpu"))
    labels = range(3) if single else None  # a label that does not occur has no recall
    expected = precision_recall_fscore_support(targets, guess, labels=labels, average="macro", zero_division=0)
    assert [found[f"validation_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])


def test_history_grows_in_a_file_while_it_trains_and_survives_a_kill(tmp_path: Path) -> None:
    place = tmp_path / "reports/stage" / live.NAME

    class Cut(BaseException):
        pass

    class Cutting(Callback):
        def after_step(self) -> None:
            if place.exists() and len(rows()) == 1:
                raise Cut

    def rows() -> list[dict[str, str]]:
        with place.open() as handle:
            return list(csv.DictReader(handle))

    phase, given = replace(FULL, epochs=2), data(*pixels())
    cut = replace(phase, callback=Cutting)
    with pytest.raises(Cut):
        loop.train_phase(start(network(), cut, tmp_path, given), cut, tmp_path / "k.safetensors", "main")
    live.write(training.start(network(), phase, tmp_path, given).job, "other", [{"epoch": 1}])
    earlier = [{"phase": "head", "epoch": 1, "train_loss": 2.0}]
    loop.train_phase(start(network(), phase, tmp_path, given), phase, tmp_path / "k.safetensors", "main", earlier)
    assert [(row["run"], row["phase"], row["epoch"]) for row in rows()] == [
        ("other", "", "1"), ("main", "head", "1"), ("main", "full", "2"), ("main", "full", "3"),
    ]  # fmt: skip
    assert all(0 <= float(row["validation_f1"]) <= 1 for row in rows()[2:])


def test_a_gradient_that_is_no_number_stops_with_the_step_and_the_key_to_change(tmp_path: Path) -> None:
    """The loss is one: the derivative of a root at 0 is not."""

    class Root(Callback):
        def penalty(self, step: Step) -> torch.Tensor:
            return (step.features * 0).sum().sqrt() * 0 + (step.features - step.features).square().sum().sqrt()

    phase = replace(FULL, callback=Root)
    with pytest.raises(
        loop.TrainingError, match=r"length of the gradient of full is nan in epoch 1, step 1.*a learning rate is too"
    ):
        loop.train_phase(start(network(), phase, tmp_path, data(*pixels())), phase, tmp_path / "k.safetensors", "full")


def test_a_rate_that_is_too_high_is_told_so(tmp_path: Path) -> None:
    phase = Phase("full", 5, everything(1e30, 1e21))
    told = r"learning rate is too high: 1e\+30 \(head\), 1e\+21 \(backbone\)\.$"
    with pytest.raises(loop.RateTooHigh, match=told):
        loop.train_phase(start(network(), phase, tmp_path, data(*pixels())), phase, tmp_path / "k.safetensors", "full")


@pytest.mark.parametrize(
    ("strategy", "references", "told"),
    [
        (
            {"name": "lp_ft", "probe_epochs": 1, "head_learning_rate": 1.0, "backbone_learning_rate": 1.0},
            [],
            r"\(head\), .*\(backbone\)\. Lower finetune\.strategy\.learning_rate or finetune\.strategy\."
            r"head_learning_rate or finetune\.strategy\.backbone_learning_rate\.$",
        ),
        (
            {"name": "linear_probe", "epochs": 1},
            ["from_scratch"],
            r"from_scratch has a rate of its own: lower finetune\.max_gradient_norm, or take it out of references\.$",
        ),
    ],
)
def test_a_rate_that_is_too_high_is_told_with_the_keys_that_the_strategy_has(
    strategy: dict[str, Any], references: list[str], told: str, tmp_path: Path, make_job: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Where the backbone trains, the loss is no number."""
    real = loop.measure

    def wrong(network: Any, *rest: Any) -> dict[str, float]:
        found = real(network, *rest)
        return {**found, "validation_loss": float("nan")} if "backbone." in "".join(network.state_dict()) else found

    upstream(tmp_path)
    monkeypatch.setattr(loop, "measure", wrong)
    with pytest.raises(loop.TrainingError, match=told):
        run(make_job, tmp_path, strategy=strategy, references=references)
