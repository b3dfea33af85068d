"""Reading samples: what the manifest accepted, and nothing else.

A sample's bytes are checked against the hash in the manifest at every read, so data that changed since
`ingest` cannot slip into a later stage.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from components.contracts import Found, InputError

if TYPE_CHECKING:
    import pandas as pd

    from components.job import Job

A = TypeVar("A")
B = TypeVar("B")


class SampleChanged(InputError):
    """A file is not the one that was ingested."""


def locate(root: Path, path: str) -> Path:
    """A path of the manifest, which is relative to the project if inside it."""
    return Path(path) if os.path.isabs(path) else root / path


def named(root: Path, path: Path) -> str:
    """The path as a manifest has it: the inverse of `locate`."""
    inside = path.is_relative_to(root)
    return (path.relative_to(root) if inside else path).as_posix()


def must_give(source: ModuleType, task: ModuleType, key: str) -> None:
    """Raises InputError where a source does not give what the task needs; `key` says where it is chosen."""
    if lacking := sorted(set(task.INPUTS) - set(source.INPUTS)):
        name, needing = (module.__name__.rpartition(".")[2] for module in (source, task))
        raise InputError(
            f"{key}: {name} gives {', '.join(source.INPUTS)}, but run.task {needing} needs {', '.join(lacking)}. "
            "Choose another source."
        )


def inspected(
    found: Sequence[Found], task: ModuleType, job: Job, threads: int
) -> Iterator[tuple[Found, dict[str, str], Any]]:
    """Every sample read once, in the order given: the sample, its inputs as they lie now, and what the task's
    `inspect` tells of it, or the task's Unreadable. `job` is the one whose source found them."""

    def read(one: Found) -> tuple[Found, dict[str, str], Any]:
        inputs = {k: job.while_building(v) if k in task.FILES else v for k, v in one.inputs.items()}
        if one.reason:
            return one, inputs, task.Unreadable(one.reason, one.detail)
        try:
            return one, inputs, task.inspect(inputs, job.root)
        except task.Unreadable as problem:
            return one, inputs, problem

    return in_threads(read, found, threads)


def read_checked(root: Path, path: str, sha256: str) -> bytes:
    """The bytes of a sample's file.

    Raises:
        SampleChanged: it is gone, or its content is not what the manifest says.
    """
    try:
        content = locate(root, path).read_bytes()
    except OSError as error:
        raise SampleChanged(
            f"{path} was ingested, but cannot be read now ({error.strerror}). Put it back, or run `ingest` again."
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SampleChanged(
            f"{path} has changed since it was ingested. `dvc repro --force --single-item ingest`, then `dvc repro`, "
            "takes the new one."
        )
    return content


def keyed_rng(seed: int, epoch: int, sample: str) -> np.random.Generator:
    """Random numbers for one sample in one epoch: the same whoever draws them, in whatever order."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{sample}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def keyed_seed(*parts: object) -> int:
    """A seed below 2**63 from anything that has a stable text form."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def in_threads(work: Callable[[A], B], items: Iterable[A], threads: int) -> Iterator[B]:
    """Results in the order of items, at most a few dozen ahead of the reader."""
    items = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(work, item) for item in islice(items, 8 * threads)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(work, item) for item in islice(items, 1)]


def digest_of(table: pd.DataFrame, *more: Any) -> str:
    """A key for caches: which samples in which order, and whatever else decides the content."""
    digest = hashlib.sha256("\n".join(table["sha256"]).encode())
    digest.update(json.dumps(more, sort_keys=True, default=str).encode())  # a tuple and a list are the same
    return digest.hexdigest()[:32]
