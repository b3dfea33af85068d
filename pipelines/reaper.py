"""Runs that died: marked as crashed, here and in Prefect; told; and, if nobody watched them, resumed once."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from pipelines import deaths, keeper, leases, records, triggers
from pipelines.records import Record
from pipelines.triggers import Trigger

DEATH = "GRAFTLINE_DEATH"
"""How the keeper tells what it saw: "<id> <how it ended>"."""
PATIENCE = 300.0
"""Seconds within which a run that was started again has left its record, or never will."""
_RECENT = 100
"""Newest records that are looked at."""


def reap(root: Path, resume: bool = False) -> list[str]:
    """Mark and tell what died, and with `resume` start again what nobody watched; what was done, in words. What was
    only marked, by the next run, is told and resumed too.

    Two at once: one acts. A run that lives is never touched, however long or still it is.

    Raises:
        InputError: infra/operations.yaml has a mistake (only with `resume`).
    """
    root = root.resolve()
    if not records.folder(root).is_dir():
        return []
    keeper.collect()
    with deaths.reaping(root):
        marked = [deaths.mark(root, one, _seen(one.id)) for one in deaths.dead(root)]
        marked += [_never_began(root, one) for one in _recent(root) if _is_overdue(root, one)]
    told = deaths.tell(root, [*marked, *_recent(root)])
    lines = [f"{one.id}: {one.flow} crashed: {one.told}" for one in told]
    _show(root, _recent(root))
    if resume and _may_resume(root):
        with deaths.reaping(root):
            lines += [_resume(root, one) for one in _to_resume(_recent(root))]
    return lines


def _recent(root: Path) -> list[Record]:
    return [one for name in records.names(root)[:_RECENT] if (one := records.read(root, name)) is not None]


def _may_resume(root: Path) -> bool:
    if not (root / "infra" / "operations.yaml").exists():
        return True
    from pipelines import operations

    return operations.read(root).runs.resume


def _seen(name: str) -> str:
    told, _, how = os.environ.get(DEATH, "").partition(" ")
    return how if told == name else ""


def _to_resume(recent: list[Record]) -> list[Record]:
    """Of each flow the newest run, if it crashed, nobody watched it, and it is no resumed one itself. What is part of
    another run that is resumed comes with that."""
    newest: dict[str, Record] = {}
    for one in recent:
        newest.setdefault(one.flow, one)
    found = {
        one.id: one
        for one in newest.values()
        if one.state == "crashed" and one.trigger.kind in triggers.UNWATCHED and one.how and not one.resumed_by
    }
    return [one for one in found.values() if one.within not in found]


def _resume(root: Path, one: Record) -> str:
    """Start it again, detached; what to tell. Written first: if the reaper dies here, it is undone, not twice."""
    name = records.new_id()
    records.write(root, dataclasses.replace(one, resumed_by=name))
    besides = {triggers.RESUMES: f"{one.id} {name}"}
    if one.api_url and "PREFECT_API_URL" not in os.environ and _answers(one.api_url):
        besides["PREFECT_API_URL"] = one.api_url
    command = [sys.executable, "-m", "pipelines", *one.how]
    try:
        keeper.spawn(keeper.within(str(root), command), besides, str(records.log(root, name)))
    except OSError as error:
        records.write(root, one)
        return f"{one.id}: {one.flow} could not be resumed yet: {error.strerror}"
    return f"{one.id}: {one.flow} is resumed as {name}; it prints to {_log(root, name)}"


def _is_overdue(root: Path, one: Record) -> bool:
    """Whether it was started again long ago, and that run left no record: it died before it could."""
    again = one.resumed_by
    if one.state != "crashed" or not records.is_id(again) or records.place(root, again).exists():
        return False
    return time.time() - records.began(again) > PATIENCE


def _never_began(root: Path, one: Record) -> Record:
    """The record that the resumed run did not leave."""
    name, by = one.resumed_by, one.trigger
    told = f"it ended before it began; what it printed is in {_log(root, name)}"
    left = Record(
        id=name, flow=one.flow, trigger=Trigger("resume", by.who, by.cause, one.id), of=one.id, how=one.how,
        started=records.began(name), ended=time.time(), state="crashed", told=told, lease=leases.Lease(),
    )  # fmt: skip
    records.write(root, left)
    return left


def _log(root: Path, name: str) -> str:
    return records.log(root, name).relative_to(root).as_posix()


def _show(root: Path, recent: list[Record]) -> None:
    """Prefect would show them as running for ever."""
    waiting = [one for one in recent if one.state == "crashed" and one.api_url and not one.shown]
    answering = {url for url in {one.api_url for one in waiting} if _answers(url)}
    if not answering:
        return
    from pipelines.flows import crashed

    for one in waiting:
        if one.api_url in answering and crashed.mark(one.flow_run_id, one.api_url, one.told, one.id):
            deaths.was_shown(root, one.id)


def _answers(url: str) -> bool:
    """Whether something listens there; Prefect takes 2 s to import, and long to give up."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=2):
            return True
    except (OSError, ValueError):
        return False
