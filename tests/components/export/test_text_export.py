"""Every family of text encoders becomes an ONNX model with free batch and length, and gives what torch gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tiny_encoders
import torch
from tiny_encoders import FAMILIES, TEXTS

from components import plugins
from components.backbones import transformers as plugin
from components.export.network import Deployed
from components.export.targets import onnx as target
from components.model import TransferModel
from components.preprocessing.text_classification import Preprocessing, Text

LENGTHS = (5, 17, 64)


def written(options: dict[str, Any], path: Path) -> tuple[Deployed, dict[str, Any]]:
    """A network with a head, as `export` writes it."""
    chosen = plugin.Params.model_validate(options)
    how = plugin.preprocessing(chosen)
    torch.manual_seed(0)
    network = TransferModel(plugin.build(chosen), 3)
    torch.nn.init.normal_(network.head.weight)
    model = Deployed(network, 1.5, plugins.load("decisions", "single_label")).eval()
    task = plugins.load("tasks", "text_classification")
    example = dict(zip(task.model_inputs(how), task.example(how, 3)))
    target.export(model, example, model.outputs, path, target.Params(), task.free_axes(how))
    return model, how


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_and_length_are_free_and_nothing_differs(family: str, tmp_path: Path) -> None:
    folder = tiny_encoders.saved(family, tmp_path / family)
    model, how = written(tiny_encoders.options(folder, max_tokens=64), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for node in session.get_inputs():
        assert node.shape == ["batch", "length"]
    assert [n.name for n in session.get_inputs()] == how["inputs"]
    preprocessing = Preprocessing.read(how)
    spread = 0.0
    for batch in (1, 7):
        for length in LENGTHS:
            texts = [Text(" ".join([TEXTS[i % len(TEXTS)], *["fox"] * (length * (i % 3 == 0))])) for i in range(batch)]
            inputs = [a[:, :length] for a in preprocessing.collate(texts)]
            assert inputs[0].shape == (batch, length)
            with torch.inference_mode():
                wanted = model(*map(torch.from_numpy, inputs))
            found = session.run(None, dict(zip(how["inputs"], inputs)))
            for name, own, theirs in zip(model.outputs, found, wanted):
                np.testing.assert_allclose(
                    own, theirs.numpy(), atol=1e-5, rtol=1e-5, err_msg=f"{name} {batch} {length}"
                )
            spread = max(spread, float(found[-1].std(axis=0).max()))
    assert spread > 0.05, "features that do not differ would prove nothing"


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = tiny_encoders.saved("bert", tmp_path / "bert")
    for name in ("a.onnx", "b.onnx"):
        written(tiny_encoders.options(folder), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "a.onnx").read_bytes()
