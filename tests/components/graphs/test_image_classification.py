"""The graph's resize is the training code's, to the last bit, whatever the size; and no answer changes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import odd_images
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
import upstream
from PIL import Image

from components import plugins
from components.export.network import Deployed
from components.export.targets import onnx as target
from components.graphs import image_classification as graphs
from components.preprocessing import image_classification as pixels
from components.preprocessing.image_classification import FITS, INTERPOLATIONS, Preprocessing

SIZES = (
    (1, 1), (2, 2), (5, 7), (3, 1000), (1000, 3), (1, 500), (8, 8), (65, 63), (33, 31), (31, 64), (64, 31), (97, 113),
    (333, 500), (500, 333), (128, 128), (32, 32), (48, 40), (96, 80), (640, 480),
)  # fmt: skip
"""(height, width) of images: larger, smaller, both, neither, and those where Pillow's own order of passes changes."""


def how(height: int = 32, width: int = 32, **more: Any) -> dict[str, Any]:
    return asdict(Preprocessing(height, width, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), **more))


def session(content: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def drawn(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise: any value, or only the two ends, where sums overshoot most."""
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image if height % 2 else (image > 127).astype(np.uint8) * 255


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_not_a_pixel_differs(interpolation: str, fit: str) -> None:
    rng = np.random.default_rng(0)
    for size in ((32, 32), (48, 40)):
        spec = how(*size, interpolation=interpolation, fit=fit, background=(7, 250, 128))
        resize = session(graphs.alone(spec))
        for height, width in SIZES:
            image = drawn(rng, height, width)
            (found,) = resize.run(None, {"image": image[None]})
            expected = pixels.fit(Image.fromarray(image), Preprocessing.read(spec))
            np.testing.assert_array_equal(found[0].transpose(1, 2, 0), expected, err_msg=f"{height}x{width} to {size}")


def test_photographs_are_equal_too() -> None:
    import sklearn.datasets

    spec = how(224, 224, interpolation="bicubic", fit="crop")
    resize = session(graphs.alone(spec))
    for name in ("china.jpg", "flower.jpg"):
        image = Image.open(Path(sklearn.datasets.__file__).parent / "images" / name)
        (found,) = resize.run(None, {"image": np.asarray(image)[None]})
        np.testing.assert_array_equal(found[0].transpose(1, 2, 0), pixels.fit(image, Preprocessing.read(spec)))


def test_images_that_fit_pass_through_unchanged() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (3, 40, 32, 3), dtype=np.uint8)
    for fit in FITS:
        spec = how(40, 32, fit=fit)
        np.testing.assert_array_equal(
            session(graphs.alone(spec)).run(None, graphs.feed(rows, spec))[0], rows.transpose(0, 3, 1, 2)
        )


def test_rows_come_first_whatever_the_size() -> None:
    """Pillow 13 takes another order for some sizes, and then other last bits; training must not depend on it."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 333, 3), dtype=np.uint8))
    both = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC))
    ours = pixels.fit(image, Preprocessing.read(how(224, 224)))
    by_hand = image.resize((224, 500), Image.Resampling.BICUBIC).resize((224, 224), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(ours, np.asarray(by_hand))
    assert np.abs(ours.astype(int) - both).max() <= 16


def odd_table(folder: Path) -> pd.DataFrame:
    """Real files of odd modes and sizes, as a manifest has them."""
    rows = []
    for name, odd in odd_images.odd().items():
        (folder / name).write_bytes(odd.content)
        rows.append({"input.path": name, "sha256": hashlib.sha256(odd.content).hexdigest()})
    return pd.DataFrame(rows)


def test_files_are_compared_and_a_difference_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = odd_table(tmp_path)
    told = graphs.compare(table, how(fit="pad"), tmp_path)
    assert told["num_images"] > graphs.NUM_COMPARED < len(table)
    assert (told["num_different"], told["max_abs"], told["tolerance"]) == (0, 0, 0)
    assert told["num_values"] == told["num_images"] * 32 * 32 * 3
    real = pixels.fit
    monkeypatch.setattr(pixels, "fit", lambda image, how: real(image, how) ^ 1)
    told = graphs.compare(table.head(2), how(fit="pad"), tmp_path)
    assert (told["num_different"], told["max_abs"]) == (told["num_values"], 1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Deployed, onnx.ModelProto, dict[str, Any]]:
    """A tiny timm network as torch has it and as ONNX, and its preprocessing."""
    spec = upstream.backbone_spec()
    choice = plugins.choose("backbones", spec)
    decision = plugins.load("decisions", "single_label")
    model = Deployed(upstream.network(spec, 4), upstream.TEMPERATURE, decision).eval()
    place = tmp_path_factory.mktemp("export") / "network.onnx"
    example = {"pixels": np.zeros((3, 3, 32, 32), np.float32)}
    target.export(model, example, model.outputs, place, target.Params())
    return model, onnx.load(place), choice.load().preprocessing(choice.params)


Exported = tuple[Deployed, onnx.ModelProto, dict[str, Any]]


@pytest.mark.parametrize("size", [(32, 32), (57, 200), (9, 5)])
def test_raw_images_get_what_torch_says_of_prepared_ones(size: tuple[int, int], exported: Exported) -> None:
    model, network, spec = exported
    images = np.random.default_rng(1).integers(0, 256, (7, *size, 3), dtype=np.uint8)
    read = Preprocessing.read(spec)
    prepared = pixels.normalise(np.stack([pixels.fit(Image.fromarray(i), read) for i in images]), read)
    joined = session(graphs.joined(network, spec).SerializeToString())
    found = joined.run(None, {"image": images})
    plain = session(network.SerializeToString()).run(None, {"pixels": prepared})
    with torch.inference_mode():
        expected = model(torch.from_numpy(prepared))
    for own, other, wanted in zip(found, plain, expected, strict=True):
        np.testing.assert_array_equal(own, other)
        np.testing.assert_allclose(own, wanted.numpy(), atol=1e-4)


def test_what_is_joined_is_whole_and_free_and_says_nothing_of_its_making(exported: Exported) -> None:
    _, network, spec = exported
    before = network.SerializeToString(deterministic=True)
    model = graphs.joined(network, spec)
    content = model.SerializeToString(deterministic=True)
    assert network.SerializeToString(deterministic=True) == before, "the network given is left as it is"
    onnx.checker.check_model(content, full_check=True)
    (told,) = model.graph.input
    assert [d.dim_param or d.dim_value for d in told.type.tensor_type.shape.dim] == ["batch", "height", "width", 3]
    assert told.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [o.name for o in model.graph.output] == [o.name for o in network.graph.output]
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    target.strip(bare)
    assert bare.SerializeToString(deterministic=True) == content
    assert len(content) - len(before) < 20_000


def test_a_network_in_half_precision_is_given_its_own_kind() -> None:
    mean = onnx.helper.make_node("ReduceMean", ["pixels", "axes"], ["embedding"], keepdims=0)
    axes = onnx.numpy_helper.from_array(np.array([2, 3]), "axes")
    shape = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT16, dims)
        for name, dims in (("pixels", ["batch", 3, 32, 32]), ("embedding", ["batch", 3]))
    ]
    graph = onnx.helper.make_graph([mean], "g", shape[:1], shape[1:], [axes])
    network = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    found = session(graphs.joined(network, how()).SerializeToString()).run(
        None, {"image": np.full((2, 50, 20, 3), 255, np.uint8)}
    )[0]
    assert found.dtype == np.float16
    expected = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(found, np.tile(expected, (2, 1)), rtol=2e-3)


def test_another_process_writes_the_same_bytes(repository: Path) -> None:
    script = (
        "import hashlib, sys; from components.graphs import image_classification as g;"
        "how = dict(height=32, width=40, mean=(.5, .4, .3), std=(.1, .2, .3), fit='pad');"
        "print(hashlib.sha256(g.alone(how)).hexdigest())"
    )
    found = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    own = {"height": 32, "width": 40, "mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3), "fit": "pad"}
    assert found == {hashlib.sha256(graphs.alone(own)).hexdigest() + "\n"}
