"""The flow `train`: Prefect sees the line as it is in dvc.yaml.

DVC decides what must run and keeps the results, so Prefect's own caches are off. One generic task runs one
stage and bears its name; a stage that DVC finds unchanged ends as Cached. Stages run one after another: each
may use all the threads that `run.threads` pins, and two at a time would disturb the latencies measured.
If a line here computes a metric, it is in the wrong file.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker, PrefectConsoleHandler
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Cancelled, Completed, Failed

from components.contracts import InputError, read_json
from components.params import load_yaml
from pipelines import dag, dvc_cli, processes
from pipelines.dvc_cli import DONE, FAULT, INTERRUPTED, MISTAKE, REFUSED

ENDINGS = {FAULT: "Fault", MISTAKE: "Mistake", REFUSED: "Refused", INTERRUPTED: "Interrupted"}
"""Exit code of a stage -> name of the state in which its task run and the flow run end."""


def run(root: Path) -> tuple[int, str]:
    """Run the flow `train` from a command line; the exit code, and what to tell.

    Raises:
        InputError: the Prefect server does not answer.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.addFilter(_worth_a_line)
    # The heartbeat serves deployments, and waiting for its thread costs a second a run.
    with _server(root), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state = train(str(root), return_state=True)
        _settle(state, len(dag.load(root)))
    codes = {name: code for code, name in ENDINGS.items()}
    code = DONE if state.is_completed() else codes.get(state.name or "", FAULT)
    return code, state.message or ""


@contextmanager
def _server(root: Path) -> Iterator[None]:
    """The Prefect server that PREFECT_API_URL names, or one for this run.

    Prefect would start one by itself; but that one gets our Ctrl-C too, dies before it can be told how the
    run ended, keeps Prefect waiting for minutes, and lives on if we are killed.
    """
    url = PREFECT_API_URL.value()
    if url:
        _wait_for_server(f"PREFECT_API_URL names {url}, but no Prefect server answers there.", seconds=3)
        yield
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    dvc_cli.say(f"Starting Prefect's server for this run at http://127.0.0.1:{port} (8 to 20 s)")
    log = root / ".graftline" / "prefect-server.log"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "PREFECT_SERVER_UI_API_URL": url}  # else its pages ask at port 4200
    with processes.beside(command, log, environment) as runs, temporary_settings({PREFECT_API_URL: url}):
        _wait_for_server(f"Prefect's server did not start; see {log}", seconds=120, while_=runs)
        try:
            yield
        finally:  # once it is gone, Prefect would wait for minutes to tell it the rest
            APILogWorker.drain_all(timeout=5)
            EventsWorker.drain_all(timeout=5)


def _settle(state: State[Any], num_tasks: int) -> None:
    """Task runs reach the server as events, which it takes up in its own time: give it that, before it may stop."""
    EventsWorker.drain_all(timeout=5)
    run_id = state.state_details.flow_run_id
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[run_id] if run_id else []))
    deadline = time.monotonic() + 5
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            tasks = client.read_task_runs(flow_run_filter=mine)
            if len(tasks) >= num_tasks and all(one.state and one.state.is_final() for one in tasks):
                return
            time.sleep(0.1)


def _wait_for_server(complaint: str, seconds: float, while_: Callable[[], bool] = lambda: True) -> None:
    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while client.api_healthcheck() is not None:
            if time.monotonic() > deadline or not while_():
                raise InputError(complaint)
            time.sleep(0.1)


def _worth_a_line(record: logging.LogRecord) -> bool:
    """On a terminal the stages speak for themselves; of Prefect's lines the run's address and trouble."""
    if record.name.startswith(("prefect.flow_runs", "prefect.task_runs")):
        return "View at" in record.getMessage()
    return not record.name.startswith("prefect") or record.levelno >= logging.WARNING


@flow(name="train", persist_result=False)
def train(root: str = ".") -> State[Any]:
    """The whole line: every stage of dvc.yaml as a task run, and what it came to as an artifact.

    A stage that fails or is refused stops those that need it and no others: a refusal still gets its report.
    """
    project = Path(root).resolve()
    told: dict[str, State[Any]] = {}
    try:
        with dvc_cli.turn(project):
            line = dag.load(project)
            prefix = _key(str(load_yaml(project / "params.yaml").get("run", {}).get("name", "project")))
            for stage in line:
                parents = {p: told[p] for p in stage.parents if p in told}
                needed = [p for p, state in parents.items() if not state.is_completed()]
                good = [state for state in parents.values() if state.is_completed()]  # draws the graph's edges
                named = run_stage.with_options(name=stage.name, task_run_name=stage.name)
                told[stage.name] = named(str(project), stage.name, prefix, needed, wait_for=good, return_state=True)
    except InputError as error:
        return Failed(name=ENDINGS[MISTAKE], message=str(error))
    create_markdown_artifact(_summary(project), key=f"{prefix}-summary", description="What the line came to")
    return _ending(told)


def _ending(told: dict[str, State[Any]]) -> State[Any]:
    for name, state in told.items():
        if state.is_failed():
            return Failed(name=state.name, message=f"{name}: {state.message}")
    num_cached = sum(state.name == "Cached" for state in told.values())
    return Completed(message=f"{len(told)} stages: {len(told) - num_cached} ran, {num_cached} unchanged")


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(root: str, name: str, prefix: str, needed: list[str]) -> State[Any]:
    """Run one stage through DVC if it is stale. `needed`: stages that it reads and that did not end well."""
    if needed:
        return Cancelled(name="Skipped", message=f"not run, because it needs {', '.join(needed)}")
    project = Path(root)
    try:
        reasons = dvc_cli.stale(project, name).get(name, [])
        if not reasons:
            _show(project, name, prefix)
            return Completed(name="Cached", message="unchanged since dvc.lock was written")
        dvc_cli.say(f"{name}: to do, because {'; '.join(reasons[:3])}{' ...' if reasons[3:] else ''}")
        outcome = dvc_cli.repro(project, name, on_line=_to_prefect())
    except dvc_cli.DvcError as error:
        return Failed(name=ENDINGS[MISTAKE], message=str(error))
    _show(project, name, prefix)
    if outcome.code:
        return Failed(name=ENDINGS.get(outcome.code, ENDINGS[FAULT]), message=outcome.told)
    if outcome.unchanged:
        return Completed(name="Cached", message="outputs restored from DVC's cache")
    return Completed(message="; ".join(reasons))


def _to_prefect() -> Callable[[str], None]:
    logger = get_run_logger()
    return lambda line: logger.info("%s", line)


def _show(project: Path, name: str, prefix: str) -> None:
    """Leave the stage's metrics and the places of its pages with Prefect."""
    metrics = project / "artifacts" / name / "metrics.json"
    if metrics.exists():
        rows = [{"metric": metric, "value": value} for metric, value in read_json(metrics).items()]
        create_table_artifact(rows, key=f"{prefix}-{_key(name)}-metrics", description=f"Metrics of {name}")
    pages = sorted([*project.glob(f"artifacts/{name}/*.html"), *project.glob(f"reports/{name}/**/*.html")])
    if len(pages) == 1:
        text = pages[0].relative_to(project).as_posix()
        create_link_artifact(pages[0].as_uri(), link_text=text, key=f"{prefix}-{_key(name)}-page")
    elif pages:
        links = "\n".join(f"- [{page.relative_to(project).as_posix()}]({page.as_uri()})" for page in pages)
        create_markdown_artifact(links, key=f"{prefix}-{_key(name)}-pages", description=f"Pages of {name}")


def _summary(project: Path) -> str:
    from pipelines.summary import summarise

    return "\n".join(f"    {line}" for line in summarise(project))


def _key(text: str) -> str:
    """Prefect's keys are small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
