"""Runs that died: found by their leases, marked as crashed in their records, and told, once each.

Every run does this when it begins, and reaper.py at any time; so it is cheap where nothing died.
"""

from __future__ import annotations

import dataclasses
import fcntl
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines import leases, records
from pipelines.records import Record

_RECENT = 50
"""Newest records that are looked at for dead ones, whatever lies beside them."""


@contextmanager
def reaping(root: Path) -> Iterator[None]:
    """One at a time decides what is dead, so that nothing is marked, told or resumed twice."""
    with (records.folder(root) / "reap.lock").open("a+b") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def dead(root: Path) -> list[Record]:
    """Runs that died and are not marked yet, the newest first: of those whose lease's file is there still, and of the
    newest ones."""
    asked = {*leases.held(records.folder(root)), *records.names(root)[:_RECENT]}
    found = [one for name in sorted(asked, reverse=True) if (one := records.read(root, name)) is not None]
    return [one for one in found if one.ended is None and records.alive(root, one) is False]


def mark(root: Path, record: Record, seen: str = "") -> Record:
    """Write that it crashed; only inside `reaping`. `seen`: what the keeper saw of its end."""
    why = records.cut(leases.why_dead(record.lease, seen))
    marked = dataclasses.replace(record, state="crashed", ended=time.time(), told=why, noticed=False)
    records.write(root, marked)
    leases.place(records.folder(root), record.id).unlink(missing_ok=True)
    return marked


def notice(root: Path) -> list[Record]:
    """Mark what died; what was marked just now, for `tell`."""
    if not leases.held(records.folder(root)):
        return []
    with reaping(root):
        return [mark(root, one) for one in dead(root)]


def tell(root: Path, found: Iterable[Record]) -> list[Record]:
    """A notice of each of those that crashed and was not told yet; which they were. Whoever tells says so first: a
    notice may take seconds, and another may ask meanwhile."""
    names = dict.fromkeys(one.id for one in found if one.state == "crashed" and not one.noticed)
    if not names:
        return []
    with reaping(root):
        now = [one for name in names if (one := records.read(root, name)) is not None]
        mine = [one for one in now if one.state == "crashed" and not one.noticed]
        for one in mine:
            records.write(root, dataclasses.replace(one, noticed=True))
    for one in mine:
        _notice(root, one)
    return mine


def was_shown(root: Path, name: str) -> None:
    """Prefect knows by now that it crashed. The record is read anew: it may have been resumed meanwhile."""
    with reaping(root):
        now = records.read(root, name)
        if now is not None:
            records.write(root, dataclasses.replace(now, shown=True))


def _notice(root: Path, one: Record) -> None:
    cause = f", started by {one.trigger.kind}" + (f" ({one.trigger.cause})" if one.trigger.cause else "")
    try:
        from pipelines.notices import notice as send  # reads the settings, which costs more than all the rest here

        send(root, "crashed", f"Run {one.id} of {one.flow}{cause}, crashed: {one.told}", one.id)
    except Exception as error:  # a notice must not keep a run from being resumed
        print(f"notice: crashed could not be told ({error})", file=sys.stderr)
