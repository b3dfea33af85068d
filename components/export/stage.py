"""Write the trained network as an ONNX model, prove that it is the same one, and choose the variant that ships.

Reads: finetune/runs/main (weights and record), evaluate/calibration.json (temperature), gate/verdict.json,
validate/accepted.parquet (training samples to calibrate with, validation to decide on, test for parity).
Writes: model.onnx (what ships: preprocessing inside as components/graphs/<task>.py tells; the decision int64 [N], of
several labels [N, K]; probabilities float32 [N, K] calibrated by the temperature; embedding float32 [N, D]; N is free),
variants/ (ladder.json, and fp32.onnx where another one ships), companion/ (what the task puts beside the model),
export.json (interface, variant, parity, golden examples), verdict.json (load and query in a fresh process, budgets).
Measured times go to reports/export/ladder.json and ladder.png.
Decides: the weights, the temperature, the target's options; the ladder, by measured time and loss (ladder.py).
Fails: the gate refused; float32 differs from torch on the test split by more than params allow (ParityError, exit code
3); the pinned variant loses too much (VariantError, 3); the backbone cannot be written as ONNX, or a split is missing
(InputError). Nothing is kept then. A budget that is not held is a failed rule: what rests on it is refused.
Does not check: other processors and other runtimes than ONNX Runtime on this CPU.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from components import params, plugins
from components.contracts import InputError, Verdict, read_table, write_atomic, write_json
from components.job import Job
from components.plugins import Choice, Family

if TYPE_CHECKING:
    import pandas as pd

    from components.export.ladder import Decision, Rung
    from components.export.trained import Trained

NEEDS = ("validate", "finetune", "evaluate", "gate")
EXAMPLE_BATCH = 3
"""Rows of the input that the exporter traces: more than one, so that it does not take 1 for a constant."""
EXAMPLE_TOLERANCE = 1e-4
"""Of a probability, where another processor or another build of the runtime rounds otherwise."""
VARIANT_TOLERANCE = 0.02
"""The same of a variant with fewer bits, whose values may round to the step beside."""


class MaxDifference(params.Params):
    """A limit an output."""

    probabilities: float = Field(gt=0, le=0.1)
    """Of the calibrated probabilities."""
    embedding: float = Field(gt=0, le=0.1)
    """Of the features before the last layer."""


class Params(params.Params):
    """Section `export`."""

    target: Annotated[Choice, Family("export.targets")]
    """How the network is written as ONNX."""
    max_difference: MaxDifference
    """Largest |torch - onnxruntime| of any value, over the scale of its output, in float32.

    1e-5 is float32's own rounding in a network of usual depth, but not in every one: one fine-tuned EfficientNet-Lite0
    differed by 1.1e-4 in its embedding, where torch's float32 was 4e-5 away from torch's float64; another by 6.8e-6
    and 4.6e-6. So a larger difference passes if rounding explains it, see `max_rounding`. A wrong temperature or layout
    gives 1e-2 and more.
    """
    max_rounding: float = Field(ge=0, le=100)
    """Passes too: a difference of at most so many times what torch's float32 differs from torch's float64 (the
    largest of 64 samples; the difference is the largest of all test samples at three batch sizes). 0: never."""
    max_flips: int = Field(ge=0)
    """Test samples whose predicted label may differ; in a large split a tie may flip by rounding alone."""
    rungs: list[Annotated[Choice, Family("export.rungs")]]
    """Other ways to write the network that are tried, the simplest first; float32 always is."""
    variant: str
    """auto: the ladder decides. Or the rung that ships; refused if it loses more than max_loss."""
    max_loss: float = Field(ge=0, le=1)
    """Most of the accuracy that a smaller or faster variant may lose, as a share (0.01 is a point): the lower end of
    the paired 95 % interval on the validation split must be above it."""
    min_speedup: float = Field(ge=1)
    """A variant must be so many times as fast as a simpler one, at batch 1 and 16."""
    num_calibration: int = Field(ge=1)
    """Training samples that quantisation takes its ranges from and compares its settings with."""
    max_size_mb: float | None = Field(gt=0)
    """Budget: largest size of model.onnx."""
    max_latency_ms: float | None = Field(gt=0)
    """Budget: longest median time of one sample, on this machine."""
    max_memory_mb: float | None = Field(gt=0)
    """Budget: largest peak memory of a process that runs the model, at batch 1 and 16, Python included."""

    @model_validator(mode="after")
    def _known_variant(self) -> Self:
        names = [rung.name for rung in self.rungs]
        if len({*names, "fp32"}) <= len(names):
            raise ValueError("`rungs` names each once, and not fp32, which is always there")
        if self.variant not in ("auto", "fp32", *names):
            raise ValueError(
                f"variant {self.variant!r} is not among auto, fp32, {', '.join(names) or 'and no `rungs`'}"
            )
        return self


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns size_mb, opset, parity_max_relative, flips, num_parity_samples, temperature, and of the variant that
    ships accuracy_gain, accuracy_gain_low (against float32, on validation) and blessed."""
    job.source("gate", "verdict.json")  # refuses here, before anything is loaded
    splits = _splits(job)

    from components.export import ladder, parity
    from components.export.trained import load

    trained = load(job)
    rows = {name: trained.feed.prepare(splits[name], job) for name in ("validation", "test")}
    expected = parity.eager(trained.model, rows["test"], trained.feed.collate, job.progress)
    with tempfile.TemporaryDirectory() as aside:
        rungs = _build(params, job, trained, splits["train"], Path(aside))
        told = _prove(params, job, trained, rungs[0], rows["test"], expected)
        answers: dict[tuple[str, str], dict[str, np.ndarray]] = {}

        def answer(place: Path, split: str) -> dict[str, np.ndarray]:
            answers[place.stem, split] = ladder.outputs_of(
                place, job.run.threads, rows[split], trained.joined_feed, job.progress
            )
            return answers[place.stem, split]

        truths = {s: trained.decision.indicators(splits[s]["label"], trained.record.labels) for s in rows}
        rungs = ladder.measure(rungs, answer, truths, trained.decision)
        rungs, costs = ladder.costs(rungs, _feeds(trained, rows["test"]), job.run.threads, job.say)
        latency = {name: {b: t["median"] for b, t in own["latency_ms"].items()} for name, own in costs.items()}
        decision = ladder.decide(rungs, latency, params.max_loss, params.min_speedup, params.variant)
        decision = ladder.settle(decision, rungs, params.max_loss, job.settled)
        ships = next(rung for rung in rungs if rung.name == decision.variant)
        shipped = expected if ships.name == ladder.FIRST else answers[ships.name, "test"]
        verdict = _judge(params, job, trained, ships, rows["test"], shipped, costs)
        _keep(job, rungs, ships, decision, costs, params.max_loss)
        described = _described(params, job, trained, decision, told, ships, splits["test"], rows["test"], shipped)
    write_json(job.out("export.json"), described)
    write_json(job.out("verdict.json"), verdict)
    gain = ships.losses["validation"].gain
    return {
        **{name: float(described[name]) for name in ("size_mb", "opset", "temperature")},
        "parity_max_relative": told["relative"],
        "flips": float(told["flips"]),
        "num_parity_samples": float(told["num_samples"]),
        "accuracy_gain": gain.value,
        "accuracy_gain_low": gain.low,
        "blessed": float(verdict.passed),
    }


def _splits(job: Job) -> dict[str, pd.DataFrame]:
    table = read_table(job.source("validate", "accepted.parquet"))
    found = {str(name): part.reset_index(drop=True) for name, part in table.groupby("split")}
    for name, why in (("test", "proves the model"), ("validation", "chooses the variant")):
        if name not in found:
            raise InputError(f"export {why} on the {name} split, which is empty. Raise `validate.split.{name}`.")
    return found


def _build(params: Params, job: Job, trained: Trained, train: pd.DataFrame, folder: Path) -> list[Rung]:
    """The network as ONNX, and every rung of it with the preprocessing joined."""
    import onnx

    from components.export import ladder
    from components.export.trained import calibration

    record, feed = trained.record, trained.feed
    names, free = (ask(record.preprocessing) for ask in (feed.task.model_inputs, feed.task.free_axes))
    example = dict(zip(names, feed.example(EXAMPLE_BATCH)))
    place = folder / "network.onnx"
    job.say(f"writing {record.backbone.get('model') or record.backbone['name']} as ONNX")
    params.target.load().export(trained.model, example, trained.model.outputs, place, params.target.params, free)
    choices = [plugins.choose("export.rungs", ladder.FIRST), *params.rungs]
    samples = calibration(trained, job, train, choices, params.num_calibration)
    joined = partial(trained.graph.joined, preprocessing=record.preprocessing)
    return ladder.build(onnx.load(str(place)), choices, samples, joined, folder, job.say)


def _prove(
    params: Params, job: Job, trained: Trained, rung: Rung, rows: np.ndarray, expected: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Parity of float32 on the test split, at the optimisation level and provider that ship."""
    from components.export import parity, runtime

    assert rung.place is not None, "float32 is always made"
    session = runtime.open_session(rung.place, job.run.threads)
    feed = trained.joined_feed
    found = parity.compare(expected, session, rows, feed, job.progress, trained.feed.lengths(rows))
    yardstick = parity.rounding(trained.model, expected, session, rows, trained.feed.collate, feed, job.progress)
    limits = parity.limits(params.max_difference.model_dump(), params.max_rounding, yardstick)
    parity.judge(found, limits, params.max_flips)
    used = {"provider": runtime.PROVIDER, "optimisation": "all", "threads": job.run.threads}
    return {**found, "limits": limits, "max_flips": params.max_flips, "from_float64": yardstick, "runtime": used}


def _feeds(trained: Trained, rows: np.ndarray) -> dict[int, dict[str, np.ndarray]]:
    """Real samples by batch size, of the median length and up."""
    from components.export import trial

    lengths = trained.feed.lengths(rows)
    order = np.arange(len(rows)) if lengths is None else np.argsort(lengths, kind="stable")
    middle = order[len(order) // 2 :]
    return {n: trained.joined_feed(rows[np.resize(middle[:n], n)]) for n in trial.BATCHES}


def _judge(
    params: Params, job: Job, trained: Trained, ships: Rung, rows: np.ndarray, shipped: dict[str, np.ndarray],
    costs: dict[str, dict[str, Any]],
) -> Verdict:  # fmt: skip
    """The infra blessing of what ships."""
    from components.export import blessing

    assert ships.place is not None
    own, some = costs[ships.name], rows[: blessing.NUM_SAMPLES]
    feeds = [trained.joined_feed(some[s : s + blessing.BATCH]) for s in range(0, len(some), blessing.BATCH)]
    decided = trained.decision.OUTPUT
    rule, measured = blessing.load_and_query(
        ships.place, job.run.threads, feeds, shipped[decided][: len(some)], decided
    )
    own["fresh_process"] = measured
    size, latency = ships.size_mb or 0.0, own["latency_ms"]["1"]["median"]
    rules = [
        rule,
        *blessing.budget("max_size_mb", size, params.max_size_mb, "MB", stable=True),
        *blessing.budget("max_latency_ms", latency, params.max_latency_ms, "ms", stable=False),
        *blessing.budget("max_memory_mb", own["memory_mb"], params.max_memory_mb, "MB", stable=False),
    ]
    verdict = blessing.verdict(rules)
    if not verdict.passed:
        job.say(f"the model is not blessed, so nothing is handed over:\n{verdict.refusal()}")
    return verdict


def _keep(
    job: Job, rungs: list[Rung], ships: Rung, decision: Decision, costs: dict[str, dict[str, Any]], max_loss: float
) -> None:
    from components.export import ladder, picture

    assert ships.place is not None
    assert rungs[0].place is not None
    write_atomic(job.out("model.onnx"), ships.place.read_bytes())
    if ships.name != ladder.FIRST:
        write_atomic(job.out(f"variants/{ladder.FIRST}.onnx"), rungs[0].place.read_bytes())
    kept = ladder.record(rungs, decision)
    write_json(job.out("variants/ladder.json"), kept)
    rows = [{**row, **costs.get(row["name"], {})} for row in kept["rungs"]]
    chosen = {"measured": decision.measured, "threads": job.run.threads, "note": ladder.NOTE}
    write_json(job.report("ladder.json"), {**kept, **chosen, "rungs": rows})
    picture.draw(rungs, costs, ships.name, max_loss, job.report("ladder.png"))
    for rung in rungs:
        if rung.name in costs:
            times = " and ".join(f"{t['median']:.2f} ms" for t in costs[rung.name]["latency_ms"].values())
            job.say(f"{rung.name}: {rung.size_mb:.1f} MB, {times} at batch 1 and 16; {decision.reasons[rung.name]}")
        else:
            job.say(f"{rung.name}: {decision.reasons[rung.name]}")


def _described(
    params: Params, job: Job, trained: Trained, decision: Decision, told: dict[str, Any], ships: Rung,
    test: pd.DataFrame, rows: np.ndarray, shipped: dict[str, np.ndarray],
) -> dict[str, Any]:  # fmt: skip
    """export.json."""
    from components.export import ladder, runtime
    from components.export.trained import examples

    place, how = job.out("model.onnx"), trained.record.preprocessing
    companion = job.out("companion/any").parent
    exact, session = ships.name == ladder.FIRST, runtime.open_session(place, job.run.threads)

    def alone(row: int) -> dict[str, np.ndarray]:
        return runtime.ask(session, trained.joined_feed(rows[row : row + 1]))

    return {
        "target": params.target.spec(),
        **runtime.interface(session),
        "variant": decision.variant,
        "decided": decision.decided,
        "why": decision.why,
        "loss": {split: asdict(loss) for split, loss in ships.losses.items()},
        "parity": told,
        "inside": {
            **trained.graph.told(how),
            "measured": trained.graph.compare(test, how, job.root),
            "companion": trained.graph.companion(how, companion),
        },
        "examples": examples(test, shipped, trained, None if exact else alone),
        "example_tolerance": EXAMPLE_TOLERANCE if exact else VARIANT_TOLERANCE,
        "size_mb": ships.size_mb,
        "opset": _opset(place),
        "temperature": trained.temperature,
    }


def _opset(path: Path) -> int:
    import onnx

    imports = onnx.load(str(path), load_external_data=False).opset_import
    return int(next(i.version for i in imports if i.domain in ("", "ai.onnx")))
