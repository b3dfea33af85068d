"""select: the right candidate for a reason that is told, within budget, the same bytes each time."""

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
from pydantic import ValidationError

from components import plugins, samples
from components.contracts import InputError, write_json, write_table
from components.job import Job
from components.select import stage

SMALL = {"name": "timm", "model": "test_efficientnet", "image_size": 32, "weights": {"source": "random"}}
OTHER = {"name": "timm", "model": "test_resnet", "image_size": 32, "weights": {"source": "random"}}
FREE = {"max_parameters_millions": None, "max_gmacs": None, "max_latency_ms": None}
OUTPUTS = ("chosen.json", "leaderboard.json", "leaderboard.csv")


def settings(**changes: Any) -> stage.Params:
    raw = {
        "candidates": [SMALL, OTHER],
        "scores": ["logme", {"name": "knn_probe", "k": 3}, "linear_probe"],
        "max_samples": 40,
        "budget": FREE,
    }
    return stage.Params.model_validate({**raw, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose validate stage has accepted 60 images, 30 of them to train on."""
    root = tmp_path_factory.mktemp("project")
    table = factories.manifest(root, factories.image_folder(root / "data", per_label=20), split=True)
    write_table(root / "artifacts/validate/accepted.parquet", table)
    write_json(root / "artifacts/validate/verdict.json", {"stage": "validate", "passed": True, "rules": []})
    return root


@pytest.fixture
def job(data: Path, tmp_path: Path, make_job: Callable[..., Job]) -> Job:
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    return make_job("select", stage.NEEDS)


def read(job: Job, name: str) -> Any:
    return json.loads(job.out(name).read_text("utf-8"))


def test_the_best_is_chosen_and_the_leaderboard_says_why(job: Job) -> None:
    metrics = stage.run(settings(), job)
    chosen, board = read(job, "chosen.json"), read(job, "leaderboard.json")
    first, second = board["candidates"]
    assert {p.name for p in job.building.iterdir()} == {*OUTPUTS, "files"}
    assert chosen["title"] == first["title"]
    assert chosen["backbone"] == first["backbone"]
    assert chosen["runners_up"] == [second["title"]]
    assert chosen["preprocessing"]["height"] == 32
    assert chosen["pretrained"] is False
    assert chosen["why"].startswith(f"{first['title']}: best mean rank")
    assert first["rank"] == 1
    assert first["mean_rank"] <= second["mean_rank"]
    assert set(first["scores"]) == set(first["ranks"]) == {"logme", "knn_probe", "linear_probe"}
    assert board["prior_agrees"] is None
    assert board["num_samples"] == metrics["num_samples"] <= 40
    assert board["labels"] == 3
    assert board["difference"]["verdict"] in ("clear", "too close to call")
    assert metrics["best_linear_probe"] == max(c["scores"]["linear_probe"] for c in board["candidates"])
    table = pd.read_csv(job.out("leaderboard.csv"))
    assert list(table["candidate"]) == [first["title"], second["title"]]
    assert table["score"].is_monotonic_decreasing
    assert job.report("leaderboard.png").stat().st_size > 1000
    assert set(json.loads(job.report("latency.json").read_text())["latency_ms"]) == set(table["candidate"])


def test_two_runs_give_the_same_bytes(job: Job) -> None:
    first_metrics = stage.run(settings(), job)
    first = [job.out(name).read_bytes() for name in OUTPUTS]
    shutil.rmtree(job.root / ".graftline")
    job.clear()
    assert stage.run(settings(), job) == first_metrics
    assert [job.out(name).read_bytes() for name in OUTPUTS] == first


def test_no_measured_time_is_in_what_is_hashed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.select import cost

    told = []
    for measured in (1.0, 77.0):
        monkeypatch.setattr(cost, "latency_ms", lambda *_, ms=measured: ms)
        job.clear()
        metrics = stage.run(settings(candidates=[SMALL]), job)
        told.append((metrics, [job.out(name).read_bytes() for name in OUTPUTS]))
    assert told[0] == told[1]


def test_only_the_train_split_is_read(job: Job) -> None:
    table = pd.read_parquet(job.source("validate", "accepted.parquet"))
    for path in table.loc[table["split"] != "train", "input.path"]:
        (job.root / path).unlink()
    stage.run(settings(candidates=[SMALL]), job)


def test_features_are_kept_where_finetune_looks_for_them(job: Job) -> None:
    import torch

    from components.features import cached_features
    from components.model import Feed, infer

    stage.run(settings(candidates=[SMALL], max_samples=20), job)
    choice = plugins.choose("backbones", SMALL)
    torch.manual_seed(samples.keyed_seed(job.run.seed, "initial weights"))
    network, how = choice.load().build(choice.params), choice.load().preprocessing(choice.params)
    table = pd.read_parquet(job.source("validate", "accepted.parquet")).sort_values("id")
    train = table[table["split"] == "train"]
    assert len(train) > 20

    def compute() -> np.ndarray:
        raise AssertionError("the backbone would run twice")

    found = cached_features(
        network,
        Feed.of(job.run.task, json.loads(json.dumps(how))).key(train),
        job.cache("features"),
        compute,
    )
    feed = Feed.of("image_classification", how)
    fresh = infer(network, feed.prepare(train, job), feed, torch.device("cpu"), job.progress, "again")
    np.testing.assert_array_equal(found, fresh)


def test_a_large_split_is_sampled_before_the_backbone_runs(job: Job) -> None:
    stage.run(settings(candidates=[SMALL], max_samples=10), job)
    (kept,) = job.cache("features").glob("*.npy")
    assert len(np.load(kept)) == 10


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (
            {"max_parameters_millions": 0.3},
            "million parameters is over select.budget.max_parameters_millions 0.3",
        ),
        ({"max_gmacs": 0.003}, "GMACs is over select.budget.max_gmacs 0.003"),
    ],
)
def test_beyond_the_budget_is_left_out_with_the_reason(job: Job, limit: dict[str, float], told: str) -> None:
    metrics = stage.run(settings(budget={**FREE, **limit}), job)
    board = read(job, "leaderboard.json")
    out = board["candidates"][-1]
    assert metrics["num_excluded"] == 1
    assert read(job, "chosen.json")["title"] == "test_efficientnet-random"
    assert out["title"] == "test_resnet-random"
    assert not out["within_budget"]
    assert out["excluded_because"].endswith(told)
    assert out["scores"] == {}
    assert out["rank"] is None
    assert len(list(job.cache("features").glob("*.npy"))) == 1
    assert board["note"] == "One candidate within the budget: nothing was compared."


def test_latency_excludes_only_beyond_the_margin(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.select import cost

    measured = iter([10.9, 11.1])
    monkeypatch.setattr(cost, "latency_ms", lambda *_: next(measured))
    stage.run(settings(budget={**FREE, "max_latency_ms": 10}), job)
    reasons = [c["excluded_because"] for c in read(job, "leaderboard.json")["candidates"]]
    assert reasons == ["", "its measured latency is over select.budget.max_latency_ms 10 by more than 10 %"]


def test_all_beyond_the_budget_names_each_figure(job: Job) -> None:
    with pytest.raises(InputError, match=r"select\.budget: no candidate") as caught:
        stage.run(settings(budget={**FREE, "max_gmacs": 0.0001}), job)
    assert "test_efficientnet-random: 0." in str(caught.value)
    assert "test_resnet-random: 0." in str(caught.value)
    assert "million parameters" in str(caught.value)


def test_weights_that_are_missing_name_the_candidate(job: Job) -> None:
    lost = {
        "name": "timm",
        "model": "test_resnet",
        "weights": {"source": "file", "path": "nowhere.safetensors", "sha256": "0" * 64},
    }
    with pytest.raises(InputError, match=r"select\.candidates\[1\]: weights path 'nowhere\.safetensors'"):
        stage.run(settings(candidates=[SMALL, lost]), job)
    assert not any(job.cache("features").iterdir())  # told before anything long


def test_a_model_that_is_not_known_names_the_candidate(job: Job) -> None:
    with pytest.raises(InputError, match=r"select\.candidates\[0\]: timm cannot make 'test_resnett'"):
        stage.run(settings(candidates=[{**OTHER, "model": "test_resnett"}]), job)


def test_a_backbone_for_another_task_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.load("backbones", "timm"), "TASKS", ("text_classification",))
    with pytest.raises(InputError, match=r"select\.candidates\[0\]: timm is for text_classification, not for image"):
        stage.run(settings(), job)


def test_features_that_are_not_numbers_are_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    timm = plugins.load("backbones", "timm")
    build = timm.build

    def broken(options: Any) -> Any:
        network = build(options)
        with torch.no_grad():
            next(network.parameters()).fill_(float("nan"))
        return network

    monkeypatch.setattr(timm, "build", broken)
    with pytest.raises(InputError, match=r"select\.candidates\[0\]: test_efficientnet-random gives features"):
        stage.run(settings(), job)


def test_one_label_is_refused(job: Job) -> None:
    path = job.source("validate", "accepted.parquet")
    table = pd.read_parquet(path)
    write_table(path, table[table["label"] == "circle"])
    with pytest.raises(InputError, match=r"1 label\(s\)"):
        stage.run(settings(), job)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"candidates": []}, "at least 1 item"),
        ({"candidates": [SMALL, OTHER, SMALL]}, r"candidates\[2\] is the same as candidates\[0\]"),
        ({"scores": ["logme", "logme"]}, r"scores\[1\] is the same as scores\[0\]"),
        ({"scores": ["logmee"]}, "did you mean `logme`"),
        ({"budget": {**FREE, "max_gmacs": 0}}, "greater than 0"),
        ({"budget": {"max_gmacs": 1}}, "Field required"),
        ({"max_samples": 5}, "greater than or equal to 10"),
    ],
)
def test_a_mistake_in_params_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        settings(**changes)


def test_the_same_model_at_two_sizes_is_told_apart(job: Job) -> None:
    stage.run(settings(candidates=[SMALL, {**SMALL, "image_size": 48}], scores=["knn_probe"]), job)
    titles = {c["title"] for c in read(job, "leaderboard.json")["candidates"]}
    assert titles == {"test_efficientnet-random-image_size-32", "test_efficientnet-random-image_size-48"}


def test_subsamples_are_stratified_and_keyed_by_sample() -> None:
    from components.select.trial import subsample

    labels = ["a"] * 800 + ["b"] * 195 + ["c"] * 5
    table = pd.DataFrame({"id": [f"s{i:04d}" for i in range(1000)], "label": labels})
    taken = subsample(table, 100, 17)
    counts = table.loc[taken, "label"].value_counts().to_dict()
    assert sum(counts.values()) == 100
    assert counts["c"] == 2
    assert 76 <= counts["a"] <= 80
    assert list(taken) == sorted(set(taken))
    assert list(subsample(table, 5000, 17)) == list(range(1000))
    assert list(subsample(table, 100, 18)) != list(taken)
    shuffled = table.sample(frac=1, random_state=0).reset_index(drop=True)
    again = shuffled.loc[subsample(shuffled, 100, 17), "id"]
    assert set(again) == set(table.loc[taken, "id"])
