"""Projects as users have them, for tests of the whole line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
ONE_TIME = "2026-01-01T00:00:00Z"
"""Of every commit, so that two projects with the same files are at the same commit."""


def sh(project: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("ATEN_", "ONEDNN_", "MKL_", "OMP_", "OPENBLAS_"))
    }
    environment |= {"PATH": f"{BIN}:{os.environ['PATH']}", "PREFECT_HOME": str(project.parent / "prefect")}
    environment |= dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), ONE_TIME)
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def edit(project: Path, change: Any) -> None:
    yaml = YAML()
    values = yaml.load(project / "params.yaml")
    change(values)
    yaml.dump(values, project / "params.yaml")


def make_project(folder: Path, change: Any) -> Path:
    """A clone as a user has it, with what is tracked or would be, and changed params."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith(("artifacts/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    edit(folder, change)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    sh(folder, "git", "init", "-q")
    sh(folder, "git", "add", "-A")
    sh(folder, "git", *identity, "-c", "commit.gpgsign=false", "commit", "-qm", "a project")
    return folder
