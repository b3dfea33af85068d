"""Leases: tell a live run from a dead one.

A lease names a process so that nothing else can be taken for it: its number, when it started, the boot, the name space
of process numbers, the host. The run also keeps a file beside its record locked (flock), which the kernel frees when
the run is gone. A locked file is a live run, whoever asks; where it is free or says nothing, the numbers are asked, and
from another container, after a reboot or on another node, whether the file system can be trusted with locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SUFFIX = ".alive"
LOCAL = (
    "apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "overlay", "ramfs", "reiserfs", "tmpfs",
    "xfs", "zfs",
)  # fmt: skip
"""File systems that one kernel has at a time: a lock in them that is free here is held nowhere."""
_HANDLES: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


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
    """Lock it until the process is gone, or the handle closed; processes that we start or fork do not inherit it."""
    handle = path.open("ab")
    with contextlib.suppress(OSError):  # a file system without locks: the numbers must do
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _HANDLES.add(handle)
    return handle


def _let_go() -> None:
    for handle in tuple(_HANDLES):
        handle.close()  # of the fork's own; the run's lock stays


os.register_at_fork(after_in_child=_let_go)


def held(folder: Path) -> list[str]:
    """Names of the runs whose file is there: they live, or died without ending their record."""
    try:
        return [entry.removesuffix(SUFFIX) for entry in os.listdir(folder) if entry.endswith(SUFFIX)]
    except OSError:
        return []


def alive(lease: Lease, file: Path) -> bool | None:
    """Whether the holder lives; None: that cannot be known from here, as it ran elsewhere, and the file lies where a
    lock of another machine may not be seen; or it is hidden from this user."""
    locked = _locked(file)
    if locked:
        return True
    boot, host = _boot(), os.uname().nodename
    here, kernel = (lease.boot, lease.host) == (boot, host), bool(boot) and lease.boot == boot
    if here and lease.space == _space() and lease.started:
        now = started(lease.pid)
        if now or not _is_hidden(lease.pid):
            return now == lease.started
    if locked is False and (here or kernel or is_local(file)):
        return False
    if lease.host == host and lease.boot != boot:
        return False  # the host was started again since
    return None


def last_sign(file: Path) -> float:
    """When the run, or its keeper, last touched it; seconds since 1970, 0 if it is not there."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def why_dead(lease: Lease, seen: str = "") -> str:
    """What can be known of it afterwards. `seen`: what somebody who stood beside it saw."""
    if lease.host and lease.host != os.uname().nodename:
        return f"nothing of it is left here, and {lease.host}, where it ran, gives no sign of it"
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
    """Whether some process has it locked; None: nobody can tell. Shared, so that two who ask do not see each other."""
    try:
        with file.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process, of another user, that /proc does not show (hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not os.path.exists(f"/proc/{pid}/stat")
    except OSError:
        pass
    return False


def is_local(file: Path) -> bool:
    """Whether it lies on a file system that no other machine can have at the same time; False if nobody can tell."""
    place, found = os.path.realpath(file), ("", "")
    for line in _line("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        mount = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), before.split(" ")[4])
        if (place == mount or place.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(found[0]):
            found = mount, after.split(" ")[0]
    return found[1] in LOCAL


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
