"""Penalties of strategies against the same by hand, their gradients, and that a larger weight holds more."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training
from torch import nn
from training import start

from components import plugins
from components.contracts import InputError
from components.finetune import course, relation
from components.finetune.anchor import Anchor
from components.finetune.batches import Data
from components.finetune.phases import Callback, Phase, Start, Step
from components.finetune.strategies import bss, co_tuning, ewc, lwf
from components.model import TransferModel
from components.samples import keyed_rng

WIDTH = 5
CLASSIFIER = training.source_head(WIDTH).requires_grad_(False)


class Small(nn.Module):
    """Rows [n, 6] -> features [n, WIDTH]; with a frozen-statistics norm, as real ones have."""

    num_features = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.below, self.norm, self.above = nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Linear(7, WIDTH)
        assert self.norm.running_mean is not None
        self.norm.running_mean.copy_(torch.linspace(-0.3, 0.3, 7))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.above(torch.tanh(self.norm(self.below(rows))))


def model() -> TransferModel:
    torch.manual_seed(1)
    return TransferModel(Small(), 3)


def data(n: int = 18, targets: np.ndarray | None = None) -> Data:
    rng = np.random.default_rng(4)
    own = np.arange(n) % 3
    rows = rng.normal(0, 0.5, (n, 6)).astype(np.float32)
    rows[np.arange(n), own] += 1.5
    return training.data(rows, own.astype(np.int64) if targets is None else targets)


def phase(name: str, number: int = -1, **options: Any) -> Phase:
    choice = plugins.choose("finetune.strategies", {"name": name, **options})
    found: Phase = choice.load().phases(choice.params)[number]
    return found


def callback_of(name: str, at: Start, **options: Any) -> Callback:
    make = phase(name, **options).callback
    assert make is not None
    return make(at)


def begun(name: str, place: Path, network: TransferModel | None = None, **changed: Any) -> Start:
    return start(network or model(), phase(name), place, data(), **changed)


def step_of(at: Start, places: np.ndarray) -> Step:
    """As the loop makes it."""
    features = at.model.backbone(torch.from_numpy(at.train.rows[places]))
    return Step(places, features, at.model.head(features), torch.from_numpy(at.train.targets[places]))


def penalty(callback: Callback, at: Start, places: tuple[int, ...] = (3, 0, 7, 8)) -> torch.Tensor:
    found = callback.penalty(step_of(at, np.array(places)))
    assert found is not None
    return found


def worth(value: torch.Tensor) -> float:
    return float(value.detach())


def moved(network: TransferModel, by: float = 0.1) -> None:
    """Every weight of the backbone, each by another step."""
    with torch.no_grad():
        for i, parameter in enumerate(network.backbone.parameters(), 1):
            parameter.add_(by * i * torch.arange(parameter.numel()).view_as(parameter) / parameter.numel())


def drift(name: str, place: Path, **options: Any) -> float:
    """How far training moves the backbone's weights."""
    network = model()
    before = nn.utils.parameters_to_vector(network.backbone.parameters()).detach().clone()
    trained(name, place, network, **options)
    return worth((nn.utils.parameters_to_vector(network.backbone.parameters()) - before).norm())


def trained(name: str, place: Path, network: TransferModel, **options: Any) -> None:
    choice = plugins.choose("finetune.strategies", {"name": name, "epochs": 4, **options})
    place.mkdir(parents=True, exist_ok=True)
    phases = choice.load().phases(choice.params)
    whole = {"train": data(), "validation": data()}
    course.run(network, phases, lambda one: start(network, one, place, data()), whole, lambda *_: nullcontext(),
               place, name)  # fmt: skip


# L2-SP and EWC


def test_the_anchor_is_half_the_weighted_squared_distance_and_its_gradient_the_distance(tmp_path: Path) -> None:
    at = begun("l2_sp", tmp_path)
    importance = [torch.rand_like(p) for p in at.model.backbone.parameters()]
    before = [p.detach().numpy().astype(np.float64).copy() for p in at.model.backbone.parameters()]
    plain, weighted = Anchor(at, 0.3), Anchor(at, 0.3, importance)
    assert worth(penalty(plain, at)) == 0
    moved(at.model)
    gaps = [p.detach().numpy() - b for p, b in zip(at.model.backbone.parameters(), before)]
    assert worth(penalty(plain, at)) == pytest.approx(0.15 * sum((g**2).sum() for g in gaps), rel=1e-5)
    by_hand = 0.15 * sum((f.numpy() * g**2).sum() for f, g in zip(importance, gaps))
    assert worth(penalty(weighted, at)) == pytest.approx(by_hand, rel=1e-5)
    gradients = torch.autograd.grad(penalty(weighted, at), list(at.model.backbone.parameters()))
    for gradient, f, gap in zip(gradients, importance, gaps):
        np.testing.assert_allclose(gradient.numpy(), 0.3 * f.numpy() * gap, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["l2_sp", "ewc"])
def test_drift_from_the_start_falls_as_the_weight_grows(name: str, tmp_path: Path) -> None:
    drifts = [drift(name, tmp_path / str(w), weight=w) for w in (0.0, 1.0, 100.0)]
    assert drifts[0] > 1.2 * drifts[1] > 2 * drifts[2] > 0, drifts


@pytest.mark.parametrize("name", ["l2_sp", "ewc"])
def test_what_is_held_does_not_decay_to_zero_and_the_head_does(name: str) -> None:
    groups = {group["name"]: group for group in phase(name).groups(model())}
    assert groups["backbone"]["weight_decay"] == 0
    assert "weight_decay" not in groups["head"], "that of the section"


def test_ewc_holds_what_matters_more_firmly_than_what_does_not(tmp_path: Path) -> None:
    at = begun("ewc", tmp_path)
    anchor = callback_of("ewc", at, weight=1.0, num_fisher_samples=18)
    assert isinstance(anchor, Anchor)
    assert anchor.importance is not None
    flat = torch.cat([f.flatten() for f in anchor.importance])
    assert float(flat.mean()) == pytest.approx(1, rel=1e-5)
    assert float(flat.max()) > 3
    assert float(flat.min()) >= 0


# Fisher information


def per_sample(at: Start, value: Any) -> list[torch.Tensor]:
    """Mean over the samples of squared gradients of `value(features, sample)`, by torch.func."""
    backbone = at.model.backbone.eval()
    parameters = {k: v.detach() for k, v in backbone.named_parameters()}
    buffers = dict(backbone.named_buffers())

    def one(parameters: dict[str, torch.Tensor], row: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        features = torch.func.functional_call(backbone, (parameters, buffers), (row[None],))
        return value(features[0], extra)

    rows = torch.from_numpy(at.train.rows)
    given = torch.stack([extra_of(at, i) for i in range(len(rows))]) if value is signed else labels_of(at)
    found = torch.func.vmap(torch.func.grad(one), (None, 0, 0))(parameters, rows, given)
    return [found[k].square().mean(0) for k in parameters]


def extra_of(at: Start, i: int) -> torch.Tensor:
    """The signs that sample i draws: those whose scalar of unit vectors they are."""
    eye = torch.eye(WIDTH)
    key = f"Fisher information {at.train.ids[i]}"
    return torch.stack([ewc.drawn(eye[d : d + 1], None, keyed_rng(3, 0, key)) for d in range(WIDTH)])


def signed(features: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    return (features * signs).sum()


def labels_of(at: Start) -> torch.Tensor:
    """The labels that the samples draw: by the inverse of the distribution function, as numpy has it."""
    classifier = training.source_head(WIDTH)
    with torch.no_grad():
        chances = torch.softmax(classifier(torch.from_numpy(at.features())).double(), 1).numpy().cumsum(1)
    keys = [f"Fisher information {name}" for name in at.train.ids]
    return torch.tensor([int((row < keyed_rng(3, 0, key).random()).sum()) for row, key in zip(chances, keys)])


def answered(features: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(CLASSIFIER(features), 0).gather(0, label[None])[0]


@pytest.mark.parametrize("of", ["source_head", "features"])
def test_fisher_is_the_mean_of_squared_gradients_of_each_sample(of: str, tmp_path: Path) -> None:
    at = begun("ewc", tmp_path)
    found = ewc.fisher(at, training.source_head(WIDTH) if of == "source_head" else None, 99)
    by_hand = per_sample(at, answered if of == "source_head" else signed)
    for one, other in zip(found, by_hand):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-8)
    assert len(labels_of(at).unique()) > 1
    assert sum(float(f.sum()) for f in found) > 0


def test_fisher_of_features_is_on_average_the_sum_of_their_squared_gradients() -> None:
    """E (sum over d of s_d J_di)^2 = sum over d of J_di^2 for independent signs s."""
    jacobian = torch.tensor([[1.0, -2.0], [0.5, 3.0], [2.0, 0.0]])
    drawn = [ewc.drawn(jacobian.T[i : i + 1], None, np.random.default_rng(s)) for s in range(2000) for i in (0, 1)]
    squares = torch.stack(drawn).view(-1, 2).square().mean(0)
    torch.testing.assert_close(squares, jacobian.square().sum(0), rtol=0.08, atol=0)


def test_fisher_takes_so_many_samples_and_the_same_each_time_and_leaves_the_weights_alone(tmp_path: Path) -> None:
    at = begun("ewc", tmp_path)
    before = copy.deepcopy(at.model.state_dict())
    few, again, all_of_them = (ewc.fisher(at, None, num) for num in (5, 5, 18))
    assert all(torch.equal(a, b) for a, b in zip(few, again))
    assert not all(torch.equal(a, b) for a, b in zip(few, all_of_them))
    assert all(torch.equal(before[k], v) for k, v in at.model.state_dict().items())
    assert all(p.grad is None for p in at.model.parameters())


# BSS


def test_bss_is_the_sum_of_the_smallest_squared_singular_values_on_the_heads_scale(tmp_path: Path) -> None:
    at = begun("bss", tmp_path)
    places = (0, 4, 8, 9, 1, 2, 5)
    features = step_of(at, np.array(places)).features.detach().numpy().astype(np.float64)
    values = np.sort(np.linalg.eigvalsh(features.T @ features))
    assert worth(penalty(bss.Shrinkage(at, 0.5, 1), at, places)) == pytest.approx(0.5 * values[0], rel=1e-3)
    assert worth(penalty(bss.Shrinkage(at, 0.5, 3), at, places)) == pytest.approx(0.5 * values[:3].sum(), rel=1e-4)
    assert worth(penalty(bss.Shrinkage(at, 0.5, 99), at, places)) == pytest.approx(0.5 * values.sum(), rel=1e-4)
    at.model.head.standardise(torch.zeros(WIDTH), torch.full((WIDTH,), 0.1))
    assert worth(penalty(bss.Shrinkage(at, 0.5, 3), at, places)) == pytest.approx(50 * values[:3].sum(), rel=1e-4)


def test_the_gradient_of_bss_is_that_of_differences() -> None:
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 6))).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda f: bss.smallest(f, 2), (features,))


def test_a_larger_weight_of_bss_leaves_smaller_small_singular_values(tmp_path: Path) -> None:
    found = []
    for weight in (0.0, 10.0):
        network = model()
        trained("bss", tmp_path / str(weight), network, weight=weight, epochs=8)
        with torch.inference_mode():
            found.append(float(bss.smallest(network.eval().backbone(torch.from_numpy(data().rows)), 1)))
    assert found[1] < 0.5 * found[0]


# LwF


def test_lwf_is_the_divergence_of_the_old_answers_from_the_new_of_the_same_samples(tmp_path: Path) -> None:
    at = begun("lwf", tmp_path)
    at.model.eval()
    callback = lwf.OldAnswers(at, 0.7, 2.0)
    classifier = training.source_head(WIDTH)
    before = at.features()
    assert worth(penalty(callback, at)) == pytest.approx(0, abs=1e-6)
    moved(at.model)
    places = (3, 0, 7, 8)
    now = step_of(at, np.array(places)).features.detach().numpy()

    def chances(features: np.ndarray) -> np.ndarray:
        logits = features.astype(np.float64) @ classifier.weight.detach().numpy().T / 2.0
        powers = np.exp(logits)
        return np.asarray(powers / powers.sum(1, keepdims=True))

    old, new = chances(before[list(places)]), chances(now)
    by_hand = 0.7 * (old * np.log(old / new)).sum(1).mean()
    found = penalty(callback, at, places)
    assert by_hand > 1e-3
    assert worth(found) == pytest.approx(by_hand, rel=1e-4)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(found, list(at.model.backbone.above.parameters())))  # type: ignore[union-attr]
    assert all(not p.requires_grad for p in callback.classifier.parameters()), "the old classifier stays as it was"


def test_the_gradient_of_lwfs_divergence_is_that_of_differences() -> None:
    rng = np.random.default_rng(0)
    before, now = (torch.from_numpy(rng.normal(size=(3, 4))) for _ in "ab")
    assert torch.autograd.gradcheck(lambda n: lwf.divergence(before, n, 2.0), (now.requires_grad_(True),))


def test_a_larger_weight_of_lwf_forgets_less(tmp_path: Path) -> None:
    found = []
    classifier, rows = training.source_head(WIDTH), torch.from_numpy(data().rows)
    for weight in (0.0, 10.0):
        network = model().eval()
        with torch.inference_mode():
            before = classifier(network.backbone(rows))
        trained("lwf", tmp_path / str(weight), network, weight=weight, probe_epochs=2, backbone_learning_rate=5e-3)
        with torch.inference_mode():
            found.append(float(lwf.divergence(before, classifier(network.eval().backbone(rows)), 1.0)))
    assert found[1] < 0.5 * found[0]


# Co-tuning


def test_co_tuning_is_the_cross_entropy_of_the_old_labels_given_the_new_one(tmp_path: Path) -> None:
    at = begun("co_tuning", tmp_path)
    callback = co_tuning.OldLabels(at, co_tuning.Params(weight=0.4, relation="direct"))
    at.model.eval()
    old = torch.softmax(training.source_head(WIDTH)(torch.from_numpy(at.features())), 1).detach().numpy()
    rows = np.stack([old[at.train.targets == label].mean(0) for label in range(3)])
    np.testing.assert_allclose(callback.relation.numpy(), rows, rtol=1e-5)
    places = np.array([3, 0, 7, 8])
    by_hand = -0.4 * (rows[at.train.targets[places]] * np.log(old[places])).sum(1).mean()
    found = penalty(callback, at, tuple(places))
    assert worth(found) == pytest.approx(by_hand, rel=1e-4)
    trains = list(at.model.get_submodule("source_head").parameters())
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(found, trains))
    assert {id(p) for g in phase("co_tuning").groups(at.model) for p in g["params"]} >= {id(p) for p in trains}
    callback.close()
    assert not hasattr(at.model, "source_head")


def planted(n: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    """New labels 0, 1, 2 whose samples the old classifier mostly calls 0, 1, and one of 2 and 3."""
    rng = np.random.default_rng(5)
    new = np.arange(n) % 3
    calls = np.where(new == 2, 2 + rng.integers(0, 2, n), new)
    old = rng.dirichlet(np.ones(4), n) * 0.2
    old[np.arange(n), calls] += 0.8
    return torch.from_numpy(old), torch.from_numpy(new)


def test_the_learnt_relation_is_bayes_rule_on_the_regressions_answers_to_each_old_label() -> None:
    old, new = planted()
    strength = relation.ridge(old, new, 3, 0)
    weight = relation.regression(old, new, 3, strength).numpy()
    given_old = np.exp(weight) / np.exp(weight).sum(0)  # [K, S]
    joint = given_old * old.numpy().mean(0)
    found = relation.reverse(old, new, 3, 0)
    np.testing.assert_allclose(found.numpy(), joint / joint.sum(1, keepdims=True), rtol=1e-9)
    assert found.argmax(1).tolist()[:2] == [0, 1]
    assert float(found[2, 2:].sum()) > 0.9
    assert torch.equal(found, relation.reverse(old, new, 3, 0))


def test_the_regression_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    old, new = planted()
    other = LogisticRegression(C=10, fit_intercept=False, tol=1e-10, max_iter=1000).fit(old.numpy(), new.numpy())
    np.testing.assert_allclose(relation.regression(old, new, 3, 0.1).numpy(), other.coef_, atol=1e-3)


def test_where_old_labels_tell_nothing_the_relation_is_nearly_the_same_for_all() -> None:
    old, new = planted()
    shuffled = new[torch.from_numpy(np.random.default_rng(1).permutation(len(new)))]
    found = relation.reverse(old, shuffled, 3, 0)
    assert float((found - found.mean(0)).abs().max()) < 0.1
    assert relation.ridge(old, shuffled, 3, 0) == relation.RIDGES[0] > relation.ridge(old, new, 3, 0)


def test_one_sample_a_label_or_none_still_gives_a_relation() -> None:
    old = torch.softmax(torch.arange(8.0, dtype=torch.float64).view(2, 4).cos() * 3, 1)
    for found in (relation.reverse(old, torch.tensor([0, 2]), 3, 0), relation.direct(old, torch.tensor([0, 2]), 3)):
        assert found.shape == (3, 4)
        torch.testing.assert_close(found.sum(1), torch.ones(3, dtype=torch.float64))


def test_co_tuning_refuses_labels_that_are_sets(tmp_path: Path) -> None:
    sets = data(targets=np.eye(3, dtype=np.float32)[np.arange(18) % 3])
    at = replace(start(model(), phase("co_tuning"), tmp_path, sets, decision="multi_label"))
    with pytest.raises(InputError, match=r"run\.decision is multi_label.*l2_sp"):
        co_tuning.OldLabels(at, co_tuning.Params())
    assert not hasattr(at.model, "source_head")


@pytest.mark.parametrize("name", ["lwf", "co_tuning"])
def test_of_samples_that_were_mixed_both_count_by_their_shares(name: str, tmp_path: Path) -> None:
    at = begun(name, tmp_path)
    callback = callback_of(name, at)
    at.model.eval()
    step = step_of(at, np.array([3, 0, 7]))
    others = np.array([4, 8, 2])
    found = [
        callback.penalty(one) for one in (step, replace(step, places=others), replace(step, partners=others, share=0.7))
    ]
    values = [worth(value) for value in found if value is not None]
    assert values[0] != pytest.approx(values[1], rel=1e-3, abs=1e-5)
    assert values[2] == pytest.approx(0.7 * values[0] + 0.3 * values[1], rel=1e-4)


# A network without a classifier of its own


@pytest.mark.parametrize(("name", "options"), [("lwf", {}), ("co_tuning", {}), ("ewc", {"fisher": "source_head"})])
def test_without_a_source_head_it_says_what_to_take_instead(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    at = begun(name, tmp_path, head=False)
    with pytest.raises(InputError, match=rf"finetune\.strategy: {name}.*Take l2_sp"):
        callback_of(name, at, **options)


@pytest.mark.parametrize("name", ["l2_sp", "bss", "ewc"])
def test_others_need_no_source_head_and_take_sets_of_labels(name: str, tmp_path: Path) -> None:
    network = model()
    sets = data(targets=np.eye(3, dtype=np.float32)[np.arange(18) % 3])
    choice = plugins.choose("finetune.strategies", {"name": name, "epochs": 1})
    done = course.run(
        network, choice.load().phases(choice.params),
        lambda one: start(network, one, tmp_path, sets, decision="multi_label", head=False),
        {"train": sets, "validation": sets}, lambda *_: nullcontext(), tmp_path, name,
    )  # fmt: skip
    assert np.isfinite(done.figures["validation_loss"])


def test_ewc_says_what_its_information_is_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for head, words in ((True, "pretrained classifier's answers"), (False, "features")):
        callback_of("ewc", begun("ewc", tmp_path, head=head))
        said = capsys.readouterr()
        assert words in " ".join((said.out + said.err).split())


@pytest.mark.parametrize("name", ["l2_sp", "ewc"])
def test_a_backbone_without_parameters_has_nothing_to_hold(name: str, tmp_path: Path) -> None:
    class Bare(nn.Module):
        num_features = 6

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows

    network = TransferModel(Bare(), 3)
    trained(name, tmp_path, network, epochs=1)
    assert bool(network.head.weight.detach().any())


def test_lwf_asks_for_the_classifier_before_anything_trains(tmp_path: Path) -> None:
    choice = plugins.choose("finetune.strategies", {"name": "lwf", "probe_epochs": 1, "epochs": 1})
    network = model()
    whole = {"train": data(), "validation": data()}
    with pytest.raises(InputError, match=r"finetune\.strategy: lwf"):
        course.run(
            network, choice.load().phases(choice.params), lambda one: start(network, one, tmp_path, data(), head=False),
            whole, training.scaled, tmp_path, "main",
        )  # fmt: skip
    assert not (tmp_path / "0.safetensors").exists()
    assert not network.head.weight.detach().any()
