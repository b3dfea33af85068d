"""Every export target: torch's outputs at every batch size, the same bytes twice, one whole file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import upstream

from components import plugins
from components.contracts import InputError
from components.decisions import single_label
from components.export.network import Deployed
from components.params import Params

FAMILY = "export.targets"
CANONICAL = {"onnx": {"opset": 20}}
TOLERANCE = {"onnx": 1e-4}
"""Largest difference over the scale of the output; the untrained networks here magnify last bits tenfold."""
MODELS = {"test_efficientnet": 32, "test_resnet": 32, "test_vit": 160}


def test_every_target_has_canonical_settings() -> None:
    assert set(plugins.names(FAMILY)) == set(CANONICAL) == set(TOLERANCE)


@pytest.mark.parametrize("name", plugins.names(FAMILY))
def test_card_and_params_are_there(name: str) -> None:
    module = plugins.load(FAMILY, name)
    for part in ("What:", "When:", "Not when:", "Settings:", "Cost:", "Evidence here", "Source:"):
        assert part in module.__doc__, part
    assert issubclass(module.Params, Params)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", plugins.names(FAMILY))
def test_outputs_are_those_of_torch(name: str, model: str, tmp_path: Path) -> None:
    module, size = plugins.load(FAMILY, name), MODELS[model]
    settings = module.Params(**CANONICAL[name])
    deployed = Deployed(upstream.network(upstream.backbone_spec(model, size), 5), 0.8, single_label).eval()
    rng = np.random.default_rng(0)
    place = tmp_path / "model.onnx"
    module.export(
        deployed, {"pixels": rng.normal(size=(3, 3, size, size)).astype(np.float32)}, deployed.outputs, place, settings
    )
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(place)
    for batch in (1, 4):
        pixels = rng.normal(size=(batch, 3, size, size)).astype(np.float32)
        found = session.run(deployed.outputs, {"pixels": pixels})
        with torch.inference_mode():
            expected = [t.numpy() for t in deployed(torch.from_numpy(pixels))]
        np.testing.assert_array_equal(found[0], expected[0])
        for got, wanted in zip(found[1:], expected[1:]):
            assert np.abs(got - wanted).max() <= TOLERANCE[name] * np.abs(wanted).max()


@pytest.mark.parametrize("name", plugins.names(FAMILY))
def test_the_same_weights_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    module = plugins.load(FAMILY, name)
    for attempt in ("one", "two"):
        deployed = Deployed(upstream.network(upstream.backbone_spec(), 3), 1.0, single_label).eval()
        inputs = {"pixels": np.zeros((2, 3, 32, 32), np.float32)}
        module.export(deployed, inputs, deployed.outputs, tmp_path / attempt, module.Params(**CANONICAL[name]))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_network_too_large_for_one_file_is_refused_before_it_is_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = plugins.load("export.targets", "onnx")
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    deployed = Deployed(upstream.network(upstream.backbone_spec(), 3), 1.0, single_label).eval()
    with pytest.raises(InputError, match="one ONNX file holds"):
        module.export(deployed, {}, deployed.outputs, tmp_path / "model.onnx", module.Params())
    assert not (tmp_path / "model.onnx").exists()
