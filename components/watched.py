"""What in a data folder DVC cannot watch: a change behind it would go unseen, or DVC would stop at it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

MAX_TOLD = 5


def problems(data: Path) -> list[str]:
    """One sentence each for at most five entries below a folder, or for a file, that DVC cannot watch."""
    if not data.is_dir():
        return []
    found = list(_entries(data))
    more = [f"and {len(found) - MAX_TOLD} more of the kind"] if len(found) > MAX_TOLD else []
    return [*found[:MAX_TOLD], *more]


def _entries(data: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(data):
        for name in sorted(folders):
            if os.path.islink(os.path.join(folder, name)):
                yield f"{_shown(folder, name)} is a link to a folder, which DVC does not follow: put the real one there"
        for name in sorted(files):
            problem = _problem(os.path.join(folder, name), name)
            if problem:
                yield f"{_shown(folder, name)} {problem}"


def _problem(path: str, name: str) -> str:
    if name == ".dvcignore":
        return "would hide data from DVC: move it out"
    try:
        name.encode()
        kind = os.stat(path).st_mode
    except UnicodeEncodeError:
        return "has a name that is not UTF-8: rename it"
    except OSError as error:
        return f"cannot be opened ({error.strerror}): mend or remove it"
    return "" if stat.S_ISREG(kind) else "is not a plain file: remove it"


def _shown(folder: str, name: str) -> str:
    return os.path.join(folder, name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
