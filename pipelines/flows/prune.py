"""The flow `prune`, for the schedule: what pipelines/prune.py does, and what it removed as the flow run's message."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import Completed, Failed, State

from components.contracts import InputError
from pipelines import flows, runs
from pipelines import prune as pruning
from pipelines.flows import origin


@flow(name="prune", persist_result=False)
def prune(root: str = ".", trigger: str = "", cause: str = "", dry_run: bool = False) -> State[Any]:
    """Remove what is older than infra/operations.yaml keeps. `trigger` and `cause`: what started it, and why."""
    try:
        project = flows.project(root)
        with runs.recorded(project, "prune", origin.trigger(trigger, cause), how=()) as run:
            origin.note(run)
            lines = pruning.prune(project, dry_run=dry_run)
            run.end(0, "; ".join(" ".join(line.split()) for line in lines))
    except InputError as error:
        return Failed(name="Mistake", message=str(error))
    return Completed(message="\n".join(lines))
