"""The stage on real small images: what it writes, that it is the same each time, that nothing leaks from test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pandas as pd
import pytest
from tiny_training import BACKBONE, digests, params, run, upstream

from components import plugins
from components.contracts import InputError, read_json
from components.finetune import stage
from components.job import Job


def test_writes_every_run_and_the_same_bytes_each_time(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path)
    metrics, job = run(make_job, tmp_path)
    first = digests(job.building)
    assert {
        "runs/main/weights.safetensors",
        "runs/from_scratch/run.json",
        "runs/frozen_probe/history.csv",
        "history.csv",
    } <= first.keys()
    assert metrics["num_samples_seen_main"] == metrics["num_samples_seen_from_scratch"]
    _, job = run(make_job, tmp_path)
    assert digests(job.building) == first
    record = read_json(job.building / "runs/main/run.json")
    assert record["role"] == "candidate"
    assert record["labels"] == sorted(record["labels"])
    assert record["inputs"] == ["path"]


def test_bytes_do_not_depend_on_threads_that_prepare_batches(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path, {"name": "light"})
    weights = []
    for threads in (1, 3):  # torch's own threads are pinned by the environment; these only prepare
        job = make_job("finetune", stage.NEEDS, threads=threads)
        stage.run(params(references=[]), job)
        weights.append((job.building / "runs/main/weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_test_split_is_not_read(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    table = upstream(tmp_path)
    for path in table[table["split"] == "test"]["input.path"]:
        (tmp_path / path).unlink()
    run(make_job, tmp_path, references=[])


def test_sample_that_changed_since_ingest_is_refused(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    table = upstream(tmp_path)
    path = table[table["split"] == "train"]["input.path"].iloc[0]
    factories.shape_image("cross", np.random.default_rng(99)).save(tmp_path / path)
    with pytest.raises(InputError, match="has changed since it was ingested"):
        run(make_job, tmp_path)


def test_probe_uses_no_augmentation_and_says_so(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path, {"name": "light"})
    _, job = run(make_job, tmp_path, strategy={"name": "linear_probe", "epochs": 3}, references=[])
    record = read_json(job.building / "runs/main/run.json")
    assert record["policy"] == {}
    assert "no augmentation" in record["note"]


def test_folded_head_gives_the_logits_of_the_standardised_one(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    """What was measured on standardised features in training holds for the whole model."""
    from components.model import load_run

    table = upstream(tmp_path)
    metrics, job = run(make_job, tmp_path, strategy={"name": "linear_probe", "epochs": 8}, references=[])
    model, record = load_run(job.building / "runs/main")
    task = plugins.load("tasks", "image_classification")
    held = table[table["split"] == "validation"].sort_values("id")
    rows = task.prepare(held, record.preprocessing, tmp_path, job.cache("pixels"), 1, lambda items, *_: iter(items))
    import torch

    with torch.inference_mode():
        logits = model(*(torch.from_numpy(a) for a in task.collate(rows, record.preprocessing)))
    guess = [record.labels[i] for i in logits.argmax(1).tolist()]
    assert np.mean(np.array(guess) == held["label"].to_numpy()) == pytest.approx(metrics["validation_accuracy_main"])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"strategy": {"name": "ful"}}, "did you mean `full`"),
        ({"strategy": {"name": "full", "epoch": 3}}, "did you mean `epochs`"),
        ({"batch_size": 1}, "whole number from 2 to 4096"),
        ({"references": ["scratch"]}, "from_scratch"),
    ],
)
def test_mistakes_in_params_are_told_with_what_is_allowed(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        params(**changed)


@pytest.mark.parametrize(
    ("strategy", "epochs"),
    [
        ({"name": "lp_ft", "probe_epochs": 1000, "epochs": 1}, 1001),
        ({"name": "soup", "epochs": 600, "backbone_learning_rates": [1e-4, 2e-4]}, 1220),
    ],
)
def test_a_reference_is_given_as_many_epochs_as_main_however_many(strategy: dict[str, Any], epochs: int) -> None:
    given = params(strategy=strategy)
    plans = stage._plans(given, given.strategy, {"backbone": BACKBONE})
    for name in ("frozen_probe", "from_scratch"):
        spec, phases, _ = plans[name]
        assert (spec["epochs"], [phase.epochs for phase in phases]) == (epochs, [epochs])
    probe = plugins.choose("finetune.strategies", {"name": "linear_probe", "epochs": 7})
    short = params(strategy={"name": "full", "epochs": 7})
    assert stage._plans(short, short.strategy, {"backbone": BACKBONE})["frozen_probe"][0] == probe.spec()


def test_record_is_plain_json(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path)
    _, job = run(make_job, tmp_path, references=[])
    text = (job.building / "runs/main/run.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["base_weights"]["source"] == "random"


def test_validation_accuracy_is_that_of_the_weights_that_were_kept(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    """With several phases the best epoch of all may lie in one whose weights were trained on."""
    upstream(tmp_path)
    strategy = {"name": "lp_ft", "probe_epochs": 3, "epochs": 2, "backbone_learning_rate": 0.05}
    metrics, job = run(make_job, tmp_path, strategy=strategy, references=[])
    rows = pd.read_csv(job.building / "history.csv")
    kept = read_json(job.building / "runs/main/run.json")["best_epoch"]
    assert kept > 3
    assert metrics["validation_accuracy_main"] == pytest.approx(rows["validation_accuracy"][kept - 1])


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_killed_stage_goes_on_to_the_same_bytes(tmp_path: Path, make_job: Callable[..., Job], after: int) -> None:
    """Killed in the probe, between the phases, and in the second phase: the head's scale is found again."""
    upstream(tmp_path)
    strategy = {"name": "lp_ft", "probe_epochs": 2, "epochs": 3}
    settings = {"strategy": strategy, "references": [], "patience": 9}
    whole = run(make_job, tmp_path, **settings)[1]
    expected = digests(whole.building)

    class Killed(BaseException):
        pass

    class Short(Job):
        def say(self, text: str) -> None:
            if " epoch " in text and "accuracy" in text:
                self.told.append(text)
                if len(self.told) == after:
                    raise Killed

    cut = make_job("finetune", stage.NEEDS)
    shutil.rmtree(tmp_path / ".graftline" / "finetune", ignore_errors=True)
    short = Short(cut.stage, cut.run, cut.root, cut.needs)
    object.__setattr__(short, "told", [])
    with pytest.raises(Killed):
        stage.run(params(**settings), short)
    assert list((tmp_path / ".graftline" / "finetune").rglob("*.safetensors"))
    resumed = make_job("finetune", stage.NEEDS)
    resumed.clear()
    stage.run(params(**settings), resumed)
    assert digests(resumed.building) == expected
