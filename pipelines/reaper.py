"""Runs that died: marked as crashed, here and in Prefect; told; and, if nobody watched them, resumed once."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from pipelines import keeper, records, runs, triggers
from pipelines.records import Record

DEATH = "GRAFTLINE_DEATH"
"""How the keeper tells what it saw: "<id> <how it ended>"."""
_RECENT = 100
"""Newest records that are looked at."""


def reap(root: Path, resume: bool = False) -> list[str]:
    """Mark what died, and with `resume` start again what nobody watched; what was done, in words.

    Two at once: one acts. A run that lives is never touched, however long or still it is.

    Raises:
        InputError: infra/operations.yaml has a mistake (only with `resume`).
    """
    root = root.resolve()
    if not records.folder(root).is_dir():
        return []
    keeper.collect()
    with runs.reaping(root):
        marked = [runs.mark(root, one, _seen(one.id)) for one in runs.dead(root)]
    told = [f"{one.id}: {one.flow} crashed: {one.told}" for one in marked]
    for one in marked:
        _tell(root, one)
    _show(root, _recent(root))
    if resume and _may_resume(root):
        with runs.reaping(root):
            again = [(one, _resume(root, one)) for one in _to_resume(_recent(root))]
        told += [f"{one.id}: {one.flow} is resumed as {name}; it prints to {_log(root, name)}" for one, name in again]
    return told


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
    """Start it again, detached; the new run's id. Written first: if the reaper dies here, it is undone, not twice."""
    name = records.new_id()
    records.write(root, dataclasses.replace(one, resumed_by=name))
    besides = {triggers.RESUMES: f"{one.id} {name}"}
    if one.api_url and "PREFECT_API_URL" not in os.environ and _answers(one.api_url):
        besides["PREFECT_API_URL"] = one.api_url
    command = [sys.executable, "-m", "pipelines", *one.how]
    keeper.spawn(keeper.within(str(root), command), besides, str(records.log(root, name)))
    return name


def _log(root: Path, name: str) -> str:
    return records.log(root, name).relative_to(root).as_posix()


def _tell(root: Path, one: Record) -> None:
    cause = f", started by {one.trigger.kind}" + (f" ({one.trigger.cause})" if one.trigger.cause else "")
    try:
        from pipelines.notices import notice

        notice(root, "crashed", f"Run {one.id} of {one.flow}{cause}, crashed: {one.told}", one.id)
    except Exception as error:  # a notice must not keep a run from being resumed
        print(f"notice: crashed could not be told ({error})", file=sys.stderr)


def _show(root: Path, recent: list[Record]) -> None:
    """Prefect would show them as running for ever."""
    waiting = [one for one in recent if one.state == "crashed" and one.api_url and not one.shown]
    answering = {url for url in {one.api_url for one in waiting} if _answers(url)}
    if not answering:
        return
    from pipelines.flows import crashed

    for one in waiting:
        if one.api_url in answering and crashed.mark(one.flow_run_id, one.api_url, one.told, one.id):
            now = records.read(root, one.id)
            if now is not None:
                records.write(root, dataclasses.replace(now, shown=True))


def _answers(url: str) -> bool:
    """Whether something listens there; Prefect takes 2 s to import, and long to give up."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=2):
            return True
    except (OSError, ValueError):
        return False
