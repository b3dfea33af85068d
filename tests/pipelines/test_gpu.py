"""One GPU, one stage at a time, however the stages were started, by one user or by several."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import miniature
import pytest

from pipelines import gpu

REPOSITORY = Path(__file__).parent.parent.parent
HOLDS = """
import sys, time
from pipelines import gpu
gpu.LOCKS = sys.argv[1]
with gpu.held(sys.argv[2].split(",")):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where every user may write, as /dev/shm is."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    monkeypatch.setattr(gpu, "LOCKS", str(folder))
    for name in ("CUDA_VISIBLE_DEVICES", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def another(locks: Path, names: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has these devices."""
    command = [sys.executable, "-c", HOLDS, str(locks), names]
    with subprocess.Popen(command, cwd=REPOSITORY, env=miniature.environment(), stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield holder
        finally:
            holder.kill()


@contextmanager
def as_another_user() -> Iterator[None]:
    """As nobody, if root runs the tests; else the one who runs them, to whom the test gives no right to write."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


def is_free(path: Path) -> bool:
    with path.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_which_devices_a_stage_uses(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu.devices("finetune", "cpu", 4) == ()
    assert gpu.devices("export", "cuda") == ()
    assert gpu.devices("finetune", "cuda", 4) == ("0", "1", "2", "3")
    assert gpu.devices("evaluate", "cuda") == ("0",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5,7")
    assert (gpu.devices("finetune", "cuda"), gpu.devices("finetune", "cuda", 2)) == (("3",), ("3", "5"))
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert gpu.devices("finetune", "cuda") == ()


def test_of_what_torchrun_started_the_first_of_a_machine_takes_all(
    locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert gpu.devices("finetune", "cuda", 8) == ("0", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert gpu.devices("finetune", "cuda", 8) == ()


def test_another_users_lock_holds(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = locks / "graftline-gpu-0.lock"
    path.touch()
    path.chmod(0o444)  # of us, as another's 0644 is to us
    with as_another_user(), gpu.held(["0"]):
        assert not is_free(path)
    assert is_free(path)
    assert capsys.readouterr().err == ""


def test_a_lock_is_for_all_users_whatever_the_umask(locks: Path) -> None:
    before = os.umask(0o077)
    try:
        with gpu.held(["0"]):
            pass
    finally:
        os.umask(before)
    assert (locks / "graftline-gpu-0.lock").stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("trouble", ["no folder", "a link", "closed"])
def test_a_lock_that_cannot_be_had_is_told_and_stops_nothing(
    locks: Path, trouble: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = locks / "graftline-gpu-0.lock"
    if trouble == "no folder":
        monkeypatch.setattr(gpu, "LOCKS", str(locks / "absent"))
    elif trouble == "a link":
        path.symlink_to("elsewhere")
    else:
        path.touch()
        path.chmod(0)
    ran = False
    with as_another_user(), gpu.held(["0"]):
        ran = True
    assert ran
    assert capsys.readouterr().err.startswith("GPU 0 is used without a lock: ")


def test_what_goes_wrong_inside_is_not_taken_for_trouble_with_the_lock(locks: Path) -> None:
    with pytest.raises(OSError, match="the disk is full"), gpu.held(["0"]):
        raise OSError("the disk is full")
    assert is_free(locks / "graftline-gpu-0.lock")


def test_the_next_has_it_once_the_holder_is_gone_however_it_went(locks: Path) -> None:
    with another(locks, "1,0") as holder:
        got = threading.Event()

        def wait() -> None:
            with gpu.held(["0"]):
                got.set()

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        assert not got.is_set()
        os.kill(holder.pid, signal.SIGKILL)
        thread.join(5)
        assert got.is_set()


def test_a_stage_takes_its_turn_however_it_was_started(
    new_project: Path, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain `dvc repro` and the rest come down to this command."""
    machinery = new_project / "pipelines" / "gpu.py"
    text = machinery.read_text()
    machinery.write_text(text.replace('"/dev/shm"', f'"{locks}"').replace('USERS = ("augment"', 'USERS = ("ingest"'))
    miniature.turn_knob(new_project, "device: cpu", "device: cuda")
    command = [sys.executable, "-m", "pipelines.stage", "ingest"]
    with another(locks, "0") as holder:
        stage = subprocess.Popen(
            command, cwd=new_project, env=miniature.environment(), stderr=subprocess.PIPE, text=True
        )
        with stage:
            assert stage.stderr is not None
            assert stage.stderr.readline() == "Another run has GPU 0; waiting for it to end.\n"
            holder.kill()
            assert "ingest is reading" in stage.stderr.read()
        assert stage.returncode == 0
    miniature.turn_knob(new_project, "device: cuda", "device: cpu")
    with another(locks, "0"):
        assert subprocess.run(command, cwd=new_project, env=miniature.environment(), check=False).returncode == 0


# --- in flows ---


def test_a_flow_waits_for_what_has_the_gpu_and_leaves_it_to_its_stage(locks: Path, tmp_path: Path) -> None:
    from pipelines.flows import gpu as flows

    (tmp_path / "params.yaml").write_text("run: {device: cuda}\nfinetune: {processes: 2}\n")
    with flows.turn(tmp_path, "ingest"):
        assert not list(locks.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "concurrency", lambda *_, **__: gpu.held([]))
        with another(locks, "1") as holder:
            threading.Timer(0.5, holder.kill).start()
            began = time.monotonic()
            with flows.turn(tmp_path, "finetune"):
                assert time.monotonic() - began > 0.4
                names = sorted(path.name for path in locks.iterdir())
                free = [is_free(locks / name) for name in names]
    assert list(zip(names, free)) == [
        ("graftline-gpu-0.lock", True), ("graftline-gpu-0.turn", False),
        ("graftline-gpu-1.lock", True), ("graftline-gpu-1.turn", False),
    ]  # fmt: skip


def test_prefects_limit_holds_where_one_was_made(
    locks: Path, tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

    from pipelines.flows import gpu as flows

    (tmp_path / "params.yaml").write_text("run: {device: cuda}\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with flows.turn(tmp_path, "finetune"):
        pass  # no such limit yet
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=flows.LIMIT, limit=1))
        with flows.turn(tmp_path, "finetune"):
            assert client.read_global_concurrency_limit_by_name(flows.LIMIT).active_slots == 1
        assert client.read_global_concurrency_limit_by_name(flows.LIMIT).active_slots == 0
        client.delete_global_concurrency_limit_by_name(flows.LIMIT)
