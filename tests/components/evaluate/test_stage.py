"""The stage on runs of a tiny network: one row a sample, run and split; intervals; the same bytes each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import factories
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from components import plugins
from components.contracts import InputError, RunRecord, read_json, read_table, write_table
from components.evaluate import stage
from components.job import Job
from components.model import TransferModel, save_run

PARAMS = stage.Params(num_bootstrap=100, level=0.95, num_bins=10)


def upstream(
    root: Path,
    runs: tuple[str, ...] = ("main", "from_scratch"),
    labels: tuple[str, ...] = ("circle", "square", "triangle"),
) -> pd.DataFrame:
    table = factories.manifest(root, factories.image_folder(root / "data"), split=True)
    write_table(root / "artifacts/validate/accepted.parquet", table)
    choice = plugins.choose(
        "backbones",
        {"name": "timm", "model": "test_efficientnet", "image_size": 32, "weights": {"source": "random"}},
    )
    how = choice.load().preprocessing(choice.params)
    for number, run in enumerate(runs):
        torch.manual_seed(number)
        model = TransferModel(choice.load().build(choice.params), len(labels))
        torch.nn.init.normal_(model.head.weight)
        role = "candidate" if run == "main" else "reference"
        record = RunRecord(
            run,
            role,
            "image_classification",
            "single_label",
            choice.spec(),
            run == "main",
            {"name": "full"},
            labels,
            how,
        )
        save_run(root / "artifacts/finetune/runs" / run, model, record)
    return table


def run(make_job: Callable[..., Job]) -> tuple[dict[str, float], Job]:
    job = make_job("evaluate", stage.NEEDS)
    return stage.run(PARAMS, job), job


def test_every_held_out_sample_is_predicted_once_by_every_run(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    table = upstream(tmp_path)
    metrics, job = run(make_job)
    found = read_table(job.building / "predictions.parquet")
    held = table[table["split"] != "train"]
    assert len(found) == 2 * len(held)
    assert set(found["split"]) == {"validation", "test"}
    assert found.groupby("run")["id"].apply(set).map(lambda ids: ids == set(held["id"])).all()
    shares = found[[c for c in found if c.startswith("probability.")]].sum(axis=1)
    assert shares.to_numpy() == pytest.approx(1)
    test = found[(found["run"] == "main") & (found["split"] == "test")]
    assert metrics["accuracy"] == pytest.approx((test["label"] == test["predicted"]).mean())
    assert metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"]
    assert read_json(job.building / "quality.json")["settings"] == PARAMS.model_dump()
    assert len(pd.read_csv(job.building / "confusion.csv")) == len(test) == metrics["num_test"]


def test_embeddings_are_in_id_order_and_of_the_main_run(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    table = upstream(tmp_path)
    _, job = run(make_job)
    found = load_file(job.building / "embeddings.safetensors")
    assert {k: len(v) for k, v in found.items()} == {
        s: int((table["split"] == s).sum()) for s in ("validation", "test")
    }


def test_same_bytes_each_time(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path)
    _, job = run(make_job)
    first = {p.name: p.read_bytes() for p in job.building.iterdir()}
    _, job = run(make_job)
    assert {p.name: p.read_bytes() for p in job.building.iterdir()} == first


def test_transfer_is_compared_on_the_same_rows_and_told_in_words(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path)
    metrics, job = run(make_job)
    found = read_json(job.building / "transfer.json")
    assert [c["reference"] for c in found["comparisons"]] == ["from_scratch"]
    assert found["comparisons"][0]["verdict"] in ("helped", "no evidence", "negative transfer")
    assert metrics["transfer_gain_low"] < metrics["transfer_gain_high"]


def test_without_a_baseline_the_gain_is_absent_not_zero(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path, runs=("main",))
    metrics, job = run(make_job)
    assert not any("gain" in name for name in metrics)
    assert "not measured" in read_json(job.building / "transfer.json")["headline"]


def test_labels_that_the_run_does_not_know_are_refused(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path, labels=("circle", "square"))
    with pytest.raises(InputError, match="triangle"):
        run(make_job)
