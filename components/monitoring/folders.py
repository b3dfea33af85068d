"""Whether anything changed in a folder of data, without reading a file. Light, as it is asked all the time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Glance(NamedTuple):
    """A folder, or a file, as it is now."""

    mark: str
    """Changes with any file's name, size or time."""
    num: int
    """Files; links to nowhere and what cannot be looked at count too."""


def glance(data: Path) -> Glance:
    """Of all that lies below a folder; links to folders are not followed. Nothing there: no files."""
    found = sorted(_stats(data))
    digest = hashlib.sha256()
    for name, size, changed in found:
        digest.update(f"{name}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
    return Glance(digest.hexdigest(), len(found))


def fingerprint(data: Path) -> str:
    """Its mark alone."""
    return glance(data).mark


def _stats(place: Path) -> Iterator[tuple[str, int, int]]:
    waiting = [(str(place), "")] if place.is_dir() else []
    if not waiting and place.exists():
        state = place.stat()
        yield place.name, state.st_size, state.st_mtime_ns
    while waiting:
        folder, below = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = below + entry.name
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append((entry.path, f"{name}/"))
                            continue
                        state = entry.stat()
                        yield name, state.st_size, state.st_mtime_ns
                    except OSError:  # gone meanwhile, or a link to nowhere
                        yield name, -1, -1
        except OSError:  # gone meanwhile, or closed to us: the rest is looked at nonetheless
            yield below, -1, -1
