"""The contract of graphs: what is put around a network changes none of its answers, and is told as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import factories
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
import upstream

from components import plugins
from components.export.network import Deployed
from components.job import Job
from components.model import Feed, TransferModel

NAMES = plugins.names("graphs")
PUBLIC = ("Params", "joined", "feed", "told", "compare", "companion")


@dataclass(frozen=True)
class Canonical:
    """What the tests give a module."""

    backbone: Callable[[Path], dict[str, Any]]
    manifest: Callable[[Path], pd.DataFrame]


CANONICAL = {
    "image_classification": Canonical(
        lambda root: upstream.backbone_spec(),
        lambda root: factories.manifest(root, factories.image_folder(root / "data", per_label=4)),
    ),
    "text_classification": Canonical(upstream.word_vectors, lambda root: factories.text_manifest(6)),
}


@dataclass(frozen=True)
class Made:
    """A network and what is put around it."""

    graph: ModuleType
    root: Path
    table: pd.DataFrame
    feed: Feed
    model: Deployed
    network: onnx.ModelProto


@pytest.fixture(scope="module", params=NAMES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    name, root = request.param, tmp_path_factory.mktemp(request.param)
    canonical = CANONICAL[name]
    choice = plugins.choose("backbones", canonical.backbone(root))
    how = choice.load().preprocessing(choice.params)
    torch.manual_seed(0)
    model = TransferModel(choice.load().build(choice.params, pretrained=True, preprocessing=how), 3).eval()
    torch.nn.init.normal_(model.head.weight)
    deployed = Deployed(model, 1.3, plugins.load("decisions", "single_label")).eval()
    feed = Feed.of(name, how)
    target = plugins.load("export.targets", "onnx")
    example = dict(zip(feed.task.model_inputs(how), feed.example(3)))
    free = feed.task.free_axes(how)
    target.export(deployed, example, deployed.outputs, root / "network.onnx", target.Params(), free)
    network = onnx.load(root / "network.onnx")
    return Made(plugins.load("graphs", name), root, canonical.manifest(root), feed, deployed, network)


def joined(made: Made) -> bytes:
    return bytes(made.graph.joined(made.network, made.feed.preprocessing).SerializeToString(deterministic=True))


def test_every_task_has_its_graphs_and_canonical_settings() -> None:
    assert plugins.names("tasks") == NAMES
    assert set(NAMES) == set(CANONICAL), "describe the new graphs in CANONICAL"


def test_it_has_all_that_export_asks_of_it(made: Made) -> None:
    assert [name for name in PUBLIC if not hasattr(made.graph, name)] == []
    assert not made.graph.Params.model_fields


def test_the_answers_are_those_of_the_network(made: Made) -> None:
    rows = made.feed.prepare(made.table, Job.at(made.root))
    session = onnxruntime.InferenceSession(joined(made), providers=["CPUExecutionProvider"])
    for num in (1, 7):
        given = made.graph.feed(rows[:num], made.feed.preprocessing)
        assert list(given) == [node.name for node in session.get_inputs()]
        with torch.inference_mode():
            expected = made.model(*map(torch.from_numpy, made.feed.collate(rows[:num])))
        found = session.run(list(made.model.outputs), given)
        for own, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(own, wanted.numpy(), atol=1e-5)


def test_it_is_valid_and_the_same_bytes_each_time(made: Made) -> None:
    before = made.network.SerializeToString(deterministic=True)
    content = joined(made)
    assert content == joined(made)
    assert made.network.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(content, full_check=True)


def test_what_is_told_is_what_it_takes(made: Made) -> None:
    sight = plugins.load("preprocessing", made.graph.__name__.rsplit(".", 1)[-1])
    described = sight.describe(made.feed.preprocessing)
    inputs = onnx.load_from_string(joined(made)).graph.input
    assert list(described["inputs"]) == [node.name for node in inputs]
    names = {d.dim_param for node in inputs for d in node.type.tensor_type.shape.dim if d.dim_param}
    assert {"batch", *described["free"]} == names
    told = json.loads(json.dumps(made.graph.told(made.feed.preprocessing)))
    assert {"inside", "outside", "why", "tolerance"} <= set(told)
    assert told["outside"], "a graph reads no files"
    assert told["why"]


def test_what_is_inside_is_measured_and_holds(made: Made) -> None:
    told = made.graph.told(made.feed.preprocessing)
    found = json.loads(json.dumps(made.graph.compare(made.table, made.feed.preprocessing, made.root)))
    assert bool(found) == bool(told["inside"]), "what is inside is compared, and nothing else"
    if found:
        assert found["num_images"] > 1
        assert found["max_abs"] <= found["tolerance"] == told["tolerance"]


def test_a_companion_is_there_or_it_is_said_why_not(made: Made, tmp_path: Path) -> None:
    told = json.loads(json.dumps(made.graph.companion(made.feed.preprocessing, tmp_path)))
    files = [path.name for path in tmp_path.iterdir()]
    assert files == ([told["file"]] if "file" in told else [])
    assert not told or "file" in told or told["why"]
