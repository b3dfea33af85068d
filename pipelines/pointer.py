"""What is live: deployed/<environment>.json is the one truth, and the link deployed/<environment> follows it.

The pointer is swapped by a rename, flushed to the disk with its folder; so it is the old one or the new one, whenever
the power fails. The link is for whoever serves the model from a folder. A crash between the two leaves it behind;
whoever reads the pointer through `promote.live` puts it right.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from components.contracts import InputError, read_json, write_json
from pipelines.bundles import RELEASES

FOLDER = "deployed"
ENVIRONMENT = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)
MOST_OLDER, MOST_HISTORY = 50, 100
"""Bundles that rollbacks can reach, and changes that are told, at most."""
_NAMED = re.compile(r"(?P<name>[^/\0]+)-(?P<version>\d{1,9}\.\d{1,9}\.\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """One bundle as it went live."""

    name: str
    version: str
    sha256: str
    """Of its attestation, which lists every file and is signed."""
    since: str
    """When it went live, UTC."""
    by: str
    because: str
    run: str
    """The record of that run, in .graftline/runs."""

    @property
    def bundle(self) -> str:
        """Its folder below the project."""
        return f"{RELEASES}/{self.name}-{self.version}"

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Pointer:
    """What is live in an environment, and what was."""

    environment: str
    live: Entry
    older: tuple[Entry, ...] = ()
    """What rollbacks reach, the next one first."""
    history: tuple[dict[str, str], ...] = ()
    """Every change, the newest first: `what` (promoted, rolled_back), version, at, by, because, run."""

    @property
    def previous(self) -> Entry | None:
        """What a rollback makes live."""
        return self.older[0] if self.older else None


def named(text: str) -> tuple[str, str] | None:
    """Name and version of a release's folder."""
    found = _NAMED.fullmatch(text)
    return (found["name"], found["version"]) if found else None


def checked(environment: str) -> str:
    """A name that files and git tags can bear.

    Raises:
        InputError: it is none.
    """
    if not ENVIRONMENT.fullmatch(environment) or len(environment) > 60:
        raise InputError(f"--environment: {environment!r} must be of a-z, 0-9 and -, such as staging")
    return environment


def environments(root: Path) -> list[str]:
    """Those that have a pointer."""
    found = (p.name.removesuffix(".json") for p in (root / FOLDER).glob("*.json"))
    return sorted(name for name in found if ENVIRONMENT.fullmatch(name))


def place(root: Path, environment: str) -> Path:
    """The pointer's file."""
    return root / FOLDER / f"{environment}.json"


def read(root: Path, environment: str) -> Pointer | None:
    """What the pointer says; None: nothing was promoted there.

    Raises:
        InputError: it is no pointer of that environment.
    """
    path = place(root, environment)
    if not path.is_file():
        return None
    try:
        told = read_json(path)
        live = _entry(told)
        older = (*([told["previous"]] if told["previous"] else []), *told["older"])
        history = tuple({str(k): str(v) for k, v in one.items()} for one in told["history"])
        if told["environment"] != environment:
            raise ValueError(f"it is of {told['environment']!r}")
        return Pointer(environment, live, tuple(_entry(one) for one in older), history)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path.relative_to(root)} is not a pointer as promote writes it ({error or type(error).__name__}). "
            "Nothing is changed or read through it. Bring back the file, or take it away and promote again"
        ) from None


def _entry(told: dict[str, Any]) -> Entry:
    one = Entry(**{key: told[key] for key in Entry.__dataclass_fields__})
    if not all(isinstance(value, str) for value in asdict(one).values()):
        raise ValueError("a value is no text")
    if named(f"{one.name}-{one.version}") != (one.name, one.version) or told["bundle"] != one.bundle:
        raise ValueError(f"bundle {told['bundle']!r} is not that of {one.title}")
    if not re.fullmatch("[0-9a-f]{64}", one.sha256):
        raise ValueError("sha256 is none")
    return one


def promoted(before: Pointer | None, environment: str, entry: Entry) -> Pointer:
    """The pointer with another bundle live."""
    older = (before.live, *before.older)[:MOST_OLDER] if before else ()
    return _changed(before, Pointer(environment, entry, older), "promoted")


def rolled_back(before: Pointer, steps: int, entry: Entry) -> Pointer:
    """The pointer `steps` further back."""
    return _changed(before, replace(before, live=entry, older=before.older[steps:]), "rolled_back")


def _changed(before: Pointer | None, after: Pointer, what: str) -> Pointer:
    one = after.live
    told = {"what": what, "name": one.name, "version": one.version, "at": one.since, "by": one.by}
    told |= {"because": one.because, "run": one.run, "from": before.live.version if before else ""}
    return replace(after, history=(told, *(before.history if before else ()))[:MOST_HISTORY])


def write(root: Path, pointer: Pointer) -> str:
    """Swap the pointer, then the link; returns what is to be said of the link, if it could not follow. Only inside
    `changing`."""
    path = place(root, pointer.environment)
    path.parent.mkdir(exist_ok=True)
    _sweep(root, pointer.environment)
    older = [_plain(one) for one in pointer.older]
    told = {**_plain(pointer.live), "environment": pointer.environment, "previous": older[0] if older else None}
    write_json(path, {**told, "older": older[1:], "history": list(pointer.history)})
    try:
        _flush(path.parent)
    except OSError as error:  # it is swapped, which nothing after this undoes
        told_of_link = follow(root, pointer)
        return f"  {FOLDER}/ could not be flushed to the disk ({error.strerror}). {told_of_link}".rstrip()
    return follow(root, pointer)


def _plain(entry: Entry) -> dict[str, str]:
    return {**asdict(entry), "bundle": entry.bundle}


def follow(root: Path, pointer: Pointer) -> str:
    """Let the link lead to what the pointer names; empty, or why it cannot. Only inside `changing`."""
    link = root / FOLDER / pointer.environment
    if leads(root, pointer):
        return ""
    beside = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    try:
        beside.unlink(missing_ok=True)
        beside.symlink_to(f"../{pointer.live.bundle}")
        os.replace(beside, link)
        _flush(link.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if link.is_dir() and not link.is_symlink():
            return f"  {FOLDER}/{link.name} is a folder and no link; take it away, and promote again"
        return (
            f"  the link {FOLDER}/{link.name} could not follow ({error.strerror}); whoever serves from it serves the "
            "one before. `python -m pipelines deployed` lets it follow, once that can be written"
        )
    return ""


def leads(root: Path, pointer: Pointer) -> bool:
    """Whether the link leads to what the pointer names."""
    try:
        return os.readlink(root / FOLDER / pointer.environment) == f"../{pointer.live.bundle}"
    except OSError:
        return False


def mend(root: Path, environment: str) -> None:
    """Put right a link that a crash left behind; not while another process changes the pointer, which does it too, nor
    where nothing can be written: the pointer is the truth."""
    now = read(root, environment)
    if now is None or leads(root, now):
        return
    with suppress(OSError), changing(root, wait=False):
        now = read(root, environment)
        if now:
            follow(root, now)


@contextmanager
def changing(root: Path, wait: bool = True) -> Iterator[None]:
    """Held by whoever swaps a pointer or removes releases; others wait. Gone with its process.

    Raises:
        BlockingIOError: another holds it, and `wait` is false.
    """
    path = root / FOLDER / ".lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            print("Another promotion is about to swap a pointer; waiting for it to end.", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _sweep(root: Path, environment: str) -> None:
    """What killed writers left; nobody else writes now."""
    for pattern in (f".{environment}.json.*.tmp", f".{environment}.*.tmp"):
        for path in (root / FOLDER).glob(pattern):
            path.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
