"""How many labels transfer saves: each run's accuracy by the share of the training labels that it was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from components.contracts import Interval, RunRecord
from components.paired import paired_gain

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("run", "share", "num_train", "accuracy", "low", "high")
SCRATCH = "from_scratch"


def base(record: RunRecord) -> str:
    """The run that it is of all labels: main_15 is main."""
    return record.run if record.label_share == 1 else record.run.rpartition("_")[0]


def curve(
    table: pd.DataFrame, figures: Mapping[str, Any], records: Mapping[str, RunRecord], level: float
) -> dict[str, Any]:
    """Every run by its share, and main against each reference of the same share; `table` holds the test rows of all
    runs, sorted by run and id."""
    if all(record.label_share == 1 for record in records.values()):
        told = "How many labels transfer saves was not asked for: finetune.label_shares is empty."
        return {"points": [], "gains": [], "headline": told}
    right = {str(name): (part["label"] == part["predicted"]).to_numpy() for name, part in table.groupby("run")}
    ordered = sorted(records.values(), key=lambda r: (base(r) != "main", base(r), r.label_share))
    points = [_point(r, figures[r.run]["test"]["accuracy"]) for r in ordered]
    gains = [g for r in ordered if base(r) != "main" and (g := _gain(r, records, right, level)) is not None]
    return {"points": points, "gains": gains, "headline": _headline(ordered, figures, right, level)}


def rows(figures: Mapping[str, Any], records: Mapping[str, RunRecord]) -> list[dict[str, Any]]:
    """The curve for `dvc plots`; without shares asked for, its right end alone."""
    ordered = sorted(records.values(), key=lambda r: (base(r) != "main", base(r), r.label_share))
    points = [_point(r, figures[r.run]["test"]["accuracy"]) for r in ordered]
    ends: list[tuple[dict[str, Any], Interval]] = [(point, point["accuracy"]) for point in points]
    return [
        {"run": p["of"], "share": p["share"], "num_train": p["num_train"], "accuracy": a.value, "low": a.low,
         "high": a.high}
        for p, a in ends
    ]  # fmt: skip


def _point(record: RunRecord, accuracy: Interval) -> dict[str, Any]:
    told = {"share": record.label_share, "num_train": record.num_train, "accuracy": accuracy}
    return {"run": record.run, "of": base(record), **told}


def _gain(
    reference: RunRecord, records: Mapping[str, RunRecord], right: Mapping[str, np.ndarray], level: float
) -> dict[str, Any] | None:
    own = next((r for r in records.values() if base(r) == "main" and r.label_share == reference.label_share), None)
    if own is None:
        return None
    gain = paired_gain(right[own.run], right[reference.run], level)
    return {"reference": base(reference), "share": own.label_share, "num_train": own.num_train, "gain": gain}


def _headline(
    records: list[RunRecord], figures: Mapping[str, Any], right: Mapping[str, np.ndarray], level: float
) -> str:
    """The smallest share with which main's interval lies above random weights with all labels. Each share is looked at
    by itself: with several of them the first that does is a little flattered."""
    mains = sorted((r for r in records if base(r) == "main"), key=lambda r: r.label_share)
    few, whole = mains[0], mains[-1]
    if SCRATCH not in right:
        return (
            f"With {few.label_share:.0%} of the labels ({few.num_train}) it reaches {_percent(figures, few)}, with all "
            f"{_percent(figures, whole)}. Whether that is a gain is not known: finetune.references has no from_scratch."
        )
    told = f"random weights with all {whole.num_train} labels ({_percent(figures, SCRATCH)})"
    for one in mains:
        gain = paired_gain(right[one.run], right[SCRATCH], level)
        if gain.low > 0:
            span = f"{100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
            return f"With {one.label_share:.0%} of the labels ({one.num_train}) it does better than {told}: {span}."
    return f"No share of the labels, all of them included, shows it better than {told}."


def _percent(figures: Mapping[str, Any], run: RunRecord | str) -> str:
    accuracy: Interval = figures[run if isinstance(run, str) else run.run]["test"]["accuracy"]
    return f"{100 * accuracy.value:.1f} %"
