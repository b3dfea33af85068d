"""The contract of decisions: every plugin, found by itself; labels to targets to loss to a decision and back."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from components import params, plugins

CANONICAL: dict[str, tuple[list[str], tuple[str, ...], float]] = {
    "single_label": (["b", "a", "c", "b"], ("a", "b", "c"), np.log(3)),
    "multi_label": (["b", "a;c", "(none)", "a;b;c"], ("a", "b", "c"), np.log(2)),
}
"""Decision -> label texts of four samples, their labels in order, the loss at logits of 0."""

NAMES = plugins.names("decisions")


def given(name: str) -> tuple[ModuleType, list[str], tuple[str, ...], np.ndarray]:
    module = plugins.load("decisions", name)
    values, labels, _ = CANONICAL[name]
    return module, values, labels, np.where(module.indicators(values, labels), 4.0, -4.0).astype(np.float32)


def test_every_decision_has_a_canonical_setting() -> None:
    assert set(NAMES) == set(CANONICAL), "describe the new decision in CANONICAL"


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_indicators_are_those_of_the_values(name: str) -> None:
    module, values, labels, _ = given(name)
    assert issubclass(module.Params, params.Params)
    assert module.labels(values) == labels == module.labels(values[::-1])
    truth = module.indicators(values, labels)
    assert (truth.shape, truth.dtype) == ((4, 3), np.bool_)
    for value, row in zip(values, truth):
        assert {label for label, has in zip(labels, row) if has} == set(module.split(value))


@pytest.mark.parametrize("name", NAMES)
def test_the_bundle_finds_words_for_it(name: str) -> None:
    module = plugins.load("decisions", name)
    assert module.OUTPUT.isidentifier()
    assert module.MEANING
    told = {key: text.format(num=3, noun="text", temperature=1.7) for key, text in module.WORDS.items()}
    assert set(told) == {"answer", "probabilities", "formula", "limit"}
    assert "3" in told["answer"]
    assert "1.7" in told["formula"]


@pytest.mark.parametrize("name", NAMES)
def test_right_logits_give_the_values_again_and_wrong_ones_do_not(name: str) -> None:
    module, values, labels, logits = given(name)
    targets = torch.from_numpy(module.targets(values, labels))
    shares = module.probabilities(logits, 1.0)
    assert list(module.predicted(shares, labels)) == values
    assert module.correct(torch.from_numpy(logits), targets).all()
    assert not module.correct(-torch.from_numpy(logits), targets).any()
    assert (module.confidence(shares) > 0.9).all()
    assert len(set(module.classes(values))) == len(set(values))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_chance_at_equal_logits_and_falls_for_right_ones(name: str) -> None:
    module, values, labels, logits = given(name)
    targets = torch.from_numpy(module.targets(values, labels))
    right = torch.from_numpy(logits)
    assert module.loss(torch.zeros(4, 3), targets).item() == pytest.approx(CANONICAL[name][2], abs=1e-6)
    assert module.loss(right, targets).item() < 0.1
    assert module.loss(right, targets, label_smoothing=0.2).item() > module.loss(right, targets).item()


@pytest.mark.parametrize("name", NAMES)
def test_log_losses_are_the_loss_a_sample(name: str) -> None:
    module, values, labels, _ = given(name)
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    own = module.log_losses(module.probabilities(logits, 1.0), module.indicators(values, labels))
    together = module.loss(torch.from_numpy(logits), torch.from_numpy(module.targets(values, labels)))
    assert own.mean() == pytest.approx(together.item(), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_higher_temperature_is_less_sure(name: str) -> None:
    module, _, _, logits = given(name)
    sure, less = (module.confidence(module.probabilities(logits, t)) for t in (1.0, 3.0))
    assert (sure > less).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_deployed_graph_decides_as_predictions_do(name: str) -> None:
    module, _, labels, _ = given(name)
    logits = np.random.default_rng(1).normal(0, 2, (50, 3)).astype(np.float32)
    decided, shares = module.deployed(torch.from_numpy(logits), torch.tensor(1.7))
    expected: Any = module.probabilities(logits, 1.7)
    np.testing.assert_allclose(shares.numpy(), expected, atol=1e-6)
    assert decided.dtype == torch.int64
    truth = module.indicators(list(module.predicted(expected, labels)), labels)
    found = decided.numpy()
    np.testing.assert_array_equal(truth, found[:, None] == np.arange(3) if found.ndim == 1 else found.astype(bool))


def test_a_set_of_labels_is_one_text_however_it_is_written() -> None:
    module = plugins.load("decisions", "multi_label")
    assert module.split(" c; a;a ;") == ("a", "c")
    assert module.split("(none)") == ()
    assert module.joined(module.split("c;a")) == "a;c"
    assert module.joined([]) == "(none)"
    assert list(module.classes(["c;a", "a; c", "b"])) == [0, 0, 1]
