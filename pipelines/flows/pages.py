"""What Prefect shows of a run besides its states: tables of metrics, where the pages lie, progress, and a summary.

Sent by a thread beside the run, so that no stage waits for them. Prefect's pages come by http, and no browser opens a
file:// link from there; so a page is told by its path.
"""

from __future__ import annotations

import contextvars
import json
import queue
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

from components.contracts import read_json
from pipelines import dvc_cli
from pipelines.triggers import Trigger

OPEN = "A browser opens no file from a page of Prefect: paste the path into its address bar, where the line ran."


@dataclass(frozen=True)
class Row:
    """One stage in the summary."""

    stage: str
    state: str
    why: str
    seconds: float


class Poster:
    """Sends artifacts of one flow run, one after another, from a thread of its own."""

    def __init__(self, flow_run_id: UUID | None, prefix: str, num_stages: int) -> None:
        self._run, self._prefix, self._num_stages = flow_run_id, prefix, num_stages
        self._waiting: queue.SimpleQueue[ArtifactCreate | float | None] = queue.SimpleQueue()
        self._progress: UUID | None = None
        context = contextvars.copy_context()  # in it Prefect's settings for this run
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="artifacts", daemon=True)
        self._thread.start()

    def put(self, kind: str, name: str, data: str, told: str, task_run_id: UUID | None = None) -> None:
        """Send one; `kind` is markdown or table."""
        key = f"{self._prefix}-{key_of(name)}"
        made = ArtifactCreate(
            type=kind, key=key, data=data, description=told, flow_run_id=self._run, task_run_id=task_run_id
        )
        self._waiting.put(made)

    def progress(self, num_done: int) -> None:
        """So many stages are done."""
        self._waiting.put(100.0 * num_done / max(1, self._num_stages))

    def end(self, seconds: float = 10.0) -> None:
        """Send what waits, and stop."""
        self._waiting.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        try:
            with get_client(sync_client=True) as client:
                while (one := self._waiting.get()) is not None:
                    self._send(client, one)
        except Exception as error:
            dvc_cli.say(f"Prefect's server did not take what the run leaves there: {type(error).__name__}: {error}")

    def _send(self, client: SyncPrefectClient, one: ArtifactCreate | float) -> None:
        if isinstance(one, ArtifactCreate):
            client.create_artifact(one)
        elif self._progress is not None:
            client.update_artifact(self._progress, ArtifactUpdate(data=one))
        else:
            told = f"Stages done, of {self._num_stages}"
            key = f"{self._prefix}-progress"
            made = ArtifactCreate(type="progress", key=key, data=one, description=told, flow_run_id=self._run)
            self._progress = client.create_artifact(made).id


def show_stage(poster: Poster, project: Path, name: str, task_run_id: UUID | None) -> None:
    """A stage's metrics, and where its pages lie."""
    try:
        metrics = read_json(project / "artifacts" / name / "metrics.json")
        rows = [{"metric": metric, "value": readable(value)} for metric, value in metrics.items()]
        poster.put("table", f"{name}-metrics", json.dumps(rows), f"Metrics of {name}", task_run_id)
    except (OSError, ValueError, AttributeError):
        pass  # it made none
    pages = sorted([*project.glob(f"artifacts/{name}/*.html"), *project.glob(f"reports/{name}/**/*.html")])
    if pages:
        poster.put("markdown", f"{name}-pages", where(project, pages), f"Pages of {name}", task_run_id)


def where(project: Path, pages: Iterable[Path]) -> str:
    """Pages by their names, and by what a browser's address bar takes."""
    told = [f"**{page.relative_to(project).as_posix()}**\n\n```\n{page.as_uri()}\n```" for page in pages]
    return "\n\n".join([*told, OPEN])


def readable(value: Any) -> Any:
    """A number as a person reads it: 3 for 3.0, and four digits that count."""
    if not isinstance(value, float):
        return value
    if value == int(value) and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.4g}") if abs(value) < 1000 else round(value, 1)


def summary(project: Path, trigger: Trigger, ending: tuple[str, str], rows: Iterable[Row]) -> str:
    """What the line came to, as markdown."""
    from pipelines.summary import summarise

    state, message = ending
    by = f"{trigger.kind} ({trigger.who})" if trigger.who else trigger.kind
    cause = f": {trigger.cause}" if trigger.cause else ""
    told = [f"# {state}", _cell(message, "<br>"), f"Triggered by **{_cell(by)}**{_cell(cause)}"]
    headlines = [line.partition("  ") for line in summarise(project)]
    pairs = [(name.strip(), text.strip()) for name, gap, text in headlines if gap]
    told += [_cell(name) for name, gap, _ in headlines if not gap]
    told.append(_table(("", "what the line came to"), [(f"**{name}**", text) for name, text in pairs]))
    stages = [(f"**{r.stage}**", r.state, r.why, f"{r.seconds:.1f}") for r in rows]
    told.append(_table(("stage", "state", "why", "seconds"), stages))
    report = project / "artifacts" / "report" / "index.html"
    if report.exists():
        told.append(where(project, [report]))
    return "\n\n".join(part for part in told if part)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell, '<br>') for cell in line)} |" for line in lines)


def _cell(text: str, end: str = " ") -> str:
    """Text that neither ends a table's row nor is taken for a tag."""
    plain = text.strip().replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return end.join(line.strip() for line in plain.splitlines())


def key_of(text: str) -> str:
    """Prefect's keys are small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
