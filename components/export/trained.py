"""The trained network as `export` has it: with its samples, and what it says of some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from components import plugins
from components.contracts import PROPERTY, RunRecord, read_json
from components.export.graph import Samples
from components.export.network import Deployed
from components.job import Job
from components.model import Feed, load_run
from components.plugins import Choice
from components.samples import keyed_seed

if TYPE_CHECKING:
    import pandas as pd

RUN = "main"
NUM_EXAMPLES = 3
MAX_EXAMPLE_BYTES = 1_000_000
GOLDEN_CONFIDENCE = 0.8
CALIBRATION_BATCH = 16
PROBE_SHARE = 0.25
"""Of the calibration samples: kept apart, to compare settings with."""


@dataclass(frozen=True)
class Trained:
    """The network that is exported, and how samples become its inputs."""

    model: Deployed
    record: RunRecord
    decision: ModuleType
    feed: Feed
    graph: ModuleType
    """Of components/graphs."""
    temperature: float

    def joined_feed(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The exported model's inputs for prepared rows."""
        found: dict[str, np.ndarray] = self.graph.feed(rows, self.record.preprocessing)
        return found


def load(job: Job) -> Trained:
    """What finetune and evaluate left."""
    trained, record = load_run(job.source("finetune", "runs") / RUN)
    temperature = float(read_json(job.source("evaluate", "calibration.json"))["temperature"][RUN])
    assert temperature > 0, "a temperature is above zero"
    decision = plugins.load("decisions", record.decision)
    feed = Feed.of(record.task, record.preprocessing)
    model = Deployed(trained, temperature, decision).eval()
    return Trained(model, record, decision, feed, plugins.load("graphs", record.task), temperature)


def calibration(trained: Trained, job: Job, train: pd.DataFrame, choices: Sequence[Choice], most: int) -> Samples:
    """Training samples drawn by key, the same in whatever order they lie; none where no rung asks for them."""
    if not any(choice.load().CALIBRATED for choice in choices):
        return Samples((), (), job.run.threads)
    keys = [keyed_seed(job.run.seed, "calibration", sample) for sample in train["id"]]
    drawn = train.iloc[np.argsort(keys, kind="stable")[:most]].reset_index(drop=True)
    rows = trained.feed.prepare(drawn, job)
    names = trained.feed.task.model_inputs(trained.record.preprocessing)
    cut = split_at(len(rows))

    def batches(some: np.ndarray) -> tuple[dict[str, np.ndarray], ...]:
        starts = range(0, len(some), CALIBRATION_BATCH)
        return tuple(dict(zip(names, trained.feed.collate(some[s : s + CALIBRATION_BATCH]))) for s in starts)

    return Samples(batches(rows[:cut]), batches(rows[cut:]), job.run.threads)


def split_at(num: int) -> int:
    """How many of so many samples ranges are taken from; settings are compared with the rest."""
    return max(1, round(num * (1 - PROBE_SHARE))) if num > 1 else 0


def examples(
    test: pd.DataFrame, shipped: dict[str, np.ndarray], trained: Trained,
    alone: Callable[[int], dict[str, np.ndarray]] | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """What torch gives for a few test samples of different labels: golden values for whoever deploys. Of a variant with
    fewer bits, what it gives itself for each of them `alone`, as its answers may depend on the batch.

    Small files first, then those that it is neither sure of nor torn about: 1.0000 hides a wrong input, and a
    tie may flip on another processor. Then by id, so that the choice is the same each time.
    """
    decision, labels = trained.decision, trained.record.labels
    doubt = np.abs(decision.confidence(shipped["probabilities"].astype(np.float64)) - GOLDEN_CONFIDENCE).round(2)
    size = test.get(f"{PROPERTY}num_bytes")
    large = False if size is None else size > MAX_EXAMPLE_BYTES
    order = test.assign(row=range(len(test)), large=large, doubt=doubt).sort_values(
        ["large", "doubt", "id"], kind="stable"
    )
    spread = [*order.drop_duplicates("label")["row"], *order["row"]]
    told = []
    for row in list(dict.fromkeys(spread))[:NUM_EXAMPLES]:
        shares = (alone(row)["probabilities"] if alone else shipped["probabilities"][row : row + 1]).astype(np.float64)
        told.append(
            {
                "id": test["id"][row],
                "label": test["label"][row],
                "predicted": decision.predicted(shares, labels)[0],
                "probabilities": [round(float(p), 7) for p in shares[0]],
            }
        )
    return told
