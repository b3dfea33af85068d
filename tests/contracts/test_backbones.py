"""The contract of backbones: every plugin, found by itself, small and without a network."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_encoders
import torch

from components import params, plugins


def _vectors(folder: Path) -> dict[str, Any]:
    lines = [f"{word} {i} {i % 3 - 1} 0.5 {-i / 2}" for i, word in enumerate(("a", "good", "film", "the", "dog", "."))]
    folder.mkdir()
    (folder / "vectors.txt").write_text("\n".join(lines) + "\n")
    digest = hashlib.sha256((folder / "vectors.txt").read_bytes()).hexdigest()
    return {"weights": {"source": "file", "path": str(folder / "vectors.txt"), "sha256": digest}, "max_tokens": 16}


CANONICAL: dict[str, Callable[[Path], dict[str, Any]]] = {
    "timm": lambda _: {"model": "test_efficientnet", "image_size": 32, "weights": {"source": "random"}},
    "transformers": lambda folder: tiny_encoders.options(tiny_encoders.saved("bert", folder)),
    "word_vectors": _vectors,
}
"""Backbone -> options that need no network, and no file but those that are made in a folder for them."""

NAMES = plugins.names("backbones")


def chosen(name: str, folder: Path) -> plugins.Choice:
    return plugins.choose("backbones", {"name": name, **CANONICAL[name](folder / name)})


def inputs(choice: plugins.Choice, batch: int) -> tuple[torch.Tensor, ...]:
    task = plugins.load("tasks", choice.load().TASKS[0])
    return tuple(torch.from_numpy(a) for a in task.example(choice.load().preprocessing(choice.params), batch))


def values(network: torch.nn.Module) -> torch.Tensor:
    """All its weights in a row."""
    return torch.cat([v.flatten().float() for v in network.state_dict().values()])


def test_every_backbone_has_a_canonical_setting() -> None:
    assert set(NAMES) == set(CANONICAL), "describe the new backbone in CANONICAL"


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_names_tasks_that_there_are(name: str, tmp_path: Path) -> None:
    module = plugins.load("backbones", name)
    assert module.TASKS
    assert set(module.TASKS) <= set(plugins.names("tasks"))
    assert 0 < module.SCRATCH_LEARNING_RATE < 1
    assert issubclass(module.Params, params.Params)
    assert [k for k, f in module.Params.model_fields.items() if not f.description] == []
    assert module.title(chosen(name, tmp_path).params)


@pytest.mark.parametrize("name", NAMES)
def test_features_are_one_row_a_sample_whatever_the_batch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    choice = chosen(name, tmp_path)
    network = choice.load().build(choice.params).eval()
    batch = inputs(choice, 5)
    with torch.inference_mode():
        features = network(*batch)
        assert features.shape == (5, network.num_features)
        assert torch.isfinite(features).all()
        one = network(*(a[2:3] for a in batch))
    torch.testing.assert_close(one, features[2:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_come_from_torchs_generator(name: str, tmp_path: Path) -> None:
    choice = chosen(name, tmp_path)
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        network = choice.load().build(choice.params, pretrained=False)
        assert network.provenance["source"] == "random"
        assert network.provenance["licence"]
        states.append(values(network))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_weights_are_those_of_the_source_and_say_so(name: str, tmp_path: Path) -> None:
    choice = chosen(name, tmp_path)
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = choice.load().build(choice.params)
        states.append(values(network))
        assert network.provenance["source"] == choice.params.weights.source  # type: ignore[attr-defined]
        assert network.provenance["licence"]
        assert str(tmp_path) not in json.dumps(network.provenance), "no machine's paths in artifacts"
    if network.provenance["source"] != "random":
        assert len(network.provenance["sha256"]) == 64
        assert torch.equal(states[0], states[1])


@pytest.mark.parametrize("name", NAMES)
def test_what_a_run_keeps_is_all_that_it_needs(name: str, tmp_path: Path) -> None:
    """Options and preprocessing, through JSON, with the source gone."""
    choice = chosen(name, tmp_path)
    module = choice.load()
    how = json.loads(json.dumps(module.preprocessing(choice.params)))
    assert how == json.loads(json.dumps(module.preprocessing(choice.params)))
    assert str(tmp_path) not in json.dumps(how)
    batch, network = inputs(choice, 2), module.build(choice.params).eval()
    shutil.rmtree(tmp_path / name, ignore_errors=True)
    again = module.build(choice.params, pretrained=False, preprocessing=how).eval()
    again.load_state_dict(network.state_dict())
    with torch.inference_mode():
        assert torch.equal(again(*batch), network(*batch))


@pytest.mark.parametrize("name", NAMES)
def test_a_choice_comes_back_from_its_written_form(name: str, tmp_path: Path) -> None:
    choice = chosen(name, tmp_path)
    assert plugins.choose("backbones", choice.spec()) == choice
