"""Ten lines on what a run came to, also after a refused or half-finished one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fabricated_run
import pytest

from components.contracts import read_json, write_json
from components.report.facts import STAGES
from pipelines.summary import summarise

LATER = ("report", "export", "handoff")


def finish(root: Path) -> Path:
    """The stages after the gate."""
    for stage in LATER:
        write_json(root / f"artifacts/{stage}/lineage.json", {"stage": stage, "inputs": {}, "outputs": {}})
    for stage in (*STAGES, *LATER):
        write_json(root / f"reports/{stage}/status.json", {"exit_code": 0, "started": 1.0, "ended": 2.0, "told": ""})
    return root


def told(root: Path) -> dict[str, str]:
    lines = summarise(root)
    assert len(lines) <= 10
    assert all("\n" not in line and len(line) <= 400 for line in lines)
    return {line[:12].strip(): line[13:] for line in lines}


def stop(root: Path, stage: str, code: int, why: str) -> None:
    """As a stage of that name that DVC ran: its outputs are gone."""
    (root / f"artifacts/{stage}/lineage.json").unlink(missing_ok=True)
    write_json(root / f"reports/{stage}/status.json", {"exit_code": code, "started": 3.0, "ended": 4.0, "told": why})


def test_a_finished_run_is_told_in_nine_lines(tmp_path: Path) -> None:
    found = told(finish(fabricated_run.make(tmp_path)))
    assert list(found) == [
        "backbone", "accuracy", "transfer", "worst group", "drift", "verdict", "report", "bundle", "next",
    ]  # fmt: skip
    assert found["backbone"].startswith("tf_efficientnet_lite0: best mean rank")
    assert found["accuracy"] == "96.7 % of 90 test samples (93.0 to 100.0 %, 95 % interval)"
    assert found["transfer"] == "helped: +6.0 points against from_scratch (+4.0 to +8.0)"
    assert found["worst group"].startswith("brightness: low (0.02 to 0.31), 95.7 % of 90")
    assert found["verdict"] == "passed, 2 rules"
    assert found["report"] == "artifacts/report/index.html"
    assert found["bundle"] == "artifacts/handoff/bundle"
    assert found["next"].startswith("select.candidates in params.yaml: ")


def test_what_ships_is_told_where_it_is_not_the_float32_network(tmp_path: Path) -> None:
    root = finish(fabricated_run.make(tmp_path))
    accuracy = {"value": 0.9, "low": 0.85, "high": 0.95, "level": 0.95}
    shipped = {"variant": "int8_static", "measures": {"accuracy": accuracy}}
    write_json(root / "artifacts/export/export.json", {"shipped": shipped})
    line = "artifacts/handoff/bundle, ships int8_static, whose own accuracy is 90.0 % (85.0 to 95.0 %)"
    assert told(root)["bundle"] == line
    write_json(root / "artifacts/export/export.json", {"shipped": {**shipped, "variant": "fp32"}})
    assert told(root)["bundle"] == "artifacts/handoff/bundle"
    for odd in ({}, [], {"shipped": None}, {"shipped": {"variant": "fp16", "measures": {}}}):
        write_json(root / "artifacts/export/export.json", odd)
        assert told(root)["bundle"] == "artifacts/handoff/bundle"


def test_a_refused_run_names_rules_and_has_no_bundle(tmp_path: Path) -> None:
    root = finish(fabricated_run.make(tmp_path, passed=False))
    (root / "artifacts/handoff/lineage.json").unlink()
    stop(root, "export", 3, "export is not made, because gate refused")
    found = told(root)
    assert "refused, 3 of 3 rules failed" in found["verdict"]
    assert "evaluate.ece at most 0.05 (is 0.071)" in found["verdict"]
    assert "acuracy at least 0.9 (not measured)" in found["verdict"]
    assert found["bundle"].startswith("none")
    assert found["report"] == "artifacts/report/index.html"
    assert "stopped" not in found


def test_a_stop_half_way_is_told_and_older_figures_are_not(tmp_path: Path) -> None:
    root = finish(fabricated_run.make(tmp_path))
    downstream = root / "artifacts/evaluate/lineage.json"
    write_json(downstream, {**read_json(downstream), "inputs": {"artifacts/finetune/history.csv": "0" * 64}})
    stop(
        root,
        "finetune",
        1,
        "a fault of ours, not of your input: RuntimeError: boom\n  Trace: reports/finetune/fault.txt",
    )
    found = told(root)
    assert found["stopped"] == (
        "finetune: a fault of ours, not of your input: RuntimeError: boom Trace: reports/finetune/fault.txt"
    )
    assert "backbone" in found
    assert "accuracy" not in found
    assert "verdict" not in found
    assert found["next"] == "see reports/finetune, then `dvc repro` goes on from finetune"


def test_refused_data_stop_the_line(tmp_path: Path) -> None:
    root = fabricated_run.make(tmp_path)
    for stage in STAGES[2:]:
        (root / f"artifacts/{stage}/lineage.json").unlink()
    write_json(root / "artifacts/validate/verdict.json", {"stage": "validate", "passed": False, "rules": []})
    stop(root, "augment", 3, "augment is not made, because validate refused:\n  - labels: 3 too few")
    found = told(root)
    assert found["stopped"].startswith("augment, refused: augment is not made, because validate refused: - labels")
    assert found["next"].startswith("validate.checks in params.yaml: ")


def test_a_run_that_was_killed_says_where_it_goes_on(tmp_path: Path) -> None:
    root = fabricated_run.make(tmp_path)
    (root / "artifacts/gate/lineage.json").unlink()
    assert told(root)["next"] == "`dvc repro` goes on from gate"


def test_figures_from_other_inputs_are_left_out(tmp_path: Path) -> None:
    root = finish(fabricated_run.make(tmp_path))
    before = told(root)
    path = root / "artifacts/bias/lineage.json"
    write_json(path, {**read_json(path), "inputs": {"artifacts/evaluate/quality.json": "0" * 64}})
    after = told(root)
    assert "worst group" in before
    assert "worst group" not in after
    assert after["accuracy"] == before["accuracy"]


def test_a_stop_that_was_made_good_is_not_told(tmp_path: Path) -> None:
    root = finish(fabricated_run.make(tmp_path))
    write_json(root / "reports/drift/status.json", {"exit_code": 2, "started": 3.0, "told": "old"})
    assert "stopped" not in told(root)
    os.utime(root / "artifacts/drift/lineage.json", (1.0, 1.0))
    assert told(root)["stopped"] == "drift, a mistake in params or input: old"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"exit_code": 1}'])
def test_broken_files_do_not_break_it(tmp_path: Path, content: str) -> None:
    root = finish(fabricated_run.make(tmp_path))
    (root / "reports/select/status.json").write_text(content)
    (root / "artifacts/select/chosen.json").write_text(content if content != "[]" else "")
    assert "accuracy" in told(root)


def test_an_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    assert told(tmp_path) == {"next": "`make run` runs the line"}


def test_it_loads_nothing_heavy(repository: Path) -> None:
    code = (
        "import sys, pathlib; from pipelines.summary import summarise; summarise(pathlib.Path('.')); "
        "print([m for m in ('numpy', 'pandas', 'torch', 'jinja2', 'prefect', 'dvc') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_stage_without_one_that_it_reads_is_left_out(tmp_path: Path, repository: Path) -> None:
    root = finish(fabricated_run.make(tmp_path))
    for name in ("dvc.yaml", "params.yaml"):
        (root / name).write_text((repository / name).read_text())
    assert told(root)["verdict"] == "passed, 2 rules"
    (root / "artifacts/drift/lineage.json").unlink()
    assert "verdict" not in told(root)
    assert told(root)["next"] == "`dvc repro` goes on from drift"
