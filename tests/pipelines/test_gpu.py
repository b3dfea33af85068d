"""One GPU, one stage at a time, among runs that share no server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import miniature
import pytest

HOLDS = """
import sys, time
from pathlib import Path
from prefect.settings import temporary_settings
from pipelines.flows import gpu
gpu.LOCKS = sys.argv[2]
with gpu._alone("0"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text("run: {device: auto}\n")
    return tmp_path


def test_where_there_is_no_gpu_nobody_waits(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.flows import gpu

    monkeypatch.setattr(gpu, "LOCKS", str(project))
    (project / "params.yaml").write_text("run: {device: cpu}\n")
    for _ in range(2):
        with gpu.turn(project, "finetune"):
            assert not list(project.glob("*.lock"))


def test_which_gpu_it_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.flows import gpu

    (project / "params.yaml").write_text("run: {device: cuda}\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu._device(project) == "0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    assert gpu._device(project) == "3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu._device(project) is None


def test_the_next_has_it_once_the_holder_is_gone_however_it_went(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.flows import gpu

    monkeypatch.setattr(gpu, "LOCKS", str(project))
    repository = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", HOLDS, "-", str(project)]
    with subprocess.Popen(command, cwd=repository, env=miniature.environment(), stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        got = threading.Event()

        def wait() -> None:
            with gpu._alone("0"):
                got.set()

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        assert not got.is_set()
        os.kill(holder.pid, signal.SIGKILL)
        thread.join(5)
        assert got.is_set()


def test_prefects_limit_holds_where_one_was_made(
    project: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

    from pipelines.flows import gpu

    monkeypatch.setattr(gpu, "LOCKS", str(project))
    (project / "params.yaml").write_text("run: {device: cuda}\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with gpu.turn(project, "finetune"):
        pass  # no such limit yet
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=gpu.LIMIT, limit=1))
        with gpu.turn(project, "finetune"):
            assert client.read_global_concurrency_limit_by_name(gpu.LIMIT).active_slots == 1
        assert client.read_global_concurrency_limit_by_name(gpu.LIMIT).active_slots == 0
        client.delete_global_concurrency_limit_by_name(gpu.LIMIT)
