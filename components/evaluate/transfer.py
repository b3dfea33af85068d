"""Did transfer help? The main run against every reference, paired on the same test rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.contracts import Interval, RunRecord
from components.paired import paired_gain

if TYPE_CHECKING:
    import pandas as pd

_WORDS = {
    "from_scratch": "the same architecture from random weights",
    "frozen_probe": "a linear head on the frozen backbone",
}


def verdict(gain: Interval) -> str:
    """In words: helped, negative transfer, or no evidence either way."""
    if gain.low > 0:
        return "helped"
    return "negative transfer" if gain.high < 0 else "no evidence"


def compare(
    table: pd.DataFrame, figures: dict[str, dict[str, dict[str, Interval]]], records: dict[str, RunRecord], level: float
) -> dict[str, Any]:
    """Every reference against main; `table` holds the test rows of all runs, sorted by run and id."""
    right = {str(name): (part["label"] == part["predicted"]).to_numpy() for name, part in table.groupby("run")}
    rows = []
    for name, record in records.items():
        if name == "main" or record.label_share < 1:
            continue
        gain = paired_gain(right["main"], right[name], level)
        rows.append(
            {
                "reference": name,
                "what": _WORDS.get(name, name),
                "reference_accuracy": figures[name]["test"]["accuracy"],
                "gain": gain,
                "verdict": verdict(gain),
                "num_samples_seen": record.num_samples_seen,
                "num_samples_seen_main": records["main"].num_samples_seen,
                "note": record.note,
            }
        )
    return {"comparisons": rows, "headline": _headline(rows)}


def _headline(rows: list[dict[str, Any]]) -> str:
    scratch = next((r for r in rows if r["reference"] == "from_scratch"), None)
    if scratch is None:
        return "Whether transfer helped was not measured: finetune.references has no from_scratch."
    gain: Interval = scratch["gain"]
    interval = f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
    told = f"{100 * gain.value:+.1f} points {interval} against random weights at equal budget"
    return {
        "helped": f"Transfer helped: {told}.",
        "no evidence": f"No evidence that transfer helped: {told}.",
        "negative transfer": f"Negative transfer: {told}. Start from random weights, or choose another backbone.",
    }[scratch["verdict"]]
