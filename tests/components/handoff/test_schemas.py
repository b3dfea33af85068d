"""Schemas of a bundle's files: garbage in a bundle whose sums hold is told in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import signed

from components.handoff import schemas
from pipelines.__main__ import main

BOM = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}


@pytest.mark.parametrize(
    "value",
    [
        {**BOM, "components": 5},
        {**BOM, "components": [5]},
        {**BOM, "components": [{"bom-ref": "model", "type": "machine-learning-model", "name": "m", "hashes": None}]},
        {**BOM, "components": [{"bom-ref": "model", "type": "machine-learning-model", "name": "m"}]},
        {**BOM, "components": [{"bom-ref": "model", "type": "library", "name": "\ud800"}]},
        BOM, [], 5, None, {"components": None}, {"specVersion": 5, "components": {"a": 1}},
    ],
)  # fmt: skip
def test_garbage_is_told_and_no_fault(value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = signed.unsigned(tmp_path / "bundle")
    (folder / "bom.cdx.json").write_text(json.dumps(value))
    signed.sum_up(folder)
    assert any(line.startswith("bom.cdx.json: ") for line in schemas.problems(folder))
    assert main(["verify", "--unsigned", str(folder)]) == 3
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "bom.cdx.json: " in told
