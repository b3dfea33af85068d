"""What killed runs leave in a project, put in order before the next one: half-built outputs, files that were about to
take a name, and the order of dvc.lock. Only inside `dvc_cli.turn`, where no other run works here.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.contracts import write_atomic
from components.job import lock_of

_HEAD = re.compile(r"(?:[^ \n].*\n)*?stages:\n")
_ENTRY = re.compile(r"  (\S+):\n(?:    .*\n|\n)*")
_TEMPORARY = re.compile(r"\..+\.tmp")
"""As components/contracts.py and DVC name what is not whole yet."""


def sweep(root: Path) -> None:
    """Remove what nobody will go on with. Checkpoints stay: the next run does."""
    building = root / "artifacts" / ".building"
    for name in _names(building):
        with free(lock_of(root, name.removesuffix(".before"))) as unheld:
            if unheld:
                shutil.rmtree(building / name, ignore_errors=True)
    for folder in (root / "artifacts", root / ".graftline"):
        for path in _temporary(folder, building):
            with free(path) as unheld:
                if unheld:
                    path.unlink(missing_ok=True)


def in_order(root: Path) -> None:
    """The stages of dvc.lock in the order of dvc.yaml, in which an undisturbed run writes them: the same content is
    then the same bytes, whatever failed on the way. What is not written as DVC writes it stays as it is."""
    path = root / "dvc.lock"
    try:
        text = path.read_text("utf-8")
        line = re.findall(r"^  (\w+):$", (root / "dvc.yaml").read_text("utf-8"), re.M)
    except (OSError, UnicodeDecodeError):
        return
    head = _HEAD.match(text)
    entries = [(m[1], m[0]) for m in _ENTRY.finditer(text, head.end())] if head else []
    if not head or head[0] + "".join(entry for _, entry in entries) != text:
        return
    place = {name: number for number, name in enumerate(line)}
    ordered = sorted(entries, key=lambda entry: place.get(entry[0], len(place)))
    if ordered != entries:
        write_atomic(path, (head[0] + "".join(entry for _, entry in ordered)).encode())


def _temporary(folder: Path, besides: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if Path(place) == besides:
            folders.clear()
            continue
        yield from (Path(place, name) for name in files if _TEMPORARY.fullmatch(name))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Whether nobody holds that file locked; while the block runs, nobody else can."""
    try:
        handle = path.open("rb")
    except OSError:
        yield not path.is_symlink()
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass  # a file system without locks
        yield True
