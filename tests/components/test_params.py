"""A mistake in params.yaml is told at once with every other, each with its key and what is allowed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.params import ParamsError
from pipelines.stage import read_params

ROOT = Path(__file__).parent.parent.parent


def broken(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = (ROOT / "params.yaml").read_text()
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after, 1)
    (tmp_path / "params.yaml").write_text(text)
    return tmp_path


def test_all_mistakes_at_once_each_with_its_key(tmp_path: Path) -> None:
    folder = broken(
        tmp_path,
        ("task: image_classification", "task: image_clasification"),
        ("threads: 2", "threads: none"),
        ("policy: {name: light}", "policy: {name: ligth}"),
        ("strategy: {name: full, epochs: 3}", "strategy: {name: full, epoch: 3}"),
        ("batch_size: 32", "batchsize: 32"),
        ("train: 0.7", "train: 0.8"),
        ("metric: evaluate.ece, at_most: 0.05", "metric: quality.ece, at_most: 0.05"),
    )
    with pytest.raises(ParamsError) as caught:
        read_params(folder)
    told = str(caught.value)
    for expected in (
        "run.task: no task is called 'image_clasification'. Known: image_classification",
        "run.threads: ",
        "augment.policy: no augment policies plugin is called 'ligth'. did you mean `light`?",
        "finetune.strategy.epoch: unknown key. did you mean `epochs`?",
        "finetune.batchsize: unknown key. did you mean `batch_size`?",
        "finetune.batch_size: this key is missing",
        "validate.split: train + validation + test must be 1",
        "gate.rules[2].metric: ",
    ):
        assert expected in told, told
    assert "Value error" not in told
    assert len(caught.value.problems) == 8


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("  seed: 17", "  seed: 17\n  seed: 18"), "line"),
        (("gate:", "gates:"), "gates: unknown key. did you mean `gate`?"),
        (("run:", "run: ["), "not valid YAML"),
        (("seed: 17", "seed: -1"), "run.seed: input should be greater than or equal to 0 (given: -1)"),
        (("candidates:", "candidates: []\n  candidate:"), "select.candidate"),
        (("sha256: 57", "sha256: zz"), "select.candidates[0]"),
        (("data: data ", 'data: "" '), "ingest.data"),
        (("name: digits ", "name: 2020-13-45 "), "not valid YAML"),
        (("seed: 17", "seed: " + "[" * 3000), "not valid YAML"),
    ],
)
def test_each_mistake_names_where_it_is(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    with pytest.raises(ParamsError, match=r"params.yaml: \d+ mistake") as caught:
        read_params(broken(tmp_path, change))
    assert told in str(caught.value)


def test_file_that_is_not_utf8_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"run: {name: \xff}")
    with pytest.raises(ParamsError, match="not UTF-8 at byte 12"):
        read_params(tmp_path)
    (tmp_path / "params.yaml").unlink()
    with pytest.raises(ValueError, match="Run from a project's root"):
        read_params(tmp_path)


def test_a_mistake_answers_quickly_and_without_a_traceback(tmp_path: Path) -> None:
    folder = broken(tmp_path, ("threads: 2", "threads: 0"))
    (folder / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    times = []
    for _ in range(3):
        started = time.monotonic()
        command = [sys.executable, "-m", "pipelines.stage", "ingest"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
        )
        times.append(time.monotonic() - started)
        assert done.returncode == 2
        assert "run.threads" in done.stderr
        assert "Traceback" not in done.stderr
    assert min(times) < 1.5  # under a second on a quiet machine
