"""What a bundle says of samples: its own predict.py and preprocessing.py, run as they were shipped.

The bundle's code is run in this process, so the caller has verified the bundle before.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from components import plugins
from components.contracts import InputError
from components.job import Job

if TYPE_CHECKING:
    import pandas as pd

OWN = ("preprocessing", "predict")
"""Modules of a bundle, in the order in which they need each other."""


@dataclass(frozen=True)
class Answers:
    """Rows in the order of the table that was asked about, without those that the model could not take."""

    taken: np.ndarray
    """bool, [rows of the table]."""
    predicted: np.ndarray
    """Text, [N]."""
    confidence: np.ndarray
    """float64 [N]."""
    probabilities: np.ndarray
    """float64 [N, K], in the order of labels.json."""
    embeddings: np.ndarray
    """float32 [N, D]."""
    labels: tuple[str, ...]
    refused: dict[str, int]
    """Reason -> count of those that it could not take."""


def ask(bundle: Path, table: pd.DataFrame, root: Path, job: Job) -> Answers:
    """Every row of the table; paths in it begin at `root`.

    Raises:
        InputError: the bundle decides about something else than run.decision says, or is broken.
    """
    task, decision = plugins.load("tasks", job.run.task), plugins.load("decisions", job.run.decision)
    with _code_of(bundle) as (preprocessing, predict):
        predictor = _predictor(predict, bundle, job.run.threads)
        if predictor.output != decision.OUTPUT:
            raise InputError(
                f"{bundle.name} gives {predictor.output}, which is no answer to run.decision {job.run.decision}"
            )
        taken, refused = np.zeros(len(table), dtype=bool), dict[str, int]()
        found: list[Any] = []
        rows = enumerate(table.to_dict("records"))
        with tempfile.TemporaryDirectory() as aside:
            for bunch in job.progress(
                _bunches(rows, preprocessing.AHEAD), "asking the live model", -(-len(table) // preprocessing.AHEAD)
            ):
                prepared = []
                for at, row in bunch:
                    content, suffix = task.as_file(row, root)
                    place = Path(aside) / f"sample{suffix}"
                    place.write_bytes(content)
                    try:
                        prepared.append(predictor.reader.read(preprocessing.from_file(place)))
                        taken[at] = True
                    except preprocessing.Unreadable as problem:
                        reason = str(getattr(problem, "reason", "")) or "refused_by_the_model"
                        refused[reason] = refused.get(reason, 0) + 1
                found += predictor.predict_rows(prepared)
        labels = tuple(predictor.labels)
    shares = np.array([[one.probabilities[label] for label in labels] for one in found]).reshape(-1, len(labels))
    features = np.stack([one.embedding for one in found]) if found else np.zeros((0, 0), np.float32)
    said = decision.predicted(shares, labels) if found else np.array([], dtype=object)
    return Answers(
        taken, said, decision.confidence(shares) if found else np.zeros(0), shares, features, labels, refused
    )


def _bunches(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while bunch := list(itertools.islice(rows, size)):
        yield bunch


def _predictor(predict: ModuleType, bundle: Path, threads: int) -> Any:
    try:
        return predict.Predictor(bundle, threads)
    except Exception as error:  # onnxruntime's own errors for a damaged model derive from nothing narrower
        raise InputError(f"{bundle.name} cannot be run: {str(error).splitlines()[0]}") from None


@contextmanager
def _code_of(bundle: Path) -> Iterator[list[ModuleType]]:
    """The bundle's modules, loaded for the length of the block, leaving nothing in its folder."""
    before = {name: sys.modules.pop(name, None) for name in OWN}
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield [_load(name, bundle / f"{name}.py") for name in OWN]
    finally:
        sys.dont_write_bytecode = writes
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def _load(name: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path.parent.name} holds no {path.name}, so it cannot be asked")
    spec = util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there; predict.py imports the other
    spec.loader.exec_module(module)
    return module
