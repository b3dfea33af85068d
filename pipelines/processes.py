"""The one door to other processes: run a command so that none of its processes outlives us, however we end.

The command gets a process group of its own. On Ctrl-C or SIGTERM the group is told, waited for, and made to
end; if we are killed outright, the kernel tells the command. What it prints is passed on as it comes: on a
terminal the command gets a terminal too, so that progress bars go on showing.
"""

from __future__ import annotations

import codecs
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
) -> tuple[int, str]:
    """Run a long command, passing on what it prints; its exit code and the end of its text.

    All of it goes to stderr; without `chatter`, only what the command writes there itself. `on_line` gets
    each whole line as it comes, without colours.
    """
    reader, writer = _terminal() if sys.stderr.isatty() else os.pipe()
    try:
        child = _start(command, folder, environment, writer if chatter else subprocess.DEVNULL, writer)
    finally:
        os.close(writer)
    try:
        text = _pass_on(reader, child, on_line)
        return child.wait(), _COLOURS.sub("", text)
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
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-ISc", _TIED, str(os.getpid()), *command],
        cwd=folder,
        env=environment,
        stdin=given,
        stdout=out,
        stderr=err,
        process_group=0,
    )


def _terminal() -> tuple[int, int]:
    reader, writer = pty.openpty()
    tty.setraw(writer)
    termios.tcsetwinsize(writer, termios.tcgetwinsize(sys.stderr.fileno()))
    return reader, writer


def _pass_on(reader: int, child: subprocess.Popen[bytes], on_line: Callable[[str], None] | None) -> str:
    kept, rest = "", ""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be cut at the end of a chunk
    while True:
        ready, _, _ = select.select([reader], [], [], 0.2)
        if not ready and child.poll() is not None:
            return kept
        try:
            chunk = os.read(reader, 65536) if ready else None
        except OSError:  # a terminal whose other side was closed
            chunk = b""
        if chunk is None:
            continue
        if not chunk:
            return kept
        text = decoder.decode(chunk)
        sys.stderr.write(text)
        sys.stderr.flush()
        kept = (kept + text)[-_KEPT:]
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            plain = _COLOURS.sub("", line).rstrip("\r").rpartition("\r")[2].strip()
            if on_line and plain:
                on_line(plain)


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
