"""Where a flow run comes from: who or what started it, as it was told or as Prefect knows."""

from __future__ import annotations

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL

from components.contracts import InputError
from pipelines import runs
from pipelines.triggers import KINDS, Trigger, guess_trigger


def trigger(kind: str, cause: str) -> Trigger:
    """As the flow was told; else what Prefect knows of a deployment's run; else what the environment tells.

    Raises:
        InputError: there is no such kind.
    """
    if kind and kind not in KINDS:
        raise InputError(f"trigger: {kind!r} is none. Known: {', '.join(KINDS)}")
    guessed, flow_run = guess_trigger(cause), _flow_run()
    if kind:
        return Trigger(kind, guessed.who, cause)
    if flow_run is None or flow_run.deployment_id is None:
        return guessed
    if flow_run.auto_scheduled:
        return Trigger("schedule", "Prefect", cause or "its deployment's schedule")
    by = flow_run.created_by
    automation = by is not None and by.type == "AUTOMATION"
    who = (by.display_value or "") if by is not None else ""
    return Trigger("event" if automation else "hand", who or "Prefect", cause)


def note(run: runs.Current) -> None:
    """Under which name Prefect knows the run, in its record."""
    flow_run = _flow_run()
    run.note(str(flow_run.id) if flow_run else "", PREFECT_API_URL.value() or "")


def _flow_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context else None
