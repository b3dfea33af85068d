"""Removes old flow runs of this project from Prefect's database: through its server, which takes their task runs and
logs with them. SQLite does not shrink by itself, so where the server was started here, its file is vacuumed then."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterEndTime,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL

from pipelines import dvc_cli, runs
from pipelines.flows import served, server

_PAGE = 200


def remove(root: Path, days: float, dry_run: bool, home: Path | None = None) -> tuple[int, str]:
    """How many flow runs went, and what is to be said of it. `home`: where a server's database lies, if none is named
    and none is kept by `serve`; None: where Prefect has it.

    Raises:
        InputError: the server that is named does not answer, or none can be started.
    """
    named = bool(PREFECT_API_URL.value() or served.url(root))
    with _server(root, None if named else home), get_client(sync_client=True) as client:
        before = datetime.now(UTC) - timedelta(days=days)
        mine = {one.flow_run_id for one in runs.history(root) if one.flow_run_id}
        old = [one for one in _ended(client, before) if _is_of(one, root, mine)]
        for one in [] if dry_run else old:
            _delete(client, one)
    return len(old), "" if dry_run or not old else _vacuumed(named, home)


def _server(root: Path, home: Path | None) -> AbstractContextManager[Any]:
    if home is None:
        return server.reached(root)
    dvc_cli.say("Starting Prefect's server for the project's own database (8 to 20 s)")
    return server.started(root, server.free_port(), {"PREFECT_HOME": str(home)})


def _ended(client: SyncPrefectClient, before: datetime) -> Iterator[FlowRun]:
    """Every flow run that ended before then, the oldest first."""
    until: Any = before
    asked = FlowRunFilter(end_time=FlowRunFilterEndTime(before_=until))
    found: list[FlowRun] = []
    while True:
        some = client.read_flow_runs(
            flow_run_filter=asked, sort=FlowRunSort.START_TIME_ASC, limit=_PAGE, offset=len(found)
        )
        found += some
        if len(some) < _PAGE:
            break
    return iter(found)


def _is_of(one: FlowRun, root: Path, mine: set[str]) -> bool:
    """Whether it ran in this project: by its record, or by the folder that it was given."""
    if str(one.id) in mine:
        return True
    given = one.parameters.get("root")
    return isinstance(given, str) and Path(given).is_absolute() and Path(given).resolve() == root


def _delete(client: SyncPrefectClient, one: FlowRun) -> None:
    left = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[one.id]))
    with suppress(ObjectNotFound):
        for artifact in client.read_artifacts(artifact_filter=left):
            client.delete_artifact(artifact.id)
    with suppress(ObjectNotFound):
        client.delete_flow_run(one.id)


def _vacuumed(named: bool, home: Path | None) -> str:
    """Give the file's free pages back; only of a server that was started here, and has ended."""
    url = str(PREFECT_API_DATABASE_CONNECTION_URL.value() or "") if home is None else f"sqlite:///{home / 'prefect.db'}"
    if named or not url.startswith("sqlite"):
        return "its database gives the room back when it is vacuumed: by hand, while that server rests"
    place = (
        Path(urlsplit(url).path.removeprefix("/")) if "////" not in url else Path("/" + urlsplit(url).path.lstrip("/"))
    )
    if not place.is_file():
        return ""
    size = place.stat().st_size
    try:
        with sqlite3.connect(place, timeout=5) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    except sqlite3.Error as error:
        return f"{place.name} was not vacuumed: {error}"
    return f"{place.name} shrank by {max(0, size - place.stat().st_size) / 1e6:.1f} MB"
