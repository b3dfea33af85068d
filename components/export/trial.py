"""Models tried in processes of their own: time, memory, answers.

Each process loads one model and ONNX Runtime, nothing else. Several may be open; one works at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from components import tied
from components.contracts import InputError
from components.export import runtime

BATCHES = (1, 16)
ROUNDS = 12
"""Every model once a round, so that what else the machine does in a while meets all of them."""
SECONDS = 0.03
"""Of calls a model, a batch size and a round, and at least MIN_CALLS of them."""
MIN_CALLS = 1
WARM_UP = 2
QUIET_SECONDS = 0.015
"""Before a turn: the threads of the model before it spin for a moment."""
MAX_SECONDS = 600
"""That an answer may take."""
Feed = dict[str, np.ndarray]


class TrialError(Exception):
    """The model does not load or does not answer in a process of its own; the message says why, in stable words."""


class NoAnswer(InputError):
    """The process is there and gives no answer in MAX_SECONDS. That may be the load of the machine, so nothing is
    concluded from it: the stage ends."""


class Trial:
    """One model in a process of its own."""

    def __init__(self, path: Path, threads: int) -> None:
        self._name = path.stem
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        words = (theirs, str(path), threads, os.getpid())
        self._process = context.Process(target=_serve, args=words, daemon=True)
        self._process.start()
        theirs.close()
        self.load_seconds: float = 0.0

    def __enter__(self) -> Self:
        try:
            self.load_seconds = self._answer()
        except (TrialError, NoAnswer):
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def answers(self, feeds: Sequence[Feed]) -> list[dict[str, np.ndarray]]:
        """The outputs for each feed.

        Raises:
            TrialError: it fails.
        """
        found: list[dict[str, np.ndarray]] = self._asked(_answers, list(feeds))
        return found

    def times(self, feed: Feed, warm_up: int = 0) -> list[float]:
        """Seconds of each of some calls."""
        found: list[float] = self._asked(_times, feed, warm_up, SECONDS, MIN_CALLS)
        return found

    def peak_mb(self) -> float:
        """Largest memory of the whole process so far, with Python and ONNX Runtime in it."""
        return round(float(self._asked(_peak_mb)), 1)

    def _asked(self, what: Callable[..., Any], *arguments: Any) -> Any:
        try:
            self._pipe.send((what, arguments))
        except OSError:
            raise TrialError("its process ended") from None
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._pipe.poll(MAX_SECONDS):
                raise NoAnswer(
                    f"{self._name} gave no answer in {MAX_SECONDS} s. Run again when the machine has less to do, or "
                    "take that variant out of `export.rungs`."
                )
            good, found = self._pipe.recv()
        except (EOFError, OSError):
            raise TrialError("its process ended") from None
        if not good:
            raise TrialError(found)
        return found

    def _end(self) -> None:
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def compare(trials: dict[str, Trial], feeds: dict[int, Feed]) -> dict[str, dict[str, Any]]:
    """Milliseconds a batch of each model by batch size, in interleaved rounds: the median of the rounds' medians, and
    the smallest and largest of them; and the peak memory. Whoever decides takes the smallest: other load adds time."""
    found: dict[str, dict[str, Any]] = {name: {"latency_ms": {}} for name in trials}
    for batch, feed in feeds.items():
        rounds: dict[str, list[float]] = {name: [] for name in trials}
        for number in range(ROUNDS):
            for name, trial in trials.items():
                time.sleep(QUIET_SECONDS)
                rounds[name].append(1000 * statistics.median(trial.times(feed, 0 if number else WARM_UP)))
        for name, own in rounds.items():
            told = {"median": statistics.median(own), "low": min(own), "high": max(own)}
            found[name]["latency_ms"][str(batch)] = {k: round(v, 3) for k, v in told.items()}
    for name, trial in trials.items():
        found[name] |= {"memory_mb": trial.peak_mb(), "load_seconds": round(trial.load_seconds, 3)}
    return found


def _serve(pipe: Connection, path: str, threads: int, parent: int) -> None:
    """The other process: loads the model, answers until the pipe is closed."""
    tied.to(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    try:
        import onnxruntime  # not part of the time to load a model

        del onnxruntime
        start = time.perf_counter()
        session = runtime.open_session(Path(path), threads)
        pipe.send((True, time.perf_counter() - start))
    except Exception as error:
        pipe.send((False, f"it does not load: {runtime.in_short(error, Path(path))}"))
        return
    while True:
        try:
            what, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send((True, what(session, *arguments)))
        except Exception as error:
            pipe.send((False, f"it fails: {runtime.in_short(error, Path(path))}"))


def _answers(session: Any, feeds: list[Feed]) -> list[dict[str, np.ndarray]]:
    return [runtime.ask(session, feed) for feed in feeds]


def _times(session: Any, feed: Feed, warm_up: int, seconds: float, min_calls: int) -> list[float]:
    for _ in range(warm_up):
        session.run(None, feed)
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < min_calls or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - before)
    return times


def _peak_mb(session: Any) -> float:
    del session
    status = Path("/proc/self/status")
    if status.exists():  # getrusage tells the peak of the process that started this one where that was larger
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
