"""The contract of backbones: every plugin, found by itself, with small random weights and no network."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from components import params, plugins

CANONICAL: dict[str, dict[str, Any]] = {
    "timm": {"model": "test_efficientnet", "image_size": 32, "weights": {"source": "random"}},
}
"""Backbone -> options that need neither a network nor a file."""

NAMES = plugins.names("backbones")


def chosen(name: str) -> plugins.Choice:
    return plugins.choose("backbones", {"name": name, **CANONICAL[name]})


def inputs(name: str, batch: int) -> tuple[torch.Tensor, ...]:
    choice = chosen(name)
    task = plugins.load("tasks", choice.load().TASKS[0])
    return tuple(torch.from_numpy(a) for a in task.example(choice.load().preprocessing(choice.params), batch))


def test_every_backbone_has_a_canonical_setting() -> None:
    assert set(NAMES) == set(CANONICAL), "describe the new backbone in CANONICAL"


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_names_tasks_that_there_are(name: str) -> None:
    module = plugins.load("backbones", name)
    assert module.TASKS
    assert set(module.TASKS) <= set(plugins.names("tasks"))
    assert issubclass(module.Params, params.Params)
    assert [k for k, f in module.Params.model_fields.items() if not f.description] == []
    assert module.title(chosen(name).params)


@pytest.mark.parametrize("name", NAMES)
def test_features_are_one_row_a_sample_whatever_the_batch(name: str) -> None:
    torch.manual_seed(0)
    network = chosen(name).load().build(chosen(name).params).eval()
    batch = inputs(name, 5)
    with torch.inference_mode():
        features = network(*batch)
        assert features.shape == (5, network.num_features)
        assert torch.isfinite(features).all()
        one = network(*(a[2:3] for a in batch))
    torch.testing.assert_close(one, features[2:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_come_from_torchs_generator_and_pretrained_can_be_turned_off(name: str) -> None:
    choice = chosen(name)
    states = []
    for seed, pretrained in ((1, True), (1, False), (2, False)):
        torch.manual_seed(seed)
        network = choice.load().build(choice.params, pretrained=pretrained)
        assert network.provenance["source"] == "random"
        assert network.provenance["licence"]
        states.append(torch.cat([v.flatten().float() for v in network.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("name", NAMES)
def test_a_choice_comes_back_from_its_written_form(name: str) -> None:
    choice = chosen(name)
    assert plugins.choose("backbones", choice.spec()) == choice
