"""Ours beside a plain `dvc` that comes between two of our stages: we wait, and no trigger is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import miniature

from pipelines.followed import Limits, followed

OTHER = """
import sys, time
from pathlib import Path
from dvc.repo import Repo
from dvc.rwlock import rwlock
repo, root = Repo(), Path.cwd()
while not (root / "reports" / "ingest" / "pid").exists():  # ours runs a stage, and has freed DVC's lock for it
    time.sleep(0.01)
with rwlock(repo.tmp_dir, repo.fs, "dvc repro", [], [str(root / "artifacts" / "gate" / "verdict.json")], False):
    with repo.lock:
        time.sleep(6)  # DVC's own patience is 3 s
    print("the lock is free", flush=True)
    time.sleep(2)
print("all is free", flush=True)
"""


def test_a_plain_dvc_that_came_meanwhile_is_waited_for(new_project: Path) -> None:
    miniature.turn_knob(new_project, "pause: 0", "pause: 1")
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER], cwd=new_project, env=miniature.environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        with followed(new_project, Limits()) as line:
            ended = {step.name: line.take(step) for step in line.steps()}
        told = other.communicate(timeout=20)[0]
    finally:
        other.kill()
        other.wait()
    assert told.splitlines() == ["the lock is free", "all is free"]
    assert {name: (one.code, one.ran) for name, one in ended.items()} == dict.fromkeys(miniature.STAGES, (0, True))
