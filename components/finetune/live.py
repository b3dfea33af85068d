"""What training has come to so far, as a file beside the stage's outputs, which DVC draws at any time:

dvc plots show reports/finetune/live.csv -x epoch -y validation_accuracy -t by_run
"""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from typing import Any

from components.contracts import write_atomic
from components.job import Job

NAME = "live.csv"
HISTORY = (
    "run", "phase", "epoch", "train_loss", "validation_loss", "validation_accuracy", "validation_precision",
    "validation_recall", "validation_f1", "learning_rate",
)  # fmt: skip
"""Columns of the history, here and in history.csv."""


def begin(job: Job) -> None:
    """Forget what an earlier training came to."""
    job.report(NAME).unlink(missing_ok=True)


def write(job: Job, run: str, rows: list[dict[str, Any]]) -> None:
    """`rows` are all that this run has so far; those of other runs stay."""
    place = job.report(NAME)
    others: list[dict[str, Any]] = []
    with suppress(FileNotFoundError):  # none yet, or another process began anew just now
        others = [row for row in csv.DictReader(io.StringIO(place.read_text("utf-8"))) if row["run"] != run]
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*others, *({"run": run, **row} for row in rows)])
    write_atomic(place, text.getvalue().encode())
