"""Every run leaves a record, and holds a lease while it lives.

Whoever finds a record that is not ended asks the lease whether the run still lives; one that is gone without having
ended its record died: each run marks such records when it begins (deaths.py), and reaper.py does so at any time. Beside
each run that may take long stands a keeper, which notices at once. All this is cheap and imports nothing heavy, as it
stands before and after every run; trouble with a record is told and stops no run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from components.contracts import InputError, Refused
from pipelines import deaths, keeper, leases, records, triggers
from pipelines.leases import Lease
from pipelines.records import Record, alive, folder, history, log, names, new_id, prune, read
from pipelines.run_tables import show
from pipelines.triggers import KINDS, Trigger, guess_trigger

__all__ = [
    "KINDS", "Current", "Lease", "Record", "Trigger", "alive", "folder", "guess_trigger", "history", "log", "names",
    "new_id", "prune", "read", "recorded", "show",
]  # fmt: skip

STATES = {0: "done", 1: "fault", 2: "mistake", 3: "refused", 124: "timed_out", 130: "interrupted", 143: "interrupted"}
"""Exit code -> state. The others: running, unchanged (0, and no stage ran), crashed (it died without a word)."""
AGAIN = {"train": ("run",), "monitor": ("monitor",)}
"""Flow -> what is given to `python -m pipelines` to do it again, where the run itself does not say so."""
QUICK = ("promote", "rollback", "prune")
"""Flows that take seconds: no keeper stands beside them, and what they find dead is told when they have ended."""
_OFTEN = 20
"""Whether there are too many records is asked once in so many."""


class Current:
    """The run that goes on in this process."""

    def __init__(self, root: Path, record: Record) -> None:
        self.root, self.record = root, record
        self.process = os.getpid()
        self.ended = False
        """Somebody said how."""
        self.told_within: set[str] = set()
        """Events that a run within this one has given notice of."""
        self._hold: IO[bytes] | None = None
        self._keeper: keeper.Watch | None = None

    @property
    def id(self) -> str:
        """Its name."""
        return self.record.id

    def end(self, code: int, told: str, ran: Iterable[str] | None = None) -> None:
        """How it ended. `ran`: the stages that ran; none of them (not None) and code 0: unchanged."""
        stages = tuple(ran) if ran is not None else None
        state = "unchanged" if code == 0 and stages == () else STATES.get(code, "fault")
        self._change(state=state, code=code, told=records.cut(told), ran=stages or ())
        self.ended = True

    def note(self, flow_run_id: str = "", api_url: str = "") -> None:
        """Under which name Prefect knows it, and where; on disk at once."""
        known = {"flow_run_id": str(flow_run_id), "api_url": _without_secret(api_url)}
        self._change(**{name: value for name, value in known.items() if value})
        _trying(lambda: records.write(self.root, dataclasses.replace(self.record, state="running")))

    def watch(self) -> None:
        """Put a process beside it that notices if it dies."""
        if self._keeper is None and os.getpid() == self.process:
            resume = self.record.trigger.kind in triggers.UNWATCHED
            record, heard = records.place(self.root, self.id), records.log(self.root, self.id)
            self._keeper = keeper.start(str(self.root), str(record), str(heard), resume)

    def _change(self, **values: object) -> None:
        self.record = dataclasses.replace(self.record, **values)  # type: ignore[arg-type]

    def begin(self) -> None:
        """The lease first: a record that nobody holds would seem dead."""

        def put() -> None:
            records.folder(self.root).mkdir(parents=True, exist_ok=True)
            self._hold = leases.hold(leases.place(records.folder(self.root), self.id))
            records.write(self.root, self.record)

        _trying(put)

    def finish(self, error: BaseException | None) -> None:
        """The record first: until it is ended, the lease must hold."""
        if os.getpid() != self.process:
            return  # a fork of the run's process is not the run
        if not self.ended:
            self.end(*_ending(error))
        self._change(ended=time.time())
        if self.root.is_dir():
            _trying(lambda: records.write(self.root, self.record))
        if self._hold is not None:
            _trying(lambda: leases.place(records.folder(self.root), self.id).unlink(missing_ok=True))
            self._hold.close()
        if self._keeper is not None:
            self._keeper.dismiss()


_ACTIVE: dict[tuple[Path, str], Current] = {}


@contextmanager
def recorded(
    root: Path,
    flow: str,
    trigger: Trigger | None = None,
    how: tuple[str, ...] | None = None,
    watched: bool = True,
) -> Iterator[Current]:
    """Leave a record of the run that goes on inside. Within a run of the same flow it is that one; one of another flow
    gets its own, which names the outer one. `how`: what `python -m pipelines` is given to do it again. `watched`: with
    a keeper beside it, unless it is QUICK; else whoever knows that there is work calls `watch`.

    Raises:
        InputError: the folder is no project, and nothing is left in it; GRAFTLINE_TRIGGER names no kind of trigger.
    """
    root = root.resolve()
    outer = _ACTIVE.get((root, flow))
    if outer is not None and outer.process == os.getpid():
        yield outer
        return
    _check_project(root)
    died: list[Record] = []
    _trying(lambda: died.extend(deaths.notice(root)))
    current = Current(root, _new(root, flow, trigger, how))
    current.begin()
    _ACTIVE[root, flow] = current
    if flow not in QUICK:
        _trying(lambda: deaths.tell(root, died))
        if watched:
            current.watch()
    error: BaseException | None = None
    try:
        yield current
    except BaseException as raised:
        error = raised
        raise
    finally:
        _ACTIVE.pop((root, flow), None)
        current.finish(error)
        _tell(current)
        if os.getpid() == current.process:
            _trying(lambda: deaths.tell(root, died))
            _trying(lambda: _bound(root))


def _check_project(root: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        if not (root / name).is_file():
            raise InputError(f"{name} is not in {root}. Run from a project's root.")


def _bound(root: Path) -> None:
    """Where nobody serves, nothing else prunes the records."""
    num = len(records.names(root))
    if num % _OFTEN == 0 and num > 10 and (root / "infra" / "operations.yaml").is_file():
        from components.params import load_yaml

        try:
            keep = load_yaml(root / "infra" / "operations.yaml")["runs"]["keep"]
        except (InputError, LookupError, TypeError):
            return  # whoever reads all of it tells
        if isinstance(keep, int) and keep >= 10 and num > 1.1 * keep:
            records.prune(root, keep)


def _tell(ended: Current) -> None:
    """What is worth a notice of how it ended; the reaper tells of those that could not."""
    events: dict[str, Any] = {"fault": "fault", "timed_out": "fault", "refused": "refused", "done": "done"}
    one = ended.record
    if one.state in events and os.getpid() == ended.process and events[one.state] not in ended.told_within:
        for around in _ACTIVE.values():
            around.told_within.add(events[one.state])
        told = f"{one.flow} ended as {one.state}: {one.told}" if one.told else f"{one.flow} ended as {one.state}"
        try:
            from pipelines.notices import notice  # reads the settings, which costs more than all the rest here

            notice(ended.root, events[one.state], told, one.id)
        except Exception as error:  # the run ended as it did, whatever becomes of the notice
            print(f"notice: {one.state} could not be told ({error})", file=sys.stderr)


def _new(root: Path, flow: str, trigger: Trigger | None, how: tuple[str, ...] | None) -> Record:
    name, trigger = records.new_id(), trigger or guess_trigger()
    crashed, given = triggers.resumed()
    before = records.read(root, crashed) if records.is_id(crashed) and records.is_id(given) else None
    if before is not None:
        cause = ": ".join(part for part in (before.trigger.kind, before.trigger.cause) if part)
        name, trigger = given, Trigger("resume", before.trigger.who, cause, before.id)
    around = next((c.id for (place, _), c in reversed(_ACTIVE.items()) if place == root), "")
    return Record(
        id=name, flow=flow, trigger=trigger, started=time.time(), lease=leases.own(),
        of=trigger.run if trigger.kind == "resume" else "", within=around,
        how=AGAIN.get(flow, ()) if how is None else how, params=_hash(root / "params.yaml"), commit=_commit(root),
    )  # fmt: skip


def _ending(error: BaseException | None) -> tuple[int, str]:
    """Exit code and words for what a run ended by."""
    if error is None:
        return 0, ""
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
        return code, f"ended by signal {code - 128}" if code > 128 else str(error.code or "")
    for kind, code in ((Refused, 3), (InputError, 2)):
        if isinstance(error, kind):
            return code, str(error)
    if not isinstance(error, Exception):  # KeyboardInterrupt, Prefect's TerminationSignal, a cancelled task
        return 130, "interrupted"
    return 1, f"{type(error).__name__}: {error}"


# --- what else a record tells ---


def _without_secret(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _commit(root: Path) -> str:
    """The last commit, read from git's files: asking git takes longer than all the rest."""
    try:
        top = next(place for place in (root, *root.parents) if (place / ".git").exists()) / ".git"
        if top.is_file():  # a worktree
            top = (top.parent / top.read_text("utf-8").split(":", 1)[1].strip()).resolve()
        common = top / "commondir"
        shared = (top / common.read_text("utf-8").strip()) if common.exists() else top
        head = (top / "HEAD").read_text("utf-8").strip()
        if not head.startswith("ref: "):
            return head if re.fullmatch("[0-9a-f]{40,64}", head) else ""
        name = head.removeprefix("ref: ")
        if (shared / name).exists():
            return (shared / name).read_text("utf-8").strip()
        packed = (shared / "packed-refs").read_text("utf-8").splitlines()
        return next((line.split(" ")[0] for line in packed if line.endswith(f" {name}")), "")
    except (OSError, ValueError, IndexError, StopIteration):
        return ""


def _trying(do: Callable[[], object]) -> None:
    """A record that cannot be kept stops no run."""
    try:
        do()
    except OSError as error:
        print(f"The record of this run could not be kept: {error.strerror} ({error.filename})", file=sys.stderr)
