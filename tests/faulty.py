"""A file system that fails at the k-th operation: crash, disk full, input/output error, or half of a write.

What changes files is counted within one folder; reading is not. A crash is an exception that nothing catches, and
after it every further operation fails in the same way: whatever `finally` would tidy up stays as it is, as after
kill -9. Writing is unbuffered, so that what is in a file at a crash is what was written to it by then.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

KINDS = ("crash", "disk full", "input/output error", "short write", "short write, then disk full")
_ERRORS = {
    "disk full": errno.ENOSPC,
    "input/output error": errno.EIO,
    "short write, then disk full": errno.ENOSPC,
}
_PLAIN_OPEN, _PLAIN_OS_OPEN = builtins.open, os.open
ONE_PATH = ("unlink", "remove", "rmdir", "mkdir", "truncate", "chmod")
TWO_PATHS = ("rename", "replace", "link", "symlink")


class Crash(BaseException):
    """The process is gone."""


@dataclass
class Faults:
    """Fails at operation number `at` (from 1) in `kind`; 0: never."""

    folder: Path
    kind: str = "crash"
    at: int = 0
    seen: list[str] = field(default_factory=list)
    crashed: bool = False

    @property
    def reached(self) -> bool:
        return 0 < self.at <= len(self.seen)

    def point(self, what: str, half: Callable[[], None] | None = None) -> None:
        """One operation is about to be done; `half`: do half of it."""
        if self.crashed:
            raise Crash(what)
        self.seen.append(what)
        if len(self.seen) != self.at:
            return
        if half is not None and self.kind.startswith("short write"):
            half()
        if self.kind in _ERRORS:
            raise OSError(_ERRORS[self.kind], os.strerror(_ERRORS[self.kind]), what)
        self.crashed = True
        raise Crash(what)

    def concerns(self, path: Any, folder: int | None = None) -> bool:
        if isinstance(path, int):
            return False
        if folder is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        return os.path.abspath(os.fsdecode(path)).startswith(f"{self.folder}{os.sep}")

    @contextmanager
    def installed(self) -> Iterator[Faults]:
        """Everything in this process goes through it."""
        with ExitStack() as stack:
            for name in (*ONE_PATH, *TWO_PATHS):
                stack.enter_context(mock.patch.object(os, name, self._wrapped(name)))
            stack.enter_context(mock.patch.object(os, "open", self._os_open))
            stack.enter_context(mock.patch.object(os, "fsync", self._fsync))
            stack.enter_context(mock.patch.object(os, "sendfile", self._sendfile))
            stack.enter_context(mock.patch.object(builtins, "open", self._open))
            stack.enter_context(mock.patch.object(io, "open", self._open))
            # As on every machine with these: rmtree looks at the functions themselves.
            for name, found in (("_use_fd_functions", True), ("_USE_CP_SENDFILE", True)):
                stack.enter_context(mock.patch.object(shutil, name, found))
            yield self

    def _wrapped(self, name: str) -> Callable[..., Any]:
        plain = getattr(os, name)

        def call(*paths: Any, **options: Any) -> Any:
            folder = options.get("dir_fd", options.get("dst_dir_fd"))
            target = paths[-1] if name in TWO_PATHS else paths[0]
            if self.concerns(target, folder):
                self.point(f"{name} {os.path.basename(os.fsdecode(target))}")
            return plain(*paths, **options)

        return call

    def _os_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and self.concerns(path, dir_fd):
            self.point(f"open {os.path.basename(os.fsdecode(path))}")
        return _PLAIN_OS_OPEN(path, flags, mode, dir_fd=dir_fd)

    def _fsync(self, handle: int) -> None:
        """Not done: it costs milliseconds, and no test turns off the power."""
        if self.concerns(os.readlink(f"/proc/self/fd/{handle}")):
            self.point("fsync")

    def _sendfile(self, out: int, source: int, offset: int, count: int) -> int:
        """As where the kernel has none: then the content goes through `write`."""
        raise OSError(errno.ENOTSOCK, "not here")

    def _open(self, path: Any, mode: str = "r", buffering: int = -1, *more: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+") or not self.concerns(path):
            return _PLAIN_OPEN(path, mode, buffering, *more, **options)
        plain_opener = options.pop("opener", None)
        raw = _Raw(self, path, mode.replace("b", "").replace("t", ""), plain_opener or self._os_open)
        if "b" in mode:
            return raw
        text = io.TextIOWrapper(io.BufferedRandom(raw, 1) if "+" in mode else io.BufferedWriter(raw, 1), "utf-8")
        text.reconfigure(write_through=True, line_buffering=True)
        return text


class _Raw(io.FileIO):
    """A file whose every write is an operation."""

    def __init__(self, faults: Faults, path: Any, mode: str, opener: Callable[[str, int], int]) -> None:
        self._faults = faults
        super().__init__(path, mode, opener=lambda name, flags: opener(os.fspath(name), flags))

    def write(self, content: Any) -> int:
        bytes_ = bytes(content)
        self._faults.point(f"write {len(bytes_)}", lambda: self._all(bytes_[: len(bytes_) // 2]))
        self._all(bytes_)
        return len(bytes_)

    def truncate(self, size: int | None = None) -> int:
        self._faults.point("truncate")
        return super().truncate(size)

    def _all(self, content: bytes) -> None:
        while content:
            content = content[super().write(content) :]


@dataclass(frozen=True)
class Told:
    """What came of all points of one operation."""

    points: int
    wrong: list[str]


def everywhere(
    folder: Path,
    before: Callable[[Path], None],
    act: Callable[[Path], object],
    state: Callable[[Path], str],
    allowed: tuple[str, ...] = ("old", "new"),
    ends: str = "new",
) -> Told:
    """Inject every kind of fault at every operation of `act` until it passes; `state` must be among `allowed` after
    it, and after a second, undisturbed attempt (by another process, as its number tells) `ends`, with the very files
    that an undisturbed act leaves."""
    with mock.patch.object(os, "fsync", return_value=None):
        return _everywhere(folder, before, act, state, allowed, ends)


def _everywhere(
    folder: Path,
    before: Callable[[Path], None],
    act: Callable[[Path], object],
    state: Callable[[Path], str],
    allowed: tuple[str, ...],
    ends: str,
) -> Told:
    wrong: list[str] = []
    points = 0
    clean = folder / "clean"
    _fresh(clean, before)
    with Faults(clean).installed() as counted:
        act(clean)
    wanted = _files(clean)
    assert state(clean) == ends, state(clean)
    for kind in KINDS:
        for at in range(1, 10_000):
            if kind.startswith("short write") and at <= len(counted.seen) and "write" not in counted.seen[at - 1]:
                continue
            root = folder / "tried"
            _fresh(root, before)
            faults = Faults(root, kind, at)
            said = ""
            try:
                with mock.patch.object(os, "getpid", lambda at=at: 4_000_000 + at), faults.installed():
                    act(root)
            except (Crash, Exception) as error:
                said = repr(error)
            if not faults.reached:
                break
            points += 1
            where = f"{kind} at {at}, {faults.seen[at - 1]!r}"
            found = _told(state, root)
            if found not in allowed:
                wrong.append(f"{where}: {found}")
            try:
                act(root)
            except Exception as error:
                wrong.append(f"{where}: the second attempt fails: {error!r} (the first: {said})")
                continue
            found = _told(state, root)
            if found != ends:
                wrong.append(f"{where}: after the second attempt it is {found}")
            if lies := _files(root) ^ wanted:
                wrong.append(f"{where}: after the second attempt differ {sorted(lies)}")
    return Told(points, wrong)


def _told(state: Callable[[Path], str], root: Path) -> str:
    try:
        return state(root)
    except Exception as error:
        return f"a state that cannot be read: {error!r}"


def _fresh(root: Path, before: Callable[[Path], None]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    before(root)


def _files(root: Path) -> frozenset[str]:
    return frozenset(
        os.path.relpath(os.path.join(place, name), root)
        for place, folders, files in os.walk(root)
        for name in (*folders, *files)
        if ".git" not in Path(place).parts
    )
