"""Write the trained network as an ONNX model, prove that it is the same one, and choose the variant that ships.

Reads: finetune/runs/main (weights and record), evaluate/calibration.json (temperature), gate/verdict.json,
evaluate/quality.json (its settings), validate/accepted.parquet (training samples to calibrate with, validation to
decide on, test for parity and for the quality of what ships).
Writes: model.onnx (what ships: preprocessing inside as components/graphs/<task>.py tells; the decision int64 [N], of
several labels [N, K]; probabilities float32 [N, K] calibrated by the temperature; embedding float32 [N, D]; N is free),
variants/ (ladder.json, and fp32.onnx where another one ships), companion/ (what the task puts beside the model, and
companion.json, which says what or why nothing), outputs.safetensors (probabilities and embedding of what ships on the
validation split, in the order of ids), export.json (interface, variant, its own measures, parity, golden examples),
verdict.json (load and query in a fresh process; the gate's rules about evaluate's metrics, judged again on the file
that ships, as far as its answers can tell; budgets). Measured times go to reports/export/ladder.json and ladder.png.
Decides: the weights, the temperature, the target's options; the ladder, by measured time and loss (decision.py).
Fails: the gate refused; float32 differs from torch on the test split by more than params allow (ParityError, exit code
3); the pinned variant loses too much (VariantError, 3); the backbone cannot be written as ONNX, or a split is missing
(InputError). Nothing is kept then. A budget that is not held is a failed rule: what rests on it is refused.
Does not check: other processors and other runtimes than ONNX Runtime on this CPU. The gain over other runs, groups and
drift stay those of the trained network in float32, and export.json names the rules that were not judged again.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from components import params, plugins
from components.contracts import InputError, Rule, Verdict, read_json, read_record, read_table, write_atomic, write_json
from components.job import Job
from components.plugins import Choice, Family

if TYPE_CHECKING:
    import pandas as pd

    from components.export.decision import Decision
    from components.export.ladder import Rung
    from components.export.trained import Trained

NEEDS = ("validate", "finetune", "evaluate", "gate")
EXAMPLE_BATCH = 3
"""Rows of the input that the exporter traces: more than one, so that it does not take 1 for a constant."""


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
    """A variant must be so many times as fast as float32, and as a simpler one that is that fast, at batch 1 and 16."""
    num_calibration: int = Field(ge=1)
    """Training samples that quantisation takes its ranges from (three of four) and compares its settings with."""
    max_size_mb: float | None = Field(gt=0)
    """Budget: largest size of model.onnx."""
    max_latency_ms: float | None = Field(gt=0)
    """Budget: longest time of one sample, on this machine: the smallest of the rounds' medians, as in ladder.json. Of
    images that have the size that the network sees, so that the resize inside the graph is not in it."""
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
    gate = read_record(Verdict, job.source("gate", "verdict.json"))  # refuses here, before anything is loaded
    splits = _splits(job)

    from components.export import kept, ladder, parity, shipped
    from components.export.trained import load

    trained = load(job)
    rows = {name: trained.feed.prepare(splits[name], job) for name in ("validation", "test")}
    expected = parity.eager(trained.model, rows["test"], trained.feed.collate, job.progress)
    with tempfile.TemporaryDirectory() as aside:
        rungs = _build(params, job, trained, splits["train"], Path(aside))
        found, held = _prove(params, job, trained, rungs[0], rows["test"], expected)
        truths = {s: trained.decision.indicators(splits[s]["label"], trained.record.labels) for s in rows}
        rungs, answers = _answered(job, trained, rungs, rows, truths)
        rungs, costs = ladder.costs(rungs, _feeds(trained, rows["test"]), job.run.threads, job.say)
        decision = _decided(params, job, rungs, costs)
        ships = next(rung for rung in rungs if rung.name == decision.variant)
        own = answers[ships.name]
        worth, rules = _worth(job, trained, gate, ships, own["test"], truths["test"])
        worth["parity"] = found if ships.name == ladder.FIRST else _parity(job, trained, ships, rows["test"], expected)
        verdict = _judge(params, job, trained, ships, rows["test"], own["test"], rules, costs)
        kept.models(job, rungs, ships, decision, costs, params.max_loss)
        told = {"parity": {**found, **held}, "shipped": worth}
        golden = expected if ships.name == ladder.FIRST else own["test"]
        described = kept.described(
            params.target, job, trained, decision, told, ships, splits["test"], rows["test"], golden
        )
    write_atomic(job.out("outputs.safetensors"), shipped.packed(own["validation"]))
    write_json(job.out("export.json"), described)
    write_json(job.out("verdict.json"), verdict)
    return _metrics(described, verdict, ships)


def _metrics(described: dict[str, Any], verdict: Verdict, ships: Rung) -> dict[str, float]:
    gain, parity = ships.losses["validation"].gain, described["parity"]
    return {
        **{name: float(described[name]) for name in ("size_mb", "opset", "temperature")},
        "parity_max_relative": parity["relative"],
        "flips": float(parity["flips"]),
        "num_parity_samples": float(parity["num_samples"]),
        "accuracy_gain": gain.value,
        "accuracy_gain_low": gain.low,
        "blessed": float(verdict.passed),
    }


def _splits(job: Job) -> dict[str, pd.DataFrame]:
    table = read_table(job.source("validate", "accepted.parquet"))
    table = table.sort_values("id", kind="stable")
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
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parity of float32 on the test split, at the optimisation level and provider that ship; and its limits."""
    from components.export import parity, runtime

    assert rung.place is not None, "float32 is always made"
    session = runtime.open_session(rung.place, job.run.threads)
    feed = trained.joined_feed
    found = parity.compare(expected, session, rows, feed, job.progress, trained.feed.lengths(rows))
    yardstick = parity.rounding(trained.model, expected, session, rows, trained.feed.collate, feed, job.progress)
    limits = parity.limits(params.max_difference.model_dump(), params.max_rounding, yardstick)
    parity.judge(found, limits, params.max_flips)
    used = {"provider": runtime.PROVIDER, "optimisation": "all", "threads": job.run.threads}
    return found, {"limits": limits, "max_flips": params.max_flips, "from_float64": yardstick, "runtime": used}


def _answered(
    job: Job, trained: Trained, rungs: list[Rung], rows: dict[str, np.ndarray], truths: dict[str, np.ndarray]
) -> tuple[list[Rung], dict[str, dict[str, dict[str, np.ndarray]]]]:
    """The rungs with their losses, and what each answers on each split."""
    from components.export import ladder

    answers: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    lengths = trained.feed.lengths(rows["validation"])
    asked = (job.run.threads, trained.joined_feed, job.progress)

    def answer(place: Path, split: str) -> dict[str, np.ndarray]:
        found = ladder.outputs_of(place, rows[split], *asked)
        answers.setdefault(place.stem, {})[split] = found
        return found

    def in_other_batches(place: Path, split: str) -> ladder.ByBatch:
        return ladder.in_other_batches(place, rows[split], lengths, *asked) if split == "validation" else {}

    return ladder.measure(rungs, answer, truths, trained.decision, in_other_batches), answers


def _decided(params: Params, job: Job, rungs: list[Rung], costs: dict[str, dict[str, Any]]) -> Decision:
    from components.export import decision

    latency = {name: {b: t["low"] for b, t in own["latency_ms"].items()} for name, own in costs.items()}
    found = decision.decide(rungs, latency, params.max_loss, params.min_speedup, params.variant)
    return decision.settle(found, rungs, params.max_loss, job.settled)


def _worth(
    job: Job, trained: Trained, gate: Verdict, ships: Rung, outputs: dict[str, np.ndarray], truth: np.ndarray
) -> tuple[dict[str, Any], list[Rule]]:
    """What ships, measured by itself; and the gate's rules judged on that."""
    from components.export import shipped

    settings = read_json(job.source("evaluate", "quality.json"))["settings"]
    measures = shipped.measure(outputs, truth, trained.decision, settings, job.run.seed)
    rules, others = shipped.judged_again(gate, measures, len(truth), ships.name)
    told = {"variant": ships.name, "split": "test", "num_samples": len(truth), "measures": measures}
    return {**told, "not_judged_again": others}, rules


def _parity(
    job: Job, trained: Trained, ships: Rung, rows: np.ndarray, expected: dict[str, np.ndarray]
) -> dict[str, Any]:
    """How far a variant is from torch; its loss decides, so no limit is held."""
    from components.export import parity, runtime

    assert ships.place is not None
    session = runtime.open_session(ships.place, job.run.threads)
    return parity.compare(expected, session, rows, trained.joined_feed, job.progress, trained.feed.lengths(rows))


def _feeds(trained: Trained, rows: np.ndarray) -> dict[int, dict[str, np.ndarray]]:
    """Real samples by batch size, of the median length and up."""
    from components.export import trial

    lengths = trained.feed.lengths(rows)
    order = np.arange(len(rows)) if lengths is None else np.argsort(lengths, kind="stable")
    middle = order[len(order) // 2 :]
    return {n: trained.joined_feed(rows[np.resize(middle[:n], n)]) for n in trial.BATCHES}


def _judge(
    params: Params, job: Job, trained: Trained, ships: Rung, rows: np.ndarray, answers: dict[str, np.ndarray],
    again: list[Rule], costs: dict[str, dict[str, Any]],
) -> Verdict:  # fmt: skip
    """The infra blessing of what ships, and the rules that were judged again on it."""
    from components.export import blessing

    assert ships.place is not None
    own, some = costs[ships.name], rows[: blessing.NUM_SAMPLES]
    feeds = [trained.joined_feed(some[s : s + blessing.BATCH]) for s in range(0, len(some), blessing.BATCH)]
    decided = trained.decision.OUTPUT
    rule, measured = blessing.load_and_query(
        ships.place, job.run.threads, feeds, answers[decided][: len(some)], decided
    )
    own["fresh_process"] = measured
    size, latency = ships.size_mb or 0.0, own["latency_ms"]["1"]["low"]
    rules = [
        rule,
        *again,
        *blessing.budget("max_size_mb", size, params.max_size_mb, "MB", stable=True),
        *blessing.budget("max_latency_ms", latency, params.max_latency_ms, "ms", stable=False),
        *blessing.budget("max_memory_mb", own["memory_mb"], params.max_memory_mb, "MB", stable=False),
    ]
    verdict = blessing.verdict(rules)
    if not verdict.passed:
        job.say(f"the model is not blessed, so nothing is handed over:\n{verdict.refusal()}")
    return verdict
