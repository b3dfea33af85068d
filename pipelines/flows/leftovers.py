"""What serve finds when it begins, and what it leaves: runs of a serve that was killed, and what was due meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

from components.contracts import InputError
from pipelines import runs
from pipelines.flows import served

SHUTDOWN = "Runner is shutting down."
"""What Prefect's runner says of the runs that it ends when it ends."""
OPEN = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


def refuse_foreign(root: Path, known: Iterable[RunnerDeployment]) -> None:
    """Raises InputError if on this server another project, or workers, run deployments of these names."""
    with get_client(sync_client=True) as client:
        for one in known:
            try:
                found = client.read_deployment_by_name(f"{one.flow_name}/{one.name}")
            except ObjectNotFound:
                continue
            home = found.parameters.get("root", "")
            if found.work_pool_name:
                raise InputError(
                    f"{one.flow_name}/{one.name} belongs to the work pool {found.work_pool_name} on this server, whose "
                    "workers run it; serve is for machines without workers. Use one of the two, or another run.name"
                )
            if home and Path(str(home)) != root and (Path(str(home)) / "dvc.yaml").exists():
                raise InputError(
                    f"{one.flow_name}/{one.name} is the project in {home} on this server. "
                    "Give one of the two another run.name in params.yaml"
                )


def unschedule(known: Iterable[RunnerDeployment], ids: Mapping[str, UUID]) -> None:
    """Take away schedules that are no longer in the file: where it has none, Prefect would keep the old ones."""
    with get_client(sync_client=True) as client:
        for one in known:
            if not one.schedules:
                deployment = ids[str(one.flow_name)]
                for old in client.read_deployment_schedules(deployment):
                    client.delete_deployment_schedule(deployment, old.id)


def settle(root: Path, ids: Mapping[str, UUID]) -> list[str]:
    """Before anything runs: mark what died with the last serve, drop what was missed but the newest, and have that
    made up for; what was done, in words."""
    told = []
    with get_client(sync_client=True) as client:
        living = _let_end(root, {str(one.id) for deployment in ids.values() for one in _open(client, deployment)})
        interrupted = {one.flow_run_id for one in runs.history(root) if one.state == "interrupted"}
        for flow, deployment in ids.items():
            told += _settle(client, flow, deployment, interrupted, living)
    return told


def _let_end(root: Path, flow_runs: set[str], seconds: float = 30) -> set[str]:
    """Runs of a serve that was killed end by themselves (flows/__init__.py), which takes up to 21 s: how they ended
    is known only then. Which of these flow runs live nonetheless."""
    deadline = time.monotonic() + seconds
    while True:
        found = [one for one in runs.history(root)[:50] if one.flow_run_id in flow_runs and runs.alive(root, one)]
        if not found or time.monotonic() > deadline:
            return {one.flow_run_id for one in found}
        time.sleep(0.2)


def _settle(
    client: SyncPrefectClient, flow: str, deployment: UUID, interrupted: set[str], living: set[str]
) -> list[str]:
    now, told = datetime.now(UTC), []
    missed: list[FlowRun] = []
    for one in _open(client, deployment):
        due = one.expected_start_time or now
        if str(one.id) in living:
            told.append(f"{flow}: {one.name} of the last serve still runs; left alone")
        elif one.state_type in (StateType.RUNNING, StateType.CANCELLING):
            client.set_flow_run_state(one.id, Crashed(message="serve was gone, and with it this run"), force=True)
            told.append(f"{flow}: {one.name} was running when the last serve went; shown as crashed")
        elif due <= now and (one.state_type == StateType.PENDING or one.auto_scheduled):
            missed.append(one)
    last = _newest(client, deployment)
    again = last if last is not None and _was_interrupted(last, interrupted) else None
    for one in missed:
        client.set_flow_run_state(one.id, Cancelled(message="due while nobody served"), force=True)
    if not missed and again is None:
        return told
    newest = max(missed, key=lambda one: one.expected_start_time or now) if missed else None
    chosen = newest or again
    if chosen is None:
        return told
    when = (chosen.expected_start_time or now).isoformat(timespec="minutes")
    cause = f"{'due' if newest else 'interrupted'} {when}, while nobody served"
    if len(missed) > 1:
        cause += f" ({len(missed)} were due; the newest stands for all)"
    client.create_flow_run_from_deployment(
        deployment, parameters={"trigger": "schedule", "cause": cause}, idempotency_key=f"again-{chosen.id}"
    )
    return [*told, f"{flow}: runs now, {cause}"]


def _open(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    """Everything of the deployment that has not ended."""
    found: list[FlowRun] = []
    while True:
        some = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=OPEN)),
            ),
            limit=200, offset=len(found), sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        )  # fmt: skip
        found += some
        if len(some) < 200:
            return found


def _newest(client: SyncPrefectClient, deployment: UUID) -> FlowRun | None:
    """The last run that began."""
    began = [StateType.RUNNING, StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=began)),
        ),
        limit=1, sort=FlowRunSort.START_TIME_DESC,
    )  # fmt: skip
    return found[0] if found else None


def _was_interrupted(one: FlowRun, interrupted: set[str]) -> bool:
    """By the end of serve, and by nobody's wish. A run that crashed is the reaper's to resume."""
    message = (one.state.message if one.state else "") or ""
    by_us = one.state_type == StateType.CANCELLED and message == SHUTDOWN
    return by_us or (one.state_type == StateType.CRASHED and str(one.id) in interrupted)


def greeting(ids: Mapping[str, UUID], seconds: float = 10) -> list[str]:
    """When each deployment runs next; the server plans that some seconds after it was told of a schedule."""
    deadline, lines = time.monotonic() + seconds, []
    with get_client(sync_client=True) as client:
        for flow, deployment in ids.items():
            told = client.read_deployment(deployment)
            active = any(one.active for one in told.schedules)
            due = _due(client, deployment)
            while active and due is None and time.monotonic() < deadline:
                time.sleep(0.5)
                due = _due(client, deployment)
            when = f"next {due.astimezone():%Y-%m-%d %H:%M}" if due else "as scheduled" if active else "no schedule"
            lines.append(f"  {flow + '/' + told.name:24} {when}")
    return lines


def _due(client: SyncPrefectClient, deployment: UUID) -> datetime | None:
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        ),
        limit=1, sort=FlowRunSort.EXPECTED_START_TIME_ASC,
    )  # fmt: skip
    return found[0].expected_start_time if found else None


def end_unwatched(root: Path, seconds: float = 20) -> None:
    """End what serve started and is nobody's child: a run that died and was resumed. What a person, cron or CI started
    here, in another container or on another host that sees this folder, is not ours to end."""
    mine = [one for one in runs.history(root)[:50] if one.ended is None and served.is_ours(one.lease)]
    for one in mine:
        with suppress(OSError):
            os.kill(one.lease.pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(served.is_ours(one.lease) for one in mine):
        time.sleep(0.1)
