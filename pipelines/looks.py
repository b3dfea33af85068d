"""What the monitor remembers between looks, in .graftline/monitor: its last answer, and what it has judged already.

All of it may be lost: then the next look reads and judges everything again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from components.contracts import InputError, read_json, write_atomic, write_json

FOLDER, REPORTS = ".graftline/monitor", "reports/monitor"
MOST_MARKS = 500_000
"""Of one bundle: 17 bytes each."""
MOST_BUNDLES, MOST_LOOKS = 4, 500
MENDABLE = (1, 2, 124)
"""Exit codes of a retraining that is tried again: a full disk is emptied, what lies about is committed."""


@dataclass(frozen=True)
class Looked:
    """What a look came to."""

    state: str
    """waiting: too few new samples to judge. quiet: every rule holds. drift: a rule failed."""
    told: str
    """In a sentence."""
    num_new: int
    bundle: str
    """What the live model is called."""
    data: str
    """Where new data arrive."""
    at: str
    """When the samples were judged, UTC."""
    failed: tuple[str, ...] = ()
    """Failed rules, each with its figures."""
    again: bool = False
    """Nothing to judge has arrived since: it is the answer of an earlier look."""
    code: int | None = None
    """Of what was done about a failed rule; None: nothing yet."""
    done: str = ""
    """What was done, or why nothing."""
    retraining: str = ""
    """The retraining that was begun for it and has not come to an end: its run of the monitor."""
    goes: tuple[float, ...] = ()
    """When retrainings were begun, for this finding and those before, however they ended: seconds since 1970."""
    held: str = ""
    """Why it was not retrained, as the last notice told."""

    @property
    def begun(self) -> bool:
        """A retraining was begun for it and left something to do: it died, or what ended it may be mended."""
        return bool(self.retraining) or self.code in MENDABLE

    @property
    def cause(self) -> str:
        """Why a model is retrained, with figures."""
        return f"{self.told} {'; '.join(self.failed)}".strip()


@dataclass(frozen=True)
class State:
    """The last answer, and what it was an answer to."""

    key: str
    """Of the files that lay there, the live bundle and the settings."""
    digest: str
    """Of the bundle and the settings alone."""
    looked: Looked


def key_of(*parts: Any) -> str:
    """Changes with any of them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def load(root: Path) -> State | None:
    """The last state; None where there is none that can be read."""
    try:
        raw = read_json(root / FOLDER / "state.json")
        told = {**raw["looked"], **{name: tuple(raw["looked"][name]) for name in ("failed", "goes")}}
        return State(str(raw["key"]), str(raw["digest"]), Looked(**told))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def save(root: Path, state: State) -> None:
    """Whole, or not at all."""
    write_json(root / FOLDER / "state.json", asdict(state))


def note(root: Path, looked: Looked, **changes: Any) -> Looked:
    """The last answer with what was done about it; a later look finds it."""
    changed = replace(looked, **changes)
    state = load(root)
    if state is not None:
        save(root, replace(state, looked=replace(changed, again=False)))
    return changed


@contextmanager
def alone(root: Path) -> Iterator[bool]:
    """Whether nobody else looks at this project now; held for the length of the block."""
    path = root / FOLDER / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


# --- what was judged ---


def seen(root: Path, digest: str) -> set[str]:
    """Marks of what has been judged by a bundle."""
    try:
        return set(_place(root, digest).read_text("utf-8").split())
    except (OSError, UnicodeError):
        return set()


def remember(root: Path, digest: str, marks: Iterable[str]) -> None:
    """Add marks; the oldest go where there are too many, and so do those of bundles that were live long ago."""
    place = _place(root, digest)
    try:
        lines = place.read_text("utf-8").split()
    except (OSError, UnicodeError):
        lines = []
    lines = list(dict.fromkeys([*lines, *sorted(marks)]))[-MOST_MARKS:]
    write_atomic(place, ("\n".join(lines) + "\n").encode())
    others = sorted(place.parent.glob("*.seen"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in others[MOST_BUNDLES:]:
        old.unlink(missing_ok=True)


def _place(root: Path, digest: str) -> Path:
    return root / FOLDER / f"{digest[:24]}.seen"


# --- how it went ---


def past(root: Path) -> list[dict[str, Any]]:
    """The looks that judged something, the oldest first; lines that cannot be read are left out."""
    found = []
    try:
        lines = (root / REPORTS / "history.jsonl").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            one = json.loads(line)
        except ValueError:
            continue
        if isinstance(one, dict) and isinstance(one.get("metrics"), dict):
            found.append(one)
    return found


def add(root: Path, line: dict[str, Any]) -> list[dict[str, Any]]:
    """One more; returns all that are kept."""
    kept = [*past(root), line][-MOST_LOOKS:]
    text = "".join(json.dumps(one, ensure_ascii=False, sort_keys=True) + "\n" for one in kept)
    write_atomic(root / REPORTS / "history.jsonl", text.encode())
    return kept


def readable(data: Path) -> None:
    """Raises InputError where new data cannot be looked at."""
    if not data.exists():
        raise InputError(f"monitor.data: {data} is not there. Put new data there, or name its folder")
    if not os.access(data, os.R_OK):
        raise InputError(f"monitor.data: {data} may not be read by this user")
