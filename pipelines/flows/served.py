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
