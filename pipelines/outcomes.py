"""What became of the stages of a run, from what they wrote and what DVC said."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts import read_json
from pipelines import dag
from pipelines.staleness import DvcError

DONE, FAULT, MISTAKE, REFUSED, TIMED_OUT, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 124, 130, 143

DIED = re.compile(r"failed to run: python -m pipelines\.stage (\w+), exited with (-?\d+)")
States = Mapping[str, dict[str, Any] | None]
"""Stage -> what it wrote about this run; None if it did not run."""


@dataclass(frozen=True)
class Outcome:
    """What became of the stages asked for: each is in one of four tuples, in the order of the line."""

    ran: tuple[str, ...]
    unchanged: tuple[str, ...]
    """As recorded in dvc.lock; outputs that were missing came from DVC's cache."""
    failed: tuple[str, ...]
    left_out: tuple[str, ...]
    """Not run, because they need a stage that failed."""
    code: int = DONE
    """Exit code of the first stage that failed."""
    told: str = ""
    """Why, in that stage's words."""


def judged(asked: Iterable[dag.Stage], states: States, code: int, text: str) -> Outcome:
    """Of a run that DVC ended with that code, and these last words.

    Raises:
        DvcError: DVC itself could not do it.
    """
    asked, found = list(asked), dict(states)
    for name, died in DIED.findall(text):
        found[name] = found[name] or {"exit_code": FAULT, "told": death(int(died))}
    failed = [s.name for s in asked if (found[s.name] or {}).get("exit_code")]
    if code < 0 and not failed:
        return Outcome((), (), (), tuple(s.name for s in asked), FAULT, f"DVC: {death(code)}")
    if code and not failed:
        raise DvcError(f"DVC: {last_words(text, code)}")
    ran = [s.name for s in asked if found[s.name] and s.name not in failed]
    left_out = needing(asked, failed)
    first = found[failed[0]] if failed else None
    unchanged = [s.name for s in asked if s.name not in {*ran, *failed, *left_out}]
    return Outcome(
        tuple(ran), tuple(unchanged), tuple(failed), left_out,
        code=first["exit_code"] if first else DONE, told=first["told"] if first else "",
    )  # fmt: skip


def cut_off(asked: Iterable[dag.Stage], states: States, at: str, told: str) -> Outcome:
    """Of a run that took too long: ended in the stage `at`, or between two."""
    asked = list(asked)
    names = [s.name for s in asked]
    last = names.index(at) if at in names else max((n for n, name in enumerate(names) if states[name]), default=-1)
    begun = names[: last + 1]
    failed = [name for name in begun if name == at or (states[name] or {}).get("exit_code")]
    left_out = {*names[last + 1 :], *needing(asked, failed)}
    ran = [name for name in begun if states[name] and name not in failed]
    unchanged = [name for name in names if name not in {*ran, *failed, *left_out}]
    waiting = tuple(name for name in names if name in left_out)
    return Outcome(tuple(ran), tuple(unchanged), tuple(failed), waiting, TIMED_OUT, told)


def needing(line: Iterable[dag.Stage], some: Iterable[str]) -> tuple[str, ...]:
    """The stages that need one of those, directly or not."""
    given, reached = set(some), set(some)
    for one in line:  # each after those that it reads
        if reached & set(one.parents):
            reached.add(one.name)
    return tuple(s.name for s in line if s.name in reached - given)


def status_of(root: Path, stage: str, since: float) -> dict[str, Any] | None:
    """What the stage wrote about its run, if it ran since then."""
    try:
        status = read_json(root / "reports" / stage / "status.json")
        return status if status["started"] >= since else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def death(code: int) -> str:
    """Why a process without a word is gone, by its exit code."""
    if code == -signal.SIGKILL:
        return "it was killed (signal 9), as happens when memory runs out; give it less to hold and run again"
    return (
        f"it was ended by signal {-code}; run again to go on" if code < 0 else f"it ended with {code}, without a word"
    )


def last_words(text: str, code: int) -> str:
    """What DVC complained of."""
    lines = [line for line in text.splitlines() if line.strip()]
    error = next(
        (i for i, line in enumerate(lines) if line.startswith("ERROR: ") or "validation failed" in line),
        max(0, len(lines) - 5),
    )
    return "\n".join(lines[error:]).removeprefix("ERROR: ") or f"ended with {code}, without a word"
