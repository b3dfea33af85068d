"""The flow `monitor`: what pipelines/monitor.py does, with its answer as artifacts; a retraining is a subflow `train`.

Its states: "No drift" and "Waiting for samples" where there is nothing to do; "Drift: held back" where a rule failed
and nothing was done; "Drift: retrained"; "Drift: refused" where what was made is not fit to go live, or another failure
by the name that it has everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from components.contracts import InputError, Refused, read_json
from components.params import load_yaml
from pipelines import flows, looks, runs
from pipelines import monitor as monitoring
from pipelines.flows import origin, pages, server
from pipelines.flows import train as training
from pipelines.flows.endings import ENDINGS
from pipelines.looks import Looked
from pipelines.outcomes import DONE, FAULT, REFUSED
from pipelines.triggers import Trigger


@flow(name="monitor", persist_result=False)
def monitor(root: str = ".", trigger: str = "", cause: str = "", only_look: bool = False) -> State[Any]:
    """Judge new data by the live bundle; after a failed rule do what monitor.then says."""
    server.hush()

    def begun(run: runs.Current) -> None:
        origin.note(run)
        run.watch()

    try:
        project = flows.project(root)
        by = origin.trigger(trigger, cause)
        code, told, looked = monitoring.go(project, only_look, by, _train, begun)
    except Refused as error:
        return Failed(name="Refused", message=str(error))
    except InputError as error:
        return Failed(name="Mistake", message=str(error))
    if looked is not None:
        _show(project, looked, told)
    return _state(code, told, looked)


def _train(project: Path, trigger: Trigger) -> tuple[int, str]:
    """As a subflow."""
    with runs.recorded(project, "train", trigger) as record:
        state = training.train(str(project), trigger.kind, trigger.cause, return_state=True)
        code = record.record.code
    return FAULT if code is None else code, state.message or ""


def _state(code: int, told: str, looked: Looked | None) -> State[Any]:
    if looked is None:
        return Completed(name="Not needed", message=told)
    if looked.state != "drift":
        return Completed(name={"quiet": "No drift", "waiting": "Waiting for samples"}[looked.state], message=told)
    if code == DONE:
        return Completed(name="Drift: retrained", message=told)
    if code == REFUSED and told.startswith(monitoring.HELD):
        return Completed(name="Drift: held back", message=told)
    if code == REFUSED:
        return Failed(name="Drift: refused", message=told)
    return Failed(name=ENDINGS.get(code, "Fault"), message=told)


def _show(project: Path, looked: Looked, told: str) -> None:
    """The verdict and what was done, and a table of the columns of the last window that was judged."""
    prefix = pages.key_of(str(load_yaml(project / "params.yaml").get("run", {}).get("name", project.name)))
    lines = [f"# {monitoring.tell(looked).replace(chr(10), chr(10) * 2)}"]
    if told != looked.told:
        lines.append(told)
    page = project / looks.REPORTS / "index.html"
    if page.is_file():
        lines.append(pages.where(project, [page]))
    create_markdown_artifact("\n\n".join(lines), key=f"{prefix}-monitor", description="What the monitor found and did")
    try:
        columns = read_json(page.with_name("monitor.json"))["columns"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    names = ("column", "drifted", "score", "num_reference", "num_current", "note")
    rows = [{name: pages.readable(one[name]) for name in names} for one in columns]
    if rows:
        create_table_artifact(
            json.loads(json.dumps(rows)), key=f"{prefix}-monitor-columns",
            description=f"Each quantity against the reference profile, judged {looked.at}",
        )  # fmt: skip
