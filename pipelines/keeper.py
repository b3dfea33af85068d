"""The keeper: a tiny process beside a run, which notices that it died and has that marked.

It is a session of its own, so that what ends the run's process group does not end it. It holds one end of a pipe whose
other end only the run has: when the run ends its record it closes the pipe, and when it dies the kernel does. So the
keeper sleeps in between, but for a touch of the lease's file every five minutes, and costs nothing. It imports nothing
but what comes with Python, holds no lock and no descriptor of the run, and its working folder is /, so that it is in
nobody's way.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Mapping

_WITHIN = "import os, sys; os.closerange(3, 4096); os.chdir(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"
SIGN = 300
"""Seconds between two signs of life, for those on other machines."""
_STARTED: set[int] = set()
"""Processes that we started and did not collect yet."""


class Watch:
    """The run's side."""

    def __init__(self, pid: int, pipe: int) -> None:
        self._pid, self._pipe = pid, pipe

    def dismiss(self) -> None:
        """The record is ended; the keeper may go."""
        os.close(self._pipe)
        for _ in range(5):
            collect()
            if self._pid not in _STARTED:
                return
            time.sleep(0.001)


def start(root: str, record: str, log: str, resume: bool) -> Watch | None:
    """Put one beside this process; None where the system does not let us."""
    reader, writer = os.pipe()
    words = [record, root, str(os.getpid()), log, "resume" if resume else "mark"]
    try:
        pid = spawn([sys.executable, "-ISE", __file__, *words], {}, "/dev/null", reader)
    except OSError:
        os.close(writer)
        return None
    finally:
        os.close(reader)
    return Watch(pid, writer)


def spawn(command: list[str], besides: Mapping[str, str], log: str, given: int | None = None) -> int:
    """Start a process as a session of its own that outlives us, its words going to `log`; its number."""
    collect()
    out = (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    into = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
    actions = [(os.POSIX_SPAWN_DUP2, given, 0) if given is not None else into, out, (os.POSIX_SPAWN_DUP2, 1, 2)]
    # What a run of Prefect has in its environment would make ours take itself for that one, or for serve's child.
    not_its = ("PREFECT__", "GRAFTLINE_SERVED")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(not_its)}
    environment |= besides
    heard = (signal.SIGINT, signal.SIGPIPE)  # a shell or Python may have them ignored
    pid = os.posix_spawn(
        command[0], command, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=heard
    )
    _STARTED.add(pid)
    return pid


def within(folder: str, command: list[str]) -> list[str]:
    """The command, run in that folder, without descriptors of ours."""
    return [sys.executable, "-ISEc", _WITHIN, folder, *command]


def collect() -> None:
    """Leave no zombie of those that ended."""
    for pid in tuple(_STARTED):
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                _STARTED.discard(pid)
        except ChildProcessError:
            _STARTED.discard(pid)


def _keep(record: str, root: str, pid: int, log: str, resume: bool) -> None:
    os.chdir("/")
    os.closerange(3, 4096)
    handle = _handle(pid)
    waiting = select.poll()
    for descriptor in (0, handle):
        if descriptor is not None:
            waiting.register(descriptor, select.POLLIN | select.POLLHUP)
    while not waiting.poll(SIGN * 1000):
        _sign(record)
    how = _how(handle) if _is_open(record) else ""
    while _is_open(record) and _lives(pid, handle):
        _sign(record)
        time.sleep(1)  # somebody closed the run's descriptors, and it goes on
    if not _is_open(record) and not _is_left(record, resume):
        return
    command = [sys.executable, "-m", "pipelines", "reap", *(["--resume"] if resume else [])]
    try:
        os.chdir(root)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor in (1, 2):
            os.dup2(out, descriptor)
    except OSError:
        return  # the project is gone
    name = os.path.basename(record).removesuffix(".json")
    os.execve(command[0], command, {**os.environ, "GRAFTLINE_DEATH": f"{name} {how}".strip()})


def _sign(record: str) -> None:
    with contextlib.suppress(OSError):  # the run just ended, or the project is gone
        os.utime(record.removesuffix(".json") + ".alive")


def _is_open(record: str) -> bool:
    """Whether the run's record is there and not ended."""
    return _read(record).get("ended", 0) is None


def _is_left(record: str, resume: bool) -> bool:
    """Whether somebody else marked it as crashed already, and left it at that."""
    told = _read(record)
    todo = not told.get("noticed", True) or (resume and not told.get("resumed_by", "-"))
    return told.get("state") == "crashed" and todo


def _read(record: str) -> dict[str, object]:
    import json

    try:
        with open(record, encoding="utf-8") as handle:
            told = json.load(handle)
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _handle(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return None


def _lives(pid: int, handle: int | None) -> bool:
    if handle is not None:
        return not select.select([handle], [], [], 0)[0]
    return os.getppid() == pid  # we are its child as long as it lives


def _how(handle: int | None) -> str:
    """How a process ended, in words: kernels from 6.15 tell it to others than the parent too, once that has collected
    it. Empty: unknown."""
    import fcntl
    import struct

    if handle is None:
        return ""
    size, wish = 64, 1 << 3  # struct pidfd_info up to exit_code, which is its last field; PIDFD_INFO_EXIT
    request = 3 << 30 | size << 16 | 0xFF << 8 | 11  # PIDFD_GET_INFO
    for _ in range(10):
        told = bytearray(struct.pack("Q", wish).ljust(size, b"\0"))
        try:
            fcntl.ioctl(handle, request, told)
        except OSError:
            return ""
        if struct.unpack_from("Q", told)[0] & wish:
            status = struct.unpack_from("i", told, size - 4)[0]
            return _words(os.waitstatus_to_exitcode(status))
        time.sleep(0.1)
    return ""


def _words(code: int) -> str:
    if code == -signal.SIGKILL:
        return "it was killed (signal 9), as by kill -9 or for lack of memory"
    if code < 0:
        return f"it was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"it ended with {code}, without a word"


if __name__ == "__main__":
    _keep(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5] == "resume")
