"""The one door to other processes: run a command so that none of its processes outlives us, however we end.

The command gets a process group of its own. On Ctrl-C or SIGTERM the group is told, waited for, and made to
end; if we are killed outright, the kernel tells the command. What it prints is passed on as it comes: on a
terminal the command gets a terminal too, so that progress bars go on showing.
"""

from __future__ import annotations

import codecs
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from components.contracts import InputError

# Asks the kernel for SIGTERM when we die, then becomes the command. A wrapper, because Popen's preexec_fn is
# not safe beside threads, and Prefect has threads.
_TIED = (
    "import ctypes, os, sys\n"
    "if sys.platform == 'linux': ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])"
)
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_KEPT = 20_000
"""Characters at the end of the text that are kept for the caller."""


class NotInstalled(InputError):
    """A program that is needed is not there."""


def quietly(
    command: list[str], folder: Path, given: bytes | None = None, environment: dict[str, str] | None = None,
    seconds: float | None = None,
) -> tuple[int, bytes, str]:  # fmt: skip
    """Run a short command on what it is given; its exit code, its output, and what it complained of.

    Raises:
        NotInstalled: there is no such program.
        TimeoutError: it was ended, because it took longer than `seconds`.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, input=given, env=environment, capture_output=True, check=False, timeout=seconds
        )
    except FileNotFoundError:
        if not folder.is_dir():
            raise  # then it is the folder that is not there
        raise NotInstalled(f"{command[0]} is needed for this, and is not installed here or not on the PATH") from None
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(str(error)) from None
    return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace").strip()


def watched(
    command: list[str],
    folder: Path,
    environment: dict[str, str],
    on_line: Callable[[str], None] | None = None,
    chatter: bool = True,
    until: Callable[[], float | None] | None = None,
) -> tuple[int, str]:
    """Run a long command, passing on what it prints; its exit code and the end of its text.

    All of it goes to stderr; without `chatter`, only what the command writes there itself. `on_line` gets
    each whole line as it comes, without colours. `until`: when it must be over, by time.monotonic(), as things stand.

    Raises:
        TimeoutError: it was not, and was ended.
    """
    reader, writer = _terminal() if sys.stderr.isatty() else os.pipe()
    try:
        child = _start(command, folder, environment, writer if chatter else subprocess.DEVNULL, writer)
    finally:
        os.close(writer)
    try:
        text = _pass_on(_Words(reader), child, on_line, until)
        return child.wait(), text
    except BaseException as stop:
        _end(child, signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
        raise
    finally:
        _end(child, signal.SIGTERM)
        os.close(reader)


def through(command: list[str], folder: Path, environment: dict[str, str]) -> int:
    """Run a command that reads and writes what we would; its exit code. A terminal is not read from."""
    given = subprocess.DEVNULL if sys.stdin is None or sys.stdin.isatty() else None
    sys.stdout.flush()
    child = _start(command, folder, environment, None, None, given)
    try:
        return child.wait()
    except BaseException as stop:
        _end(child, signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
        raise
    finally:
        _end(child, signal.SIGTERM)


@contextmanager
def beside(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[Callable[[], bool]]:
    """Run a server while the block runs, its words going to `log`; yields a question: does it still run?"""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as handle:
        child = _start(command, log.parent, environment, handle.fileno(), handle.fileno())
    try:
        yield lambda: child.poll() is None
    finally:
        _end(child, signal.SIGTERM)


def _start(
    command: list[str],
    folder: Path,
    environment: dict[str, str],
    out: int | None,
    err: int | None,
    given: int | None = subprocess.DEVNULL,
    fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-ISc", _TIED, str(os.getpid()), *command],
        cwd=folder,
        env=environment,
        stdin=given,
        stdout=out,
        stderr=err,
        process_group=0,
        pass_fds=fds,
    )


def _terminal() -> tuple[int, int]:
    reader, writer = pty.openpty()
    tty.setraw(writer)
    termios.tcsetwinsize(writer, termios.tcgetwinsize(sys.stderr.fileno()))
    return reader, writer


class _Words:
    """What a command prints: passed on to stderr as it comes, and each whole line, without colours, to `on_line`."""

    def __init__(self, reader: int) -> None:
        self._reader, self._kept, self._rest = reader, "", ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be cut at a chunk's end

    def fileno(self) -> int:
        """Where they come from."""
        return self._reader

    def pass_on(self, on_line: Callable[[str], None] | None) -> bool:
        """What is there now, of what select said that it is; False: no more will come."""
        try:
            chunk = os.read(self._reader, 65536)
        except OSError:  # a terminal whose other side was closed
            chunk = b""
        text = self._decoder.decode(chunk)
        sys.stderr.write(text)
        sys.stderr.flush()
        self._kept = (self._kept + text)[-_KEPT:]
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            plain = _COLOURS.sub("", line).rstrip("\r").rpartition("\r")[2].strip()
            if on_line and plain:
                on_line(plain)
        return bool(chunk)

    def text(self) -> str:
        """The end of all that was said."""
        return _COLOURS.sub("", self._kept)


def _pass_on(
    words: _Words, child: subprocess.Popen[bytes], on_line: Callable[[str], None] | None,
    until: Callable[[], float | None] | None = None,
) -> str:  # fmt: skip
    while True:
        end = until() if until else None
        if end is not None and time.monotonic() >= end:
            raise TimeoutError
        ready, _, _ = select.select([words], [], [], 0.2)
        if (ready and not words.pass_on(on_line)) or (not ready and child.poll() is not None):
            return words.text()


class Companion:
    """A long command that is talked with over a socket, a JSON object a line; what it prints is passed on meanwhile."""

    def __init__(self, child: subprocess.Popen[bytes], words: _Words, ours: socket.socket) -> None:
        self._child, self._words, self._ours, self._heard = child, words, ours, b""

    def tell(self, word: str) -> None:
        """One line to it. That it is gone is told by `hear`."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._ours.sendall(f"{word}\n".encode())

    def hear(self, on_line: Callable[[str], None] | None = None, until: float | None = None) -> dict[str, Any] | None:
        """What it says next, once all that it printed before is passed on; None: it says no more.

        Raises:
            TimeoutError: it said nothing until then, by time.monotonic().
        """
        while b"\n" not in self._heard:
            left = max(0.0, until - time.monotonic()) if until is not None else 1.0
            both: list[Any] = [self._words, self._ours]
            ready, _, _ = select.select(both, [], [], min(1.0, left))
            if self._words in ready:
                self._words.pass_on(on_line)
            if self._ours in ready:
                chunk = _received(self._ours)
                self._heard += chunk
                if not chunk:
                    self._pass_on_the_rest(on_line)
                    return None
            if until is not None and time.monotonic() >= until:
                raise TimeoutError
        self._pass_on_the_rest(on_line)
        line, _, self._heard = self._heard.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def _pass_on_the_rest(self, on_line: Callable[[str], None] | None) -> None:
        while select.select([self._words], [], [], 0)[0] and self._words.pass_on(on_line):
            pass

    def stop(self) -> None:
        """End it, and all of its group."""
        _end(self._child, signal.SIGTERM)

    def end(self) -> tuple[int, str]:
        """Wait for it to end by itself; its exit code and the end of its text."""
        text = _pass_on(self._words, self._child, None)
        return self._child.wait(), text


def _received(ours: socket.socket) -> bytes:
    try:
        return ours.recv(65536)
    except ConnectionResetError:  # it was killed with something unread
        return b""


@contextmanager
def companion(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[Companion]:
    """Run a long command that is talked with: it gets its end of a socket's number as its last argument.

    Only what goes to its stderr is passed on. When the block ends, no process of its group is left.
    """
    reader, writer = _terminal() if sys.stderr.isatty() else os.pipe()
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            words = [*command, str(theirs.fileno())]
            child = _start(words, folder, environment, subprocess.DEVNULL, writer, fds=(theirs.fileno(),))
    except BaseException:
        ours.close()
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        yield Companion(child, _Words(reader), ours)
    except BaseException as stop:
        _end(child, signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
        raise
    finally:
        _end(child, signal.SIGTERM)
        ours.close()
        os.close(reader)


def _end(child: subprocess.Popen[bytes], first: int) -> None:
    """Leave no process of the group behind: ask, ask again, insist."""
    for wish, seconds in ((first, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        try:
            os.killpg(child.pid, wish)
            while time.monotonic() < deadline:
                child.poll()
                os.killpg(child.pid, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            return
