"""Replay dated data: train on what there was up to each date, judge that model on every later period.

Each cut is a clone of the project whose manifest holds only what was dated before it; the line runs there from
`validate` to `evaluate`, sharing DVC's cache, so what was interrupted or done before does not run again. What is
computed stands in components/monitoring/aging.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from components.contracts import InputError, read_json, read_table, write_atomic, write_json, write_table
from components.job import Job
from components.params import Run, load_yaml
from pipelines import dvc_cli, side, stage

if TYPE_CHECKING:
    import pandas as pd

    from components.monitoring.aging import Cell

LAST = "evaluate"
LEFT_OUT = ("ingest",)
ALONE: dict[str, Any] = {"finetune.references": [], "finetune.label_shares": []}
"""Nobody looks at other runs than the one that is tried."""
QUICK = {"finetune.strategy": {"name": "linear_probe"}}
PAGE = "reports/backtest/index.html"


@dataclass(frozen=True)
class Wish:
    """How it is replayed."""

    date: str
    """The attribute that holds a sample's date."""
    period: str = "month"
    """week, month, quarter or year."""
    max_cuts: int = 4
    """Most models that are trained."""
    min_train: int = 100
    """Fewer samples before a date are too few to train on."""
    min_judged: int = 20
    """A period with fewer samples is not judged."""
    quick: bool = False
    """A linear probe in place of the project's strategy."""
    keep: bool = False
    """Leave the clones."""


def backtest(root: Path, wish: Wish) -> int:
    """Train, judge, write reports/backtest/; the exit code.

    Raises:
        InputError: dates or samples that cannot be replayed.
    """
    root = root.resolve()
    typed = stage.read_params(root)
    run = cast(Run, typed["run"])
    stage.pin(run)  # before numpy is loaded
    from components.monitoring import aging

    with dvc_cli.turn(root):
        manifest = _manifest(root)
        table, undated = aging.dated(manifest, wish.date, wish.period)
        cuts = aging.cuts(table, wish.max_cuts, wish.min_train)
        dvc_cli.say(f"{len(cuts)} models will be trained, on what is dated before {', '.join(map(str, cuts))}")
        cells: list[Cell] = []
        models: list[dict[str, Any]] = []
        level = float(typed[LAST].level)  # type: ignore[attr-defined]
        for number, cut in enumerate(cuts, 1):
            before, later = table[table["period"] < cut], table[table["period"] >= cut]
            told: dict[str, Any] = {"cut": str(cut), "num_train": len(before), "backbone": "", "own_accuracy": None}
            dvc_cli.say(f"[{number} of {len(cuts)}] before {cut}: {len(before)} samples")
            with _workspace(root, str(cut), before, wish) as place:
                note = _train(place)
                if not note:
                    told |= _told(place)
                    cells += _judge(root, run, place, before, later, cut, wish, level)
            models.append({**told, "note": note})
    return _write(root, run.name, wish, cells, models, undated, level)


def _manifest(root: Path) -> pd.DataFrame:
    """What `ingest` found, as it is now.

    Raises:
        InputError: it had to run, and could not.
    """
    path = root / "artifacts" / "ingest" / "manifest.parquet"
    stale = dvc_cli.stale(root, "ingest").get("ingest")
    if stale or not path.exists():
        dvc_cli.say("ingest: its data have changed, or it has not run yet; running it first")
        outcome = dvc_cli.repro(root, "ingest")
        if outcome.code:
            raise InputError(outcome.told)
    return read_table(path)


@contextmanager
def _workspace(root: Path, cut: str, before: pd.DataFrame, wish: Wish) -> Iterator[Path]:
    """A clone in which `ingest` had found only what was dated before the cut."""
    place = root / ".graftline" / "backtest" / cut.replace("/", "_")
    shutil.rmtree(place, ignore_errors=True)
    try:
        side.prepare(root, place, {**ALONE, **(QUICK if wish.quick else {})})
        (place / "dvc.lock").unlink(missing_ok=True)
        shutil.rmtree(place / "artifacts", ignore_errors=True)
        shutil.copytree(root / "artifacts" / "ingest", place / "artifacts" / "ingest")
        _narrow(place / "artifacts" / "ingest", before.drop(columns="period"))
        _link_data(root, place, before)
        yield place
    finally:
        if wish.keep:
            dvc_cli.say(f"kept: {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)


def _narrow(folder: Path, before: pd.DataFrame) -> None:
    """The manifest and its counts, as of that day."""
    for name in ("manifest.parquet", "summary.json"):
        (folder / name).unlink()  # DVC may have linked it to its cache
    write_table(folder / "manifest.parquet", before)
    counts = before["label"].value_counts().to_dict()
    labels = {label: int(counts[label]) for label in sorted(map(str, counts))}
    summary = {"num_seen": len(before), "num_used": len(before), "num_quarantined": 0, "num_labels": len(labels)}
    write_json(folder / "summary.json", {**summary, "labels": labels, "reasons": {}, "notes": {}})


def _link_data(root: Path, place: Path, before: pd.DataFrame) -> None:
    """Files of the manifest that lie in the project, but not below what dvc.yaml names, are read where they lie."""
    paths = {
        str(v) for c in before.columns if c.startswith("input.") and c.endswith("path") for v in before[c].dropna()
    }
    for first in sorted({Path(path).parts[0] for path in paths if not Path(path).is_absolute()}):
        if (root / first).exists() and not (place / first).exists():
            (place / first).symlink_to(root / first)


def _train(place: Path) -> str:
    """The line up to `evaluate`; why not, if it could not be.

    Raises:
        InputError: a stage failed for a reason that holds for every date.
    """
    outcome, _ = side.through(place, LAST, LEFT_OUT)
    if outcome.code in (dvc_cli.MISTAKE, dvc_cli.REFUSED):
        return f"not trained: {outcome.told.splitlines()[0]}"
    if outcome.code:
        raise InputError(f"{', '.join(outcome.failed)}: {outcome.told}")
    return ""


def _told(place: Path) -> dict[str, Any]:
    chosen = read_json(place / "artifacts" / "select" / "chosen.json")
    metrics = read_json(place / "artifacts" / LAST / "metrics.json")
    return {"backbone": chosen.get("title", ""), "own_accuracy": metrics.get("accuracy")}


def _judge(
    root: Path, run: Run, place: Path, before: pd.DataFrame, later: pd.DataFrame, cut: Any, wish: Wish, level: float
) -> list[Cell]:
    from components.monitoring import aging

    job = Job("backtest", run, root, ())
    later = later[~later["sha256"].isin(set(before["sha256"]))]
    found = []
    for period, part in later.groupby("period"):
        if len(part) < wish.min_judged:
            continue
        ordered = part.drop(columns="period").sort_values("id", kind="stable").reset_index(drop=True)
        right, unknown = aging.answers(job, place, ordered, f"{cut} on {period}")
        found.append(aging.cell(cut, period, right, unknown, level))
    return found


def _write(
    root: Path, name: str, wish: Wish, cells: list[Cell], models: list[dict[str, Any]], undated: int, level: float
) -> int:
    from components.monitoring import aging, aging_page

    if not cells:
        reasons = "; ".join(f"{m['cut']}: {m['note']}" for m in models if m["note"])
        raise InputError(
            f"no later period could be judged. {reasons or f'Each has fewer than {wish.min_judged} samples'}"
        )
    ages = aging.by_age(cells, level)
    headline = aging.headline(ages, wish.period)
    notes = [
        f"Intervals: {level:.0%}, Wilson's; losses by Newcombe's difference, at a level that holds for "
        "all ages together (Bonferroni).",
        "Copies of training samples are not judged. A label that the model could not know counts as wrong.",
        f"Periods with fewer than {wish.min_judged} samples are left out.",
        f"Trained by {'a linear probe' if wish.quick else load_yaml(root / 'params.yaml')['finetune']['strategy']}.",
        *([f"{undated} samples without a date were left out."] if undated else []),
    ]
    folder = root / "reports" / "backtest"
    told = {"name": name, "period": wish.period, "headline": headline, "models": models, "notes": notes}
    plain = {**told, "wish": asdict(wish), "ages": ages, "cells": cells}
    write_json(folder / "backtest.json", plain)
    write_atomic(root / PAGE, aging_page.render(told, cells, ages).encode())
    print(headline)
    for one in ages:
        loss = f", lost {aging_page.points(one.loss)} points" if one.loss else ""
        print(f"  age {one.age:2}  accuracy {aging_page.share(one.accuracy)} of {one.num}{loss}")
    print(f"report  {PAGE}")
    return 0
