"""One self-contained page about the run.

Reads: the JSON and CSV files named in components/report/facts.py, and augment/preview.png; also from stages
whose verdict refused, because a refusal is what most needs a page.
Writes: index.html (no scripts, nothing loaded from outside; readable offline, on paper, on a phone, light and
dark).
Decides: those files, and `report.num_classes_shown`. The same files give the same bytes.
Fails: never for a figure or a file that is not there: the page says what was not made.
Does not check: anything. It judges nothing and computes no figure but counts of pairs.
"""

from __future__ import annotations

from pydantic import Field

from components import params
from components.contracts import write_atomic
from components.job import Job
from components.report.facts import gather

NEEDS = ("ingest", "validate", "augment", "select", "finetune", "evaluate", "bias", "drift", "gate")


class Params(params.Params):
    """Section `report`."""

    num_classes_shown: int = Field(ge=2, le=100)
    """Largest confusion matrix drawn cell by cell; with more labels the most confused pairs are listed."""


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns num_sections and num_missing (files that were not there)."""
    from components.report import page

    facts = gather(lambda stage, name: job.source(stage, name, even_if_refused=True))
    html = page.render(facts, _preview(job), job.run.name, job.run.task, params.num_classes_shown)
    write_atomic(job.out("index.html"), html.encode())
    job.say(f"artifacts/report/index.html, {len(html.encode()) / 1024:.0f} KB")
    return {"num_sections": float(html.count("<section ")), "num_missing": float(len(facts.missing))}


def _preview(job: Job) -> bytes | None:
    try:
        return job.source("augment", "preview.png", even_if_refused=True).read_bytes()
    except FileNotFoundError:
        return None
