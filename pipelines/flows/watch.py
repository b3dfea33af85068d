"""The watch of serve: runs that died, and new data. It sees and triggers; what follows is a run like every other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client

from components.contracts import InputError, read_json, write_json
from components.monitoring import folders
from components.monitoring.folders import Glance
from components.params import load_yaml
from pipelines import dvc_cli, operations
from pipelines.flows import served

SECONDS = 15.0
"""Between two looks; served.WATCH names another number, for tests."""
SHARE = 20.0
"""So many times as long as a look at the data took is rested after it: huge folders cost a twentieth of the time."""
SEEN = ".graftline/watch.json"
"""Which data the monitor was told of."""


def keep_on(root: Path, ids: Mapping[str, UUID], settings: operations.Operations, over: threading.Event) -> None:
    """Look again and again until it is over. Trouble with one look is told once and stops nothing.

    New data are looked for in a thread of their own: a huge folder takes long, and a dead run is to be noticed at once.
    `settings` hold where those of the project cannot be read now.
    """
    pause = served.seconds(served.WATCH, SECONDS)
    latest = Latest(root, settings)
    data = Data(root, ids)
    looking = threading.Thread(
        target=_again, args=(lambda: data.look(latest.read()), pause, over, SHARE), name="new data", daemon=True
    )
    looking.start()
    _again(lambda: _reap(root, latest.read()), pause, over)


def _again(look: Callable[[], None], pause: float, over: threading.Event, share: float = 0.0) -> None:
    """`share`: so many times as long as a look took is rested after it."""
    told = ""
    while not over.wait(pause):
        trouble, began = "", time.monotonic()
        try:
            look()
        except Exception as error:  # the server may be away for a while
            trouble = f"{type(error).__name__}: {error}"
        if trouble and trouble != told:
            dvc_cli.say(f"The watch: {trouble}")
        told = trouble
        over.wait(share * (time.monotonic() - began) - pause)


class Latest:
    """The project's settings of operation as they are now; while they have a mistake, as they were before."""

    def __init__(self, root: Path, settings: operations.Operations) -> None:
        self._root, self._last, self._told = root, settings, ""

    def read(self) -> operations.Operations:
        """Says once what is wrong with them."""
        told = ""
        try:
            self._last = operations.read(self._root)
        except (InputError, OSError) as error:
            told = str(error)
        if told and told != self._told:
            dvc_cli.say(f"The watch goes on by the settings as they were before: {told}")
        self._told = told
        return self._last


def _reap(root: Path, settings: operations.Operations) -> None:
    from pipelines import reaper

    for line in reaper.reap(root, resume=settings.runs.resume):
        dvc_cli.say(line)


class Data:
    """Triggers the monitor of new data, wherever the settings say that these lie now."""

    def __init__(self, root: Path, ids: Mapping[str, UUID]) -> None:
        self._root, self._ids = root, ids
        self._new: NewData | None = None

    def look(self, settings: operations.Operations) -> None:
        """Once."""
        place = _watched(self._root, settings)
        if self._new is None or self._new.place != place:
            self._new = NewData(self._root, place)
        cause = self._new.look()
        if not cause or "monitor" not in self._ids:
            return
        with get_client(sync_client=True) as client:
            client.create_flow_run_from_deployment(
                self._ids["monitor"], parameters={"trigger": "data", "cause": cause}, idempotency_key=self._new.key
            )
        self._new.told()
        dvc_cli.say(f"New data, {cause}: monitor runs")


def _watched(root: Path, settings: operations.Operations) -> Path:
    named = settings.monitor.data or load_yaml(root / "params.yaml").get("ingest", {}).get("data", "data")
    return root / str(named)


class NewData:
    """Tells when other files lie in a folder than the monitor was told of, once they have settled."""

    def __init__(self, root: Path, place: Path) -> None:
        self._path, self.place = root / SEEN, place
        self._known, self._since = self._read()
        self.now = self._known

    @property
    def key(self) -> str:
        """Of what is to be told: the same until it was, and never again, even if the same files lie there once more."""
        return f"data-{self._since}-{self.now.mark}"

    def look(self) -> str:
        """What is new, in words; empty: nothing, or it still grows. What lies there at the very first look is not new:
        the schedule looks at it anyway."""
        before, self.now = self.now, folders.glance(self.place)
        if not self._known.mark:
            self.told()
        if self.now == self._known or self.now != before:
            return ""
        return f"{self.place.name}: {self.now.num} files, {self.now.num - self._known.num:+} since the last look"

    def told(self) -> None:
        """The monitor knows of what lies there now."""
        self._known, self._since = self.now, time.time_ns()
        write_json(self._path, {"place": str(self.place), "since": self._since, **self.now._asdict()})

    def _read(self) -> tuple[Glance, int]:
        try:
            raw = read_json(self._path)
            if raw["place"] == str(self.place):
                return Glance(str(raw["mark"]), int(raw["num"])), int(raw.get("since", 0))
        except (OSError, ValueError, LookupError, TypeError):
            pass
        return Glance("", 0), 0
