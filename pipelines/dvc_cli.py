"""The one door to DVC: what is stale, run it, push, pull.

Everything here runs inside `turn(root)`: one run at a time, others wait, and what a killed DVC left behind is
mended first.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from components.contracts import read_json, write_atomic
from pipelines import dag, processes, staleness, sweep
from pipelines.staleness import DvcError

DONE, FAULT, MISTAKE, REFUSED, TIMED_OUT, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 124, 130, 143

DIED = re.compile(r"failed to run: python -m pipelines\.stage (\w+), exited with (-?\d+)")
T = TypeVar("T")
_BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")
"""What DVC says where another DVC works."""


@dataclass(frozen=True)
class Outcome:
    """What became of the stages asked for: each is in one of four tuples, in the order of the line."""

    ran: tuple[str, ...]
    unchanged: tuple[str, ...]
    """As recorded in dvc.lock; outputs that were missing came from DVC's cache."""
    failed: tuple[str, ...]
    left_out: tuple[str, ...]
    """Not run, because they need a stage that failed."""
    code: int = DONE
    """Exit code of the first stage that failed."""
    told: str = ""
    """Why, in that stage's words."""


def say(text: str) -> None:
    """One line to whoever watches."""
    print(text, file=sys.stderr, flush=True)


# --- whose turn it is, and mending ---

_HELD: set[Path] = set()


@contextmanager
def turn(root: Path) -> Iterator[None]:
    """Hold the project for one run: wait where another has it, then mend what a killed DVC left behind."""
    root = root.resolve()
    if root in _HELD:
        yield
        return
    path = root / ".graftline" / "run.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            say(f"Another run (process {handle.read() or '?'}) works in {root}; waiting for it to end.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        handle.truncate()
        handle.write(str(os.getpid()))
        handle.flush()
        _wait_for_plain_dvc(root)
        with _dvc_lock(root):
            heal(root)
        sweep.sweep(root)
        _HELD.add(root)
        try:
            yield
        finally:
            sweep.in_order(root)
            _HELD.discard(root)


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
    while living := _living_dvc(root):
        if not told:
            say(f"A `dvc` command (process {living[0]}) works in {root}; waiting for it to end.")
            told = True
        time.sleep(0.5)


def _living_dvc(root: Path) -> list[int]:
    """Live processes that hold DVC's rwlock. If there is none, what a killed one left in it is removed.

    DVC removes entries of processes that are gone by itself; it refuses an empty file, and for ever waits for
    one that is a zombie (as in a container whose first process does not collect its children) or whose number
    another process bears by now.
    """
    path = root / ".dvc" / "tmp" / "rwlock"
    if not path.exists():
        return []
    with path.with_name("rwlock.lock").open("a+") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # DVC writes the file in place, under this same lock
        try:
            held = json.loads(path.read_text("utf-8"))
            infos = [*held.get("write", {}).values(), *(i for many in held.get("read", {}).values() for i in many)]
            living = sorted({int(i["pid"]) for i in infos if _is_dvc(int(i["pid"]))} - {os.getpid()})
        except FileNotFoundError:
            return []
        except (ValueError, AttributeError, KeyError, TypeError):
            path.unlink()
            say("Mended: .dvc/tmp/rwlock was unreadable, as an interrupted DVC leaves it; removed.")
            return []
        if infos and not living:
            path.unlink()
    return living


def _is_dvc(pid: int) -> bool:
    try:
        return b"dvc" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def heal(root: Path) -> None:
    """Bring back a dvc.lock that a killed DVC left empty or cut off: from git's last commit, or none."""
    path = root / "dvc.lock"
    if not path.exists() or staleness.locked_stages(path.read_bytes()) is not None:
        return
    code, committed, _ = processes.quietly(["git", "show", "HEAD:./dvc.lock"], root)
    usable = code == 0 and staleness.locked_stages(committed) is not None
    if usable:
        write_atomic(path, committed)
    else:
        path.unlink()
    how = "restored from git's last commit" if usable else "removed, as git has none"
    say(f"Mended: dvc.lock was cut off, as an interrupted DVC leaves it; {how}.")
    say("  What ran since then comes back from DVC's cache without running again.")


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
    find in their environment besides ours.

    Raises:
        DvcError: DVC itself could not do it.
    """
    root = root.resolve()
    line = dag.load(root)
    options = ["--single-item", stage] if stage else ["--keep-going"]
    with turn(root):
        started = time.time()
        code, text = _dvc(root, ["repro", *options], on_line, stage is None, besides)
        while code and any(word in text for word in _BUSY):  # a plain `dvc` came between two of our stages
            time.sleep(0.5)
            _wait_for_plain_dvc(root)
            code, text = _dvc(root, ["repro", *options], on_line, stage is None, besides)
        asked = [s for s in line if stage in (None, s.name)]
        states = {s.name: status_of(root, s.name, started) for s in asked}
    for name, died in DIED.findall(text):
        states[name] = states[name] or {"exit_code": FAULT, "told": death(int(died))}
    failed = [s.name for s in asked if (states[s.name] or {}).get("exit_code")]
    if code < 0 and not failed:
        return Outcome((), (), (), tuple(s.name for s in asked), FAULT, f"DVC: {death(code)}")
    if code and not failed:
        raise DvcError(f"DVC: {last_words(text, code)}")
    ran = [s.name for s in asked if states[s.name] and s.name not in failed]
    left_out = needing(asked, failed)
    first = states[failed[0]] if failed else None
    unchanged = [s.name for s in asked if s.name not in {*ran, *failed, *left_out}]
    return Outcome(
        tuple(ran), tuple(unchanged), tuple(failed), left_out,
        code=first["exit_code"] if first else DONE, told=first["told"] if first else "",
    )  # fmt: skip


def needing(line: Iterable[dag.Stage], some: Iterable[str]) -> tuple[str, ...]:
    """The stages that need one of those, directly or not."""
    given, reached = set(some), set(some)
    for one in line:  # each after those that it reads
        if reached & set(one.parents):
            reached.add(one.name)
    return tuple(s.name for s in line if s.name in reached - given)


def status_of(root: Path, stage: str, since: float) -> dict[str, Any] | None:
    """What the stage wrote about its run, if it ran since then."""
    try:
        status = read_json(root / "reports" / stage / "status.json")
        return status if status["started"] >= since else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def death(code: int) -> str:
    """Why a process without a word is gone, by its exit code."""
    if code == -signal.SIGKILL:
        return "it was killed (signal 9), as happens when memory runs out; give it less to hold and run again"
    return (
        f"it was ended by signal {-code}; run again to go on" if code < 0 else f"it ended with {code}, without a word"
    )


def last_words(text: str, code: int) -> str:
    """What DVC complained of."""
    lines = [line for line in text.splitlines() if line.strip()]
    error = next(
        (i for i, line in enumerate(lines) if line.startswith("ERROR: ") or "validation failed" in line),
        max(0, len(lines) - 5),
    )
    return "\n".join(lines[error:]).removeprefix("ERROR: ") or f"ended with {code}, without a word"


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


def gc(root: Path, keep: str, projects: Iterable[Path], dry: bool) -> list[Path]:
    """Remove from DVC's cache what neither the work tree, nor the tags or commits (`keep`) of this project and of the
    other `projects` name; inside `turn` of all of them. With `dry` nothing goes: the contents that would.

    Raises:
        DvcError: with DVC's own message.
    """
    shared = ["--projects", *map(str, projects)]
    options = ["gc", "--force", "--workspace", f"--all-{keep}", *(shared if shared[1:] else [])]
    if not dry:
        code, text = _dvc(root.resolve(), options, chatter=False)
        if code:
            raise DvcError(f"dvc gc: {last_words(text, code)}")
        return []
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    code, out, text = processes.quietly([sys.executable, "-m", "dvc", *options, "--dry"], root, environment=environment)
    if code:
        raise DvcError(f"dvc gc: {last_words(text, code)}")
    prefix = "Removing "
    return [Path(line.removeprefix(prefix)) for line in out.decode().splitlines() if line.startswith(prefix)]


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
) -> tuple[int, str]:
    command = [sys.executable, "-m", "dvc", *arguments]
    return processes.watched(command, root, environment(besides), on_line, chatter)


def environment(besides: Mapping[str, str] | None = None) -> dict[str, str]:
    """What DVC and its stages find in theirs."""
    # Stages must find this interpreter as `python`. Bash becomes the command and does not stay between.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {
        **os.environ, **(besides or {}), "PATH": path, "SHELL": shutil.which("bash") or "/bin/sh",
        "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1",
    }  # fmt: skip
