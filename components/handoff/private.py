"""Paths of this machine: found in what is recorded, and kept out of what leaves the house."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any


def private_paths(root: Path, *records: Any) -> dict[str, str]:
    """Absolute paths of this machine -> what stands for them in the bundle, the longest first.

    They are the project's folder, the user's, and every absolute path that the records (params) hold.
    """
    found = {str(p): "outside/" + PurePosixPath(p).name for p in map(str, _strings(records)) if os.path.isabs(p)}
    found |= {str(place): "." for place in (root, root.resolve())}
    found |= {os.path.expanduser("~"): "~"}
    return {p: found[p] for p in sorted(found, key=lambda p: (-len(p), p)) if len(p) > 3}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def without(private: dict[str, str], text: str) -> str:
    """A text without the private paths."""
    for path, instead in private.items():
        text = _whole(path).sub(lambda _, told=instead: told.encode(), text.encode()).decode()  # type: ignore[misc]
    return text


def holds(content: bytes, path: str) -> bool:
    """Whether a file's bytes name that path: as a path of its own, not as a part of another (`plants/roots`)."""
    return path.encode() in content and _whole(path).search(content) is not None  # the first is fast


def _whole(path: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![\w.-])" + re.escape(path.encode()) + rb"(?![\w-]|\.\w)")
