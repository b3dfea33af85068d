"""A backtest of real small data that change at a known date: the page tells that the model ages, and when."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from projects import make_project, sh
from sklearn.datasets import load_digits

CHANGE = 5
"""The month from which on every picture is a negative of what it was."""


def dated_digits(folder: Path, number: int = 480, months: int = 6) -> None:
    digits = load_digits()
    folder.mkdir(parents=True)
    rows = ["path,label,day"]
    for i in range(number):
        month = 1 + i * months // number
        pixels = np.uint8(digits.images[i] * 15)
        pixels = 255 - pixels if month >= CHANGE else pixels
        Image.fromarray(pixels).resize((16, 16)).save(folder / f"{i:04}.png")
        rows.append(f"{i:04}.png,{digits.target[i]},2025-{month:02}-{1 + i % 28:02}")
    (folder / "digits.csv").write_text("\n".join(rows) + "\n")


def small(values: Any) -> None:
    values["ingest"] = {
        "source": {"name": "table", "file": "digits.csv", "path": "path", "label": "label", "attributes": ["day"]},
        "data": "data/dated",
    }
    model = {"name": "timm", "model": "test_resnet", "image_size": 32, "weights": {"source": "random"}}
    values["select"]["candidates"] = [model]
    values["validate"]["checks"] = []
    values["evaluate"]["num_bootstrap"] = 100


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("aging") / "digits", small)
    dated_digits(folder / "data" / "dated")
    return folder


def backtest(project: Path, *words: str) -> Any:
    return sh(project, sys.executable, "-m", "pipelines", "backtest", *words, check=False)


def test_mistakes_are_told_before_anything_is_trained(project: Path) -> None:
    done = backtest(project, "--date", "date")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Known: day" in done.stderr
    done = backtest(project, "--date", "day", "--min-train", "100000")
    assert done.returncode == 2
    assert "--min-train" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_it_tells_how_fast_a_model_ages(project: Path) -> None:
    before = sh(project, "git", "status", "--porcelain").stdout
    done = backtest(project, "--date", "day", "--quick", "--cuts", "2", "--min-train", "150")
    assert done.returncode == 0, done.stderr
    told = json.loads((project / "reports/backtest/backtest.json").read_text())
    assert [one["cut"] for one in told["models"]] == ["2025-03", "2025-06"]
    cells = {(one["cut"], one["period"]): one["accuracy"]["value"] for one in told["cells"]}
    assert cells["2025-03", "2025-03"] > cells["2025-03", "2025-05"] + 0.2
    assert "Retrain before that." in told["headline"]
    assert told["headline"] in done.stdout
    assert "<img" in (project / "reports/backtest/index.html").read_text()
    assert not list((project / ".graftline/backtest").iterdir())
    assert sh(project, "git", "status", "--porcelain").stdout == before
    again = backtest(project, "--date", "day", "--quick", "--cuts", "2", "--min-train", "150")
    assert again.stdout == done.stdout
    stages = ("validate:", "select:", "finetune:")
    assert [one in done.stderr for one in stages] == [True] * 3, done.stderr
    assert not any(one in again.stderr for one in stages), "what was trained came from DVC's cache"
