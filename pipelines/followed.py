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

from pipelines import dvc_cli, outcomes, processes, staleness
from pipelines.limits import Clock, Limits
from pipelines.outcomes import DONE, FAULT, MISTAKE, TIMED_OUT
from pipelines.staleness import DvcError

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


class Followed:
    """The line as it goes; steps must be taken, each to its end, in the order in which they come."""

    def __init__(self, root: Path, companion: processes.Companion, limits: Limits) -> None:
        self._root, self._companion, self.clock = root, companion, Clock(limits)
        self._well = True

    def steps(self) -> Iterator[Step]:
        """Each stage that DVC comes to; what needs a failed stage is left out.

        Raises:
            DvcError: DVC itself could not do it.
            TimeoutError: the run takes longer than it may; everything is ended.
        """
        while said := self._hear(None):
            name = _name(said["stage"])
            told = staleness.reasons(self._root, {name: said["changed"]}) if said["changed"] else {}
            yield Step(name, tuple(told.get(name, ())))
        if self._well:  # it did not end because a stage did not end well
            code, text = self._companion.end()
            if code:
                raise DvcError(f"DVC: {outcomes.death(code) if code < 0 else outcomes.last_words(text, code)}")

    def take(self, step: Step, on_line: Callable[[str], None] | None = None) -> Ended:
        """Let DVC do it, and wait; `on_line` gets each line that the stage prints."""
        since = time.time()
        self.clock.begin(step.name)
        self._companion.tell("go")
        try:
            said = self._hear(on_line)
        except TimeoutError:
            self._well = False
            return Ended(TIMED_OUT, self.clock.told)
        self.clock.begin()
        ended = self._judged(said, outcomes.status_of(self._root, step.name, since))
        self._well &= ended.code == DONE
        return ended

    def _judged(self, said: dict[str, Any] | None, status: dict[str, Any] | None) -> Ended:
        if said is None:
            code, text = self._companion.end()
            told = outcomes.death(code) if code < 0 else outcomes.last_words(text, code)
            return Ended(FAULT if code < 0 else MISTAKE, f"DVC: {told}", status is not None)
        if "why" not in said:
            return Ended(ran=status is not None)
        if status and status.get("exit_code"):
            return Ended(status["exit_code"], status["told"], True)
        if died := outcomes.DIED.fullmatch(said["why"]):
            return Ended(FAULT, outcomes.death(int(died[2])), True)
        return Ended(MISTAKE, f"DVC: {said['why']}")

    def _hear(self, on_line: Callable[[str], None] | None) -> dict[str, Any] | None:
        try:
            return self._companion.hear(on_line, self.clock.until)
        except TimeoutError:
            self._companion.stop()
            raise


def _name(address: str) -> str:
    return address.rsplit(":", 1)[-1]


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
def followed(root: Path, limits: Limits) -> Iterator[Followed]:
    """DVC on the whole line. The run's time begins once it is this project's turn."""
    root = root.resolve()
    if waiting := _STARTED.pop(root, None):
        yield Followed(root, waiting, limits)
        return
    with dvc_cli.turn(root), _worker(root) as companion:
        yield Followed(root, companion, limits)


def _worker(root: Path) -> AbstractContextManager[processes.Companion]:
    return processes.companion([sys.executable, "-P", str(_WORKER)], root, dvc_cli.environment())
