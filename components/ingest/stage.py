"""Find the samples and read every one of them once.

Reads: the data that `ingest.data` names, through the source plugin.
Writes: manifest.parquet (one row a usable sample, see components/contracts.py), quarantine.parquet (one row a
sample set aside: id, where, label, reason, detail), summary.json (counts), samples/ (files that the source made).
Decides: the source's files and options, and the task, which says what is readable.
Fails: no sample found, none usable, or two samples with one id (InputError). A sample that cannot be read does
not fail the stage: it is set aside with a reason, and seen = used + quarantined is asserted.
Does not check: labels, duplicates, balance. That is `validate`.

What the task measures as an attribute (the script of a text) stands beside the source's attributes; where the
source has one of that name, the source's is taken, for every row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from typing import Annotated, Any

from pydantic import Field

from components import params, plugins, samples, watched
from components.contracts import ATTRIBUTE, INPUT, PROPERTY, Found, InputError, write_json, write_table
from components.job import Job
from components.plugins import Choice, Family

NEEDS: tuple[str, ...] = ()
MAX_WHERE = 200


class Params(params.Params):
    """Section `ingest`."""

    source: Annotated[Choice, Family("ingest.sources")]
    """How samples are found."""
    data: str = Field(min_length=1)
    """Folder that the source reads, relative to the project or absolute; DVC watches it."""


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns num_seen, num_used, num_quarantined, num_labels."""
    task = plugins.load("tasks", job.run.task)
    source = params.source.load()
    data = samples.locate(job.root, params.data)
    if not data.exists():
        raise InputError(f"ingest.data: {params.data} is not there. Put the data there, or name its folder.")
    for problem in watched.problems(data):
        job.say(f"warning: {problem}")
    samples.must_give(source, task, "ingest.source")
    job.out("samples/.keep").touch()
    found = list(source.find(params.source.params, data, job))
    if not found:
        raise InputError(f"ingest.data: no samples in {params.data}. {source.EXPECTS}")
    twice = [i for i, n in Counter(f.id for f in found).items() if n > 1]
    if twice:
        raise InputError(f"ingest.data: {len(twice)} ids stand for several samples, for example {twice[:3]}")

    named = {name for one in found for name in one.attributes}
    used, aside = [], []
    results = samples.inspected(found, task, job, job.run.threads)
    for one, _, result in job.progress(results, "reading every sample once", len(found)):
        if isinstance(result, task.Unreadable):
            aside.append(_set_aside(one, result))
        else:
            used.append(_row(one, result, named))
    return _write(used, aside, params, job)


def _row(one: Found, inspection: Any, named: Container[str]) -> dict[str, Any]:
    measured = {k: v for k, v in inspection.attributes.items() if k not in named}
    return {
        "id": one.id,
        "sha256": inspection.sha256,
        **{INPUT + k: v for k, v in one.inputs.items()},
        "label": one.label,
        **{ATTRIBUTE + k: v for k, v in (measured | one.attributes).items()},
        **{PROPERTY + k: v for k, v in inspection.properties.items()},
        "note": inspection.note,
    }


def _set_aside(one: Found, problem: Any) -> dict[str, Any]:
    where = _in_short(next(iter(one.inputs.values()), ""))
    return {"id": one.id, "where": where, "label": one.label, "reason": problem.reason, "detail": problem.detail}


def _in_short(text: str) -> str:
    """On one line of at most 200 characters, whatever it holds: a text may have millions, or half a character."""
    shown = text if len(text) <= MAX_WHERE else text[: MAX_WHERE - 1] + "…"
    return "".join(c if c.isprintable() else " " for c in shown)


def _write(used: list[dict[str, Any]], aside: list[dict[str, Any]], params: Params, job: Job) -> dict[str, float]:
    import pandas as pd

    quarantine = pd.DataFrame(aside, columns=["id", "where", "label", "reason", "detail"], dtype="str")
    reasons = dict(sorted(Counter(row["reason"] for row in aside).items()))
    if not used:
        raise InputError(f"ingest.data: none of {len(aside)} samples can be used: {reasons}. First: {aside[0]}")
    manifest = pd.DataFrame(used).sort_values("id", kind="stable")
    seen = len(used) + len(aside)
    assert len(manifest) + len(quarantine) == seen, "counts must reconcile"
    decision = plugins.load("decisions", job.run.decision)
    labels = Counter(label for row in used if row["label"] is not None for label in decision.split(row["label"]))
    write_table(job.out("manifest.parquet"), manifest)
    write_table(job.out("quarantine.parquet"), quarantine.sort_values("id", kind="stable"))
    counts = {"num_seen": seen, "num_used": len(used), "num_quarantined": len(aside), "num_labels": len(labels)}
    write_json(
        job.out("summary.json"),
        {
            **counts,
            "source": params.source.spec(),
            "task": job.run.task,
            "reasons": reasons,
            "labels": dict(sorted(labels.items())),
            "attributes": sorted({k for row in used for k in row if k.startswith(ATTRIBUTE)}),
            "notes": dict(sorted(Counter(row["note"] for row in used if row["note"]).items())),
        },
    )
    for reason, count in reasons.items():
        job.say(f"{count} set aside: {reason} (artifacts/ingest/quarantine.parquet)")
    return {k: float(v) for k, v in counts.items()}
