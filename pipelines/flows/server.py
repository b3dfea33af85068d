"""Prefect's server: find the one that is named, start one, wait for it, let it take up the rest before it ends.

A server that is started here listens on 127.0.0.1 only, lets no other web page in, is told not to call home, and dies
with us.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.events.worker import EventsWorker
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging.handlers import APILogWorker, PrefectConsoleHandler
from prefect.settings import PREFECT_API_URL, temporary_settings

from components.contracts import InputError
from pipelines import dvc_cli, processes
from pipelines.flows import served

LOG = ".graftline/prefect-server.log"
"""What a server says that was started here, relative to the project."""


@contextmanager
def reached(root: Path) -> Iterator[str]:
    """The API of the server that PREFECT_API_URL names, else of the one that `serve` keeps here, else of one
    for as long as the block runs.

    Prefect would start one by itself; but that one gets our Ctrl-C too, dies before it can be told how the
    run ended, keeps Prefect waiting for minutes, and lives on if we are killed.

    Raises:
        InputError: the one that is named does not answer, or the one that was started does not.
    """
    if url := PREFECT_API_URL.value():
        wait(f"PREFECT_API_URL names {url}, but no Prefect server answers there.", seconds=3)
        yield url
        return
    if url := served.url(root):
        with temporary_settings({PREFECT_API_URL: url}):
            wait(f"serve keeps this project, but its server at {url} does not answer.", seconds=10)
            yield url
        return
    port = free_port()
    dvc_cli.say(f"Starting Prefect's server for this run at http://127.0.0.1:{port} (8 to 20 s)")
    with started(root, port) as (url, _):
        yield url


@contextmanager
def started(
    root: Path, port: int, besides: Mapping[str, str] | None = None
) -> Iterator[tuple[str, Callable[[], bool]]]:
    """A server of our own, until the block ends: its API, and a question: does it still run?

    Inside the block it is the one that Prefect's clients reach. `besides` is what it finds in its environment besides
    ours.

    Raises:
        InputError: it does not start.
    """
    url, log = f"http://127.0.0.1:{port}/api", root / LOG
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    pages = {"PREFECT_SERVER_UI_API_URL": url}  # else its pages ask at port 4200
    environment = {**_closed(port), **os.environ, **pages, **(besides or {})}
    with processes.beside(command, log, environment) as runs, temporary_settings({PREFECT_API_URL: url}):
        wait(f"Prefect's server did not start; see {log}", seconds=120, while_=runs)
        try:
            yield url, runs
        finally:
            drain()  # once it is gone, Prefect would wait for minutes to tell it the rest


def _closed(port: int) -> dict[str, str]:
    """By itself Prefect's server lets every web page that a person here looks at read and do all. CORS keeps other
    pages from reading; what a page may send without reading the answer wants a token, which only readers have."""
    return {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port},http://localhost:{port}",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    }


def free_port() -> int:
    """A port of 127.0.0.1 at which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait(complaint: str, seconds: float, while_: Callable[[], bool] = lambda: True) -> None:
    """Until the server answers that Prefect's clients reach now.

    Raises:
        InputError: with this complaint, if it does not within these seconds; or it lets nobody in without a password.
    """
    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while client.api_healthcheck() is not None:
            if time.monotonic() > deadline or not while_():
                raise InputError(complaint)
            time.sleep(0.1)
        try:
            client.hello()
        except PrefectHTTPStatusError as error:
            if error.response.status_code == 401:
                raise InputError(
                    f"{PREFECT_API_URL.value()} answers, but lets nobody in without the right NAME:PASSWORD. "
                    "Set PREFECT_API_AUTH_STRING to what PREFECT_SERVER_API_AUTH_STRING is there"
                ) from None


def drain() -> None:
    """Send what waits to be sent."""
    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)


def settle(flow_run_id: UUID | None, num_tasks: int) -> None:
    """Task runs reach the server as events, which it takes up in its own time: give it that, before it may stop."""
    EventsWorker.drain_all(timeout=5)
    if flow_run_id is None:
        return
    mine: Any = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    deadline = time.monotonic() + 5
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            tasks = client.read_task_runs(flow_run_filter=mine)
            if len(tasks) >= num_tasks and all(one.state and one.state.is_final() for one in tasks):
                return
            time.sleep(0.1)


def hush() -> None:
    """On a terminal the stages speak for themselves; of Prefect's lines only the run's address and trouble."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler) and _worth_a_line not in handler.filters:
            handler.addFilter(_worth_a_line)
    tasks = logging.getLogger("prefect.task_runs")
    if _said_once not in tasks.filters:
        tasks.addFilter(_said_once)


def _said_once(record: logging.LogRecord) -> bool:
    """Prefect logs twice that a task run failed, the first time with an empty traceback."""
    return not record.getMessage().startswith("Task run failed with state")


def _worth_a_line(record: logging.LogRecord) -> bool:
    if record.name.startswith(("prefect.flow_runs", "prefect.task_runs")):
        return "View at" in record.getMessage()
    return not record.name.startswith("prefect") or record.levelno >= logging.WARNING
