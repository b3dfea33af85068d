"""What one stage run may know: its name, the folders it may read, its own folder, the run's settings.

A read that dvc.yaml does not declare is refused, so freshness can be trusted; so is a read of a folder whose
verdict did not pass. What a stage writes stays aside until the stage has succeeded.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from components.contracts import Commit, Refused, Verdict, read_record
from components.params import Run

T = TypeVar("T")


def _no_history(files: Iterable[str]) -> Commit:
    del files
    return Commit(note="this run was not told where its history is")


class UndeclaredRead(Exception):
    """A stage asked for a file that is not among its dependencies: a fault of ours (exit code 1)."""


@dataclass(frozen=True)
class Job:
    """Handed to `run(params, job)` of every stage."""

    stage: str
    run: Run
    root: Path
    """The project's folder; paths in manifests are relative to it."""
    needs: tuple[str, ...]
    declared: tuple[str, ...] | None = None
    """Dependencies from dvc.yaml, relative to root. None (tests): any file of the stages in `needs`."""
    commit_of: Callable[[Iterable[str]], Commit] = _no_history
    """Files of the project -> where in its history they lie. Whoever starts the stage knows git."""
    settled: Mapping[str, Any] = field(default_factory=dict)
    """Where a model is made again: what this stage had decided by measured times. Empty: it decides."""

    @classmethod
    def at(cls, root: Path, stage: str = "stage", needs: Sequence[str] = (), **settings: Any) -> Job:
        """A job in a folder, for tests and for trying a stage by hand."""
        defaults: dict[str, Any] = {
            "name": "trial", "seed": 17, "task": "image_classification", "decision": "single_label",
            "device": "cpu", "threads": 2, "instruction_set": "avx2",
        }  # fmt: skip
        return cls(stage, Run(**{**defaults, **settings}), root, tuple(needs))

    @property
    def building(self) -> Path:
        """Where outputs lie until the stage has succeeded."""
        return self.root / "artifacts" / ".building" / self.stage

    def source(self, stage: str, name: str, *, even_if_refused: bool = False) -> Path:
        """A file that another stage wrote.

        Raises:
            UndeclaredRead: the stage or the file is not declared.
            Refused: that stage's verdict did not pass (unless `even_if_refused`).
            FileNotFoundError: it was not made.
        """
        path = f"artifacts/{stage}/{name}"
        if stage not in self.needs:
            raise UndeclaredRead(f"{self.stage} reads {path}, but its NEEDS are {self.needs}")
        if self.declared is not None and not any(path == d or path.startswith(d + "/") for d in self.declared):
            raise UndeclaredRead(f"{self.stage} reads {path}, which dvc.yaml does not declare for it")
        verdict = self.root / "artifacts" / stage / "verdict.json"
        awaited = self.declared is not None and f"artifacts/{stage}/verdict.json" in self.declared
        if not even_if_refused and (awaited or verdict.exists()):
            if not verdict.exists():
                raise Refused(f"{self.stage} is not made, because artifacts/{stage}/verdict.json is not there")
            judged = read_record(Verdict, verdict)
            if not judged.passed:
                raise Refused(
                    f"{self.stage} is not made, because {stage} refused:\n{judged.refusal()}\n"
                    f"Nothing was lost. Mend the cause, or change the rule below `{stage}:` in params.yaml; run again."
                )
        found = self.root / path
        if not found.exists():
            raise FileNotFoundError(f"{path} is not there; run the stage {stage} first")
        return found

    def out(self, name: str) -> Path:
        """Where to write an output of this stage; its folder exists."""
        path = self.building / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def while_building(self, path: str) -> str:
        """Where a path below this stage's own artifacts folder lies until the stage has succeeded."""
        own = f"artifacts/{self.stage}/"
        return f"artifacts/.building/{self.stage}/{path.removeprefix(own)}" if path.startswith(own) else path

    def report(self, name: str) -> Path:
        """Where to write what people look at and no stage reads: times, HTML, screenshots. Not hashed by DVC."""
        path = self.root / "reports" / self.stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def work(self, *key: Any) -> Path:
        """A folder that outlives a killed run, keyed by what decides its content (checkpoints, caches)."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:24]
        path = self.root / ".graftline" / self.stage / digest
        path.mkdir(parents=True, exist_ok=True)
        return path

    def cache(self, kind: str) -> Path:
        """A folder of content-keyed caches that stages share (decoded pixels, features)."""
        path = self.root / ".graftline" / kind
        path.mkdir(parents=True, exist_ok=True)
        return path

    def say(self, text: str) -> None:
        """One line to whoever watches."""
        print(f"{self.stage}: {text}", file=sys.stderr, flush=True)  # noqa: T201

    def progress(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Pass items on and show how far it is: a bar on a terminal, a line now and then elsewhere."""
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        if sys.stderr.isatty():
            yield from _bar(items, f"{self.stage}: {what}", total)
            return
        start = told = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            if time.monotonic() - told >= 5:
                told = time.monotonic()
                share = f" of {total} ({done / total:.0%})" if total else ""
                self.say(f"{what}: {done}{share}, {told - start:.0f} s")

    def publish(self) -> None:
        """Put what was built into the place of artifacts/<stage>/: all of it, or nothing."""
        target = self.root / "artifacts" / self.stage
        replace_folder(self.building, target)
        shutil.rmtree(self.building, ignore_errors=True)  # what was there before

    def clear(self) -> None:
        """Forget what an earlier, interrupted run had built."""
        for left in (self.building, _aside(self.building)):
            shutil.rmtree(left, ignore_errors=True)
        self.building.mkdir(parents=True)


def lock_of(root: Path, stage: str) -> Path:
    """What a process holds while it builds a stage."""
    return root / ".graftline" / "locks" / stage


@contextmanager
def alone(root: Path, stage: str, say: Callable[[str], None]) -> Iterator[None]:
    """Held by the one process that builds a stage in a project; another waits. The kernel frees it.

    So what outlived a killed run cannot write into what the next run builds, even where nothing ends it.
    """
    if os.environ.get("RANK", "0") != "0":  # torchrun started several, maybe in one project; the first one holds it
        yield
        return
    try:
        path = lock_of(root, stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("ab")
    except OSError:  # nothing can be written here: the stage will tell
        yield
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{stage}: another process builds this stage here; waiting for it to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield


def replace_folder(new: Path, place: Path) -> None:
    """`place` becomes the folder `new`, and `new` what was there before, if anything was.

    On Linux in one step. Where the system knows no such step there are two, and a crash between them leaves nothing at
    `place`.
    """
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(new, place)
    elif not _exchanged(new, place):
        aside = _aside(new)
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(place, aside)
        os.rename(new, place)
        os.rename(aside, new)


def _aside(new: Path) -> Path:
    return new.with_name(f"{new.name}.before")


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the kernel exchanged the two."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_cwd, exchange = -100, 2
    return bool(call(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) == 0)


def _bar(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=total, description=what)
