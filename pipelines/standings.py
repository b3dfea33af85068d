"""What a sweep came to: a table and a picture in reports/sweep/, who is ahead, and whether that is more than chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.contracts import read_json, write_atomic, write_json

METRIC = "validation.accuracy"
FOLDER = "reports/sweep"
COLUMNS = ("name", "state", "value", "low", "high", "training_seconds", "size_mb", "parameters_millions", "why")
LEVEL = 0.95


def conclude(root: Path, found: list[dict[str, Any]], metric: str) -> list[str]:
    """Write reports/sweep/ and return what to tell. Larger is better."""
    before = _earlier(root)
    rows = [_row(one, metric, before) for one in found]
    rows.sort(key=lambda row: (row["value"] is None, -(row["value"] or 0.0)))
    verdict = _verdict(rows, {one["name"]: one for one in found}, metric)
    whole = {"metric": metric, "rows": rows, "verdict": verdict, "settings": [_kept(one) for one in found]}
    write_json(root / FOLDER / "sweep.json", whole)
    write_atomic(root / FOLDER / "sweep.csv", _csv(rows).encode())
    _picture(rows, metric, root / FOLDER / "sweep.png")
    return [
        *_shown(rows, metric),
        "",
        *verdict["told"],
        "",
        f"{FOLDER}/sweep.json, sweep.csv and sweep.png have it all.",
    ]


def _row(one: dict[str, Any], metric: str, before: dict[str, Any]) -> dict[str, Any]:
    metrics = one["metrics"]
    interval = one.get("validation", {}) if metric == METRIC else {}
    if metric != METRIC and metric in metrics:
        interval = {
            "value": metrics[metric],
            "low": metrics.get(f"{metric}_low"),
            "high": metrics.get(f"{metric}_high"),
        }
    seconds = one["seconds"].get("finetune", before.get(json.dumps(one["changes"], sort_keys=True)))
    told = one.get("told", "").strip().splitlines()
    return {
        "name": one["name"], "state": one["state"],
        **{key: interval.get(key) for key in ("value", "low", "high")}, "level": interval.get("level", LEVEL),
        "training_seconds": seconds, "size_mb": metrics.get("export.size_mb"),
        "parameters_millions": metrics.get("select.chosen_parameters_millions"), "why": told[0] if told else "",
    }  # fmt: skip


def _earlier(root: Path) -> dict[str, Any]:
    """Seconds of training by setting, as the sweep before this one measured them: what comes from DVC's cache took its
    time then."""
    try:
        told = read_json(root / FOLDER / "sweep.json")
        seconds = {row["name"]: row["training_seconds"] for row in told["rows"]}
        return {json.dumps(one["changes"], sort_keys=True): seconds[one["name"]] for one in told["settings"]}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _kept(one: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key not in ("right", "ids")}


def _verdict(rows: list[dict[str, Any]], found: dict[str, dict[str, Any]], metric: str) -> dict[str, Any]:
    measured = [row for row in rows if row["value"] is not None]
    if not measured:
        return {"winner": None, "close": [], "told": [f"No setting has {metric}: nothing to compare."]}
    first, others = measured[0], measured[1:]
    compared = [_against(first, other, found, len(others)) for other in others]
    close = [name for name, apart, _ in compared if not apart]
    told = [f"Ahead: {first['name']}, {metric} {_number(first['value'])}."]
    told += [f"  {words}" for _, _, words in compared]
    if close:
        told.append(f"Too close to call against {', '.join(close)}: take the cheaper one, or collect more samples.")
    if metric.startswith("evaluate."):
        told.append(f"{metric} is of the test split: a model that is chosen by it is no longer measured by it.")
    changes = found[first["name"]]["changes"]
    told += ["Nothing was changed. For params.yaml:"]
    told += [f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()]
    return {"winner": first["name"], "close": close, "told": told}


def _against(
    first: dict[str, Any], other: dict[str, Any], found: dict[str, dict[str, Any]], num: int
) -> tuple[str, bool, str]:
    """The other's name, whether the first is surely ahead of it, and that in words.

    On the same samples by the paired difference, at a level that allows for the number of comparisons (Bonferroni);
    else by whether the two intervals overlap.
    """
    name, gain = other["name"], first["value"] - other["value"]
    mine, theirs = found[first["name"]], found[name]
    if mine.get("ids") and mine["ids"] == theirs.get("ids") and "right" in mine and _is_validation(first, mine):
        import numpy as np

        from components.paired import paired_gain

        right, wrong = (np.array([c == "1" for c in one["right"]]) for one in (mine, theirs))
        level = 1 - (1 - first["level"]) / max(1, num)
        gap = paired_gain(right, wrong, level)
        words = f"{_number(gap.value)} ahead of {name}, {_number(gap.low)} to {_number(gap.high)} on the same samples"
        return name, gap.low > 0, words
    if None in (first["low"], other["high"]):
        return name, gain > 0, f"{_number(gain)} ahead of {name}; no interval is known, so no chance either"
    return name, first["low"] > other["high"], f"{_number(gain)} ahead of {name}, by intervals of each"


def _is_validation(row: dict[str, Any], one: dict[str, Any]) -> bool:
    return row["value"] == one.get("validation", {}).get("value")


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _shown(rows: list[dict[str, Any]], metric: str) -> list[str]:
    head = ("setting", "state", metric, "interval", "training s", "MB", "million parameters")
    cells = [head]
    for row in rows:
        interval = "" if row["low"] is None else f"{_number(row['low'])} to {_number(row['high'])}"
        figures = (row["training_seconds"], row["size_mb"], row["parameters_millions"])
        cells.append((row["name"], row["state"], _number(row["value"]), interval, *map(_number, figures)))
    widths = [max(len(str(line[i])) for line in cells) for i in range(len(head))]
    lines = ["  ".join(str(cell).ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
    return [*lines, *(f"  {row['name']}: {row['why']}" for row in rows if row["state"] != "done" and row["why"])]


def _csv(rows: list[dict[str, Any]]) -> str:
    import csv
    import io

    store = io.StringIO()
    writer = csv.DictWriter(store, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return store.getvalue()


def _picture(rows: list[dict[str, Any]], metric: str, path: Path) -> None:
    measured = [row for row in reversed(rows) if row["value"] is not None]
    if not measured:
        path.unlink(missing_ok=True)
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 1.2 + 0.4 * len(measured)), layout="constrained")
    for place, row in enumerate(measured):
        if row["low"] is not None and row["high"] is not None:
            axis.plot([row["low"], row["high"]], [place, place], color="0.6", linewidth=2)
        axis.plot(row["value"], place, "o", color="C0")
    axis.set_yticks(range(len(measured)), [row["name"] for row in measured])
    axis.set_xlabel(metric)
    figure.savefig(path, dpi=120)
    plt.close(figure)
