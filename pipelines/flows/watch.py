"""The watch of serve: runs that died, and new data. It sees and triggers; what follows is a run like every other."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client

from components.contracts import read_json, write_json
from components.params import load_yaml
from pipelines import dvc_cli, operations

SECONDS = 15.0
"""Between two looks; GRAFTLINE_WATCH_SECONDS is another number, for tests."""
SEEN = ".graftline/watch.json"
"""Which data the monitor was told of."""


def keep_on(root: Path, ids: Mapping[str, UUID], settings: operations.Operations, over: threading.Event) -> None:
    """Look again and again until it is over. Trouble with one look is told once and stops nothing."""
    pause = float(os.environ.get("GRAFTLINE_WATCH_SECONDS", SECONDS))
    data = NewData(root, _watched(root, settings))
    told = ""
    while not over.wait(pause):
        trouble = ""
        began = time.monotonic()
        for look in (lambda: _reap(root, settings), lambda: _new_data(data, ids)):
            try:
                look()
            except Exception as error:  # the server may be away for a while, a folder not be there
                trouble = f"{type(error).__name__}: {error}"
        if trouble and trouble != told:
            dvc_cli.say(f"The watch: {trouble}")
        told = trouble
        over.wait(20 * (time.monotonic() - began) - pause)  # huge folders: not more than a twentieth of the time


def _reap(root: Path, settings: operations.Operations) -> None:
    from pipelines import reaper

    for line in reaper.reap(root, resume=settings.runs.resume):
        dvc_cli.say(line)


def _new_data(data: NewData, ids: Mapping[str, UUID]) -> None:
    cause = data.look()
    if not cause or "monitor" not in ids:
        return
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(
            ids["monitor"], parameters={"trigger": "data", "cause": cause}, idempotency_key=f"data-{data.now.mark}"
        )
    data.told()
    dvc_cli.say(f"New data, {cause}: monitor runs")


def _watched(root: Path, settings: operations.Operations) -> Path:
    named = settings.monitor.data or load_yaml(root / "params.yaml").get("ingest", {}).get("data", "data")
    return root / str(named)


@dataclass(frozen=True)
class Print:
    """A folder at a glance."""

    mark: str
    """Of names, sizes and times of change."""
    num: int
    """Files."""


class NewData:
    """Tells when other files lie in a folder than the monitor was told of, once they have settled."""

    def __init__(self, root: Path, place: Path) -> None:
        self._path, self._place = root / SEEN, place
        self._known = self._read()
        self.now = self._known

    def look(self) -> str:
        """What is new, in words; empty: nothing, or it still grows. What lies there at the very first look is not new:
        the schedule looks at it anyway."""
        before, self.now = self.now, glance(self._place)
        if not self._known.mark:
            self.told()
        if self.now == self._known or self.now != before:
            return ""
        return f"{self._place.name}: {self.now.num} files, {self.now.num - self._known.num:+} since the last look"

    def told(self) -> None:
        """The monitor knows of what lies there now."""
        self._known = self.now
        write_json(self._path, {"place": str(self._place), "mark": self.now.mark, "num": self.now.num})

    def _read(self) -> Print:
        try:
            raw = read_json(self._path)
            if raw["place"] == str(self._place):
                return Print(str(raw["mark"]), int(raw["num"]))
        except (OSError, ValueError, LookupError, TypeError):
            pass
        return Print("", 0)


def glance(place: Path) -> Print:
    """Of a folder with all that is in it, or of one file; hidden ones do not count. Nothing there: no files."""
    found: list[str] = []
    waiting = [place]
    if place.is_file():
        found.append(_line(place.name, place.stat()))
        waiting = []
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        waiting.append(Path(entry.path))
                    else:
                        found.append(_line(os.path.relpath(entry.path, place), entry.stat()))
        except FileNotFoundError:
            continue
    return Print(hashlib.sha256("\n".join(sorted(found)).encode("utf-8", "surrogateescape")).hexdigest(), len(found))


def _line(name: str, stat: os.stat_result) -> str:
    return f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}"
