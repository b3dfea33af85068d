"""Projects in miniature that `python -m pipelines serve` can keep, and that process to be looked at from outside."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import miniature

REPOSITORY = Path(__file__).parent.parent
DETECTOR = '''"""A detector. In miniature."""
from components import params
KINDS = ("columns", "embeddings")
class Params(params.Params):
    num_permutations: int = 1
    alpha: float = 0.1
'''
DEPLOYMENT = """
  - name: "{{{{ $GRAFTLINE_PROJECT }}}}"
    entrypoint: pipelines/flows/{entrypoint}
    tags: [graftline]
    parameters: {{root: "."}}
    concurrency_limit: {{limit: 1, collision_strategy: ENQUEUE, grace_period_seconds: 60}}
    schedules: [{schedule}]
"""
NOTED = '''
"""Leaves a line of each run."""
import json
from pathlib import Path
from prefect import flow
from pipelines.flows import notify
@flow(name="monitor", persist_result=False)
def monitor(root: str = ".", trigger: str = "", cause: str = "") -> None:
    with (Path(root) / "noted.jsonl").open("a") as handle:
        handle.write(json.dumps([trigger, cause]) + "\\n")
'''


def prepare(root: Path, *deployments: tuple[str, str]) -> None:
    """Give a project in miniature its settings of operation and deployments: pairs of entrypoint and schedule."""
    (root / "infra" / "prefect").mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "infra" / "operations.yaml", root / "infra" / "operations.yaml")
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(
        REPOSITORY / "components/monitoring", root / "components/monitoring", ignore=skipped, dirs_exist_ok=True
    )
    (root / "components" / "handoff").mkdir(exist_ok=True)
    shutil.copy(REPOSITORY / "components/handoff/verify_bundle.py", root / "components/handoff/verify_bundle.py")
    folder = root / "components" / "drift" / "detectors"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("evidently_columns", "permutation_mmd"):
        (folder / f"{name}.py").write_text(DETECTOR)
    (root / "pipelines" / "flows" / "noted.py").write_text(NOTED.lstrip())
    text = "".join(DEPLOYMENT.format(entrypoint=entrypoint, schedule=schedule) for entrypoint, schedule in deployments)
    (root / "infra" / "prefect" / "prefect.yaml").write_text(f"deployments:{text}")


def free_port() -> int:
    """A port of 127.0.0.1 at which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Serve:
    """A serve that runs beside the test."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, port: int) -> None:
        self.process, self.log, self.port = process, log, port
        self.api = f"http://127.0.0.1:{port}/api"

    @property
    def said(self) -> str:
        """All that it printed so far."""
        return self.log.read_text("utf-8", "replace")

    def wait_for(self, words: str, seconds: float = 180) -> None:
        """Until it says so."""
        deadline = time.monotonic() + seconds
        while words not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def end(self, wish: signal.Signals = signal.SIGTERM, seconds: float = 120) -> int:
        """Its exit code."""
        self.process.send_signal(wish)
        return self.process.wait(seconds)


@contextmanager
def serving(root: Path, api: str = "", port: int = 0, **environment: str) -> Iterator[Serve]:
    """`python -m pipelines serve`; with `api`, on that server, else on one of its own."""
    port = port or free_port()
    log = root.parent / f"{root.name}-serve-{time.monotonic_ns()}.log"
    quick = {"GRAFTLINE_WATCH_SECONDS": "1", "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    variables = {**miniature.environment(), **quick, **environment}
    variables.pop("PREFECT_API_URL", None)
    if api:
        variables["PREFECT_API_URL"] = api
    command = [sys.executable, "-m", "pipelines", "serve", "--port", str(port)]
    with log.open("wb") as handle:
        process = subprocess.Popen(command, cwd=root, env=variables, stdout=handle, stderr=handle, process_group=0)
    try:
        yield Serve(process, log, port)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def processes_of(root: Path) -> list[int]:
    """Living processes that work in the project or name it in their command."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            there = (entry / "cwd").readlink() == root or str(root).encode() in (entry / "cmdline").read_bytes()
            dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            continue
        if there and not dead:
            found.append(int(entry.name))
    return found
