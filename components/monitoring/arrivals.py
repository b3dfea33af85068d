"""What has arrived: samples that neither the model was made from nor an earlier look has judged, each read once.

A file is known by its path, size and time of change before it is read, and by its content after that; a text by its
content. What cannot be read is counted with its reason. A file that cannot be read and is younger than a minute may
still be on its way (half copied): it is left for the next look.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from components import plugins, samples
from components.contracts import INPUT, PROPERTY, Found
from components.job import Job
from components.plugins import Choice

if TYPE_CHECKING:
    import pandas as pd

ARRIVING_SECONDS = 60.0
DIGITS = 16
"""Of a hash: 64 bits tell a million samples apart."""


@dataclass(frozen=True)
class Arrived:
    """What is new."""

    table: pd.DataFrame
    """id, sha256, label, input.*, property.*; one row a sample, contents that come twice only once."""
    unreadable: dict[str, int]
    """Reason -> count."""
    num_arriving: int
    """Files that cannot be read yet."""
    marks: frozenset[str]
    """What to remember of these once they have been judged."""
    marks_of_known: frozenset[str]
    """What to remember of the others at once, so that they are not read again."""


def gather(
    data: Path, source: Choice, known: Collection[str], seen: Collection[str], inner: Job, job: Job, now: float
) -> Arrived:
    """Everything new in `data`. `known`: sha256 of the samples that the model was made from; `seen`: marks of earlier
    looks. `inner` is the job whose source finds them (below its root a source may make files), `job` tells progress.

    Raises:
        InputError: a source that does not fit, or nothing there at all.
    """
    task, module = plugins.load("tasks", inner.run.task), source.load()
    samples.must_give(module, task, "monitor.source (infra/operations.yaml)")
    inner.out("samples/.keep").touch()
    marked = [(mark(one, task, inner), one) for one in module.find(source.params, data.resolve(), inner)]
    fresh = {sign: one for sign, one in marked if sign not in seen}
    results = samples.inspected(list(fresh.values()), task, inner, job.run.threads)
    rows: list[dict[str, Any]] = []
    unreadable: Counter[str] = Counter()
    marks, of_known, arriving = set[str](), set[str](), 0
    for sign, (one, inputs, told) in zip(fresh, job.progress(results, "reading what is new", len(fresh))):
        if isinstance(told, task.Unreadable):
            if _is_arriving(inputs, task, inner, now):
                arriving += 1
            else:
                unreadable[told.reason] += 1
                marks.add(sign)
        elif told.sha256 in known or told.sha256[:DIGITS] in seen:
            of_known.add(sign)
        else:
            marks |= {sign, told.sha256[:DIGITS]}
            rows.append(_row(one, inputs, told, plugins.load("decisions", inner.run.decision)))
    return Arrived(_table(rows), dict(sorted(unreadable.items())), arriving, frozenset(marks), frozenset(of_known))


def mark(one: Found, task: ModuleType, inner: Job) -> str:
    """By what a sample is known before it is read."""
    stats = []
    for key in task.FILES:
        try:
            state = samples.locate(inner.root, inner.while_building(one.inputs[key])).stat()
            stats.append((state.st_size, state.st_mtime_ns))
        except (OSError, ValueError, KeyError):
            stats.append((-1, -1))
    told = json.dumps([one.inputs, stats, one.reason], sort_keys=True)
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def _is_arriving(inputs: dict[str, str], task: ModuleType, inner: Job, now: float) -> bool:
    try:
        times = [samples.locate(inner.root, inputs[key]).stat().st_mtime for key in task.FILES]
    except (OSError, ValueError, KeyError):
        return False
    return bool(times) and 0 <= now - max(times) < ARRIVING_SECONDS


def _row(one: Found, inputs: dict[str, str], told: Any, decision: ModuleType) -> dict[str, Any]:
    label = decision.canonical(one.label) if one.label and one.label.strip() else None  # as validate writes it
    return {
        "id": one.id,
        "sha256": told.sha256,
        "label": label,
        **{INPUT + key: value for key, value in inputs.items()},
        **{PROPERTY + key: value for key, value in told.properties.items()},
    }


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    if not rows:
        return pd.DataFrame({"id": [], "sha256": [], "label": []}, dtype=object)
    table = pd.DataFrame(rows).sort_values("id", kind="stable")
    return table.drop_duplicates("sha256").reset_index(drop=True)
