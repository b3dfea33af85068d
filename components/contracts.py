"""What crosses stage borders: small frozen records, tables with stated columns, and the errors users see.

Tables are parquet, records are JSON with sorted keys, so that the same content is the same bytes.
Refuses nothing by itself; readers check what they need.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

SPLITS = ("train", "validation", "test")

# Columns of the manifest (ingest) and of the accepted manifest (validate, which adds `split`):
#   id            unique text; for files the path below the source's folder
#   sha256        of the sample's own bytes
#   label         text, or missing
#   input.*       what the task reads (image_classification: input.path, relative to the project if inside it)
#   attribute.*   named by the user, for groups
#   property.*    measured at ingest by the task (brightness, width, ...), float64
#   note          what a reader should know ("first of 12 frames"), or ""
INPUT, ATTRIBUTE, PROPERTY, PROBABILITY = "input.", "attribute.", "property.", "probability."


class InputError(ValueError):
    """A mistake in params or input that the user can mend (exit code 2)."""


class Refused(Exception):
    """A verdict did not pass, so what rests on it is not made (exit code 3)."""


@dataclass(frozen=True)
class Found:
    """One sample as a source found it, before it was read."""

    id: str
    label: str | None
    inputs: dict[str, str]
    """What the task reads, without the `input.` prefix: {"path": "data/cat/1.png"}."""
    attributes: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    """A stable word if the source already knows that it cannot be used."""
    detail: str = ""


@dataclass(frozen=True)
class Inspection:
    """What one full read of a sample tells, by its task."""

    sha256: str
    properties: dict[str, float]
    note: str
    attributes: dict[str, str] = field(default_factory=dict)
    """Groups that a sample falls into by itself."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check found in the data."""

    check: str
    severity: str
    """error: the verdict fails. warning: shown, does not fail."""
    message: str
    """What was found, where, and what to do."""
    num_samples: int = 0
    samples: tuple[str, ...] = ()
    """Ids of at most 20 of them."""


@dataclass(frozen=True)
class Rule:
    """One rule of a verdict, judged."""

    name: str
    passed: bool
    value: float | None
    """None: it was not measured, which is a failed rule."""
    limit: float | None
    margin: float | None
    """How far on the right side of the limit (negative: on the wrong one), in the metric's unit."""
    why: str = ""
    metric: str = ""
    """<stage>.<metric>; empty: the rule is about no metric."""
    side: str = ""
    """at_least or at_most, of a rule about a metric."""


def margin(value: float, side: str, limit: float) -> tuple[float, str]:
    """How far a value is on the right side of its limit, and that in words; on the limit it is 0, which passes."""
    far = value - limit if side == "at_least" else limit - value
    words = {"at_least": ("at least", "below"), "at_most": ("at most", "above")}[side]
    return far, f"{value:.4g} is {words[far < 0]} {limit:.4g}, by {abs(far):.4g}"


@dataclass(frozen=True)
class Verdict:
    """What a judging stage decided. Data, not an exit code: a refusal must be recorded too."""

    stage: str
    passed: bool
    rules: tuple[Rule, ...] = ()

    def refusal(self) -> str:
        """The failed rules, one a line."""
        return "\n".join(f"  - {rule.name}: {rule.why}" for rule in self.rules if not rule.passed)


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class RunRecord:
    """One training run of `finetune`: what evaluate, export and handoff must know to use its weights."""

    run: str
    role: str
    """candidate (the one that ships) or reference (what it is compared with)."""
    task: str
    decision: str
    """What is decided: a module of components/decisions."""
    backbone: dict[str, Any]
    """The choice as in params.yaml: {name: timm, model: ...}."""
    pretrained: bool
    strategy: dict[str, Any]
    labels: tuple[str, ...]
    """Index in the logits -> label."""
    preprocessing: dict[str, Any]
    base_weights: dict[str, Any] = field(default_factory=dict)
    """Where the pretrained weights came from, with sha256 and licence."""
    policy: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    best_epoch: int = 0
    num_samples_seen: int = 0
    """Training samples that passed through the loss: the budget."""
    note: str = ""
    inputs: tuple[str, ...] = ()
    """What a sample was in training: the columns `input.*`, without that prefix (text, text_pair)."""
    found: dict[str, float] = field(default_factory=dict)
    """What the strategy chose on validation, by name."""
    label_share: float = 1.0
    """Share of the training samples that it was given; runs of less than all are named after it (main_15)."""
    num_train: int = 0
    """Training samples that it was given."""


@dataclass(frozen=True)
class Commit:
    """Where in a project's history the files lie that a model rests on."""

    commit: str | None = None
    """The newest one that changed any of them; None: not known, and `note` says why."""
    clean: bool | None = None
    """None of them differs from the last commit; None: not known."""
    differing: tuple[str, ...] = ()
    """Those that do, or that git does not hold."""
    note: str = ""


def inputs_of(table: pd.DataFrame) -> tuple[str, ...]:
    """What the samples of a manifest are: its filled columns `input.*`, without that prefix."""
    filled = [str(c) for c in table.columns if table[c].notna().any()]
    return tuple(sorted(c.removeprefix(INPUT) for c in filled if c.startswith(INPUT)))


def put_files(folder: Path, preprocessing: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing as its JSON has it: its `files` (name -> text: a tokenizer, a config) are written into
    `folder`, which exists afterwards, and their sha256 stand in their place."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {name: text.encode() for name, text in preprocessing.get("files", {}).items()}
    for name, content in contents.items():
        write_atomic(folder / name, content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    return {**preprocessing, "files": hashes} if hashes else preprocessing


def with_files(folder: Path, preprocessing: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `put_files`.

    Raises:
        InputError: a file is not the one that was written.
    """
    texts = {}
    for name, digest in preprocessing.get("files", {}).items():
        content = (folder / name).read_bytes() if (folder / name).is_file() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise InputError(f"{folder / name} is missing or has changed; run the stage that wrote it again")
        texts[name] = content.decode()
    return {**preprocessing, "files": texts} if texts else preprocessing


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):  # numpy scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write a record, dict or list as JSON; the same content gives the same bytes. NaN becomes null."""
    text = json.dumps(_plain(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def write_atomic(path: Path, content: bytes) -> None:
    """The file is there whole, or not at all."""
    with whole(path) as handle:
        handle.write(content)


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, beside `path`; takes its place when the block ends well, and is gone when it does not.

    Its bytes are on the disk before that, so a loss of power leaves the old content or the new one; which, is not
    waited for by flushing the folder too: DVC's record of a hash or a checkpoint holds in either case.

    The name beside is always the same: what a killed writer left is written over. Two take turns, by a lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    with _alone(beside) as handle:
        try:
            handle.truncate()
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """The file, made if it is not there, held by this writer alone."""
    while True:
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags & ~os.O_TRUNC, 0o666)) as handle:
            is_it = False
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                is_it = os.path.samestat(os.fstat(handle.fileno()), path.stat())
            if is_it:  # else the one before has moved it into place meanwhile
                yield handle
                return


def read_json(path: Path) -> Any:
    """The JSON value of a file."""
    return json.loads(path.read_text("utf-8"))


def read_record(cls: type[T], path: Path) -> T:
    """A dataclass of this module from its JSON file."""
    return record(cls, read_json(path))


def record(cls: type[T], raw: dict[str, Any]) -> T:
    """A dataclass of this module from its plain form; lists become tuples, Verdict gets its rules."""
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    if cls is Verdict:
        values["rules"] = tuple(Rule(**rule) for rule in raw.get("rules", ()))
    return cls(**values)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet without an index, whole or not at all."""
    with whole(path) as handle:
        table.reset_index(drop=True).to_parquet(handle, index=False, compression="zstd")


def read_table(path: Path) -> pd.DataFrame:
    """A table written by `write_table`."""
    import pandas as pd

    return pd.read_parquet(path)
