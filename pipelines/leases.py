"""Leases: tell a live run from a dead one.

A lease names a process so that nothing else can be taken for it: its number, when it started, the boot, the name space
of process numbers, the host. The run also keeps a file beside its record locked (flock), which the kernel frees when
the run is gone: that tells where numbers say nothing, as from another container, or without /proc.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SUFFIX = ".alive"


@dataclass(frozen=True)
class Lease:
    """Who holds a run. What the system does not tell is empty."""

    pid: int = 0
    started: str = ""
    """When the process started, in the kernel's ticks since boot."""
    boot: str = ""
    """The kernel's name of this boot."""
    space: str = ""
    """The name space of process numbers: each container has its own."""
    host: str = ""
    kills: int = 0
    """How many processes the kernel had killed by then because memory ran out."""


def own() -> Lease:
    """Of this process."""
    return Lease(os.getpid(), started(os.getpid()), _boot(), _space(), os.uname().nodename, _kills())


def place(folder: Path, name: str) -> Path:
    """The file that a run keeps locked."""
    return folder / f"{name}{SUFFIX}"


def hold(path: Path) -> IO[bytes]:
    """Lock it until the process is gone, or the handle closed; processes that we start do not inherit it."""
    handle = path.open("ab")
    with contextlib.suppress(OSError):  # a file system without locks: the numbers must do
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def held(folder: Path) -> list[str]:
    """Names of the runs whose file is there: they live, or died without ending their record."""
    try:
        return [entry.removesuffix(SUFFIX) for entry in os.listdir(folder) if entry.endswith(SUFFIX)]
    except OSError:
        return []


def alive(lease: Lease, file: Path) -> bool | None:
    """Whether the holder lives; None: that cannot be known from here, as it ran on another machine."""
    here = (lease.boot, lease.host) == (_boot(), os.uname().nodename)
    if here and lease.space == _space() and lease.started:
        return started(lease.pid) == lease.started
    locked = _locked(file)
    if locked or (here and locked is False):
        return locked
    if lease.host == os.uname().nodename and lease.boot != _boot():
        return False  # the host was started again since
    return False if locked is False and lease.boot and lease.boot == _boot() else None


def why_dead(lease: Lease, seen: str = "") -> str:
    """What can be known of it afterwards. `seen`: what somebody who stood beside it saw."""
    if lease.boot and lease.boot != _boot():
        return "its machine went down or was started again while it ran"
    num = _kills() - lease.kills
    memory = f"; memory ran out on this machine meanwhile ({num} processes were killed for it)" if num > 0 else ""
    return (seen or "it died without a word, as from kill -9 or a lost terminal") + memory


def started(pid: int) -> str:
    """When a process started, in ticks since boot; empty if there is none, or only a dead one not yet collected."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            fields = handle.read().rpartition(b")")[2].split()  # the name before it may hold anything
        return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        return ""


def _locked(file: Path) -> bool | None:
    """Whether some process has it locked; None: nobody can tell."""
    try:
        with file.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _boot() -> str:
    return _line("/proc/sys/kernel/random/boot_id")


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _kills() -> int:
    for line in _line("/proc/vmstat").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def _line(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read().strip()
    except OSError:
        return ""
