"""What a study came to: reports/tune/, the table, what each key matters, and what the winner is worth."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.contracts import write_atomic, write_json
from pipelines.settings_text import scalar
from pipelines.tune_study import DONE, LEAST_POINTS, LEAST_SHARE_OF_LOSS, Study, Trial

FOLDER = "reports/tune"
SHOWN = 12
"""Rows of the table that is printed."""


def conclude(root: Path, study: Study, now: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Write reports/tune/; what to tell, and what of params.yaml, which has `now`, the winner changes."""
    ranked = _ranked(study)
    importance = study.importance()
    best, winner = study.best, study.winner
    changes = {key: value for key, value in winner.values.items() if value != now[key]} if winner else {}
    verdict = _verdict(study)
    if winner and not changes:
        verdict.append("params.yaml has its values already.")
    whole = {
        "metric": study.metric, "keys": [one.told() for one in study.keys], "importance": importance,
        "trials": [asdict(one) for one in study.trials], "verdict": verdict,
        "best": best and best.number, "winner": winner and winner.number,
    }  # fmt: skip
    write_json(root / FOLDER / "tune.json", whole)
    write_atomic(root / FOLDER / "trials.csv", _csv(study, ranked).encode())
    matters = [f"  {key}: {share:.0%}" for key, share in sorted(importance.items(), key=lambda one: -one[1])]
    told = [*_shown(study, ranked), ""]
    if matters:
        told += [f"What makes the trials differ (PED-ANOVA of {len(study.done)} trials, a rough figure):", *matters, ""]
    return [*told, *verdict, f"{FOLDER}/trials.csv and tune.json have all of it.", ""], changes


def words(study: Study, trial: Trial) -> str:
    """What is tried, in a line."""
    if trial.number == 0:
        return "what params.yaml has"
    return ", ".join(f"{name} {_number(trial.values[key])}" for key, name in _names(study).items())


def lines(changes: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """For params.yaml, each with what it was."""
    return [f"{key}: {scalar(value)}  (was {_number(now[key])})" for key, value in changes.items()]


def _ranked(study: Study) -> list[Trial]:
    """The best first; those without a value in their order."""
    return sorted(study.trials, key=lambda one: (one.value is None, study.sign * (one.value or 0.0), one.number))


def _verdict(study: Study) -> list[str]:
    best, first, num = study.best, study.first, len(study.ended)
    if best is None:
        return []
    if best is first:
        return [f"Trial 0, what params.yaml had when this began, is the best of {num}. Nothing to change."]
    theirs = first.figures if first else {}
    pairs = ((name, best.figures.get(name), _number(theirs.get(name)) or "none") for name in _figures(study))
    figures = [f"{name} {_number(mine)} (trial 0: {was})" for name, mine, was in pairs]
    least = f"{LEAST_SHARE_OF_LOSS:.0%} of trial 0's loss" if study.sign > 0 else f"{LEAST_POINTS:g} points"
    small = f"That is less than {least} better, too little to tell from chance: params.yaml stays as it is."
    return [
        f"Best of {num}: trial {best.number}: {', '.join(figures)}.",
        *([] if study.winner else [small]),
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
