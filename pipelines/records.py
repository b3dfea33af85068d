"""The record of a run as it lies in `.graftline/runs/<id>.json`: who or what triggered it and why, and how it ended.

Files there that cannot be read, or are something else, are passed over.
"""

from __future__ import annotations

import calendar
import dataclasses
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.contracts import read_json, write_json
from pipelines import leases
from pipelines.leases import Lease
from pipelines.triggers import Trigger

_ID = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{6}")
_LONGEST = 2_000
"""Characters of a told reason that are kept."""


@dataclass(frozen=True)
class Record:
    """One run."""

    id: str
    """Sortable by the time of its start."""
    flow: str
    """train, monitor, promote, rollback, backtest."""
    trigger: Trigger
    started: float
    """Seconds since 1970."""
    ended: float | None = None
    """None: it runs, or died unnoticed."""
    state: str = "running"
    """One of runs.STATES, or running, unchanged, crashed."""
    code: int | None = None
    """Exit code; None where there was none to see."""
    told: str = ""
    """What it came to, or why it ended."""
    ran: tuple[str, ...] = ()
    """Stages that ran; the others were unchanged, or not reached."""
    lease: Lease = field(default_factory=Lease)
    flow_run_id: str = ""
    """Prefect's."""
    api_url: str = ""
    """Of the Prefect server that knows it."""
    shown: bool = False
    """Prefect was told that it crashed."""
    noticed: bool = False
    """A notice told that it crashed."""
    resumed_by: str = ""
    """The run that did it again."""
    of: str = ""
    """The crashed run that this one does again."""
    within: str = ""
    """The run of another flow that this one is part of."""
    how: tuple[str, ...] = ()
    """What comes after `python -m pipelines` to do it again; empty: it is not resumed."""
    params: str = ""
    """sha256 of params.yaml when it began."""
    commit: str = ""
    """The project's last commit then."""


def alive(root: Path, record: Record) -> bool | None:
    """Whether a run that did not end its record still lives; None: it is on another machine, this one cannot know. What
    gave no sign for longer than a run may take is dead, wherever it was."""
    if record.ended is not None:
        return False
    file = leases.place(folder(root), record.id)
    living = leases.alive(record.lease, file)
    if living is None:
        silent = time.time() - max(record.started, leases.last_sign(file), leases.last_sign(place(root, record.id)))
        return False if silent > 3600 and silent > _longest_hours(root) * 3600 else None
    return living


def _longest_hours(root: Path) -> float:
    """A run may take so long, as infra/operations.yaml says; at least an hour, a day where it says nothing."""
    from components.contracts import InputError
    from components.params import load_yaml

    try:
        hours = load_yaml(root / "infra" / "operations.yaml")["runs"]["max_run_hours"]
    except (InputError, LookupError, TypeError):
        hours = None
    return max(1.0, float(hours)) if isinstance(hours, int | float) else 24.0


def folder(root: Path) -> Path:
    """Where the records lie."""
    return root / ".graftline" / "runs"


def log(root: Path, name: str) -> Path:
    """What a resumed run printed, as nobody was there to read it."""
    return folder(root) / f"{name}.log"


def place(root: Path, name: str) -> Path:
    """The file of one."""
    return folder(root) / f"{name}.json"


def cut(text: str) -> str:
    """A told reason, as much of it as is kept."""
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def new_id() -> str:
    """Sortable by time, and nobody else's."""
    now = time.time_ns() // 1000
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 1_000_000))
    return f"{stamp}{now % 1_000_000:06}Z-{os.urandom(3).hex()}"


def began(name: str) -> float:
    """When that id was given, in seconds since 1970."""
    return float(calendar.timegm(time.strptime(name[:15], "%Y%m%dT%H%M%S")))


def is_id(text: str) -> bool:
    """Whether it is one of ours."""
    return _ID.fullmatch(text) is not None


def write(root: Path, record: Record) -> None:
    """Whole, or not at all."""
    write_json(place(root, record.id), record)


def read(root: Path, name: str) -> Record | None:
    """One record; None if there is none, or none that can be read."""
    try:
        raw = read_json(place(root, name))
        known = {f.name for f in dataclasses.fields(Record)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items() if k in known}
        values["trigger"] = Trigger(**raw["trigger"])
        values["lease"] = Lease(**raw["lease"])
        values.setdefault("noticed", True)  # of a version that kept no account of it
        one = Record(**values)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    texts = (one.flow, one.state, one.told, one.of, one.within, one.resumed_by, one.trigger.kind, one.trigger.cause)
    sound = isinstance(one.started, float) and isinstance(one.ended, float | None) and one.id == name
    return one if sound and all(isinstance(text, str) for text in (*texts, *one.ran, *one.how)) else None


def names(root: Path) -> list[str]:
    """Of all records, the newest first."""
    try:
        found = [entry.removesuffix(".json") for entry in os.listdir(folder(root)) if entry.endswith(".json")]
    except OSError:
        return []
    return sorted(filter(is_id, found), reverse=True)


def history(root: Path) -> list[Record]:
    """Every record, the newest first."""
    return [one for name in names(root) if (one := read(root, name)) is not None]


def prune(root: Path, keep: int) -> int:
    """Remove all but the newest `keep` records, never one of a run that may live; how many went."""
    gone = 0
    for name in names(root)[keep:]:
        one = read(root, name)
        if one is not None and alive(root, one) is not False:
            continue
        for path in (place(root, name), leases.place(folder(root), name), log(root, name)):
            path.unlink(missing_ok=True)
        gone += 1
    return gone
