"""Runs that died, as Prefect sees them: without this they would be Running for ever."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed

from pipelines import deaths, records

TAG = "run:"
"""A flow run bears this and the id of its record as a tag, so that it is found even if it died before its record knew
of it."""
_LINGERING = [StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED]


def mark(flow_run_id: str, api_url: str, message: str, run_id: str = "") -> bool:
    """Set a flow run, and what of its task runs did not end, to Crashed; whether the server there knows the run.

    Args:
        flow_run_id: may be empty; then it is looked for by its tag, with `run_id`.
    """
    try:
        with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
            mine = _filter(flow_run_id, run_id)
            found = client.read_flow_runs(flow_run_filter=mine) if mine else []
            for one in found:
                if one.state is None or not one.state.is_final():
                    client.set_flow_run_state(one.id, Crashed(message=message), force=True)
                _end_tasks(client, one.id, message)
            return bool(found)
    except Exception:  # whatever a server or a network does, the next reaper tries again
        return False


def catch_up(root: Path, api_url: str) -> None:
    """Mark what died while it ran on a server that lived no longer than it, now that one with its database is there."""
    for name in records.names(root)[:50]:
        one = records.read(root, name)
        if one and one.state == "crashed" and not one.shown and mark(one.flow_run_id, api_url, one.told, one.id):
            deaths.was_shown(root, one.id)


def _filter(flow_run_id: str, run_id: str) -> FlowRunFilter | None:
    if flow_run_id:
        return FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
    return FlowRunFilter(tags=FlowRunFilterTags(all_=[TAG + run_id])) if run_id else None


def _end_tasks(client: SyncPrefectClient, flow_run_id: UUID, message: str) -> None:
    lingering = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_LINGERING))),
    )
    for task in lingering:
        client.set_task_run_state(task.id, Crashed(message=message), force=True)
