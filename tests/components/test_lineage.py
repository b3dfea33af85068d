"""What a stage's record says of its environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from components import lineage


def test_the_packages_are_those_of_the_stage_and_no_others() -> None:
    assert lineage.environment({"numpy": "2.0"})["packages"] == {"numpy": "2.0"}
    assert {"torch", "numpy"} <= lineage.environment()["packages"].keys(), "where nobody says what a stage imports"


def test_the_processor_is_named_where_the_instruction_set_is_not_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "ATEN_CPU_CAPABILITY", "avx2")
    assert "processor" not in lineage.environment({})
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    assert lineage.environment({})["processor"] == lineage.processor()


def test_a_bump_of_what_a_stage_does_not_use_leaves_its_record_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "built").mkdir()
    (tmp_path / "built/a.json").write_text("{}")
    records = [
        lineage.record(tmp_path, "gate", [], ["artifacts/gate/a.json"], {}, tmp_path / "built", {"pydantic": version})
        for version in ("1", "1", "2")
    ]
    assert records[0] == records[1] != records[2]
    assert records[0]["environment"]["packages"] == {"pydantic": "1"}
