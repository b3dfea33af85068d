"""The flows `promote` and `rollback`, for deployments: what pipelines/promote.py does, with what was decided and why as
an artifact. Their states bear the names of their exit codes: Completed, Mistake, Refused, Fault."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed, State

from components.contracts import InputError, Refused
from components.params import load_yaml
from pipelines import flows, pointer, runs
from pipelines import promote as promotions
from pipelines.flows import origin


@flow(name="promote", persist_result=False)
def promote(
    root: str = ".", trigger: str = "", cause: str = "", which: str = "", environment: str = "", key: str = "",
    allow_older: bool = False,
) -> State[Any]:  # fmt: skip
    """Make a release live. `which`: a version, or a folder of releases/; empty: the newest."""

    def act(project: Path, because: str) -> list[str]:
        public = Path(os.path.expanduser(key)) if key else None
        return promotions.promote(project, which or None, environment or None, public, because, allow_older)

    return _told("promote", root, trigger, cause, act)


@flow(name="rollback", persist_result=False)
def rollback(
    root: str = ".", trigger: str = "", cause: str = "", environment: str = "", key: str = "", to: str = ""
) -> State[Any]:
    """Make the bundle before live again, or one further back (`to`, a version)."""

    def act(project: Path, because: str) -> list[str]:
        public = Path(os.path.expanduser(key)) if key else None
        return promotions.rollback(project, environment or None, public, because, to or None)

    return _told("rollback", root, trigger, cause, act)


def _told(name: str, root: str, trigger: str, cause: str, act: Callable[[Path, str], list[str]]) -> State[Any]:
    """Record the run, act, leave an artifact, and end in the state that says how."""
    try:
        project = flows.project(root)
    except InputError as error:
        return Failed(name="Mistake", message=str(error))
    try:
        with runs.recorded(project, name, origin.trigger(trigger, cause), how=()) as run:
            origin.note(run)
            lines = act(project, cause)
    except Refused as error:
        _show(project, name, cause, "Refused", str(error).splitlines())
        return Failed(name="Refused", message=str(error))
    except InputError as error:
        _show(project, name, cause, "Mistake", str(error).splitlines())
        return Failed(name="Mistake", message=str(error))
    _show(project, name, cause, "Done", lines)
    return Completed(message=next((line for line in reversed(lines) if " is live" in line), lines[0]).strip())


def _show(project: Path, name: str, cause: str, ending: str, lines: list[str]) -> None:
    told = [f"## {name}: {ending}", "", f"Because: {cause or 'not said'}", "", "```", *lines, "```", ""]
    for environment in pointer.environments(project):
        try:
            now = pointer.read(project, environment)
        except InputError as error:
            told.append(f"- **{environment}**: {error}")
            continue
        if now:
            before = f", before it {now.previous.title}" if now.previous else ""
            told.append(f"- **{environment}**: {now.live.title} since {now.live.since}{before}")
    project_name = str(load_yaml(project / "params.yaml").get("run", {}).get("name", project.name))
    key = re.sub(r"[^a-z0-9]+", "-", f"{project_name}-{name}".lower()).strip("-")
    create_markdown_artifact("\n".join(told), key=key, description=f"What {name} decided, and why")
