"""The one door to DVC: what is stale, run it, push, pull.

Everything here runs inside `turn(root)`: one run at a time, others wait, and what a killed DVC left behind is
mended first.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from pipelines import clones, dag, limits, outcomes, processes, staleness, sweep
from pipelines.limits import Clock
from pipelines.mending import heal, living_dvc, say
from pipelines.outcomes import (  # noqa: F401 - most of them for those who ask DVC through here
    DONE,
    FAULT,
    INTERRUPTED,
    MISTAKE,
    REFUSED,
    TERMINATED,
    TIMED_OUT,
    Outcome,
    death,
    last_words,
    needing,
    status_of,
)
from pipelines.staleness import DvcError

T = TypeVar("T")
_BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")
"""What DVC says where another DVC works."""
_TURN = re.compile(r"(Running stage|Stage) '(?:.*:)?(\w+)'")
"""Which stage it comes to, as it says it: to run it, or not."""


# --- whose turn it is, and mending ---

_HELD: set[tuple[Path, int]] = set()
"""Project and thread: another thread of this process waits like another process."""


@contextmanager
def turn(root: Path) -> Iterator[None]:
    """Hold the project for one run: wait where another has it, then mend what a killed DVC left behind. Within its turn
    a thread has it already."""
    root = root.resolve()
    mine = (root, threading.get_ident())
    if mine in _HELD:
        yield
        return
    with _taken(root):
        _wait_for_plain_dvc(root)
        with _dvc_lock(root):
            heal(root)
        sweep.sweep(root)
        clones.note(root)
        _HELD.add(mine)
        try:
            yield
        finally:
            sweep.in_order(root)
            _HELD.discard(mine)


def _taken(root: Path) -> IO[str]:
    """The project's lock, held until it is closed."""
    path = root / ".graftline" / "run.lock"
    while True:
        path.parent.mkdir(exist_ok=True)
        handle = path.open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            say(f"Another run (process {handle.read() or '?'}) works in {root}; waiting for it to end.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                break
        handle.close()  # somebody removed it meanwhile; another may have made it anew
    handle.seek(0)
    handle.truncate()
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


@contextmanager
def _dvc_lock(root: Path) -> Iterator[None]:
    """Hold DVC's own lock: a plain `dvc` that works, and is between two stages, has dvc.lock cut off for a moment."""
    folder = root / ".dvc" / "tmp"
    if not folder.is_dir():
        yield
        return
    with (folder / "lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"A `dvc` command works in {root}; waiting for it.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _past_others(root: Path, ask: Callable[[], T]) -> T:
    """What DVC answers, once no plain `dvc` that came meanwhile is in its way."""
    while True:
        try:
            return ask()
        except DvcError as error:
            if not any(word in str(error) for word in _BUSY):
                raise
        time.sleep(0.5)
        _wait_for_plain_dvc(root)


def _wait_for_plain_dvc(root: Path) -> None:
    told = False
    while living := living_dvc(root):
        if not told:
            say(f"A `dvc` command (process {living[0]}) works in {root}; waiting for it to end.")
            told = True
        time.sleep(0.5)


# --- what is stale, in process ---


def stale(root: Path, stage: str | None = None) -> dict[str, list[str]]:
    """Stage -> why DVC would run it now, in plain words, in the order of the line. Empty: nothing to do.

    Stages that only wait for a stale one are not named: whether they run is known when that one has.

    Raises:
        DvcError: DVC cannot tell.
    """
    root = root.resolve()
    with turn(root):
        told = staleness.reasons(root, _past_others(root, lambda: staleness.changed(root, stage)))
    return {one.name: told[one.name] for one in dag.load(root) if one.name in told} if told else {}


# --- running ---


def repro(
    root: Path,
    stage: str | None = None,
    on_line: Callable[[str], None] | None = None,
    besides: Mapping[str, str] | None = None,
) -> Outcome:
    """Let DVC run the whole line; or one stage, without looking upstream (right only in the line's order).

    The whole line goes on past a failed stage with those that do not need it; a refusal still has its report.
    What DVC and the stages print goes to stderr as it comes; `on_line` gets each line too. `besides` is what the stages
    find in their environment besides ours. What takes longer than infra/operations.yaml lets it is ended.

    Raises:
        DvcError: DVC itself could not do it.
    """
    root = root.resolve()
    asked = [s for s in dag.load(root) if stage in (None, s.name)]
    options = ["--single-item", stage] if stage else ["--keep-going"]
    with turn(root):
        started, clock = time.time(), Clock(limits.of(root))
        try:
            code, text = _reproduced(root, options, on_line, besides, clock)
        except TimeoutError:
            states = {s.name: status_of(root, s.name, started) for s in asked}
            return outcomes.cut_off(asked, states, clock.stage, clock.told)
        states = {s.name: status_of(root, s.name, started) for s in asked}
    return outcomes.judged(asked, states, code, text)


def _reproduced(
    root: Path,
    options: list[str],
    on_line: Callable[[str], None] | None,
    besides: Mapping[str, str] | None,
    clock: Clock,
) -> tuple[int, str]:
    whole = "--single-item" not in options
    clock.begin("" if whole else options[-1])

    def heard(text: str) -> None:
        if found := _TURN.match(text) if whole else None:
            clock.begin(found[2] if found[1] == "Running stage" else "")
        if on_line:
            on_line(text)

    while True:
        code, text = _dvc(root, ["repro", *options], heard, whole, besides, clock)
        if not code or not any(word in text for word in _BUSY):
            return code, text
        time.sleep(0.5)  # a plain `dvc` came between two of our stages
        _wait_for_plain_dvc(root)


def cache_folder(root: Path) -> Path:
    """Where DVC keeps contents by their md5, as the project's settings say.

    Raises:
        DvcError: the folder is no DVC project.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            return Path(repo.cache.local.path)
    except DvcException as error:
        raise DvcError(f"DVC: {error}") from None


def push(root: Path) -> None:
    """Send what DVC's cache holds to the remote.

    Raises:
        DvcError: with DVC's own message.
    """
    _plain(root, "push")


def pull(root: Path) -> None:
    """Fetch the recorded outputs from the remote.

    Raises:
        DvcError: with DVC's own message.
    """
    _plain(root, "pull")


KEPT = {"commits": ["--all-commits"], "tags": ["--all-tags", "--all-branches"]}
"""keep.dvc_cache -> what of git's history DVC is told to keep."""


def gc(root: Path, keep: str, projects: Iterable[Path]) -> list[Path]:
    """Contents of DVC's cache that neither a work tree, nor the commits, or the tags and the heads of branches (`keep`)
    of this project and of the other `projects` name; inside `turn` of all of them. Nothing is removed.

    Raises:
        DvcError: with DVC's own message.
    """
    shared = ["--projects", *map(str, projects)]
    options = ["gc", "--force", "--workspace", *KEPT[keep], *(shared if shared[1:] else []), "--dry"]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    code, out, text = processes.quietly([sys.executable, "-m", "dvc", *options], root, environment=environment)
    if code:
        raise DvcError(f"dvc gc: {last_words(text, code)}")
    prefix = "Removing "
    return [
        Path(os.fsdecode(one.removeprefix(prefix.encode())))
        for one in out.splitlines()
        if one.startswith(prefix.encode())
    ]


def _plain(root: Path, command: str) -> None:
    with turn(root):
        code, text = _dvc(root.resolve(), [command], None)
    if code:
        raise DvcError(f"dvc {command}: {last_words(text, code)}")


def _dvc(
    root: Path,
    arguments: list[str],
    on_line: Callable[[str], None] | None = None,
    chatter: bool = True,
    besides: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> tuple[int, str]:
    command = [sys.executable, "-m", "dvc", *arguments]
    return processes.watched(
        command, root, environment(besides), on_line, chatter, (lambda: clock.until) if clock else None
    )


def environment(besides: Mapping[str, str] | None = None) -> dict[str, str]:
    """What DVC and its stages find in theirs."""
    # Stages must find this interpreter as `python`. Bash becomes the command and does not stay between.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {
        **os.environ, **(besides or {}), "PATH": path, "SHELL": shutil.which("bash") or "/bin/sh",
        "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1",
    }  # fmt: skip
