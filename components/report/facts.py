"""What the page and the summary are made from: the stages' small files, read once, whatever of them is there.

Light on purpose (standard library alone), so that the summary of a run needs no heavy import.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts import Interval, read_json

STAGES = ("ingest", "validate", "augment", "select", "finetune", "evaluate", "bias", "drift", "gate")
"""In the order of the line."""

FILES = (
    "ingest/summary.json", "validate/findings.json", "validate/metrics.json", "validate/verdict.json",
    "augment/policy.json", "select/chosen.json", "select/leaderboard.json", "finetune/advice.json",
    "finetune/history.csv", "finetune/metrics.json", "evaluate/calibration.json", "evaluate/confusion.csv",
    "evaluate/metrics.json", "evaluate/quality.json", "evaluate/reliability.csv", "evaluate/transfer.json",
    "bias/groups.json", "bias/metrics.json", "drift/drift.json", "drift/metrics.json", "gate/verdict.json",
    *(f"{stage}/lineage.json" for stage in STAGES),
)  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """Parsed content by "<stage>/<file>"; CSV as a list of rows of text."""

    files: Mapping[str, Any]
    missing: tuple[str, ...] = ()
    """What was not made."""

    def get(self, file: str, *keys: str, default: Any = None) -> Any:
        """A value inside a file, or the default where the file or a key is not there."""
        found = self.files.get(file)
        for key in keys:
            if not isinstance(found, dict) or found.get(key) is None:
                return default
            found = found[key]
        return default if found is None else found

    def rows(self, file: str, *keys: str) -> list[Any]:
        """The same for lists."""
        found = self.get(file, *keys, default=[])
        return found if isinstance(found, list) else []

    def setting(self, key: str) -> Any:
        """What a key of params.yaml was when its stage ran, from that stage's lineage."""
        stage, *rest = key.split(".")
        return self.get(f"{stage}/lineage.json", "params", stage, *rest)

    def metric(self, name: str) -> float | None:
        """ "<stage>.<metric>", or None where it was not measured."""
        stage, _, metric = name.partition(".")
        return self.get(f"{stage}/metrics.json", metric)

    def accuracy(self) -> Interval | None:
        """Of the main run on the test split."""
        return interval(self.get("evaluate/quality.json", "runs", "main", "test", "accuracy"))

    def choice(self) -> str:
        """ "<backbone>: <why>", or "" where none was chosen."""
        title, why = (str(self.get("select/chosen.json", key, default="")) for key in ("title", "why"))
        return why if why.startswith(title) else f"{title}: {why}"

    def comparison(self, reference: str) -> dict[str, Any]:
        """The main run against a reference run; empty where it was not compared."""
        rows = self.rows("evaluate/transfer.json", "comparisons")
        return next((row for row in rows if row.get("reference") == reference), {})

    def fewer_labels(self) -> set[str]:
        """Runs on a share of the training labels, which stand in a curve of their own."""
        points = self.rows("evaluate/transfer.json", "label_efficiency", "points")
        return {str(point["run"]) for point in points if point["run"] != point["of"]}

    def epochs(self, run: str = "main") -> list[dict[str, str]]:
        """The rows of a run in finetune/history.csv, in the order of training."""
        return [row for row in self.rows("finetune/history.csv") if row.get("run") == run]

    def worst_group(self) -> dict[str, Any]:
        """The judged group with the lowest accuracy, or {}: small groups are noise, so they are not named."""
        judged = [g for g in self.rows("bias/groups.json", "groups") if not g.get("small") and group_accuracy(g)]
        return min(judged, key=lambda g: group_accuracy(g).value, default={})  # type: ignore[union-attr]


def gather(locate: Callable[[str, str], Path], absent: tuple[type[Exception], ...] = (FileNotFoundError,)) -> Facts:
    """Read every file that `locate(stage, name)` finds; it raises FileNotFoundError for the others.

    `absent` says which errors of locating and reading mean that a file is not there.
    """
    files: dict[str, Any] = {}
    missing = []
    for file in FILES:
        stage, _, name = file.partition("/")
        try:
            path = locate(stage, name)
            files[file] = _read_csv(path) if path.suffix == ".csv" else read_json(path)
        except absent:
            missing.append(file)
    return Facts(files, tuple(missing))


def interval(raw: Any) -> Interval | None:
    """An interval from its plain form; None where it or its value was not measured."""
    if not isinstance(raw, dict) or raw.get("value") is None:
        return None
    value, low, high = raw["value"], raw.get("low"), raw.get("high")
    return Interval(value, value if low is None else low, value if high is None else high, raw.get("level") or 0.95)


def group_accuracy(group: Mapping[str, Any]) -> Interval | None:
    """The accuracy of a row of bias/groups.json."""
    return interval(group.get("measures", {}).get("accuracy"))


def number(text: str | None) -> float | None:
    """A number of a CSV cell, or None for an empty one."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))
