"""Golden examples: test samples as files, what must come out for them, and the signature with the first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import plugins
from components.contracts import RunRecord, read_json, write_atomic
from components.handoff import signature
from components.handoff.bundle import Bundle

if TYPE_CHECKING:
    import pandas as pd

NOTE = (
    "`predicted` and `probabilities` are what model.onnx must give for each sample by itself, within `tolerance`; "
    "`label` is the one in the data"
)


def write(golden: Bundle, record: RunRecord, export: dict[str, Any], accepted: pd.DataFrame, root: Path) -> list[str]:
    """Fills example/ with the samples that `export` names; returns the names of their files in the bundle."""
    task, decision = plugins.load("tasks", record.task), plugins.load("decisions", record.decision)
    rows = accepted.set_index("id")
    told: list[dict[str, Any]] = []
    for number, example in enumerate(export["examples"], start=1):
        content, suffix = task.as_file(rows.loc[example["id"]].to_dict(), root)
        predicted = example["predicted"]
        told.append(
            {
                **example,
                "file": f"{number}{suffix}",
                "predicted": list(decision.split(predicted)) if signature.several(export) else predicted,
                "probabilities": dict(zip(record.labels, example["probabilities"])),
            }
        )
        write_atomic(golden.folder / "example" / told[-1]["file"], content)
    golden.record("example/expected.json", {"examples": told, "tolerance": export["example_tolerance"], "note": NOTE})
    return [f"example/{one['file']}" for one in told]


def described(bundle: Bundle, golden: Bundle, record: RunRecord, export: dict[str, Any]) -> dict[str, Any]:
    """The signature; with the first example, where examples are in the bundle."""
    sight, decision = plugins.load("preprocessing", record.task), plugins.load("decisions", record.decision)
    told = signature.describe(export, record.preprocessing, len(record.labels), sight, decision)
    if golden.folder != bundle.folder:
        return told
    first = read_json(golden.folder / "example/expected.json")["examples"][0]
    summary = sight.Reader(bundle.folder).summary(sight.from_file(golden.folder / "example" / first["file"]))
    return {**told, "example": signature.example(first, summary, export)}
