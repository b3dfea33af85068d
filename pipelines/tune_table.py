"""What a study came to: reports/tune/, the table, what each key matters, and what the winner is worth."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.contracts import write_atomic, write_json
from pipelines.settings_text import scalar
from pipelines.tune_study import DONE, Study, Trial

FOLDER = "reports/tune"
SHOWN = 12
"""Rows of the table that is printed."""


def conclude(root: Path, study: Study) -> tuple[list[str], dict[str, Any]]:
    """Write reports/tune/; what to tell, and what of params.yaml the best trial would change."""
    ranked = _ranked(study)
    importance = study.importance()
    best = study.best
    changes = (
        {} if best is None else {one.key: best.values[one.key] for one in study.keys if best.values[one.key] != one.now}
    )
    verdict = _verdict(study)
    whole = {
        "metric": study.metric, "keys": [one.told() for one in study.keys], "importance": importance,
        "trials": [asdict(one) for one in study.trials], "winner": best and best.number, "verdict": verdict,
    }  # fmt: skip
    write_json(root / FOLDER / "tune.json", whole)
    write_atomic(root / FOLDER / "trials.csv", _csv(study, ranked).encode())
    matters = [f"  {key}: {share:.0%}" for key, share in sorted(importance.items(), key=lambda one: -one[1])]
    told = [*_shown(study, ranked), ""]
    told += ["What makes the trials differ (PED-ANOVA, of few trials a rough figure):", *matters, ""] if matters else []
    return [*told, *verdict, f"{FOLDER}/trials.csv and tune.json have all of it.", ""], changes


def words(study: Study, trial: Trial) -> str:
    """What is tried, in a line."""
    if trial.number == 0:
        return "what params.yaml has"
    return ", ".join(f"{name} {_number(trial.values[key])}" for key, name in _names(study).items())


def lines(study: Study, changes: dict[str, Any]) -> list[str]:
    """For params.yaml, each with what it was."""
    now = {one.key: one.now for one in study.keys}
    return [f"{key}: {scalar(value)}  (was {_number(now[key])})" for key, value in changes.items()]


def _ranked(study: Study) -> list[Trial]:
    """The best first; those without a value in their order."""
    return sorted(study.trials, key=lambda one: (one.value is None, study.sign * (one.value or 0.0), one.number))


def _verdict(study: Study) -> list[str]:
    best, first = study.best, next((one for one in study.done if one.number == 0), None)
    if best is None or first is None:
        return []
    num = len(study.ended)
    if best.number == 0:
        return [f"What params.yaml has is the best of {num} trials. Nothing to change."]
    pairs = ((name, best.figures.get(name), first.figures.get(name)) for name in _figures(study))
    figures = [f"{name} {_number(mine)} (now {_number(theirs)})" for name, mine, theirs in pairs]
    return [
        f"Best of {num}: trial {best.number}: {', '.join(figures)}.",
        "It was chosen by the validation split, so its figures there flatter it, the more the more trials there were.",
        "The test split was not looked at: run the line, and see what it says.",
    ]


def _figures(study: Study) -> list[str]:
    """The metric first."""
    found = dict.fromkeys(name for one in study.done for name in one.figures)
    return [study.metric, *(name for name in found if name != study.metric)]


def _names(study: Study) -> dict[str, str]:
    """Key -> its last part, or more of it where two would be the same."""
    short = [one.short for one in study.keys]
    return {one.key: one.short if short.count(one.short) == 1 else one.key for one in study.keys}


def _rows(study: Study, ranked: list[Trial]) -> list[list[str]]:
    figures, names = _figures(study)[:2], _names(study)
    rows = [["trial", "state", *figures, "s", *names.values()]]
    for one in ranked:
        cells = [_number(one.figures.get(name)) for name in figures]
        values = [_number(one.values[key]) for key in names]
        rows.append([str(one.number), one.state, *cells, f"{one.seconds:.0f}", *values])
    return rows


def _shown(study: Study, ranked: list[Trial]) -> list[str]:
    best = ranked[:SHOWN]
    rows = _rows(study, best + [one for one in ranked[SHOWN:] if one.number == 0])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    told = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    more = len(ranked) - len(rows) + 1
    failed = [f"  trial {one.number}: {one.told}" for one in best if one.state != DONE and one.told]
    return [*told, *([f"and {more} more"] if more else []), *failed]


def _csv(study: Study, ranked: list[Trial]) -> str:
    figures, keys = _figures(study), [one.key for one in study.keys]
    store = io.StringIO()
    writer = csv.writer(store, lineterminator="\n")
    writer.writerow(["trial", "state", *figures, "seconds", *keys, "told"])
    for one in ranked:
        measured = [one.figures.get(name) for name in figures]
        writer.writerow([one.number, one.state, *measured, one.seconds, *(one.values[k] for k in keys), one.told])
    return store.getvalue()


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
