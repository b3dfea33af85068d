"""What Triton and KServe read, held against the model itself."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from ruamel.yaml import YAML

from components.handoff import serving

CRD = {
    "serving.kserve.io/v1beta1 InferenceService": ("apiVersion", "kind", "metadata.name", "spec.predictor"),
    "ModelSpec": ("spec.predictor.model.modelFormat.name",),
}
"""What KServe requires, by its Go types (pkg/apis/serving/v1beta1: InferenceServiceSpec.predictor,
ModelSpec.modelFormat, ModelFormat.name are +required) and its own check of names. Not checked here: the defaulting and
admission webhooks of a cluster, and that a runtime of that name is installed there."""
ISVC_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"


@pytest.fixture(scope="session")
def model_config_pb2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Triton's own messages, from the wheel of its client; it cannot be in the lock (it wants another protobuf)."""
    if found := importlib.util.find_spec("tritonclient"):
        place = Path(str(found.submodule_search_locations[0])) / "grpc/model_config_pb2.py"
    else:
        folder = tmp_path_factory.mktemp("triton")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--timeout", "5", "--retries", "0"]
        try:
            done = subprocess.run(
                [*command, "--only-binary", ":all:", "--dest", str(folder), "tritonclient==2.73.0"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            pytest.skip("tritonclient's wheel is not to be had: the registry does not answer")
        wheels = list(folder.glob("tritonclient-*.whl"))
        if not wheels:
            pytest.skip(f"tritonclient's wheel is not to be had: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith("/model_config_pb2.py"))
            place = Path(wheel.extract(name, folder))
    spec = importlib.util.spec_from_file_location("model_config_pb2", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parsed(text: str, messages: Any) -> Any:
    """As Triton reads it: protobuf's text format, an unknown field being an error."""
    from google.protobuf import text_format

    return text_format.Parse(text, messages.ModelConfig())


def _interface(config: Any, messages: Any) -> list[tuple[str, str, list[int]]]:
    """(name, type, shape of one sample as the model has it) of inputs, then outputs."""
    found = []
    for one in (*config.input, *config.output):
        shape = one.reshape.shape if one.HasField("reshape") else one.dims
        found.append((one.name, messages.DataType.Name(one.data_type), list(shape)))
    return found


TRITON = {
    "tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(uint8)": "TYPE_UINT8",
    "tensor(int32)": "TYPE_INT32", "tensor(string)": "TYPE_STRING", "tensor(float16)": "TYPE_FP16",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["finished", "finished_texts", "finished_pairs"])
def test_the_configuration_is_the_interface_of_the_model(
    kind: str, request: pytest.FixtureRequest, model_config_pb2: Any
) -> None:
    bundle = request.getfixturevalue(kind) / "artifacts/handoff/bundle"
    (place,) = (bundle / "serving/triton").glob("*/config.pbtxt")
    config = _parsed(place.read_text(), model_config_pb2)
    assert (config.name, config.backend) == (place.parent.name, "onnxruntime")
    assert config.default_model_filename == "model.onnx"
    assert config.max_batch_size == serving.MAX_BATCH
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    nodes = [*session.get_inputs(), *session.get_outputs()]
    expected = [(n.name, TRITON[n.type], [s if isinstance(s, int) else -1 for s in n.shape[1:]]) for n in nodes]
    assert _interface(config, model_config_pb2) == expected
    assert all(not isinstance(n.shape[0], int) for n in nodes), "the batch is free, so Triton may make batches"


def test_every_tensor_has_at_least_one_dimension_as_triton_wants(finished: Path, model_config_pb2: Any) -> None:
    text = next((finished / "artifacts/handoff/bundle/serving/triton").glob("*/config.pbtxt")).read_text()
    config = _parsed(text, model_config_pb2)
    assert all(len(one.dims) > 0 for one in (*config.input, *config.output))


def test_a_field_that_triton_does_not_know_is_noticed(finished: Path, model_config_pb2: Any) -> None:
    from google.protobuf.text_format import ParseError

    text = next((finished / "artifacts/handoff/bundle/serving/triton").glob("*/config.pbtxt")).read_text()
    with pytest.raises(ParseError):
        _parsed(text.replace("data_type", "dtype"), model_config_pb2)


def test_free_sizes_and_fixed_batches() -> None:
    image = {"name": "image", "shape": ["batch", "height", "width", 3], "dtype": "uint8"}
    label = {"name": "label", "shape": ["batch"], "dtype": "int64"}
    text = serving.config("a", {"inputs": [image], "outputs": [label]})
    assert 'name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ]' in text
    assert "dynamic_batching" in text
    fixed = {"inputs": [{**image, "shape": [1, 8, 8, 3]}], "outputs": [{**label, "shape": [1]}]}
    text = serving.config("a", fixed)
    assert "max_batch_size: 0" in text
    assert "dims: [ 1, 8, 8, 3 ]" in text
    assert "dynamic_batching" not in text


def test_the_command_makes_a_model_repository_beside_the_bundle(finished: Path, tmp_path: Path) -> None:
    if shutil.which("install") is None:
        pytest.skip("coreutils' install is not here")
    bundle = Path(shutil.copytree(finished / "artifacts/handoff/bundle", tmp_path / "bundle"))
    before = sorted(p for p in bundle.rglob("*"))
    card = (bundle / "card.md").read_text()
    name = next((bundle / "serving/triton").iterdir()).name
    command = serving.install(name)
    assert f"\n{command}\n" in card
    subprocess.run(command, shell=True, cwd=bundle, check=True)
    assert sorted(p for p in bundle.rglob("*")) == before, "a file more, and the bundle would not verify"
    made = {p.relative_to(tmp_path / "models").as_posix() for p in (tmp_path / "models").rglob("*") if p.is_file()}
    assert made == {f"{name}/config.pbtxt", f"{name}/1/model.onnx"}


def test_the_kserve_manifest_has_what_the_resource_requires(finished: Path) -> None:
    import re

    text = (finished / "artifacts/handoff/bundle/serving/kserve.yaml").read_text()
    manifest = YAML(typ="safe").load(text)
    for keys in CRD.values():
        for key in keys:
            value: Any = manifest
            for part in key.split("."):
                assert part in value, key
                value = value[part]
            assert value
    assert (manifest["apiVersion"], manifest["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    model = manifest["spec"]["predictor"]["model"]
    assert model["protocolVersion"] == "v2"
    assert model["storageUri"] == "human to fill"
    assert set(model) <= {"modelFormat", "runtime", "protocolVersion", "storageUri"}, "fields of ModelSpec"
    assert re.fullmatch(ISVC_NAME, manifest["metadata"]["name"])


@pytest.mark.parametrize(
    ("name", "label"),
    [("digits", "digits"), ("My_Model.v2", "my-model-v2"), ("3d-shapes", "model-3d-shapes"), ("x" * 60, "x" * 50),
     ("A-", "a")],
)  # fmt: skip
def test_names_become_labels_of_kubernetes(name: str, label: str) -> None:
    assert serving.label(name) == label
