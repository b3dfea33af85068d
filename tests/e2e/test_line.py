"""The whole line in a project of its own: cold, warm, one knob turned, refused; and the flow against `dvc repro`.

Real stages, real DVC, real Prefect; small: 240 digits, timm's tiny networks from random weights. It is made by the flow
and gone on with by DVC; that both make the same from nothing in two clones takes minutes more, so it is a slow test
here, and a quick one in miniature (tests/pipelines/test_flows.py).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from projects import edit, make_project, sh

pytestmark = pytest.mark.timeout(900)  # whole lines: a minute or two each, and more where others use the machine

STAGES = [
    "ingest",
    "validate",
    "augment",
    "select",
    "finetune",
    "evaluate",
    "bias",
    "drift",
    "gate",
    "report",
    "export",
    "handoff",
]


def small(values: Any) -> None:
    values["ingest"]["source"] = {"name": "sklearn_digits", "limit": 240}
    values["select"]["candidates"] = [
        {"name": "timm", "model": m, "image_size": 32, "weights": {"source": "random"}}
        for m in ("test_efficientnet", "test_resnet")
    ]
    values["finetune"]["strategy"] = {"name": "full", "epochs": 2}
    values["evaluate"]["num_bootstrap"] = 100
    values["bias"]["num_bootstrap"] = 100
    values["gate"]["rules"] = [
        {"metric": "evaluate.accuracy", "at_least": 0.0},
        {"metric": "drift.share_of_columns", "at_most": 1.0},
    ]
    values["export"] |= {"variant": "fp32", "rungs": []}  # what a measured time decides may differ between two runs


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("flow") / "digits", small)
    told = sh(folder, sys.executable, "-m", "pipelines", "run").stdout
    assert [s for s in STAGES if (folder / f"artifacts/{s}/metrics.json").exists()] == STAGES, told
    return folder


def lock(project: Path) -> str:
    return (project / "dvc.lock").read_text()


def ran(output: str) -> set[str]:
    return {s for s in STAGES if f"Running stage '{s}'" in output}


def test_cold_run_leaves_a_bundle_that_checks_itself(project: Path) -> None:
    bundle = project / "artifacts/handoff/bundle"
    sh(bundle, "sha256sum", "--check", "--quiet", "SHA256SUMS")
    done = sh(bundle, sys.executable, "predict.py", "--check")
    assert done.returncode == 0


def test_every_stage_left_metrics_in_git_and_a_lineage(project: Path) -> None:
    for stage in STAGES:
        assert json.loads((project / f"artifacts/{stage}/metrics.json").read_text()) is not None
        lineage = json.loads((project / f"artifacts/{stage}/lineage.json").read_text())
        assert str(project) not in json.dumps(lineage)
        assert sh(project, "git", "check-ignore", "-q", f"artifacts/{stage}/metrics.json", check=False).returncode == 1
        assert sh(project, "git", "check-ignore", "-q", f"artifacts/{stage}/lineage.json", check=False).returncode == 0
    ours = {p.parts[0] for p in (project / "artifacts").glob("*") for p in [p.relative_to(project / "artifacts")]}
    assert ours - {".building", ".gitignore"} == set(STAGES)


def test_dvc_shows_metrics_plots_and_the_graph(project: Path) -> None:
    shown = sh(project, "dvc", "metrics", "show").stdout
    assert "accuracy" in shown
    assert "index.html" in sh(project, "dvc", "plots", "show").stdout
    assert "handoff" in sh(project, "dvc", "dag", "--dot").stdout


def test_warm_run_does_nothing_and_is_quick(project: Path) -> None:
    before = lock(project)
    started = time.monotonic()
    done = sh(project, "dvc", "repro")
    assert time.monotonic() - started < 5  # under 2 s on a quiet machine
    assert ran(done.stdout) == set()
    assert "up to date" in done.stdout
    assert lock(project) == before


def test_one_knob_reruns_only_what_depends_on_it(project: Path) -> None:
    before = lock(project)
    edit(project, lambda v: v["gate"]["rules"].append({"metric": "evaluate.num_test", "at_least": 1}))
    done = sh(project, "dvc", "repro")
    assert ran(done.stdout) == {"gate", "report", "export", "handoff"}
    edit(project, lambda v: v["gate"]["rules"].pop())
    done = sh(project, "dvc", "repro")
    assert ran(done.stdout) == set()  # from the run cache
    assert lock(project) == before


def test_a_refusal_is_recorded_reported_and_exports_nothing(project: Path) -> None:
    before = lock(project)
    edit(project, lambda v: v["gate"]["rules"].append({"metric": "evaluate.f1_macro", "at_least": 1.01}))
    done = sh(project, sys.executable, "-m", "pipelines", "repro", check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "evaluate.f1_macro" in done.stdout + done.stderr
    verdict = json.loads((project / "artifacts/gate/verdict.json").read_text())
    assert verdict["passed"] is False
    assert "efused" in (project / "artifacts/report/index.html").read_text()
    assert not (project / "artifacts/handoff/bundle").exists()
    edit(project, lambda v: v["gate"]["rules"].pop())
    sh(project, "dvc", "repro")
    assert lock(project) == before


def test_plain_dvc_repro_also_reports_a_refusal(project: Path) -> None:
    edit(project, lambda v: v["gate"]["rules"].append({"metric": "evaluate.f1_macro", "at_least": 1.02}))
    done = sh(project, "dvc", "repro", check=False)
    assert done.returncode != 0
    assert "1.02" in (project / "artifacts/report/index.html").read_text()
    edit(project, lambda v: v["gate"]["rules"].pop())
    sh(project, "dvc", "repro")


@pytest.mark.slow
def test_dvc_repro_in_another_clone_gives_the_same_lock_and_model(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "digits"
    # Of the project, not made anew: handoff reads requirements.lock and names the commit, and both differ where this
    # repository was edited in between.
    sh(project, "git", "clone", "--quiet", str(project), str(other))
    assert not (other / "dvc.lock").exists()
    assert not (other / ".dvc" / "cache").exists()
    done = sh(other, "dvc", "repro")
    assert ran(done.stdout) == set(STAGES)
    assert lock(other) == lock(project), done.stdout
    ours, theirs = (p / "artifacts/export/model.onnx" for p in (project, other))
    assert ours.read_bytes() == theirs.read_bytes()
    again = sh(other, sys.executable, "-m", "pipelines", "run")
    assert lock(other) == lock(project)
    assert "Running stage" not in again.stdout
