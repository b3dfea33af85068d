"""The record of runs, to be read: what `python -m pipelines runs` prints."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

from components.contracts import InputError
from pipelines import notices, records
from pipelines.records import Record

HEADING = ("when", "took", "flow", "triggered by", "ended", "why")


def show(root: Path, last: int, as_json: bool) -> list[str]:
    """The newest `last` runs, a line each under a heading; as JSON, all that is known of them.

    Raises:
        InputError: `last` is less than one.
    """
    if last < 1:
        raise InputError(f"--last: {last} runs cannot be shown; give 1 or more")
    found: list[Record] = []
    for name in records.names(root):
        one = records.read(root, name)
        if one is not None:
            found.append(one)
        if len(found) == last:
            break
    if as_json:
        plain = [{**dataclasses.asdict(one), "alive": records.alive(root, one)} for one in found]
        return [json.dumps(plain, indent=1, ensure_ascii=False)]
    if not found:
        return ["No run is recorded yet."]
    rows = [HEADING, *(_row(one, records.alive(root, one)) for one in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    told = ["  ".join([*(c.ljust(w) for c, w in zip(row[:5], widths)), row[5]]).rstrip() for row in rows]
    noticed = notices.newest(root)
    return [*told, "", f"The newest notices ({notices.FILE}):", *noticed] if noticed else told


def _row(one: Record, living: bool | None) -> tuple[str, ...]:
    state, told = one.state, (one.told.strip().splitlines() or [""])[0]
    if living is None:
        state, told = "unknown", f"it ran on {one.lease.host}; look there"
    elif one.ended is None and not living:
        state, told = "died", "not marked yet; `python -m pipelines reap` does it"
    if one.resumed_by:
        told = f"{told}; resumed as {one.resumed_by}"
    words = " ".join(one.trigger.cause.split())
    by = f"{one.trigger.kind} ({one.trigger.who})" if one.trigger.who else one.trigger.kind
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.started))
    seconds = None if living is None else (one.ended or time.time()) - one.started
    return when, _took(seconds), one.flow, _short(f"{by}: {words}" if words else by, 60), state, told


def _took(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{max(0.0, seconds):.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
