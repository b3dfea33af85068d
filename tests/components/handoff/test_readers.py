"""The commands that read bundles, on one that the stage made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines.__main__ import main


@pytest.fixture
def bundle(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished / "artifacts/handoff/bundle", tmp_path / "bundle"))


def test_predict_labels_its_own_examples(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--unsigned", str(bundle), str(bundle / "example/1.png"), "--top", "1", "--json"]) == 0
    told = capfd.readouterr()
    assert told.err.startswith("verified: ")
    expected = json.loads((bundle / "example/expected.json").read_text())["examples"][0]
    assert json.loads(told.out)[0]["label"] == expected["predicted"]
    (bundle / "labels.json").write_text("[]")
    assert main(["predict", "--unsigned", str(bundle), str(bundle / "example/1.png")]) == 3


def test_diff_and_audit_read_what_the_stage_wrote(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(bundle), str(bundle), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["same_model"]
    assert {one["metric"] for one in told["metrics"]} >= {"evaluate.accuracy", "evaluate.ece"}
    assert {one["group"] for one in told["slices"]["rows"]} == {"dark", "bright"}
    assert told["graph"]["a"]["inputs"]
    assert main(["audit", str(bundle), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {one["stage"] for one in told["blessed"]} >= {"validate", "gate"}
    assert told["set_aside"]["reasons"] == {"not_an_image": 1}
    assert told["made_from"]["base_weights"]["licence"] == "apache-2.0"
