"""Clones of a project that share DVC's cache: the same inputs run once, and the others get the results from the cache.

`dvc_cli.turn` orders the runs of one work tree; this orders those of several. Who runs holds a lock in the cache's
folder, named by a hash of what decides the results: the graph, the params, the libraries and the code. Other inputs
have another name and do not wait. The kernel frees the lock of a holder that died.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from components.contracts import write_atomic
from pipelines import dag

FOLDER = "graftline"
"""In DVC's cache, beside its own folders."""
TURNS = "turns"
"""In that: the locks that are held."""
PROJECTS = "projects"
"""In that: a file a project that uses the cache."""
_HELD: set[tuple[Path, int]] = set()
"""Lock and thread: another thread of this process waits like another process."""


@contextmanager
def turn(root: Path) -> Iterator[None]:
    """Hold these inputs for one run: wait while another clone runs the same. Inside `dvc_cli.turn`, and only for a run
    that has something to do.

    Raises:
        InputError: dvc.yaml or params.yaml cannot be read.
    """
    root = root.resolve()
    path = cache(root) / FOLDER / TURNS / f"{key(root)}.lock"
    mine = (path, threading.get_ident())
    if mine in _HELD:
        yield
        return
    handle = _take(path, root)
    if handle is None:
        yield
        return
    _HELD.add(mine)
    try:
        yield
    finally:
        _HELD.discard(mine)
        path.unlink(missing_ok=True)
        handle.close()


def key(root: Path) -> str:
    """A hash of what decides the results, without the data: the same in every clone."""
    known = {"dvc.yaml", "params.yaml", dag.LIBRARIES}
    deps = {d for stage in dag.load(root) for d in stage.deps if d.startswith(("components/", "pipelines/"))}
    digest = hashlib.sha256()
    for name in sorted(known | deps):
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            content = path.read_bytes() if path.is_file() else b""
            digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:32]


def cache(root: Path) -> Path:
    """The folder of DVC's cache, as its settings say; read here, as opening DVC for it takes a hundred times longer."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    places = (
        Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR", "/etc/xdg/dvc"), "config"),
        Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR", f"{home}/dvc"), "config"),
        root / ".dvc" / "config",
        root / ".dvc" / "config.local",
    )
    found = root / ".dvc" / "cache"
    for place in places:
        read = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
        try:
            read.read_string(place.read_text("utf-8"))
            told = read.get("cache", "dir", fallback=None)
        except (OSError, ValueError, configparser.Error):
            continue
        if told:
            found = place.parent / os.path.expanduser(told.strip().strip("'\""))
    return found.resolve()


def known(place: Path) -> dict[Path, Path]:
    """The projects that were noted to use the cache in that folder -> the file of the note. Whether they can be seen
    now is `seen`'s matter: the disk of one may not be mounted, or its path be that of another container."""
    found = {}
    for note in sorted((place / FOLDER / PROJECTS).glob("*")):
        with suppress(OSError):
            found[Path(os.fsdecode(note.read_bytes()))] = note
    return found


def seen(project: Path) -> bool:
    """Whether it is a project, here and now."""
    try:
        return (project / ".dvc").is_dir()
    except OSError:
        return False


def over(project: Path) -> bool:
    """Whether it is surely gone for good: the workspace of a sweep or a backtest, in a project that can be seen."""
    if ".graftline" not in project.parts or seen(project):
        return False
    return seen(Path(*project.parts[: project.parts.index(".graftline")]))


def note(root: Path) -> None:
    """Leave word in a cache that lies elsewhere that this project uses it, so that who prunes it keeps what this one
    needs."""
    root = root.resolve()
    place = cache(root)
    if place == (root / ".dvc" / "cache").resolve():
        return  # who moves such a project moves its cache
    path = _note(place, root)
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, os.fsencode(root))
    except OSError as error:
        print(f"The cache cannot hold a note of this project: {error.strerror} ({path})", file=sys.stderr)


def forget(place: Path, project: Path) -> None:
    """Take back the note of a project that is gone, from the cache in that folder."""
    with suppress(OSError):
        _note(place, project.resolve()).unlink(missing_ok=True)


def _note(place: Path, project: Path) -> Path:
    return place / FOLDER / PROJECTS / hashlib.sha256(os.fsencode(project)).hexdigest()[:24]


def _take(path: Path, root: Path) -> IO[str] | None:
    """The locked file; None where this cache cannot hold a lock."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = path.open("a+", encoding="utf-8")
            _wait(handle)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                    break
            handle.close()  # who held it removed it; another may have made it anew
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {os.uname().nodename}, in {root}")
        handle.flush()
        return handle
    except OSError as error:
        print(f"Clones that share the cache cannot wait for each other: {error.strerror} ({path})", file=sys.stderr)
        return None


def _wait(handle: IO[str]) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        who = handle.read() or "in a clone"
        told = f"The same line runs already ({who}). Waiting for it; its results then come from DVC's cache."
        print(told, file=sys.stderr, flush=True)
        fcntl.flock(handle, fcntl.LOCK_EX)
