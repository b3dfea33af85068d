"""The record of runs: a live run is told from a dead one, however it died; a dead one is noticed, and resumed once."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import miniature
import psutil
import pytest

from components.contracts import InputError, Refused
from pipelines import clones, history, keeper, leases, reaper, records, runs, triggers
from pipelines.runs import Trigger, recorded

NIGHTLY = Trigger("schedule", "cron", "nightly")
HOLDER = """
import os, sys, time
from pathlib import Path
from pipelines import runs
with runs.recorded(Path(sys.argv[1]), "train", runs.Trigger(sys.argv[2]), ()) as run:
    run.watch()
    print(run.id, flush=True)
    time.sleep(float(sys.argv[3]))
    while os.environ.get("SPIN"):
        pass
"""


def as_project(root: Path) -> Path:
    """What a folder must have, so that a run in it is recorded."""
    root.mkdir(exist_ok=True)
    for name in ("dvc.yaml", "params.yaml"):
        (root / name).touch()
    return root


@pytest.fixture(autouse=True)
def _as_project(tmp_path: Path) -> None:
    as_project(tmp_path)


@pytest.fixture
def start(repository: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start(root, ...)`: a real process, of a group of its own, that holds a recorded run."""
    begun: list[subprocess.Popen[str]] = []

    def one(root: Path, kind: str = "hand", seconds: float = 60, **environment: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(root), kind, str(seconds)],
            env={**os.environ, "PYTHONPATH": str(repository), **environment},
            stdout=subprocess.PIPE, text=True, process_group=0,
        )  # fmt: skip
        begun.append(child)
        return child

    yield one
    for child in begun:
        child.kill()
        child.communicate()


def named(child: subprocess.Popen[str]) -> str:
    """The id that a process of `start` printed."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def read(root: Path, name: str) -> runs.Record:
    one = records.read(root, name)
    assert one is not None
    return one


def until(holds: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.05)
    return value


def keepers(root: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(root) in words and any(word.endswith("keeper.py") for word in words):
            found.append(process)
    return found


def put(root: Path, lease: leases.Lease, **values: Any) -> runs.Record:
    """A record as another run left it."""
    one = runs.Record(id=records.new_id(), flow="train", trigger=NIGHTLY, started=time.time(), lease=lease)
    one = dataclasses.replace(one, **values)
    records.write(root, one)
    if one.ended is None:
        leases.place(records.folder(root), one.id).touch()
    return one


# --- a record ---


def test_a_record_tells_who_why_when_how_and_on_what(finished_project: Path) -> None:
    with recorded(finished_project, "train", NIGHTLY, ("run", "--record")) as run:
        going_on = read(finished_project, run.id)
        run.note("f1", "http://me:secret@127.0.0.1:4200/api")
        run.end(0, "5 stages: 1 ran", ("handoff",))
    assert (going_on.state, going_on.ended, going_on.code) == ("running", None, None)
    one = runs.history(finished_project)[0]
    assert one == run.record
    assert (one.id, one.flow, one.trigger, one.how) == (run.id, "train", NIGHTLY, ("run", "--record"))
    assert (one.state, one.code, one.told, one.ran) == ("done", 0, "5 stages: 1 ran", ("handoff",))
    assert one.ended is not None
    assert time.time() - 10 < one.started <= one.ended <= time.time()
    assert (one.flow_run_id, one.api_url) == ("f1", "http://127.0.0.1:4200/api")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=finished_project, capture_output=True, text=True, check=True
    )
    assert one.commit == head.stdout.strip()
    assert len(one.params) == 64
    assert [path.name for path in records.folder(finished_project).iterdir()] == [f"{one.id}.json"]


@pytest.mark.parametrize(
    ("raised", "code", "state"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(143), 143, "interrupted"),
        (SystemExit(124), 124, "timed_out"),
        (Refused("too low"), 3, "refused"),
        (InputError("params.yaml: no"), 2, "mistake"),
        (ZeroDivisionError("oh"), 1, "fault"),
    ],
)
def test_what_ends_a_run_is_in_its_record(tmp_path: Path, raised: BaseException, code: int, state: str) -> None:
    with pytest.raises(type(raised)), recorded(tmp_path, "train", NIGHTLY):
        raise raised
    one = runs.history(tmp_path)[0]
    assert (one.code, one.state) == (code, state)
    assert one.told
    with recorded(tmp_path, "train", NIGHTLY) as run:
        run.end(code, "told")
    assert runs.history(tmp_path)[0].state == state


def test_nothing_that_ran_is_unchanged_and_nothing_said_is_done(tmp_path: Path) -> None:
    with recorded(tmp_path, "train") as run:
        run.end(0, "nothing to do", ())
    with recorded(tmp_path, "monitor"):
        pass
    assert [one.state for one in runs.history(tmp_path)] == ["done", "unchanged"]


def test_within_a_run_the_same_flow_is_that_run_and_another_names_it(tmp_path: Path) -> None:
    with recorded(tmp_path, "monitor", NIGHTLY) as outer:
        with recorded(tmp_path, "monitor") as same:
            assert same is outer
        with recorded(tmp_path, "train", Trigger("drift", "monitor", "features moved", outer.id)) as inner:
            inner.end(3, "refused")
        assert read(tmp_path, outer.id).ended is None
    assert [(one.flow, one.within) for one in runs.history(tmp_path)] == [("train", outer.id), ("monitor", "")]


def test_foreign_and_broken_files_are_passed_over(tmp_path: Path) -> None:
    with recorded(tmp_path, "train"):
        pass
    good = records.place(tmp_path, runs.history(tmp_path)[0].id)
    for name, text in {
        "notes.json": "{}", "20260101T000000000000Z-abcdef.json": '{"id": ',
        "20260101T000000000000Z-abcdee.json": "[1]", "20260101T000000000000Z-abcded.json": '{"trigger": {"kind": []}}',
        "20260101T000000000000Z-abcdec.json": good.read_text("utf-8"), "x.alive": "",
        "20260101T000000000000Z-abcdeb.json": "[" * 100_000,
    }.items():  # fmt: skip
        (records.folder(tmp_path) / name).write_text(text, "utf-8")
    (records.folder(tmp_path) / "20260101T000000000000Z-abcdea.json").mkdir()
    good.write_text(json.dumps({**json.loads(good.read_text("utf-8")), "of_a_later_version": 1}), "utf-8")
    with recorded(tmp_path, "train"):
        pass
    assert reaper.reap(tmp_path, resume=True) == []
    assert [one.state for one in runs.history(tmp_path)] == ["done", "done"]
    assert len(runs.show(tmp_path, 20, False)) == 3


def test_a_record_that_cannot_be_kept_stops_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".graftline").write_text("a file where the folder should be")
    with recorded(tmp_path, "train") as run:
        run.note("f1")
    assert "could not be kept" in capsys.readouterr().err


def test_a_project_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    root = as_project(tmp_path / "project")
    with recorded(root, "train"):
        root.rename(tmp_path / "away")
    assert not root.exists()


def test_it_takes_milliseconds(tmp_path: Path) -> None:
    for _ in range(300):
        put(tmp_path, leases.Lease(), ended=1.0, state="done")
    began = time.perf_counter()
    for _ in range(10):
        with recorded(tmp_path, "train", NIGHTLY) as run:
            run.end(0, "nothing to do", ())
    assert (time.perf_counter() - began) / 10 < 0.05
    heavy = "import sys, pipelines.runs; print(*{'subprocess', 'dvc', 'prefect', 'pydantic', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True, env={
        **os.environ, "PYTHONPATH": str(Path(runs.__file__).parent.parent)})  # fmt: skip
    assert done.stdout.strip() == ""


def test_only_old_records_are_pruned_and_never_a_live_one(tmp_path: Path) -> None:
    with recorded(tmp_path, "train") as run:
        for _ in range(5):
            put(tmp_path, leases.Lease(), ended=1.0, state="done")
        assert runs.prune(tmp_path, 2) == 3
        assert read(tmp_path, run.id).state == "running"
    assert len(runs.history(tmp_path)) == 3


def test_records_are_bounded_where_nobody_serves(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra" / "operations.yaml").write_text("runs: {keep: 30}\n")
    for num, left in ((38, 39), (39, 30)):
        while len(records.names(tmp_path)) < num:
            put(tmp_path, leases.Lease(), ended=1.0, state="done")
        with recorded(tmp_path, "promote"):
            pass
        assert len(records.names(tmp_path)) == left


@pytest.mark.parametrize("lacks", ["dvc.yaml", "params.yaml"])
def test_what_is_no_project_is_left_as_it_was(tmp_path: Path, lacks: str) -> None:
    root = as_project(tmp_path / "other")
    (root / lacks).unlink()
    with pytest.raises(InputError, match=f"{lacks} is not in .*Run from a project's root"), recorded(root, "monitor"):
        raise AssertionError("never here")
    assert len(list(root.iterdir())) == 1


# --- triggers ---


def test_the_trigger_is_told_or_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = runs.guess_trigger("because I say so")
    assert (by_hand.kind, by_hand.cause) == ("hand", "because I say so")
    assert by_hand.who
    monkeypatch.setenv("CI", "true")
    assert runs.guess_trigger().kind == "ci"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_EVENT_NAME", "pull_request")
    assert runs.guess_trigger().cause.startswith("pull_request")
    monkeypatch.setenv(triggers.VARIABLE, "schedule: every night")
    assert (runs.guess_trigger().kind, runs.guess_trigger().cause) == ("schedule", "every night")
    monkeypatch.setenv(triggers.VARIABLE, "nightly")
    with pytest.raises(InputError, match=r"GRAFTLINE_TRIGGER.*one of hand, schedule"):
        runs.guess_trigger()


# --- alive or dead ---


def test_a_live_run_is_alive_and_a_killed_one_is_dead(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    child = start(tmp_path)
    one = read(tmp_path, named(child))
    assert runs.alive(tmp_path, one) is True
    for process in keepers(tmp_path):
        process.kill()  # the keeper too
    child.kill()
    until(lambda: not leases.started(child.pid), 5)
    assert child.returncode is None  # a zombie, as in a container whose first process collects no children
    assert runs.alive(tmp_path, one) is False
    assert "died" in runs.show(tmp_path, 1, False)[1]
    with recorded(tmp_path, "train"):
        marked = read(tmp_path, one.id)
    assert (marked.state, marked.code) == ("crashed", None)
    assert "kill -9" in marked.told


def test_numbers_that_another_process_bears_by_now_are_not_taken_for_the_run(tmp_path: Path) -> None:
    mine = leases.own()
    assert leases.alive(mine, tmp_path / "none") is True
    file = tmp_path / "x.alive"
    file.touch()
    reused = dataclasses.replace(mine, started=str(int(mine.started) - 1))
    assert leases.alive(reused, file) is False
    rebooted = dataclasses.replace(mine, boot="0" * 36)
    assert leases.alive(rebooted, file) is False
    assert "started again" in leases.why_dead(rebooted)
    assert "memory ran out" in leases.why_dead(dataclasses.replace(mine, kills=-1))


def test_from_another_container_the_lock_tells(tmp_path: Path) -> None:
    file = tmp_path / "x.alive"
    inside = dataclasses.replace(leases.own(), space="pid:[1]", host="0a1b2c", pid=1)
    with leases.hold(file):
        assert leases.alive(inside, file) is True
    assert leases.alive(inside, file) is False
    without_proc = dataclasses.replace(leases.own(), started="")
    with leases.hold(file):
        assert leases.alive(without_proc, file) is True
    assert leases.alive(without_proc, file) is False


ELSEWHERE = dataclasses.replace(leases.own(), host="gpu-7", boot="1" * 36, space="pid:[1]", pid=1)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The project lies where a lock of another machine may not be seen."""
    monkeypatch.setattr(leases, "is_local", lambda _: False)


def test_a_container_that_is_gone_for_good_left_a_dead_run(tmp_path: Path, begun: list[list[str]]) -> None:
    """Another host name, another boot, another node by now; but no other machine can have this file system's locks."""
    assert leases.is_local(tmp_path)
    one = put(tmp_path, ELSEWHERE, how=("run",))
    with leases.hold(leases.place(records.folder(tmp_path), one.id)):
        assert runs.alive(tmp_path, one) is True
    assert runs.alive(tmp_path, one) is False
    assert len(reaper.reap(tmp_path, resume=True)) == 2
    assert "gpu-7" in read(tmp_path, one.id).told
    assert begun


@pytest.mark.parametrize("limit", ["null", "2"])
def test_what_is_silent_on_another_machine_is_dead_in_the_end(tmp_path: Path, network: None, limit: str) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra" / "operations.yaml").write_text(f"runs: {{max_run_hours: {limit}}}\n")
    most, now = {"null": 24, "2": 2}[limit] * 3600, time.time()
    one = put(tmp_path, ELSEWHERE, started=now - 10 * most)
    files = (records.place(tmp_path, one.id), leases.place(records.folder(tmp_path), one.id))
    for last, living in ((now - most + 60, None), (now - most - 60, False)):
        os.utime(files[0], (now - 10 * most, now - 10 * most))
        os.utime(files[1], (last, last))
        assert runs.alive(tmp_path, one) is living
    assert len(reaper.reap(tmp_path)) == 1


def test_file_systems_of_many_machines_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = """1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:9 / /mnt rw,relatime shared:1 - nfs4 nas:/ rw
3 2 8:2 / /mnt/a\\040disk rw - xfs /dev/sdb rw
4 1 0:10 / /share rw - fuse.glusterfs vol rw
"""
    monkeypatch.setattr(leases, "_line", lambda path: mounts if "mountinfo" in path else "")
    places = {"/home/x": True, "/mnt/x": False, "/mnt/a disk/x": True, "/share/x": False, "/mntx/x": True}
    assert {place: leases.is_local(Path(place)) for place in places} == places
    monkeypatch.setattr(leases, "_line", lambda path: "")
    assert not leases.is_local(tmp_path)


def test_a_live_run_whose_process_is_hidden_is_not_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hidepid=2: /proc shows nothing of other users."""
    file = tmp_path / "x.alive"
    mine = leases.own()
    monkeypatch.setattr(leases, "started", lambda _: "")
    with leases.hold(file):
        assert leases.alive(mine, file) is True
    assert leases.alive(mine, file) is False

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    assert leases.alive(mine, tmp_path / "cannot be read") is None


def test_what_a_run_forked_does_not_keep_it_alive(tmp_path: Path) -> None:
    with leases.hold(tmp_path / "x.alive"):
        forked = os.fork()
        if not forked:
            time.sleep(30)
            os._exit(0)
    try:
        until(lambda: leases._locked(tmp_path / "x.alive") is False, 5)
    finally:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)


def test_the_keeper_gives_signs_of_life(tmp_path: Path, repository: Path) -> None:
    one = put(tmp_path, leases.own())
    alive = leases.place(records.folder(tmp_path), one.id)
    os.utime(alive, (1.0, 1.0))
    words = (str(records.place(tmp_path, one.id)), str(tmp_path), os.getpid(), "/dev/null", False)
    code = f"from pipelines import keeper; keeper.SIGN = 0.05; keeper._keep(*{words!r})"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(repository)}
    )
    try:
        until(lambda: alive.stat().st_mtime > 1.0, 10)
    finally:
        child.kill()
        child.communicate()


def test_what_runs_on_another_machine_is_unknown_and_left_alone(tmp_path: Path, network: None) -> None:
    one = put(tmp_path, ELSEWHERE)
    assert runs.alive(tmp_path, one) is None
    assert reaper.reap(tmp_path, resume=True) == []
    assert read(tmp_path, one.id) == one
    assert "unknown" in (row := runs.show(tmp_path, 1, False)[1])
    assert "gpu-7" in row


def test_fifty_healthy_ones_are_never_taken_for_dead(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    still, busy = start(tmp_path), start(tmp_path, seconds=0, SPIN="1")
    names = [named(still), named(busy)]
    still.send_signal(signal.SIGSTOP)
    sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(48)]
    try:
        for child in sleepers:
            one = put(tmp_path, dataclasses.replace(leases.own(), pid=child.pid, started=leases.started(child.pid)))
            names.append(one.id)
            child.send_signal(signal.SIGSTOP)
        for _ in range(3):
            assert reaper.reap(tmp_path, resume=True) == []
            time.sleep(0.2)
        assert [runs.alive(tmp_path, read(tmp_path, name)) for name in names] == [True] * 50
    finally:
        for child in sleepers:
            child.kill()
            child.wait()
    assert len(reaper.reap(tmp_path)) == 48
    still.send_signal(signal.SIGCONT)


# --- the keeper ---


def test_the_keeper_goes_with_the_run_and_holds_nothing(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    child = start(tmp_path, seconds=1)
    named(child)
    keeper_process = until(lambda: keepers(tmp_path), 5)[0]
    until(lambda: keeper_process.cwd() == "/", 5)
    assert os.getsid(keeper_process.pid) == keeper_process.pid != os.getsid(child.pid)
    opened = [os.readlink(path) for path in Path(f"/proc/{keeper_process.pid}/fd").iterdir()]
    assert not [place for place in opened if str(tmp_path) in place]
    assert child.wait(10) == 0
    until(lambda: not keepers(tmp_path), 2)
    assert runs.history(tmp_path)[0].state == "done"


def test_the_keeper_of_a_run_that_ends_within_a_living_process_goes_too(tmp_path: Path) -> None:
    with recorded(tmp_path, "train", NIGHTLY, ()) as run:
        run.watch()
        until(lambda: keepers(tmp_path), 5)
    until(lambda: keeper.collect() or not keepers(tmp_path), 2)
    assert not [c for c in psutil.Process().children() if c.status() == psutil.STATUS_ZOMBIE and "keeper" in c.name()]


def test_the_keeper_outlives_a_deleted_project_in_peace(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    root = as_project(tmp_path / "project")
    child = start(root)
    named(child)
    until(lambda: keepers(root), 5)
    root.rename(tmp_path / "elsewhere")
    child.kill()
    until(lambda: not keepers(root), 5)
    assert not root.exists()


def test_a_killed_group_is_noticed_within_seconds_and_resumed_once(new_project: Path) -> None:
    miniature.turn_knob(new_project, "pause: 0", "pause: 2")
    environment = {**miniature.environment(), triggers.VARIABLE: "schedule: nightly"}
    child = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "repro"], cwd=new_project, env=environment, process_group=0,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: (new_project / "reports" / "ingest" / "pid").exists(), 30)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    again = until(lambda: [one for one in runs.history(new_project) if one.of], 15)[0]
    until(lambda: read(new_project, again.id).ended, 60)
    again, crashed = runs.history(new_project)
    assert (crashed.state, crashed.resumed_by, again.of) == ("crashed", again.id, crashed.id)
    assert crashed.ended is not None
    assert again.started - crashed.ended < 10
    assert again.trigger == Trigger("resume", crashed.trigger.who, "schedule: nightly", crashed.id)
    assert (again.state, again.how) == ("done", ("repro",))
    assert (new_project / "artifacts" / "handoff" / "bundle.txt").exists()
    assert reaper.reap(new_project, resume=True) == []
    until(lambda: not keepers(new_project), 5)


def test_what_a_person_began_is_marked_and_not_resumed(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], repository: Path
) -> None:
    (tmp_path / "pipelines").symlink_to(repository / "pipelines")
    (tmp_path / "components").symlink_to(repository / "components")
    child = start(tmp_path)
    name = named(child)
    child.kill()
    child.wait()
    until(lambda: read(tmp_path, name).ended, 15)
    assert "signal 9" in read(tmp_path, name).told or "without a word" in read(tmp_path, name).told
    assert reaper.reap(tmp_path, resume=True) == []
    assert len(runs.history(tmp_path)) == 1


# --- the reaper ---


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the reaper would start."""
    commands: list[list[str]] = []
    plain = keeper.spawn

    def spawn(command: list[str], besides: Any, log: str, given: int | None = None) -> int:
        if given is not None:
            return plain(command, besides, log, given)  # a keeper
        commands.append(command[4:])
        return 0

    monkeypatch.setattr(keeper, "spawn", spawn)
    return commands


def gone() -> leases.Lease:
    return dataclasses.replace(leases.own(), started="1")


def test_two_reapers_at_once_act_once(tmp_path: Path, begun: list[list[str]]) -> None:
    for _ in range(5):
        put(tmp_path, gone(), how=("run",))
    told: list[str] = []
    threads = [threading.Thread(target=lambda: told.extend(reaper.reap(tmp_path, resume=True))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("crashed" in line for line in told) == 5
    assert sum("resumed" in line for line in told) == 1
    assert [command[-3:] for command in begun] == [["-m", "pipelines", "run"]]


@pytest.mark.parametrize(
    "values",
    [
        {"trigger": Trigger("hand", "ana")},
        {"trigger": Trigger("resume", "cron", "", "20260101T000000000000Z-abcdef")},
        {"resumed_by": "just now"},
        {"how": ()},
        {"flow": "rollback", "how": ()},
    ],
)
def test_what_is_not_resumed(tmp_path: Path, begun: list[list[str]], values: dict[str, Any]) -> None:
    if values.get("resumed_by"):
        values = {"resumed_by": records.new_id()}  # not of when the tests were collected
    put(tmp_path, gone(), **{"how": ("run",), **values})
    assert len(reaper.reap(tmp_path, resume=True)) == 1
    assert begun == []


def test_what_came_after_stands_for_what_crashed(tmp_path: Path, begun: list[list[str]]) -> None:
    put(tmp_path, gone(), how=("run",))
    with recorded(tmp_path, "train"):
        pass
    assert reaper.reap(tmp_path, resume=True) == []
    assert [one.state for one in runs.history(tmp_path)] == ["done", "crashed"]
    assert begun == []


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Notices."""
    from pipelines import notices

    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(notices, "notice", lambda root, event, text, run_id="": sent.append((event, run_id)))
    return sent


@pytest.mark.parametrize("flow", ["monitor", "rollback"])
def test_who_marks_a_dead_run_tells_of_it_and_it_is_resumed_all_the_same(
    tmp_path: Path, begun: list[list[str]], told: list[tuple[str, str]], flow: str
) -> None:
    dead = put(tmp_path, gone(), how=("run",))
    with recorded(tmp_path, flow, NIGHTLY, ()):
        assert ("crashed", dead.id) in told or flow in runs.QUICK
    assert told[: 1 if flow == "monitor" else 2].count(("crashed", dead.id)) == 1
    assert read(tmp_path, dead.id).noticed
    lines = reaper.reap(tmp_path, resume=True)
    assert [("crashed" in line, "resumed" in line) for line in lines] == [(False, True)]
    assert told.count(("crashed", dead.id)) == 1
    assert [command[-1] for command in begun] == ["run"]
    assert reaper.reap(tmp_path, resume=True) == []


def test_what_was_marked_and_not_told_is_told_once(tmp_path: Path, told: list[tuple[str, str]]) -> None:
    for _ in range(3):
        put(tmp_path, gone(), state="crashed", ended=1.0)
    threads = [threading.Thread(target=lambda: reaper.reap(tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == len(set(told)) == 3
    old = put(tmp_path, gone(), state="crashed", ended=1.0)
    path = records.place(tmp_path, old.id)
    raw = json.loads(path.read_text("utf-8"))
    del raw["noticed"]  # as versions wrote it that kept no account
    path.write_text(json.dumps(raw), "utf-8")
    assert reaper.reap(tmp_path) == []


def test_a_keeper_resumes_what_the_next_run_marked_first(tmp_path: Path) -> None:
    left = str(records.place(tmp_path, put(tmp_path, gone(), state="crashed", ended=1.0, noticed=True).id))
    assert keeper._is_left(left, True)
    assert not keeper._is_left(left, False)
    untold = str(records.place(tmp_path, put(tmp_path, gone(), state="crashed", ended=1.0).id))
    assert keeper._is_left(untold, False)
    done = str(records.place(tmp_path, put(tmp_path, gone(), state="done", ended=1.0).id))
    assert not keeper._is_left(done, True)


def test_what_cannot_be_started_again_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = put(tmp_path, gone(), how=("run",))

    def fail(*_: Any) -> int:
        raise OSError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(keeper, "spawn", fail)
        assert "could not be resumed yet: Resource temporarily" in reaper.reap(tmp_path, resume=True)[1]
    assert read(tmp_path, one.id).resumed_by == ""
    monkeypatch.setattr(keeper, "spawn", lambda *_: 0)
    assert "is resumed as" in reaper.reap(tmp_path, resume=True)[0]


def test_a_resumed_run_that_never_began_is_told_once_and_not_resumed(
    tmp_path: Path, begun: list[list[str]], told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = put(tmp_path, gone(), how=("run",))
    reaper.reap(tmp_path, resume=True)
    again = read(tmp_path, one.id).resumed_by
    assert reaper.reap(tmp_path, resume=True) == []
    later = time.time() + reaper.PATIENCE + 5
    monkeypatch.setattr(reaper.time, "time", lambda: later)
    assert [again in line and f"{again}.log" in line for line in reaper.reap(tmp_path, resume=True)] == [True]
    assert reaper.reap(tmp_path, resume=True) == []
    never = read(tmp_path, again)
    assert (never.state, never.of, never.trigger.kind) == ("crashed", one.id, "resume")
    assert told == [("crashed", one.id), ("crashed", again)]
    assert len(begun) == 1


def test_a_part_is_resumed_with_the_whole(tmp_path: Path, begun: list[list[str]]) -> None:
    whole = put(tmp_path, gone(), flow="monitor", how=("monitor",))
    put(tmp_path, gone(), trigger=Trigger("drift", "monitor"), how=("run",), within=whole.id)
    reaper.reap(tmp_path, resume=True)
    assert [command[-1] for command in begun] == ["monitor"]


# --- the command line ---


def test_runs_are_shown(finished_project: Path) -> None:
    assert miniature.line(finished_project, "runs").stdout.strip() == "No run is recorded yet."
    done = miniature.line(finished_project, "repro", "--because", "to see\nit")
    assert done.returncode == 0, done.stderr
    shown = miniature.line(finished_project, "runs").stdout.splitlines()
    assert shown[0].split() == ["when", "took", "flow", "triggered", "by", "ended", "why"]
    assert "to see it" in shown[1]
    assert "unchanged" in shown[1]
    raw = json.loads(miniature.line(finished_project, "runs", "--json").stdout)
    assert [(one["state"], one["alive"], one["trigger"]["cause"]) for one in raw] == [
        ("unchanged", False, "to see\nit")
    ]
    bad = miniature.line(finished_project, "runs", "--last", "0")
    assert (bad.returncode, bad.stderr.strip()) == (2, "--last: 0 runs cannot be shown; give 1 or more")


@pytest.mark.parametrize(
    "words",
    [
        "repro", "run", "monitor", "promote", "rollback", "backtest --date date", "sweep --over run.seed --values [1]",
        "tune --minutes 1",
    ],
)  # fmt: skip
def test_no_command_leaves_anything_in_an_empty_folder(tmp_path: Path, repository: Path, words: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**miniature.environment(), "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *words.split(" ")], cwd=empty, env=environment, capture_output=True,
        check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Run from a project's root" in done.stderr
    assert list(empty.iterdir()) == []


def test_a_run_that_finds_nothing_to_do_has_no_keeper_and_one_that_works_has(
    finished_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import dvc_cli, line

    kept: list[str] = []
    monkeypatch.setattr(keeper, "start", lambda *words: kept.append(words[0]))
    assert line.repro(finished_project, None) == 0
    assert kept == []
    monkeypatch.setattr(dvc_cli, "repro", lambda *_: dvc_cli.Outcome((), (), (), ()))
    monkeypatch.setattr(line, "_nothing_to_do", lambda _: False)
    monkeypatch.setattr(line, "checked", lambda *_: "")
    line.repro(finished_project, None)
    assert kept == [str(finished_project)]
    for flow in ("monitor", "backtest", "sweep", "promote", "rollback"):
        with recorded(finished_project, flow, NIGHTLY):
            pass
    assert len(kept) == 4


def test_make_clean_leaves_records_and_what_is_held(finished_project: Path, repository: Path) -> None:
    import fcntl
    import shutil

    if shutil.which("make") is None:
        pytest.skip("make is not here")
    shutil.copy(repository / "Makefile", finished_project)
    top = finished_project / ".graftline"
    kept = [
        "runs/a.json", "notices.jsonl", "prefect/prefect.db", "monitor/lock", "run.lock", "serve.json", "watch.json",
        "locks/ingest",
    ]  # fmt: skip
    shutil.rmtree(top, ignore_errors=True)
    for name in (*kept, "finetune/abc/step", "decisions.json"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    if shutil.which("flock"):
        with (top / "run.lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            refused = miniature.call(finished_project, "make", "clean")
            assert refused.returncode == 2
            assert "A run works here" in refused.stdout
        assert (top / "decisions.json").exists()
    assert miniature.call(finished_project, "make", "clean").returncode == 0
    assert sorted(p.relative_to(top).as_posix() for p in top.rglob("*") if p.is_file()) == sorted(kept)
    assert not (finished_project / "reports").exists()
    shutil.rmtree(top)
    assert miniature.call(finished_project, "make", "clean").returncode == 0


def test_a_second_thread_waits_for_its_turn_and_the_same_one_does_not(finished_project: Path) -> None:
    from pipelines import dvc_cli

    for turn in (dvc_cli.turn, clones.turn):
        told: list[str] = []

        def go_in(turn: Any = turn, told: list[str] = told) -> None:
            with turn(finished_project):
                told.append("in")

        with turn(finished_project), turn(finished_project):
            thread = threading.Thread(target=go_in)
            thread.start()
            thread.join(0.5)
            assert told == []
        thread.join(10)
        assert told == ["in"]


def test_who_waited_for_a_lock_that_was_removed_meanwhile_takes_the_new_one(finished_project: Path) -> None:
    from pipelines import dvc_cli

    path = finished_project / ".graftline" / "run.lock"
    inside: list[int] = []

    def go_in() -> None:
        with dvc_cli.turn(finished_project):
            inside.append(path.stat().st_ino)
            time.sleep(0.5)

    with dvc_cli.turn(finished_project):
        threads = [threading.Thread(target=go_in) for _ in range(2)]
        threads[0].start()
        time.sleep(0.5)
        path.unlink()
    until(lambda: inside, 10)
    began = time.monotonic()
    threads[1].start()
    threads[1].join(10)
    threads[0].join(10)
    assert len(inside) == 2
    assert inside[0] == inside[1], "both hold the file that is there"
    assert time.monotonic() - began > 0.6, "one after the other"


def test_a_mistake_is_recorded_and_what_is_no_project_is_left_as_it_was(finished_project: Path, tmp_path: Path) -> None:
    miniature.turn_knob(finished_project, "at_least: 1.0", "at_least: [")
    assert miniature.line(finished_project, "repro").returncode == 2
    assert runs.history(finished_project)[0].state == "mistake"
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**miniature.environment(), "PYTHONPATH": str(finished_project)}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "repro"], cwd=empty, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert list(empty.iterdir()) == []


# --- clones that share a cache ---

IN_TURN = """
import sys, time
from pathlib import Path
from pipelines import clones
with clones.turn(Path(sys.argv[1])):
    print("in turn", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def in_turn(root: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", IN_TURN, str(root), str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(runs.__file__).parent.parent)}, text=True,
    )  # fmt: skip


def locks(root: Path) -> list[Path]:
    return list((clones.cache(root) / clones.FOLDER / clones.TURNS).iterdir())


def test_the_same_inputs_wait_for_each_other_and_others_do_not(finished_project: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    history.clone_project(finished_project, clone)
    assert clones.cache(clone) == clones.cache(finished_project) == finished_project / ".dvc" / "cache"
    assert clones.key(clone) == clones.key(finished_project)
    with clones.turn(finished_project):
        other = in_turn(clone, 0)
        assert other.stderr is not None
        assert f"in {finished_project}). Waiting for it" in other.stderr.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
    assert other.communicate(timeout=10)[0] == "in turn\n"
    assert locks(clone) == []
    miniature.turn_knob(clone, "seed: 1", "seed: 2")
    with clones.turn(finished_project), clones.turn(clone):
        assert len(locks(clone)) == 2


def test_the_code_that_is_used_counts_and_other_code_does_not(finished_project: Path) -> None:
    before = clones.key(finished_project)
    (finished_project / "components" / "unused.py").write_text("")
    assert clones.key(finished_project) == before
    with (finished_project / "components" / "gate" / "stage.py").open("a") as handle:
        handle.write("# changed")
    assert clones.key(finished_project) != before


def test_a_holder_that_died_frees_the_clones(finished_project: Path) -> None:
    child = in_turn(finished_project, 60)
    assert child.stdout is not None
    assert child.stdout.readline() == "in turn\n"
    child.kill()
    child.communicate()
    began = time.monotonic()
    with clones.turn(finished_project):
        assert time.monotonic() - began < 5


# --- Prefect ---


def _state_of(flow_run_id: str) -> Any:
    from uuid import UUID

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run_id)).state


def _open_tasks(flow_run_id: str) -> list[str]:
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    with get_client(sync_client=True) as client:
        mine = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
        return [one.name for one in client.read_task_runs(flow_run_filter=mine) if not one.state.is_final()]


@pytest.mark.parametrize("kind", ["hand", "event"])
def test_a_killed_run_is_crashed_in_prefect_and_an_unwatched_one_runs_again(
    new_project: Path, prefect_server: None, kind: str
) -> None:
    from prefect.settings import PREFECT_API_URL

    url = str(PREFECT_API_URL.value())
    miniature.turn_knob(new_project, "pause: 0", "pause: 3")
    environment = {**miniature.environment(), "PREFECT_API_URL": url, triggers.VARIABLE: f"{kind}: a test"}
    child = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "run"], cwd=new_project, env=environment, process_group=0,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: (new_project / "reports" / "ingest" / "pid").exists(), 60)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    killed = time.monotonic()
    name = min(one.id for one in runs.history(new_project))
    flow_run = read(new_project, name).flow_run_id
    assert _state_of(flow_run).name == "Running"
    until(lambda: _state_of(flow_run).name == "Crashed", 60)
    assert time.monotonic() - killed < 60
    crashed = until(lambda: (one := read(new_project, name)).shown and one, 5)
    assert crashed.told in _state_of(flow_run).message
    assert _open_tasks(flow_run) == []
    if kind == "hand":
        assert len(runs.history(new_project)) == 1
        return
    again = until(lambda: [one for one in runs.history(new_project) if one.of], 30)[0]
    until(lambda: read(new_project, again.id).ended, 90)
    again = read(new_project, again.id)
    assert (again.state, again.of, len(again.ran)) == ("done", name, 5)
    assert _state_of(again.flow_run_id).name == "Completed"
    assert len(runs.history(new_project)) == 2


def test_what_died_with_its_server_is_marked_on_the_next_one(tmp_path: Path, prefect_server: None) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL
    from prefect.states import Running

    from pipelines.flows import crashed

    @flow
    def left() -> None:
        """Never called."""

    with get_client(sync_client=True) as client:
        flow_runs = [client.create_flow_run(left, state=Running()) for _ in range(2)]
        tagged = client.create_flow_run(left, state=Running(), tags=[crashed.TAG + "20260101T000000000000Z-abcdef"])
    url, nobody = str(PREFECT_API_URL.value()), "http://127.0.0.1:9/api"
    values: dict[str, Any] = {"ended": 1.0, "state": "crashed", "told": "killed", "api_url": nobody}
    values["noticed"] = True
    known = put(tmp_path, gone(), **values, flow_run_id=str(flow_runs[0].id))
    unnoted = put(tmp_path, gone(), **values, id="20260101T000000000000Z-abcdef")
    assert reaper.reap(tmp_path) == []
    assert not read(tmp_path, known.id).shown
    crashed.catch_up(tmp_path, url)
    assert read(tmp_path, known.id).shown
    assert read(tmp_path, unnoted.id).shown
    found = [_state_of(str(one.id)) for one in (flow_runs[0], tagged, flow_runs[1])]
    assert [(state.name, state.message) for state in found] == [("Crashed", "killed")] * 2 + [("Running", None)]
    assert not crashed.mark("00000000-0000-4000-8000-000000000000", url, "nobody's")
    assert not crashed.mark(known.flow_run_id, nobody, "no server")
