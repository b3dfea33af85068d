"""The watch of serve: what counts as new data, and that looking for them keeps nothing else waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import served

from components.monitoring import folders
from pipelines import operations, reaper
from pipelines.flows import watch
from pipelines.flows.watch import NewData

MONITOR = uuid4()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pipelines" / "flows").mkdir(parents=True)
    served.prepare(tmp_path)
    (tmp_path / "params.yaml").write_text("ingest: {data: incoming}\n")
    (tmp_path / "incoming").mkdir()
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Prefect's server was asked to run; it answers a key that it knows with the old run, as the real one."""
    came: dict[str, dict[str, Any]] = {}
    found: list[dict[str, Any]] = []

    class Client:
        def create_flow_run_from_deployment(self, deployment: UUID, **given: Any) -> None:
            if given["idempotency_key"] not in came:
                came[given["idempotency_key"]] = given
                found.append({"deployment": deployment, **given["parameters"]})

    @contextmanager
    def client(sync_client: bool) -> Iterator[Client]:
        yield Client()

    monkeypatch.setattr(watch, "get_client", client)
    return found


@contextmanager
def kept_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GRAFTLINE_WATCH_SECONDS", "0.05")
    over = threading.Event()
    settings = operations.read(root)
    thread = threading.Thread(target=watch.keep_on, args=(root, {"monitor": MONITOR}, settings, over))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)
        assert not thread.is_alive()


def change(root: Path, before: str, after: str) -> None:
    path = root / "infra" / "operations.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def until(holds: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- what is new ---


def test_data_count_as_new_once_they_have_settled_and_once(tmp_path: Path) -> None:
    place = tmp_path / "incoming"
    place.mkdir()
    (place / "a.png").write_bytes(b"1")
    data = NewData(tmp_path, place)
    assert data.look() == ""  # what was there before is the schedule's
    assert data.look() == ""
    (place / "b.png").write_bytes(b"2")
    assert data.look() == ""  # it may still grow
    (place / "b.png").write_bytes(b"2, and more")
    assert data.look() == ""
    assert data.look() == "incoming: 2 files, +1 since the last look"
    assert data.look() == "incoming: 2 files, +1 since the last look"  # until somebody was told
    data.told()
    assert data.look() == ""


def test_data_that_came_while_nobody_served_are_new(tmp_path: Path) -> None:
    place = tmp_path / "incoming"
    NewData(tmp_path, place).look()  # not even a folder
    place.mkdir()
    (place / "a.png").write_bytes(b"1")
    again = NewData(tmp_path, place)
    assert (again.look(), again.look()) == ("", "incoming: 1 files, +1 since the last look")
    elsewhere = NewData(tmp_path, tmp_path / "other")
    assert (elsewhere.look(), elsewhere.look()) == ("", "")


def test_a_change_of_size_time_or_name_is_seen(tmp_path: Path) -> None:
    import os

    place = tmp_path / "x"
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "a").write_bytes(b"1")
    seen = [folders.glance(place)]
    os.utime(place / "deep" / "a", ns=(1, 1))
    seen.append(folders.glance(place))
    (place / "deep" / "a").rename(place / "deep" / "b")
    seen.append(folders.glance(place))
    (place / "deep" / "b").write_bytes(b"11")
    seen.append(folders.glance(place))
    assert len({one.mark for one in seen}) == 4
    assert {one.num for one in seen} == {1}
    assert folders.glance(place / "deep" / "b").num == 1


def test_a_link_to_nowhere_or_in_a_circle_hides_nothing_of_what_is_new(tmp_path: Path) -> None:
    place = tmp_path / "incoming"
    place.mkdir()
    (place / "a").symlink_to("nowhere")
    (place / "b").symlink_to(place)
    data = NewData(tmp_path, place)
    assert data.look() == ""
    (place / "c.png").write_bytes(b"1")
    assert (data.look(), data.look()) == ("", "incoming: 3 files, +1 since the last look")


def test_what_comes_back_is_new_again(
    project: Path, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A, B, A, B: Prefect answers a key that it knows with the run of then."""
    import os

    settings, data = operations.read(project), watch.Data(project, {"monitor": MONITOR})
    for there in (False, True, False, True):
        if there:
            (project / "incoming" / "a").write_bytes(b"1")
            os.utime(project / "incoming" / "a", ns=(1, 1))
        else:
            (project / "incoming" / "a").unlink(missing_ok=True)
        data.look(settings)
        data.look(settings)
    assert [one["cause"] for one in asked] == [f"incoming: {n} files, {d} since the last look" for n, d in
                                               ((1, "+1"), (0, "-1"), (1, "+1"))]  # fmt: skip


def test_what_prefect_was_told_of_before_a_crash_is_not_told_twice(project: Path, asked: list[dict[str, Any]]) -> None:
    def cut_off(data: NewData) -> None:
        raise OSError("the disk is full")

    settings = operations.read(project)
    watch.Data(project, {"monitor": MONITOR}).look(settings)
    (project / "incoming" / "a").write_bytes(b"1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NewData, "told", cut_off)
        before = watch.Data(project, {"monitor": MONITOR})
        before.look(settings)
        with pytest.raises(OSError, match="the disk is full"):
            before.look(settings)
    after = watch.Data(project, {"monitor": MONITOR})
    after.look(settings)
    after.look(settings)
    assert len(asked) == 1


# --- two at a time ---


def test_a_folder_that_takes_long_keeps_dead_runs_no_longer(
    project: Path, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, done = list[float](), threading.Event()
    monkeypatch.setattr(reaper, "reap", lambda root, resume: looks.append(time.monotonic()) or [])
    monkeypatch.setattr(folders, "glance", lambda place: done.wait(20) or folders.Glance("x", 0))
    with kept_on(project, monkeypatch):
        until(lambda: len(looks) >= 5)
        assert not done.is_set()
        done.set()


def test_settings_are_read_anew_at_each_look(
    project: Path, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(watch, "SHARE", 0.0)
    monkeypatch.setattr(reaper, "reap", lambda root, resume: seen.append(resume) or [])
    with kept_on(project, monkeypatch):
        until(lambda: True in seen)
        change(project, "resume: true", "resume: false")
        until(lambda: False in seen)
        change(project, "resume: false", "resume: perhaps")  # goes on as before
        num = len(seen)
        until(lambda: len(seen) > num + 3)
        assert seen[-1] is False
        change(project, "resume: perhaps", "resume: true")
        until(lambda: seen[-1] is True)
        (project / "elsewhere").mkdir()
        change(project, "data: null", "data: elsewhere")
        until(lambda: '"elsewhere"' in (project / watch.SEEN).read_text().replace(f"{project}/", ""))
        (project / "elsewhere" / "a").write_bytes(b"1")
        until(lambda: asked)
    assert [(one["deployment"], one["trigger"], one["cause"]) for one in asked] == [
        (MONITOR, "data", "elsewhere: 1 files, +1 since the last look")
    ]
    assert capsys.readouterr().err.count("The watch goes on by the settings as they were before") >= 1
