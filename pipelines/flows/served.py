"""Whether `python -m pipelines serve` keeps a project now, and by which server; knows nothing of Prefect."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from components.contracts import InputError
from pipelines import leases

TIES = "GRAFTLINE_SERVED"
"""How a flow run's process knows whose child it is (pipelines/flows/__init__.py): it ends when serve is gone."""
ROOT = "GRAFTLINE_SERVED_ROOT"
"""And which project it may work in."""
OURS = "GRAFTLINE_KEPT_BY"
"""By which serve knows all that descends from it, a run that its watch resumed too."""
PORT = 4200
"""Of a server that is started for serve, unless another is named."""
PACE = "PREFECT_RUNNER_POLL_FREQUENCY"
"""Names the seconds between two looks for what is due."""
WATCH = "GRAFTLINE_WATCH_SECONDS"
"""Names the seconds between two looks of the watch."""
FILE = ".graftline/serve.json"
"""Process, address of the API. Locked for as long as serve lives, however it ends."""


@contextmanager
def only_one(root: Path) -> Iterator[Callable[[str], None]]:
    """Be the one serve of this project; yields how to say which server it uses.

    Raises:
        InputError: another one is.
    """
    path = root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        if not _locked(handle):
            told = _read(path)
            raise InputError(
                f"serve keeps this project already: process {told.get('pid', '?')}, {told.get('url', 'starting')}. "
                "One is enough; end that one first (Ctrl-C there, or kill and its number)"
            )

        def uses(url: str) -> None:
            handle.seek(0)
            handle.truncate()
            handle.write(json.dumps({"pid": os.getpid(), "url": url}))
            handle.flush()

        uses("")
        try:
            yield uses
        finally:
            handle.truncate(0)


@contextmanager
def named(root: Path) -> Iterator[None]:
    """Have what is started meanwhile know whose it is."""
    ours = {TIES: str(os.getpid()), ROOT: str(root), OURS: _name()}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def is_ours(lease: leases.Lease) -> bool:
    """Whether its holder is a living process of this machine that descends from this one's serve. Only of such a lease
    is the number that of the very process."""
    own = leases.own()
    there = (lease.host, lease.boot, lease.space) == (own.host, own.boot, own.space)
    if not there or not lease.started or leases.started(lease.pid) != lease.started:
        return False
    try:
        environment = Path(f"/proc/{lease.pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{OURS}={_name()}".encode() in environment


def _name() -> str:
    return f"{os.getpid()} {leases.started(os.getpid())}"


def seconds(name: str, default: float, whole: bool = False) -> float:
    """What an environment variable says, in seconds.

    Raises:
        InputError: that is no number above 0.
    """
    text = os.environ.get(name, "").strip()
    try:
        value = (int(text) if whole else float(text)) if text else default
    except ValueError:
        value = 0
    if not 0 < value < 1e6:
        raise InputError(f"{name}: {text!r} must be a {'whole ' if whole else ''}number of seconds above 0")
    return value


def _locked(handle: IO[str]) -> bool:
    """Whoever asks `url` just now has it for an instant."""
    for _ in range(10):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def url(root: Path) -> str:
    """The API of the server that a living serve of this project uses; empty: there is none."""
    path = root / FILE
    try:
        with path.open("r") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return str(_read(path).get("url", ""))
    except OSError:
        pass
    return ""


def _read(path: Path) -> dict[str, object]:
    try:
        told = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
