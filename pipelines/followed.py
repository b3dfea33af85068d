"""The whole line by one DVC process that is followed stage by stage: what it begins and why, and how that ended.

Plain `dvc repro` takes a second to start; here it is paid once, and DVC's own walk of the graph, its decisions and
its record stay what they are. dvc_worker.py is the other end. A stage or a run that takes too long is ended with
all its processes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import dvc_cli, processes, staleness
from pipelines.dvc_cli import DONE, FAULT, MISTAKE, TIMED_OUT, DvcError

_WORKER = Path(__file__).with_name("dvc_worker.py")


@dataclass(frozen=True)
class Step:
    """A stage whose turn it is."""

    name: str
    reasons: tuple[str, ...]
    """Why DVC runs it, or brings its outputs back from the cache; none: it is unchanged."""


@dataclass(frozen=True)
class Ended:
    """How a stage ended."""

    code: int = DONE
    told: str = ""
    """Why, in the stage's words, if it did not end well."""
    ran: bool = False
    """Its own program ran; else it was unchanged, or came from DVC's cache."""


@dataclass(frozen=True)
class Limits:
    """Beyond which all is ended; infra/operations.yaml, section `runs`."""

    max_stage_minutes: float | None = None
    max_run_hours: float | None = None


class Followed:
    """The line as it goes; steps must be taken, each to its end, in the order in which they come."""

    def __init__(self, root: Path, companion: processes.Companion, limits: Limits, began: float) -> None:
        self._root, self._companion, self._limits = root, companion, limits
        self._run_until = began + limits.max_run_hours * 3600 if limits.max_run_hours else None
        self._well = True

    def steps(self) -> Iterator[Step]:
        """Each stage that DVC comes to; what needs a failed stage is left out.

        Raises:
            DvcError: DVC itself could not do it.
            TimeoutError: the run takes longer than it may; everything is ended.
        """
        while said := self._hear(None, self._run_until):
            name = _name(said["stage"])
            told = staleness.reasons(self._root, {name: said["changed"]}) if said["changed"] else {}
            yield Step(name, tuple(told.get(name, ())))
        if self._well:  # it did not end because a stage did not end well
            code, text = self._companion.end()
            if code:
                raise DvcError(f"DVC: {dvc_cli.death(code) if code < 0 else dvc_cli.last_words(text, code)}")

    def take(self, step: Step, on_line: Callable[[str], None] | None = None) -> Ended:
        """Let DVC do it, and wait; `on_line` gets each line that the stage prints."""
        began, since = time.monotonic(), time.time()
        minutes = self._limits.max_stage_minutes
        limits = [(began + minutes * 60, _too_long(step.name, "runs.max_stage_minutes", minutes))] if minutes else []
        limits += [(self._run_until, self.too_long)] if self._run_until else []
        until, complaint = min(limits, default=(None, ""))
        self._companion.tell("go")
        try:
            said = self._hear(on_line, until)
        except TimeoutError:
            self._well = False
            return Ended(TIMED_OUT, complaint)
        ended = self._judged(said, dvc_cli.status_of(self._root, step.name, since))
        self._well &= ended.code == DONE
        return ended

    @property
    def too_long(self) -> str:
        """What to tell of a run that took longer than it may."""
        return _too_long("the run", "runs.max_run_hours", self._limits.max_run_hours)

    def _judged(self, said: dict[str, Any] | None, status: dict[str, Any] | None) -> Ended:
        if said is None:
            code, text = self._companion.end()
            told = dvc_cli.death(code) if code < 0 else dvc_cli.last_words(text, code)
            return Ended(FAULT if code < 0 else MISTAKE, f"DVC: {told}", status is not None)
        if "why" not in said:
            return Ended(ran=status is not None)
        if status and status.get("exit_code"):
            return Ended(status["exit_code"], status["told"], True)
        if died := dvc_cli.DIED.fullmatch(said["why"]):
            return Ended(FAULT, dvc_cli.death(int(died[2])), True)
        return Ended(MISTAKE, f"DVC: {said['why']}")

    def _hear(self, on_line: Callable[[str], None] | None, until: float | None) -> dict[str, Any] | None:
        try:
            return self._companion.hear(on_line, until)
        except TimeoutError:
            self._companion.stop()
            raise


def _name(address: str) -> str:
    return address.rsplit(":", 1)[-1]


def _too_long(what: str, key: str, limit: float | None) -> str:
    unit = key.rpartition("_")[2]
    return f"{what} took longer than {limit:g} {unit} ({key} in infra/operations.yaml), and was ended"


_STARTED: dict[Path, processes.Companion] = {}


@contextmanager
def started(root: Path) -> Iterator[None]:
    """Start DVC on the whole line already; it waits for `followed` of the same project, inside, before any stage."""
    root = root.resolve()
    with dvc_cli.turn(root), _worker(root) as companion:
        _STARTED[root] = companion
        try:
            yield
        finally:
            _STARTED.pop(root, None)


@contextmanager
def followed(root: Path, limits: Limits, began: float | None = None) -> Iterator[Followed]:
    """DVC on the whole line. `began`: when the run did, by time.monotonic(); by default now."""
    root = root.resolve()
    began = time.monotonic() if began is None else began
    if waiting := _STARTED.pop(root, None):
        yield Followed(root, waiting, limits, began)
        return
    with dvc_cli.turn(root), _worker(root) as companion:
        yield Followed(root, companion, limits, began)


def _worker(root: Path) -> AbstractContextManager[processes.Companion]:
    return processes.companion([sys.executable, "-P", str(_WORKER)], root, dvc_cli.environment())
