"""Which processes live, and waiting until something holds."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Look every 20 ms."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether a process lives and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def dvc_processes(root: Path) -> list[str]:
    """Processes of DVC and of stages in a project."""
    found = subprocess.run(["ps", "axo", "pid,args"], capture_output=True, text=True, check=True).stdout
    pids = [line.split()[0] for line in found.splitlines() if "dvc" in line or "pipelines.stage" in line]
    return [p for p in pids if Path(f"/proc/{p}/cwd").exists() and Path(f"/proc/{p}/cwd").resolve() == root]
