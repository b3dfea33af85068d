"""Write the trained network as an ONNX model, and prove that it is the same one.

Reads: finetune/runs/main (weights and record), evaluate/calibration.json (temperature), gate/verdict.json,
validate/accepted.parquet (the test split, for parity).
Writes: model.onnx (inputs as the task names them; the decision int64 [N], of several labels [N, K];
probabilities float32 [N, K] calibrated by the temperature; embedding float32 [N, D]; N is free), export.json
(interface, parity, golden examples); measured latency goes to reports/export/latency.json.
Decides: the weights, the temperature and the target's options.
Fails: the gate refused; parity on the test split is beyond the limits (ParityError, exit code 3); the
backbone cannot be written as ONNX, or there is no test split (InputError). Nothing is kept then.
Does not check: other processors and other runtimes than ONNX Runtime on this CPU; latency decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from components import params, plugins
from components.contracts import PROPERTY, InputError, read_json, read_table, write_json
from components.job import Job
from components.plugins import Choice, Family

if TYPE_CHECKING:
    from types import ModuleType

    import pandas as pd

    from components.contracts import RunRecord

NEEDS = ("validate", "finetune", "evaluate", "gate")
RUN = "main"
EXAMPLE_BATCH = 3
"""Rows of the input that the exporter traces: more than one, so that it does not take 1 for a constant."""
NUM_EXAMPLES = 3
MAX_EXAMPLE_BYTES = 1_000_000
GOLDEN_CONFIDENCE = 0.8


class Params(params.Params):
    """Section `export`."""

    target: Annotated[Choice, Family("export.targets")]
    """How model.onnx is written."""
    max_difference: float = Field(gt=0, le=0.1)
    """Largest |torch - onnxruntime| over the scale of the outputs, for probabilities and for embeddings.

    Rounding in float32 alone gives 1e-5 to 1e-4: a fine-tuned EfficientNet-Lite0 differs by 1.1e-4 in its
    embedding, where torch itself is 4e-5 away from its own float64; a wrong temperature or layout gives 1e-2
    and more.
    """
    max_flips: int = Field(ge=0)
    """Test samples whose predicted label may differ; in a large split a tie may flip by rounding alone."""


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns size_mb, opset, parity_max_relative, flips, num_parity_samples, temperature."""
    job.source("gate", "verdict.json")  # refuses here, before anything is loaded
    calibration = job.source("evaluate", "calibration.json")
    runs = job.source("finetune", "runs")
    test = _test_split(job)

    from components.export import parity
    from components.export.network import Deployed
    from components.model import Feed, load_run

    trained, record = load_run(runs / RUN)
    temperature = float(read_json(calibration)["temperature"][RUN])
    assert temperature > 0, "a temperature is above zero"
    decision = plugins.load("decisions", record.decision)
    model = Deployed(trained, temperature, decision).eval()
    feed = Feed.of(record.task, record.preprocessing)
    names, free = (ask(record.preprocessing) for ask in (feed.task.model_inputs, feed.task.free_axes))
    example = dict(zip(names, feed.example(EXAMPLE_BATCH)))
    place = job.out("model.onnx")
    job.say(f"writing {record.backbone.get('model') or record.backbone['name']} as ONNX")
    params.target.load().export(model, example, model.outputs, place, params.target.params, free)

    rows = feed.prepare(test, job)
    session = parity.open_session(place, job.run.threads)
    expected = parity.eager(model, rows, feed.collate, job.progress)
    try:
        found = parity.compare(expected, session, rows, feed.collate, job.progress)
        parity.judge(found, params.max_difference, params.max_flips)
    except parity.ParityError:
        place.unlink()  # nobody shall find a model that failed
        raise
    _write_latency(parity.latency(model, session, rows, feed.collate), job)
    described: dict[str, Any] = {
        "target": params.target.spec(),
        **parity.interface(session),
        "parity": {**found, "limit": params.max_difference, "max_flips": params.max_flips},
        "examples": _examples(test, expected, record, decision),
        "size_mb": round(place.stat().st_size / 1e6, 3),
        "opset": _opset(place),
        "temperature": temperature,
    }
    write_json(job.out("export.json"), described)
    return {
        **{name: float(described[name]) for name in ("size_mb", "opset", "temperature")},
        "parity_max_relative": found["relative"],
        "flips": float(found["flips"]),
        "num_parity_samples": float(found["num_samples"]),
    }


def _test_split(job: Job) -> pd.DataFrame:
    table = read_table(job.source("validate", "accepted.parquet"))
    test = table[table["split"] == "test"].reset_index(drop=True)
    if test.empty:
        raise InputError("export proves the model on the test split, which is empty. Raise `validate.split.test`.")
    return test


def _examples(
    test: pd.DataFrame, expected: dict[str, np.ndarray], record: RunRecord, decision: ModuleType
) -> list[dict[str, Any]]:
    """What torch gives for a few test samples of different labels: golden values for whoever deploys.

    Small files first, then those that it is neither sure of nor torn about: 1.0000 hides a wrong input, and a
    tie may flip on another processor. Then by id, so that the choice is the same each time.
    """
    shares = expected["probabilities"].astype(np.float64)
    doubt = np.abs(decision.confidence(shares) - GOLDEN_CONFIDENCE).round(2)
    predicted = decision.predicted(shares, record.labels)
    size = test.get(f"{PROPERTY}num_bytes")
    large = False if size is None else size > MAX_EXAMPLE_BYTES
    order = test.assign(row=range(len(test)), large=large, doubt=doubt).sort_values(
        ["large", "doubt", "id"], kind="stable"
    )
    spread = [*order.drop_duplicates("label")["row"], *order["row"]]
    chosen = list(dict.fromkeys(spread))[:NUM_EXAMPLES]
    return [
        {
            "id": test["id"][row],
            "label": test["label"][row],
            "predicted": predicted[row],
            "probabilities": [round(float(p), 7) for p in expected["probabilities"][row]],
        }
        for row in chosen
    ]


def _opset(path: Any) -> int:
    import onnx

    imports = onnx.load(str(path), load_external_data=False).opset_import
    return int(next(i.version for i in imports if i.domain in ("", "ai.onnx")))


def _write_latency(found: dict[str, Any], job: Job) -> None:
    note = (
        "Median milliseconds a batch on this machine, measured once inside the stage: torch first, then "
        "ONNX Runtime in the same process. Other load on the machine changes it. Nothing is decided by it."
    )
    write_json(job.report("latency.json"), {**found, "threads": job.run.threads, "note": note})
    fast, slow = found["onnxruntime_ms"]["1"], found["torch_ms"]["1"]
    job.say(f"one sample: ONNX Runtime {fast:.1f} ms, torch {slow:.1f} ms (reports/export/latency.json)")
