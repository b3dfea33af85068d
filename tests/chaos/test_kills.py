"""kill -9 at every stage and every border, then one ordinary run; kill_loop.py does the work and says what is asked."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import victims
from chaos import kill_loop


@pytest.fixture(scope="module")
def subject() -> Iterator[victims.Subject]:
    """In memory where the system has such a place."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield victims.Subject(Path(folder).resolve())


def _check(subject: victims.Subject, kills: int, at_a_time: int = 1) -> None:
    rounds = kill_loop.loop(subject, kills, seed=1, at_a_time=at_a_time)
    table = "\n".join(kill_loop.table(subject, rounds))
    print(table)
    wrong = [f"{r.plan}: {one}" for r in rounds for one in r.wrong]
    assert not wrong, "\n".join([*wrong, table])


@pytest.mark.timeout(900)
def test_after_30_kills_one_ordinary_run_is_enough(subject: victims.Subject) -> None:
    _check(subject, 30, at_a_time=2)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_after_300_kills_one_ordinary_run_is_enough(subject: victims.Subject) -> None:
    _check(subject, 300)


@pytest.mark.parametrize(("shell", "seconds"), [("staying", 0.8), ("sh", 0.03), ("bash", 0.03)])
def test_a_stage_dies_with_its_dvc_whatever_shell_is_between(
    subject: victims.Subject, shell: str, seconds: float
) -> None:
    """Also where DVC dies before the stage has asked the kernel for anything."""
    root = subject.project(f"{shell}-between", "ingest", over_earlier=False, ahead=False, emptied=False)
    environment = subject.environment(shell, "ingest:30") | {"SHELL": kill_loop.shell(subject.folder, shell)}
    started = victims.Started.of(root, victims.DVC, environment)
    try:
        assert victims.wait_until(lambda: victims.stage_process(started.process.pid, "ingest") is not None, 60)
        time.sleep(seconds)
        started.process.kill()
        started.process.wait()
        assert victims.wait_until(lambda: not victims.living(shell), kill_loop.GONE, 0.01), victims.living(shell)
    finally:
        victims.kill(victims.living(shell))


def test_a_shell_between_is_no_hindrance(subject: victims.Subject) -> None:
    root = subject.project("through", "handoff", over_earlier=False, ahead=False, emptied=False)
    environment = subject.environment("through") | {"SHELL": kill_loop.shell(subject.folder, "staying")}
    started = victims.Started.of(root, victims.DVC, environment)
    assert started.process.wait(60) == 0, started.told()
    assert "Running stage 'handoff'" in started.told()


def test_what_went_wrong_is_seen(subject: victims.Subject) -> None:
    """Each kind of harm is put into a project as a careless line would leave it."""
    root = subject.project("harmed", subject.stages[-1], over_earlier=False, ahead=False, emptied=False)
    missing = f"artifacts/{subject.stages[-1]}/metrics.json is missing"
    assert missing in subject.differences(root)
    (root / "artifacts/gate/verdict.json").write_text("half")
    (root / "artifacts/.building/gate").mkdir(parents=True)
    (root / ".graftline").mkdir(exist_ok=True)
    (root / ".graftline/.x.tmp").touch()
    one = next(p for p in (root / ".dvc/cache/files/md5").rglob("*") if p.is_file())
    one.chmod(0o644)
    one.write_bytes(b"rot")
    (one.parent / ".left.tmp").touch()
    told = "\n".join(subject.differences(root))
    for harm in (
        "artifacts/gate/verdict.json is not as it should be", "artifacts/.building/gate/ was left behind",
        ".graftline/.x.tmp was left behind", "is not what its name says", ".left.tmp was left behind",
    ):  # fmt: skip
        assert harm in told
