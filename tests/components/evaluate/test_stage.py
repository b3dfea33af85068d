"""The stage on runs of a tiny network: one row a sample, run and split; intervals; the same bytes each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file

from components import plugins
from components.contracts import InputError, RunRecord, read_json, read_table, write_table
from components.evaluate import stage
from components.job import Job
from components.model import TransferModel, save_run

NONE = {"data": stage.NO_PROXY}


def params(source_proxy: dict[str, Any] | None = None) -> stage.Params:
    given = {"num_bootstrap": 100, "level": 0.95, "num_bins": 10, "source_proxy": source_proxy or NONE}
    return stage.Params.model_validate(given)


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
        share = 0.5 if run.endswith("_50") else 1.0
        record = RunRecord(
            run,
            role,
            "image_classification",
            "single_label",
            choice.spec(),
            not run.startswith("from_scratch"),
            {"name": "full"},
            labels,
            how,
            label_share=share,
            num_train=int(18 * share),
        )
        save_run(root / "artifacts/finetune/runs" / run, model, record)
    return table


def run(make_job: Callable[..., Job], source_proxy: dict[str, Any] | None = None) -> tuple[dict[str, float], Job]:
    job = make_job("evaluate", stage.NEEDS)
    return stage.run(params(source_proxy), job), job


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
    assert read_json(job.building / "quality.json")["settings"] == params().model_dump(exclude={"source_proxy"})
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


def test_forgetting_and_the_curve_by_labels_are_told_with_transfer(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    upstream(tmp_path, runs=("main", "from_scratch", "frozen_probe", "main_50", "from_scratch_50"))
    runs = tmp_path / "artifacts/finetune/runs"
    width = load_torch(runs / "main/weights.safetensors")["head.weight"].shape[1]
    save_file({"weight": torch.randn(4, width), "bias": torch.zeros(4)}, runs / "source_head.safetensors")
    metrics, job = run(make_job)
    told = read_json(job.building / "transfer.json")
    assert [c["reference"] for c in told["comparisons"]] == ["from_scratch", "frozen_probe"]
    assert [r["run"] for r in told["forgetting"]["runs"]] == ["main", "from_scratch"]
    assert {"value", "low", "high", "level"} == told["forgetting"]["runs"][0]["source_kl"].keys()
    assert metrics["source_answers_changed_low"] <= metrics["source_answers_changed"]
    assert [(p["of"], p["share"]) for p in told["label_efficiency"]["points"]] == [
        ("main", 0.5), ("main", 1.0), ("from_scratch", 0.5), ("from_scratch", 1.0), ("frozen_probe", 1.0)
    ]  # fmt: skip
    assert not any("_50" in name for name in metrics)
    assert len(pd.read_csv(job.building / "label_efficiency.csv")) == 5
    first = {p.name: p.read_bytes() for p in job.building.iterdir()}
    assert {p.name: p.read_bytes() for p in run(make_job)[1].building.iterdir()} == first


def test_labels_that_the_run_does_not_know_are_refused(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path, labels=("circle", "square"))
    with pytest.raises(InputError, match="triangle"):
        run(make_job)


def test_samples_of_the_old_task_tell_what_it_lost(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path, runs=("main", "frozen_probe", "main_50"))
    factories.image_folder(tmp_path / "old", per_label=6, seed=5)
    old = {"data": "old", "source": {"name": "image_folder"}}
    metrics, job = run(make_job, old)
    row = read_json(job.building / "transfer.json")["forgetting"]["runs"][0]
    assert (row["num_source_samples"], row["num_source_labels"]) == (18, 3)
    assert row["verdict"] in ("forgot", "gained", "no evidence of forgetting")
    lost = row["source_accuracy_before"]["value"] - row["source_accuracy_after"]["value"]
    assert metrics["forgetting"] == pytest.approx(lost)
    assert metrics["forgetting_low"] <= lost <= metrics["forgetting_high"]
    first = {p.name: p.read_bytes() for p in job.building.iterdir()}
    assert {p.name: p.read_bytes() for p in run(make_job, old)[1].building.iterdir()} == first
    assert set(load_file(job.building / "embeddings.safetensors")) == {"validation", "test"}


@pytest.mark.parametrize(("data", "told"), [("nowhere", "is not there"), ("few", "2 labels of 2 different samples")])
def test_an_old_task_that_cannot_be_used_is_refused(
    tmp_path: Path, make_job: Callable[..., Job], data: str, told: str
) -> None:
    upstream(tmp_path, runs=("main", "frozen_probe"))
    factories.image_folder(tmp_path / "few", per_label=1)
    with pytest.raises(InputError, match=f"evaluate.source_proxy.*{told}"):
        run(make_job, {"data": data, "source": {"name": "image_folder"}})


@pytest.mark.parametrize("wrong", [{"data": "old"}, {**NONE, "source": {"name": "image_folder"}}])
def test_a_proxy_without_its_source_is_a_mistake_in_params(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="source"):
        params(wrong)
