"""One GPU, one stage at a time, among all that run on this machine: however a stage was started, it takes its turn.

A lock of the kernel (flock) for each device: free the instant its holder is gone, however it went, and in no need of a
server. Where a lock cannot be had, that is told, and the stage runs without it.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

USERS = ("augment", "select", "finetune", "evaluate", "drift")
"""Stages whose networks run on run.device. The others read files, or measure what ships, on the CPU."""
LOCKS = "/dev/shm"
"""Of all users of this machine, and gone after a restart."""


def devices(stage: str, device: str, processes: int = 1) -> tuple[str, ...]:
    """Which ones the stage uses: the first of CUDA_VISIBLE_DEVICES, else from 0 on, one for each process here; none
    where `device` (run.device) or the machine has none. Of what torchrun started, a machine's first takes all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if stage not in USERS or device == "cpu" or os.environ.get("LOCAL_RANK", "0") != "0":
        return ()
    if visible is not None and visible.strip() in ("", "-1"):
        return ()
    if device == "auto" and not (any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()):
        return ()
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    num = int(here) if here.isdigit() else max(1, processes)
    names = visible.split(",") if visible is not None else map(str, range(num))
    return tuple(name.strip().replace("/", "-") for name in names)[:num]


@contextmanager
def held(names: Iterable[str], kind: str = "lock") -> Iterator[None]:
    """Have these devices alone; waits. All take them in one order, so that no two wait for each other."""
    with ExitStack() as stack:
        for name in sorted(set(names)):
            stack.enter_context(_alone(name, Path(LOCKS) / f"graftline-gpu-{name}.{kind}"))
        yield


@contextmanager
def _alone(name: str, path: Path) -> Iterator[None]:
    handle = -1
    try:
        try:
            handle = _opened(path)
            _lock(handle, name)
        except OSError as error:
            _say(f"GPU {name} is used without a lock: {error.strerror} ({path})")
        yield
    finally:
        if handle >= 0:
            os.close(handle)


def _opened(path: Path) -> int:
    """To read, which is enough for a lock: another user's file can only be read, and where the kernel protects such
    files (fs.protected_regular) not even opened by a call that would create it."""
    reading = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, reading)
    except FileNotFoundError:
        pass
    try:
        handle = os.open(path, reading | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:  # another was quicker
        return os.open(path, reading)
    os.fchmod(handle, 0o666)  # whatever the umask
    return handle


def _lock(handle: int, name: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say(f"Another run has GPU {name}; waiting for it to end.")
        fcntl.flock(handle, fcntl.LOCK_EX)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
