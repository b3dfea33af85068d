"""What is worth a person's notice: a line in .graftline/notices.jsonl, one on stderr, Prefect's notification blocks.

Which events, and to which blocks, infra/operations.yaml says (section notify). A notice never harms what it tells of:
nothing here raises, and a block that does not answer is left after some seconds. Texts are cut to one size, and what
looks like a secret in them is struck out; the blocks keep their own secrets in Prefect.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.operations import Event

FILE = ".graftline/notices.jsonl"
MOST = 1000
"""Lines that the file may hold; then the older half goes."""
LONGEST = 600
"""Characters of a notice's text."""
_SECRET_NAMES = re.compile(r"(?i)(secret|token|passw|api_?key|access_?key|private_?key|auth_string|credential|_dsn$)")
_IN_ADDRESSES = re.compile(r"(?<=://)[^/\s@]+(?=@)")
STRUCK = "[struck out]"


def notice(root: Path, event: Event, text: str, run_id: str = "") -> None:
    """Tell of an event, if it is one of notify.on. Never raises; takes seconds at most.

    Args:
        text: what a person must know, in a sentence or two.
        run_id: the run of pipelines/runs.py that it is about.
    """
    if not (root / "infra" / "operations.yaml").exists():
        return  # a project from before there were such settings
    try:
        from pipelines import operations  # loads plugins

        settings = operations.read(root).notify
        if event not in settings.on:
            return
        told = plain(text)
        print(f"notice: {event}: {told}", file=sys.stderr, flush=True)
        undelivered = _deliver(root, settings.blocks, event, told)
        if settings.file:
            _append(root, {"event": event, "text": told, "run": run_id, "undelivered": undelivered})
    except Exception as error:  # whatever it is: the run that it tells of goes on
        print(f"notice: {event} could not be told ({type(error).__name__})", file=sys.stderr, flush=True)


def plain(text: str) -> str:
    """One line of at most LONGEST characters, without what looks like a secret: values of environment variables whose
    names say so, and names and passwords in addresses."""
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET_NAMES.search(name):
            text = text.replace(value, STRUCK)
    text = " ".join(_IN_ADDRESSES.sub(STRUCK, text).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."


def history(root: Path) -> list[dict[str, object]]:
    """The notices, newest first; lines that a full disk cut off are left out."""
    try:
        lines = (root / FILE).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    found = []
    for line in reversed(lines):
        try:
            one = json.loads(line)
        except ValueError:
            continue
        if isinstance(one, dict):
            found.append(one)
    return found


def newest(root: Path, num: int = 5) -> list[str]:
    """For people, a line each, the newest first."""
    return [
        f"{_local(str(one.get('when', '')))}  {one.get('event', '?')}: {one.get('text', '')}"
        for one in history(root)[:num]
    ]


def _local(when: str) -> str:
    try:
        return datetime.fromisoformat(when).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return when


def _deliver(root: Path, blocks: tuple[str, ...], event: str, text: str) -> list[str]:
    """To Prefect's blocks; which did not take it, and why in a word."""
    if not blocks:
        return []
    from pipelines.flows import notify

    return notify.send(root, blocks, f"{root.resolve().name}: {event}", text)


def _append(root: Path, entry: dict[str, object]) -> None:
    path = root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    stamped = {"when": datetime.now(UTC).isoformat(timespec="seconds"), **entry}
    with path.with_name("notices.lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        with path.open("a+", encoding="utf-8") as handle:
            handle.seek(0)
            lines = handle.read().splitlines()
            cut_off = bool(lines) and not _ends_well(path)
            handle.write(("\n" if cut_off else "") + json.dumps(stamped, ensure_ascii=False) + "\n")
        if len(lines) >= MOST:
            from components.contracts import write_atomic

            kept = path.read_text("utf-8", "replace").splitlines()[-MOST // 2 :]
            write_atomic(path, ("\n".join(kept) + "\n").encode())


def _ends_well(path: Path) -> bool:
    with path.open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) == b"\n"
