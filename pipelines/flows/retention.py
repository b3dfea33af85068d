"""The flow `prune`, for the schedule: what pipelines/prune.py does, and what it removed as the flow run's message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed, Failed, State

from components.contracts import InputError
from pipelines import flows as _  # noqa: F401  ties this process to serve
from pipelines import prune as pruning


@flow(name="prune", persist_result=False)
def prune(root: str = ".", trigger: str = "", cause: str = "", dry_run: bool = False) -> State[Any]:
    """Remove what is older than infra/operations.yaml keeps. `trigger` and `cause` stand on the page of the run."""
    del trigger, cause
    try:
        return Completed(message="\n".join(pruning.prune(Path(root).resolve(), dry_run=dry_run)))
    except InputError as error:
        return Failed(name="Mistake", message=str(error))
