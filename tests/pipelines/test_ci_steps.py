"""The steps of CI on a project in miniature, with a DVC remote in a folder: what one machine pushes, another pulls."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import miniature
import pytest

REPOSITORY = Path(__file__).parent.parent.parent
WHO = ("-c", "user.name=test", "-c", "user.email=test@localhost")


def step(root: Path, name: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """As `make ci-NAME` does it; the miniature has no Makefile."""
    environment = {k: v for k, v in miniature.environment().items() if not k.startswith(("GITHUB_", "CI_", "GITLAB_"))}
    command = ["bash", "infra/ci/steps.sh", name]
    environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", **settings}
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip


def git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *WHO, *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def with_remote(root: Path, folder: Path) -> Path:
    """CI's files, and a remote that is a folder."""
    (root / "infra" / "ci").mkdir(parents=True, exist_ok=True)
    for name in ("steps.sh", "post.py"):
        shutil.copy(REPOSITORY / "infra" / "ci" / name, root / "infra" / "ci" / name)
    config = root / ".dvc" / "config"
    told = config.read_text().replace("[core]\n", "[core]\n    remote = store\n")
    config.write_text(f"{told}['remote \"store\"']\n    url = {folder}\n")
    miniature.commit(root)
    return root


def clone(root: Path, target: Path) -> Path:
    git(root, "clone", "--quiet", str(root), str(target))
    return target


def test_what_one_machine_pushed_another_has_and_nothing_runs_twice(finished_project: Path, tmp_path: Path) -> None:
    first = with_remote(finished_project, tmp_path / "remote")
    done = step(first, "push")
    assert done.returncode == 0, done.stderr
    second = clone(first, tmp_path / "second")
    done = step(second, "pull")
    assert done.returncode == 0, done.stderr
    done = step(second, "line")
    assert done.returncode == 0, done.stderr
    assert "Nothing to do: all 5 stages are unchanged" in done.stdout
    assert "verify = true" in (second / ".dvc" / "config.local").read_text()


def test_a_poisoned_remote_is_refused(finished_project: Path, tmp_path: Path) -> None:
    first = with_remote(finished_project, tmp_path / "remote")
    assert step(first, "push").returncode == 0
    model = next(p for p in (tmp_path / "remote").rglob("*") if p.is_file() and p.read_bytes() == b"model.v1")
    model.chmod(0o644)
    model.write_bytes(b"mOdel.v1")
    second = clone(first, tmp_path / "second")
    done = step(second, "pull")
    missing = re.findall(r"^md5: (\w+)$", done.stderr, re.M)
    assert missing == [hashlib.md5(b"model.v1", usedforsecurity=False).hexdigest()], done.stderr
    assert not (second / "artifacts" / "export" / "model.txt").exists()
    assert not any(p.read_bytes() == b"mOdel.v1" for p in (second / ".dvc" / "cache").rglob("*") if p.is_file())
    assert (second / "artifacts" / "ingest" / "mean.json").is_file(), "what is whole was pulled"


@pytest.mark.slow
def test_without_a_remote_there_is_nothing_to_pull_or_push(finished_project: Path) -> None:
    shutil.copytree(REPOSITORY / "infra" / "ci", finished_project / "infra" / "ci", dirs_exist_ok=True)
    for name in ("pull", "push"):
        done = step(finished_project, name)
        assert (done.returncode, "No DVC remote is set" in done.stdout) == (0, True)


@pytest.mark.slow
def test_a_refused_run_fails_and_is_told_in_the_comment(finished_project: Path, tmp_path: Path) -> None:
    root = with_remote(finished_project, tmp_path / "remote")
    miniature.turn_knob(root, "at_least: 1.0", "at_least: 5.0")
    assert step(root, "line").returncode == 3
    summary = tmp_path / "summary.md"
    done = step(root, "comment", BASE="0" * 40, REPORT_URL="https://ci.example/1", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 0, done.stderr
    text = (root / ".graftline" / "ci" / "comment.md").read_text()
    assert text == summary.read_text()
    assert "refused by gate, 1 of 1 rules failed" in text
    assert "| ❌ | mean at least 5.0 | 2 | 5 | -3 |" in text
    assert "- Ran (hand): gate, report; unchanged: ingest." in text
    assert "Not made from what lies here: export, handoff." in text
    assert "export.size" not in text, "metrics of an earlier run are not this run's"
    assert "[report](<https://ci.example/1>)" in text


@pytest.mark.slow
def test_retrain_commits_the_record_to_a_branch_which_another_machine_pushes(
    finished_project: Path, tmp_path: Path
) -> None:
    root = with_remote(finished_project, tmp_path / "remote")
    origin = tmp_path / "origin.git"
    git(root, "clone", "--quiet", "--bare", str(root), str(origin))
    here, there = clone(origin, tmp_path / "here"), clone(origin, tmp_path / "there")
    (here / "data" / "numbers.txt").write_text("2 3 4\n")  # newer data, as a step of the project brings them
    done = step(here, "retrain", REASON="new data; $(touch planted)\nsecond line")
    assert done.returncode == 0, done.stderr
    assert not (here / "planted").exists()
    branch = (here / ".graftline" / "ci" / "branch").read_text().strip()
    assert git(here, "log", "-1", "--format=%s", branch) == "Retrained: new data; $(touch planted) second line"
    assert git(here, "show", "--name-only", "--format=", branch) == "dvc.lock"
    shutil.copytree(here / ".graftline" / "ci", there / ".graftline" / "ci")
    done = step(there, "propose", NO_PULL_REQUEST="1")
    assert done.returncode == 0, done.stderr
    assert git(origin, "rev-parse", branch) == git(here, "rev-parse", branch)
    record = miniature.line(here, "runs", "--json").stdout
    assert "new data; $(touch planted) second line" in record


@pytest.mark.slow
def test_nothing_new_is_nothing_to_propose(finished_project: Path, tmp_path: Path) -> None:
    root = with_remote(finished_project, tmp_path / "remote")
    done = step(root, "retrain", REASON="weekly")
    assert done.returncode == 0, done.stderr
    assert "Nothing changed" in done.stdout
    assert "Nothing to propose" in step(root, "propose").stdout


@pytest.mark.parametrize("path", [".github/workflows/line.yml", "components/job.py", "artifacts/gate/verdict.json"])
def test_a_branch_that_changes_anything_else_is_not_pushed(finished_project: Path, tmp_path: Path, path: str) -> None:
    root = with_remote(finished_project, tmp_path / "remote")
    origin = tmp_path / "origin.git"
    git(root, "clone", "--quiet", "--bare", str(root), str(origin))
    here = clone(origin, tmp_path / "here")
    base, branch, room = git(here, "rev-parse", "HEAD"), "retrain/1", here / ".graftline" / "ci"
    git(here, "switch", "--quiet", "--create", branch)
    (here / path).parent.mkdir(parents=True, exist_ok=True)
    (here / path).write_text("planted")
    git(here, "add", "--force", path)
    git(here, "commit", "--quiet", "-m", "planted")
    room.mkdir(parents=True)
    git(here, "bundle", "create", "--quiet", str(room / "retrain.bundle"), f"{base}..{branch}")
    (room / "branch").write_text(f"{branch}\n")
    git(here, "switch", "--quiet", "--detach", base)
    done = step(here, "propose", NO_PULL_REQUEST="1")
    assert done.returncode == 1
    assert path in done.stderr
    assert branch not in git(origin, "branch", "--list")
