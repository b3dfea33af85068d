"""Strategies that keep other weights than those of the last step: wise_ft, soup, ema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training
from pydantic import ValidationError
from torch import nn
from training import data, network, pixels

from components import plugins
from components.finetune import averaging, loop
from components.finetune.phases import End
from components.model import TransferModel


def test_a_mixture_is_the_weighted_sum_and_what_is_common_stays_bit_identical() -> None:
    draw = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    common = torch.tensor([0.1, 1 / 3])
    states = [{"w": torch.from_numpy(w), "same": common.clone(), "n": torch.tensor(i)} for i, w in enumerate(draw)]
    found = averaging.mixed(states, [0.3, 0.7])
    np.testing.assert_allclose(found["w"].numpy(), 0.3 * draw[0] + 0.7 * draw[1], rtol=1e-6)
    assert torch.equal(found["same"], common)
    assert int(found["n"]) == 1


class Line(nn.Module):
    """One weight and one statistic."""

    num_features = 1

    def __init__(self, weight: float = 0.0, mean: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight]))
        self.register_buffer("running_mean", torch.tensor([mean]))


def finished(
    name: str, place: Path, options: dict[str, Any], weights: list[float], loss: Callable[[float], float],
    means: tuple[float, ...] = (),
) -> tuple[dict[str, float], float, int]:  # fmt: skip
    """What a strategy's last `finish` does where its phases ended with these weights: what it found, the weight that
    it left, and how often statistics were renewed."""
    states = [
        TransferModel(Line(weight, mean), 3).state_dict()
        for weight, mean in zip(weights, means or [0.0] * len(weights))
    ]
    model, renewed = TransferModel(Line(), 3), 0
    model.load_state_dict(states[-1])
    place.mkdir(exist_ok=True)
    choice = plugins.choose("finetune.strategies", {"name": name, **options})
    last = choice.load().phases(choice.params)[-1]
    start = training.start(model, last, place, data(*pixels()))

    def weight() -> float:
        return float(model.state_dict()["backbone.weight"])

    def judge() -> dict[str, float]:
        return {"validation_loss": loss(weight()), "validation_accuracy": 0.5}

    def renew() -> None:
        nonlocal renewed
        renewed += 1

    found = last.finish(End(start, lambda number: states[number], judge, renew))
    return found, weight(), renewed


@pytest.mark.parametrize(
    ("loss", "alpha"),
    [
        (lambda w: (w - 3.0) ** 2, 0.5),  # of the weight, 2 with the probe and 4 tuned
        (lambda w: -w, 1.0),
        (lambda w: w, 0.0),
        (lambda _: 0.7, 0.0),  # equal ones: the probe
        (lambda w: float("nan") if w < 3.1 else w, 0.6),
        (lambda w: abs(w - 2.75) // 0.3, 0.3),  # 2.6 and 2.8 and 3.0 are equal
    ],
)
def test_wise_ft_takes_the_point_with_the_smallest_loss(
    loss: Callable[[float], float], alpha: float, tmp_path: Path
) -> None:
    found, weight, renewed = finished("wise_ft", tmp_path, {}, [2.0, 4.0], loss)
    assert found == {"alpha": pytest.approx(alpha)}
    assert weight == pytest.approx(2 + 2 * alpha, abs=1e-6)
    assert renewed == 0, "the same statistics at both ends"


@pytest.mark.parametrize(("loss", "last"), [(lambda w: -w, 0), (lambda w: abs(w - 3), 1)])
def test_statistics_are_renewed_between_ends_that_differ_in_them_and_not_at_the_ends(
    loss: Callable[[float], float], last: int, tmp_path: Path
) -> None:
    *_, renewed = finished("wise_ft", tmp_path, {"num_alphas": 5}, [2.0, 4.0], loss, (0.0, 1.0))
    assert renewed == 3 + last


@pytest.mark.parametrize(
    ("weights", "members", "left"),
    [
        ([1.0, 5.0], [1, 2], 3.0),  # on both sides of 3.2: the mean is better
        ([3.0, 9.0], [1], 3.0),  # the second would spoil it
        ([9.0, 3.0], [2], 3.0),
        ([0.0, 4.0, 1.5], [2, 3], 2.75),  # best 4.0, then 1.5 helps, then 0.0 does not
        ([4.0, 4.0], [1, 2], 4.0),  # no worse
    ],
)
def test_a_soup_takes_in_what_does_not_make_it_worse_the_best_first(
    weights: list[float], members: list[int], left: float, tmp_path: Path
) -> None:
    rates = {"backbone_learning_rates": [1e-4 * i for i in range(1, len(weights) + 1)]}
    found, weight, renewed = finished("soup", tmp_path, rates, [7.0, *weights], lambda w: abs(w - 3.2))
    taken = {f"takes_member_{i}": float(i in members) for i in range(1, len(weights) + 1)}
    assert found == {"num_averaged": float(len(members)), **taken}
    assert weight == pytest.approx(left)
    assert renewed == 0


def test_members_of_a_soup_begin_with_the_probe_and_differ_in_rate() -> None:
    given = [1e-4, 3e-4, 9e-4]
    choice = plugins.choose("finetune.strategies", {"name": "soup", "backbone_learning_rates": given})
    probe, *members = choice.load().phases(choice.params)
    assert probe.cached
    assert [m.begins_after for m in members] == [0, 0, 0]
    assert [m.finish is None for m in members] == [True, True, False]
    rates = [m.groups(network())[1]["lr"] for m in members]
    assert rates == given
    with pytest.raises(ValidationError, match="a rate twice"):
        plugins.choose("finetune.strategies", {"name": "soup", "backbone_learning_rates": [1e-3, 1e-3]})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("wise_ft", {"probe_epochs": 3, "epochs": 3, "num_alphas": 5, "frozen_norm": False}),
        ("soup", {"probe_epochs": 3, "epochs": 2, "backbone_learning_rates": [1e-3, 3e-3], "frozen_norm": False}),
    ],
)
def test_what_was_chosen_is_no_worse_on_validation_than_any_run_it_comes_from(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    _, done = training.run(name, tmp_path, options)
    losses = [row["validation_loss"] for row in done.history]
    if name == "soup":  # the probe itself is no member
        losses = losses[3:]
    assert done.figures["validation_loss"] <= min(losses) + 1e-6


def mean_of(trajectory: list[np.ndarray], decay: float) -> np.ndarray:
    """From the first weights on, by hand."""
    mean = trajectory[0].astype(np.float64)
    for step, weights in enumerate(trajectory[1:], 1):
        kept = min(decay, (1 + step) / (10 + step))
        mean = kept * mean + (1 - kept) * weights
    return mean


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_ema_keeps_the_running_mean_of_every_step(decay: float, tmp_path: Path) -> None:
    trajectory: list[np.ndarray] = []
    strategy = plugins.load("finetune.strategies", "ema")
    real = strategy.Mean.after_step
    model = network()

    def watched(self: Any) -> None:
        real(self)
        assert model.head.scale is not None
        trajectory.append((model.head.weight / model.head.scale).detach().numpy())  # as it is once it is folded

    trajectory.append(model.head.weight.detach().numpy().copy())
    strategy.Mean.after_step = watched
    try:
        _, done = training.run("ema", tmp_path, {"epochs": 2, "decay": decay}, model)
    finally:
        strategy.Mean.after_step = real
    assert len(trajectory) == 1 + 2 * 3
    expected = mean_of(trajectory[: 1 + 3 * done.best_epoch], decay)
    np.testing.assert_allclose(model.head.weight.detach().numpy(), expected, rtol=1e-6, atol=1e-7)
    assert float(np.abs(expected - trajectory[3 * done.best_epoch]).max()) > 1e-5, "it is not the last weights"


def test_the_mean_is_there_while_judged_and_survives_a_kill(tmp_path: Path) -> None:
    strategy = plugins.load("finetune.strategies", "ema")
    phase = strategy.phases(strategy.Params())[0]
    model = network()
    start = training.start(model, phase, tmp_path, data(*pixels()))
    mean = strategy.Mean(start, 0.9)
    first = model.head.bias.detach().clone()
    with torch.no_grad():
        model.head.bias.add_(1.0)
    mean.after_step()
    with mean.judged():
        torch.testing.assert_close(model.head.bias.detach(), first + (1 - 2 / 11))
    assert torch.equal(model.head.bias.detach(), first + 1.0), "its own weights are back"
    assert torch.equal(mean.mean["backbone.conv_stem.weight"], model.backbone.state_dict()["conv_stem.weight"])
    other = strategy.Mean(start, 0.9)
    other.resume({})
    other.resume(mean.state())
    for one in (mean, other):
        one.after_step()
    assert all(torch.equal(mean.mean[k], other.mean[k]) for k in mean.mean)
    assert other.steps == 2


def test_the_mean_is_of_what_moves(tmp_path: Path) -> None:
    """A table that is no parameter stands in no copy: it may be larger than all else."""
    strategy = plugins.load("finetune.strategies", "ema")
    model = network()
    model.backbone.register_buffer("table", torch.zeros(10, 3))
    mean = strategy.Mean(training.start(model, strategy.phases(strategy.Params())[0], tmp_path, data(*pixels())), 0.9)
    last = {name.rpartition(".")[2] for name in mean.mean}
    assert last == {"weight", "bias", "running_mean", "running_var"}
    assert {name for name, _ in model.named_parameters()} <= mean.mean.keys()


class Normed(nn.Module):
    """Rows [n, 2] normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2, momentum=0.3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.norm(rows)


@pytest.mark.parametrize("num", [33, 64, 70])
def test_renewed_statistics_are_means_over_the_samples_and_no_batch_has_one(num: int) -> None:
    """33 at 32 a batch were one of 32 and one of 1, which has no statistics."""
    rows = np.random.default_rng(3).normal(2, 3, (num, 2)).astype(np.float32)
    model = Normed().eval()
    batches: list[np.ndarray] = []
    model.register_forward_pre_hook(lambda _, given: batches.append(given[0].numpy().astype(np.float64)))
    given = data(rows, np.zeros(num, np.int64))
    loop.renew_statistics(model, given, training.settings(batch_size=32), torch.device("cpu"))
    assert sorted(map(len, batches)) in ([16, 17], [32, 32], [23, 23, 24])
    shares = np.array([len(one) for one in batches]) / num
    assert model.norm.running_mean is not None
    assert model.norm.running_var is not None
    np.testing.assert_allclose(model.norm.running_mean.numpy(), rows.mean(axis=0), rtol=1e-5)
    variances = np.array([one.var(axis=0, ddof=1) for one in batches])
    np.testing.assert_allclose(model.norm.running_var.numpy(), shares @ variances, rtol=1e-5)
    assert model.norm.momentum == 0.3
    assert not model.training
    loop.renew_statistics(nn.Linear(2, 2), given, training.settings(), torch.device("cpu"))  # nothing to renew
