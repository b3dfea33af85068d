"""The flow `train`: Prefect sees the line as it is in dvc.yaml.

DVC decides what must run and keeps the results, so Prefect's own caches are off, and no stage is ever retried. One
generic task runs one stage and bears its name; a stage that DVC finds unchanged ends as Cached. Stages run one after
another: each may use all the threads that `run.threads` pins, and two at a time would disturb the latencies measured.
If a line here computes a metric, it is in the wrong file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Cancelled, Completed, Failed

from components.contracts import InputError
from components.params import load_yaml
from pipelines import clones, dag, dvc_cli, flows, limits, line, runs
from pipelines.flows import crashed, gpu, origin, pages, server
from pipelines.flows.endings import ENDINGS, Ending, gone, stopped
from pipelines.followed import Ended, Followed, Step, followed
from pipelines.limits import Limits
from pipelines.outcomes import DONE, FAULT, INTERRUPTED, MISTAKE, TIMED_OUT, needing
from pipelines.runs import Trigger

_CALLED: dict[Path, int] = {}
"""Project that `run` works on, which has read its params.yaml -> how many task runs there are by now."""


def run(root: Path, trigger: Trigger | None = None) -> tuple[int, str]:
    """Run the flow `train` from a command line; the exit code, and what to tell.

    Raises:
        InputError: the Prefect server does not answer.
    """
    root = root.resolve()
    server.hush()
    # The heartbeat serves deployments, and waiting for its thread costs a second a run.
    with (
        runs.recorded(root, "train", trigger) as record,
        server.reached(root) as url,
        tags(crashed.TAG + record.id),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        record.note(api_url=url)
        crashed.catch_up(root, url)
        by = record.record.trigger
        _CALLED[root] = 0
        try:
            state = train(str(root), by.kind, by.cause, return_state=True)
        finally:
            num_tasks = _CALLED.pop(root)
        server.settle(state.state_details.flow_run_id, num_tasks)
        code = record.record.code
    return FAULT if code is None else code, state.message or ""


def _named() -> str:
    context = FlowRunContext.get()
    given = context.parameters if context and context.parameters else {}
    return _project(Path(given.get("root", ".")).resolve())


@flow(name="train", flow_run_name=_named, persist_result=False)
def train(root: str = ".", trigger: str = "", cause: str = "") -> State[Any]:
    """The whole line: every stage of dvc.yaml as a task run, and what it came to as an artifact.

    A stage that fails or is refused stops those that need it and no others: a refusal still gets its report.
    `trigger` and `cause` say what started it and why; by default as far as Prefect or the environment knows.
    """
    server.hush()
    try:
        project = flows.project(root)
    except InputError as error:
        return Failed(name=ENDINGS[MISTAKE], message=str(error))
    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    if not (project / "dvc.yaml").is_file():
        return Failed(name=ENDINGS[MISTAKE], message=f"{project} is no project: dvc.yaml is not there. See `root`")
    try:
        with runs.recorded(project, "train", origin.trigger(trigger, cause)) as record:
            record.note(str(flow_run.id) if flow_run else "", PREFECT_API_URL.value() or "")
            record.watch()
            _tag(flow_run, project, record.record.trigger)
            ending = _ended(project, record.record.trigger, flow_run.id if flow_run else None)
            record.end(ending.code, ending.told, ending.ran)
    except InputError as error:
        return Failed(name=ENDINGS[MISTAKE], message=str(error))
    if isinstance(ending.stop, TerminationSignal) and flow_run and flow_run.deployment_id:
        raise ending.stop  # Prefect, which sent it, says how the run is to be shown
    return ending.state


def _ended(project: Path, trigger: Trigger, flow_run_id: UUID | None) -> Ending:
    """The line, and a word on how it ended whatever happens."""
    walk = Walk(project)
    try:
        if project not in _CALLED:
            line.checked(project)
        allowed = limits.of(project)
        with dvc_cli.turn(project), clones.turn(project), _posted(walk, flow_run_id):
            ending = walk.through(allowed)
            if ending.code and not (project / "dvc.yaml").is_file():
                return Ending(MISTAKE, gone(project), walk.ran)
            state = ending.state
            summary = pages.summary(project, trigger, (state.name or "", ending.told), walk.rows)
            walk.poster.put("markdown", "summary", summary, "What the line came to")
            return ending
    except InputError as error:
        return Ending(MISTAKE, str(error), walk.ran)
    except (KeyboardInterrupt, SystemExit, TerminationSignal) as stop:
        return stopped(stop, walk.ran)
    except Exception as error:
        if not (project / "dvc.yaml").is_file():
            return Ending(MISTAKE, gone(project), walk.ran)
        get_run_logger().exception("a fault of ours")
        return Ending(FAULT, f"a fault of ours, not of your input: {type(error).__name__}: {error}", walk.ran)


@contextmanager
def _posted(walk: Walk, flow_run_id: UUID | None) -> Iterator[None]:
    walk.line = dag.load(walk.project)
    walk.poster = pages.Poster(flow_run_id, walk.prefix, len(walk.line))
    token = _WALK.set(walk)
    try:
        yield
    finally:
        _WALK.reset(token)
        walk.poster.end()


class Walk:
    """The line, stage by stage, each as a task run."""

    poster: pages.Poster
    steps: Followed

    def __init__(self, project: Path) -> None:
        self.project, self.prefix = project, pages.key_of(_project(project))
        self.line: tuple[dag.Stage, ...] = ()
        self.told: dict[str, State[Any]] = {}
        self.ended: dict[str, Ended] = {}
        self.rows: list[pages.Row] = []
        self.stop: BaseException | None = None

    @property
    def ran(self) -> tuple[str, ...]:
        """Stages whose own program ran."""
        return tuple(name for name, ended in self.ended.items() if ended.ran)

    def through(self, allowed: Limits) -> Ending:
        """All of it.

        Raises:
            DvcError: DVC itself could not do it.
        """
        self.poster.progress(0)
        with followed(self.project, allowed) as self.steps:
            try:
                for step in self.steps.steps():
                    self._take(step)
                    if self.stop is not None:
                        return stopped(self.stop, self.ran)
            except TimeoutError:
                return Ending(TIMED_OUT, self.steps.clock.told, self.ran)
        for left in [one.name for one in self.line if one.name not in self.told]:
            self._take(Step(left, ()), "the run was ended before")
        return self._ending()

    def _take(self, step: Step, why_not: str = "") -> None:
        stage = next(one for one in self.line if one.name == step.name)
        parents = [self.told[p] for p in stage.parents if p in self.told]
        good = [state for state in parents if state.is_completed()]  # draws the graph's edges
        named = run_stage.with_options(name=step.name, task_run_name=step.name)
        began = time.monotonic()
        if self.project in _CALLED:
            _CALLED[self.project] += 1
        state = named(step.name, list(step.reasons), why_not, wait_for=good, return_state=True)
        self.told[step.name] = state
        self.rows.append(pages.Row(step.name, state.name or "", state.message or "", time.monotonic() - began))
        self.poster.progress(len(self.told))
        if not state.is_completed() and not why_not:
            for waiting in needing(self.line, [step.name]):
                if waiting not in self.told:
                    bad = [p for p in self._parents(waiting) if p in self.told and not self.told[p].is_completed()]
                    self._take(Step(waiting, ()), f"it needs {', '.join(bad)}")

    def _parents(self, name: str) -> tuple[str, ...]:
        return next(one.parents for one in self.line if one.name == name)

    def _ending(self) -> Ending:
        for name, ended in self.ended.items():
            if ended.code:
                told = ended.told if ended.told.startswith(f"{name} ") else f"{name}: {ended.told}"
                return Ending(ended.code, told, self.ran)
        num_cached = sum(state.name == "Cached" for state in self.told.values())
        told = f"{len(self.told)} stages: {len(self.told) - num_cached} ran, {num_cached} unchanged"
        return Ending(DONE, told, self.ran)

    def stage(self, step: Step) -> State[Any]:
        """One stage, from within its task run."""
        if step.reasons:
            more = " ..." if step.reasons[3:] else ""
            dvc_cli.say(f"{step.name}: to do, because {'; '.join(step.reasons[:3])}{more}")
        try:
            with gpu.turn(self.project, step.name) if step.reasons else nullcontext():
                ended = self.steps.take(step, _to_prefect())
        except (KeyboardInterrupt, SystemExit, TerminationSignal) as stop:
            self.stop = stop
            return Cancelled(name=ENDINGS[INTERRUPTED], message="interrupted; run again to go on from here")
        self.ended[step.name] = ended
        context = TaskRunContext.get()
        pages.show_stage(self.poster, self.project, step.name, context.task_run.id if context else None)
        if ended.code:
            return Failed(name=ENDINGS.get(ended.code, ENDINGS[FAULT]), message=ended.told)
        if not step.reasons:
            return Completed(name="Cached", message="unchanged since dvc.lock was written")
        if not ended.ran:
            return Completed(name="Cached", message="outputs restored from DVC's cache")
        return Completed(message="; ".join(step.reasons))


_WALK: ContextVar[Walk] = ContextVar("walk")


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(name: str, reasons: list[str], why_not: str) -> State[Any]:
    """Let DVC do one stage. `reasons`: what changed; `why_not`: it is not to run, and why."""
    if why_not:
        return Cancelled(name="Skipped", message=f"not run, because {why_not}")
    return _WALK.get().stage(Step(name, tuple(reasons)))


def _to_prefect() -> Callable[[str], None]:
    logger = get_run_logger()
    return lambda text: logger.info("%s", text)


def _project(root: Path) -> str:
    try:
        return str(load_yaml(root / "params.yaml").get("run", {}).get("name", "project"))
    except (InputError, AttributeError):
        return root.name


def _tag(flow_run: FlowRun | None, project: Path, trigger: Trigger) -> None:
    """By which the run is found on Prefect's pages."""
    wanted = [f"project: {_project(project)}", f"trigger: {trigger.kind}"]
    if flow_run is not None and not set(wanted) <= set(flow_run.tags):
        with get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, tags=list(dict.fromkeys([*flow_run.tags, *wanted])))
