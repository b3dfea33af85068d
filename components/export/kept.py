"""What `export` leaves behind: the model and its variants, how it was chosen, and what export.json says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from components import plugins
from components.contracts import write_atomic, write_json
from components.export import picture, runtime
from components.export.decision import NOTE, Decision, record
from components.export.ladder import FIRST, Rung
from components.export.trained import Trained, examples
from components.job import Job
from components.plugins import Choice

if TYPE_CHECKING:
    import pandas as pd

EXAMPLE_TOLERANCE = 1e-4
"""Of a probability, where another processor or another build of the runtime rounds otherwise."""
VARIANT_TOLERANCE = 0.02
"""The same of a variant with fewer bits, whose values may round to the step beside."""


def models(
    job: Job, rungs: list[Rung], ships: Rung, decision: Decision, costs: dict[str, dict[str, Any]], max_loss: float
) -> None:
    """model.onnx, variants/, and the reports."""
    assert ships.place is not None
    assert rungs[0].place is not None
    write_atomic(job.out("model.onnx"), ships.place.read_bytes())
    if ships.name != FIRST:
        write_atomic(job.out(f"variants/{FIRST}.onnx"), rungs[0].place.read_bytes())
    kept = record(rungs, decision)
    write_json(job.out("variants/ladder.json"), kept)
    rows = [{**row, **costs.get(row["name"], {})} for row in kept["rungs"]]
    chosen = {"measured": decision.measured, "threads": job.run.threads, "note": NOTE}
    write_json(job.report("ladder.json"), {**kept, **chosen, "rungs": rows})
    picture.draw(rungs, costs, ships.name, max_loss, job.report("ladder.png"))
    for rung in rungs:
        if rung.name in costs:
            times = " and ".join(f"{t['low']:.2f} ms" for t in costs[rung.name]["latency_ms"].values())
            job.say(f"{rung.name}: {rung.size_mb:.1f} MB, {times} at batch 1 and 16; {decision.reasons[rung.name]}")
        else:
            job.say(f"{rung.name}: {decision.reasons[rung.name]}")


def described(
    target: Choice, job: Job, trained: Trained, decision: Decision, told: dict[str, Any], ships: Rung,
    test: pd.DataFrame, rows: np.ndarray, golden: dict[str, np.ndarray],
) -> dict[str, Any]:  # fmt: skip
    """export.json, and companion/."""
    place, how = job.out("model.onnx"), trained.record.preprocessing
    beside = job.out("companion/companion.json")
    companion = trained.graph.companion(how, beside.parent)
    write_json(beside, companion or {"why": "this task has no other graph beside the model"})
    exact, session = ships.name == FIRST, runtime.open_session(place, job.run.threads)

    def alone(row: int) -> dict[str, np.ndarray]:
        return runtime.ask(session, trained.joined_feed(rows[row : row + 1]))

    return {
        "target": target.spec(),
        **runtime.interface(session),
        "variant": decision.variant,
        "decided": decision.decided,
        "why": decision.why,
        "loss": {split: asdict(loss) for split, loss in ships.losses.items()},
        **told,
        "limits": plugins.load("export.rungs", ships.name).LIMITS,
        "inside": {
            **trained.graph.told(how),
            "measured": trained.graph.compare(test, how, job.root),
            "companion": companion,
        },
        "examples": examples(test, golden, trained, None if exact else alone),
        "example_tolerance": EXAMPLE_TOLERANCE if exact else VARIANT_TOLERANCE,
        "size_mb": ships.size_mb,
        "opset": _opset(place),
        "temperature": trained.temperature,
    }


def _opset(path: Path) -> int:
    imports = onnx.load(str(path), load_external_data=False).opset_import
    return int(next(i.version for i in imports if i.domain in ("", "ai.onnx")))
