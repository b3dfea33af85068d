"""The flow on a Prefect server whose database is a real PostgreSQL, as infra/ sets it up for more than one machine."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import miniature
import postgresql
import pytest

pytestmark = [
    pytest.mark.slow,  # 30 s on a quiet machine: the server makes its tables
    pytest.mark.skipif(
        postgresql.programs() is None, reason="no PostgreSQL server is installed (apt-get install postgresql)"
    ),
]


def test_a_run_is_in_the_database(finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    from pipelines.flows import server

    miniature.turn_knob(finished_project, 'note: "."', 'note: "!"')
    with postgresql.running(server.free_port()) as place:
        besides = {"PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{place}"}
        with server.started(finished_project, server.free_port(), besides) as (url, _):
            monkeypatch.setenv("PREFECT_API_URL", url)
            done = miniature.call(finished_project, sys.executable, "-m", "pipelines", "run", timeout=120)
            assert done.returncode == 0, done.stderr
            tasks, flows = asyncio.run(_read(f"postgresql://{place}"))
    assert tasks == {**dict.fromkeys(["ingest", "gate", "report", "export"], "Cached"), "handoff": "Completed"}
    assert flows == {"mini": "Completed"}
    assert not (tmp_path / "prefect" / "prefect.db").exists(), "nothing went to SQLite"
    assert os.path.getsize(finished_project / server.LOG) > 0


async def _read(url: str) -> tuple[dict[str, str], dict[str, str]]:
    import asyncpg

    connection: Any = await asyncpg.connect(url)
    try:
        tasks = await connection.fetch("select name, state_name from task_run")
        flows = await connection.fetch("select name, state_name from flow_run")
    finally:
        await connection.close()
    return {r["name"]: r["state_name"] for r in tasks}, {r["name"]: r["state_name"] for r in flows}
