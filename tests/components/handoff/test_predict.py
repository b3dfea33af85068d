"""The shipped predict.py, as a script in another process, and in a clean virtual environment."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import upstream
from PIL import Image

from components import plugins
from components.contracts import read_json
from components.model import load_run
from components.preprocessing import image_classification as pixels

Predict = Callable[..., Any]


@pytest.fixture
def bundle(finished: Path, tmp_path: Path) -> Path:
    """A copy, as it arrives elsewhere."""
    return Path(shutil.copytree(finished / "artifacts/handoff/bundle", tmp_path / "a bundle"))


def _by_training_code(finished: Path, paths: list[Path]) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    model, record = load_run(finished / "artifacts/finetune/runs/main")
    task = plugins.load("tasks", record.task)
    how = pixels.Preprocessing.read(record.preprocessing)
    rows = np.stack([pixels.load(p.read_bytes(), how) for p in paths])
    with torch.inference_mode():
        logits = model(*map(torch.from_numpy, task.collate(rows, record.preprocessing)))
    probabilities = torch.softmax(logits / upstream.TEMPERATURE, 1).numpy()
    return [record.labels[i] for i in logits.argmax(1)], probabilities, record.labels


def _assert_agrees(finished: Path, paths: list[Path], told: list[dict[str, Any]]) -> None:
    labels, probabilities, names = _by_training_code(finished, paths)
    assert [row["file"] for row in told] == [str(p) for p in paths]
    assert [row["label"] for row in told] == labels
    found = np.array([[row["probabilities"][name] for name in names] for row in told])
    np.testing.assert_allclose(found, probabilities, atol=1e-4)
    assert found.std(axis=0).max() > 0.01  # the images are not all the same to it


def test_it_gives_what_the_training_code_gives(finished: Path, bundle: Path, tmp_path: Path, predict: Predict) -> None:
    paths = upstream.odd_images(tmp_path / "odd")
    done = predict(bundle, *paths, "--json")
    assert done.returncode == 0, done.stderr
    _assert_agrees(finished, paths, json.loads(done.stdout))
    assert len(paths) >= 20


def test_the_model_itself_takes_the_raw_pixels(bundle: Path, tmp_path: Path, predict: Predict) -> None:
    """Whoever opens files elsewhere needs nothing but upright RGB, of any size, to get what predict.py says."""
    import onnxruntime

    paths = upstream.odd_images(tmp_path / "odd")
    told = json.loads(predict(bundle, *paths, "--json").stdout)
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    names = read_json(bundle / "labels.json")
    sizes = set()
    for path, expected in zip(paths, told, strict=True):
        image = np.asarray(pixels.to_rgb(pixels.decode(path.read_bytes())[0]))
        sizes.add(image.shape)
        label, probabilities, _ = session.run(None, {"image": image[None]})
        assert names[int(label[0])] == expected["label"]
        found = dict(zip(names, probabilities[0].tolist()))
        assert found == pytest.approx(expected["probabilities"], abs=1e-6)
    assert len(sizes) > 5


def test_relative_names_and_top_work_from_any_folder(bundle: Path, predict: Predict) -> None:
    done = predict(bundle, "1.png", "2.png", "--top", "2", cwd=bundle / "example")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["1.png", "2.png"]
    assert all(line.count(",") == 1 for line in lines)
    expected = read_json(bundle / "example/expected.json")["examples"]
    assert lines[0].split()[1] == expected[0]["predicted"]


def test_unreadable_images_are_told_and_the_others_labelled(bundle: Path, tmp_path: Path, predict: Predict) -> None:
    broken, empty = tmp_path / "broken.jpg", tmp_path / "empty.png"
    Image.new("RGB", (64, 64), "red").save(broken)
    broken.write_bytes(broken.read_bytes()[:200])
    empty.touch()
    names = [broken, bundle / "example/1.png", empty, tmp_path / "none.png", tmp_path]
    done = predict(bundle, *names)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for told in ("broken.jpg: ", "empty.png: empty", "none.png: No such file", f"{tmp_path}: Is a directory"):
        assert told in done.stderr, told
    assert len(done.stdout.splitlines()) == 1
    rows = json.loads(predict(bundle, *names, "--json").stdout)
    assert ["error" in row for row in rows] == [True, False, True, True, True]


@pytest.mark.parametrize("arguments", [[], ["--top", "0", "x.png"], ["--tip"]])
def test_wrong_arguments_are_told(arguments: list[str], bundle: Path, predict: Predict) -> None:
    done = predict(bundle, *arguments)
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_passes_and_leaves_nothing_behind(bundle: Path, predict: Predict) -> None:
    before = sorted(p.name for p in bundle.rglob("*"))
    done = predict(bundle, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok")
    assert sorted(p.name for p in bundle.rglob("*")) == before


def test_check_sees_a_changed_file(bundle: Path, predict: Predict) -> None:
    (bundle / "labels.json").write_text('["square", "circle", "triangle"]')
    (bundle / "card.md").unlink()
    done = predict(bundle, "--check")
    assert done.returncode == 1
    assert "labels.json: it has been changed" in done.stderr
    assert "card.md: it is missing" in done.stderr


def test_check_sees_other_answers(bundle: Path, predict: Predict) -> None:
    """Whoever changes a file and its checksum still has the golden examples against him."""
    from components.handoff.verify import write_checksums

    spec = read_json(bundle / "preprocessing.json")
    (bundle / "preprocessing.json").write_text(json.dumps({**spec, "height": 5, "width": 5}))
    (bundle / "SHA256SUMS").unlink()
    write_checksums(bundle)
    done = predict(bundle, "--check")
    assert done.returncode == 1
    assert "probabilities differ by" in done.stderr


@pytest.mark.parametrize("name", ["model.onnx", "labels.json", "preprocessing.json"])
def test_a_broken_bundle_is_told(name: str, bundle: Path, predict: Predict) -> None:
    (bundle / name).write_bytes(b"{not this")
    done = predict(bundle, bundle / "example/1.png")
    assert done.returncode == 1
    assert "this folder is not whole" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_runs_in_a_clean_virtual_environment(
    finished: Path, bundle: Path, tmp_path: Path, predict: Predict, clean_environment: Callable[[Path], str]
) -> None:
    python = clean_environment(bundle / "requirements.txt")
    for absent in ("torch", "timm", "components"):
        command = [python, "-c", f"import {absent}"]
        assert subprocess.run(command, cwd="/", capture_output=True, check=False).returncode != 0, absent
    paths = upstream.odd_images(tmp_path / "odd")
    done = predict(bundle, *paths, "--json", python=python, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    _assert_agrees(finished, paths, json.loads(done.stdout))
    checked = predict(bundle, "--check", python=python, cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_missing_packages_are_told(bundle: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(bundle / "predict.py"), "x.png"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install -r requirements.txt" in done.stderr
    assert "Traceback" not in done.stderr


def test_requirements_are_the_versions_that_were_checked(bundle: Path) -> None:
    lines = (bundle / "requirements.txt").read_text().splitlines()
    assert lines == [f"{n}=={importlib.metadata.version(n)}" for n in ("numpy", "pillow", "onnxruntime")]
