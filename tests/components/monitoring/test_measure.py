"""What a look computes, on real bundles: quiet where nothing changed, loud where it did."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import monitored
import numpy as np
import pytest

from components.contracts import InputError, Interval, read_table
from components.job import Job
from components.monitoring import answers, arrivals, figures, folders, measure
from components.params import Run
from components.plugins import choose
from pipelines import operations

COLUMNS = choose("drift.detectors", {"name": "ks"})
EMBEDDINGS = choose("drift.detectors", {"name": "permutation_mmd", "num_permutations": 199, "alpha": 0.01})
BUNDLE = "artifacts/handoff/bundle"
SOURCES = {
    "image_classification": choose("ingest.sources", {"name": "image_folder"}),
    "text_classification": choose(
        "ingest.sources", {"name": "text_table", "file": "t.csv", "text": "text", "label": "label"}
    ),
}


def looked(
    project: Path, data: Path, task: str = "image_classification", known: Iterable[str] = (), seen: Iterable[str] = ()
) -> tuple[arrivals.Arrived, answers.Answers, measure.Measured]:
    base = Job.at(data.parent / "job", "monitor", task=task)
    inner = Job("ingest", base.run, base.work("arrived"), ())
    arrived = arrivals.gather(data, SOURCES[task], set(known), set(seen), inner, base, time.time())
    said = answers.ask(project / BUNDLE, arrived.table, inner.root, base)
    return arrived, said, measure.measure(project / BUNDLE, arrived, said, COLUMNS, EMBEDDINGS, base, "the new samples")


def test_what_the_monitor_hears_is_what_predict_says(images: Path, tmp_path: Path) -> None:
    files = monitored.more_images(tmp_path / "data", 21, 1)
    arrived, said, _ = looked(images, tmp_path / "data")
    command = [sys.executable, "-B", str(images / BUNDLE / "predict.py"), "--json", *map(str, sorted(files))]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    told = {Path(one["file"]).name: one for one in json.loads(done.stdout)}
    for row, predicted, confidence, shares in zip(
        arrived.table["id"], said.predicted, said.confidence, said.probabilities
    ):
        one = told[Path(row).name]
        assert one["label"] == predicted
        assert {label: one["probabilities"][label] for label in said.labels} == dict(zip(said.labels, shares))
        assert confidence == max(one["probabilities"].values())
    assert not list((images / BUNDLE).rglob("__pycache__"))
    assert "predict" not in sys.modules


@pytest.mark.parametrize("task", SOURCES)
def test_the_same_distribution_is_quiet_and_a_shift_is_loud(
    task: str, images: Path, texts: Path, tmp_path: Path
) -> None:
    """Ten draws: columns may alarm with probability 0.05 each time, the embeddings with 0.01; more than 3 and 1 in ten
    have a probability of 0.0010 and 0.0043."""
    project = images if task == "image_classification" else texts

    def one(seed: int, shifted: bool = False) -> dict[str, float]:
        data = tmp_path / f"{seed}-{shifted}"
        if task == "image_classification":
            monitored.more_images(data, 60, seed, shifted)
        else:
            monitored.more_texts(data / "t.csv", 60, seed, shifted)
        return looked(project, data, task)[2].metrics

    quiet = [one(seed) for seed in range(10)]
    assert sum(m["num_columns_drifted"] > 0 for m in quiet) <= 3
    assert sum(m["embeddings_drifted"] for m in quiet) <= 1
    loud = one(99, shifted=True)
    assert loud["embeddings_drifted"] == 1
    assert loud["share_of_columns"] > 0.3
    assert set(loud) <= set(figures.METRICS)


def test_unlabelled_samples_have_no_accuracy_and_labels_are_compared_with_the_record(
    images: Path, tmp_path: Path
) -> None:
    monitored.more_images(tmp_path / "plain", 30, 3, labelled=False)
    _, _, without = looked(images, tmp_path / "plain")
    assert without.metrics["num_labelled"] == 0
    assert "accuracy" not in without.metrics
    monitored.more_images(tmp_path / "labelled", 30, 3)
    (tmp_path / "labelled" / "oval").mkdir()
    monitored.more_images(tmp_path / "labelled" / "oval", 2, 4, labelled=False)
    _, said, found = looked(images, tmp_path / "labelled")
    assert found.metrics["num_labelled"] == 32
    assert found.unknown_labels == {"oval": 2}
    assert found.metrics["accuracy_low"] < found.metrics["accuracy"] < found.metrics["accuracy_high"]
    assert len(said.predicted) == 32
    assert any(one.column == "true label" for one in found.columns)


def test_accuracy_and_its_loss_are_the_known_figures() -> None:
    """Newcombe 1998, table II, case (a): 56/70 - 48/80 has the interval 0.0524 to 0.3339."""
    from components import quality

    labels = ["a"] * 80
    predicted = np.array(["a"] * 48 + ["b"] * 32, dtype=object)
    found = measure.accuracy(labels, predicted, quality.wilson(56, 70, 0.95))
    assert found["accuracy"] == 0.6
    assert found["accuracy_loss"] == pytest.approx(0.2)
    assert found["accuracy_loss_low"] == pytest.approx(0.0524, abs=5e-5)
    assert found["accuracy_loss_high"] == pytest.approx(0.3339, abs=5e-5)
    assert "accuracy" not in measure.accuracy(["a"] * 9, predicted, None), "nine are too few"
    assert "accuracy_loss" not in measure.accuracy(labels, predicted, None)
    assert measure.accuracy([None] * 20, predicted, Interval(1, 1, 1)) == {"num_labelled": 0.0}


def test_only_what_is_new_is_read_and_twice_the_same_is_one(images: Path, tmp_path: Path) -> None:
    files = monitored.more_images(tmp_path / "data", 12, 5)
    shutil.copy(files[0], files[0].with_name("copy.png"))
    first, _, _ = looked(images, tmp_path / "data")
    assert len(first.table) == 12
    second, _, _ = looked(images, tmp_path / "data", seen=first.marks)
    assert (len(second.table), second.marks) == (0, frozenset())
    third, _, _ = looked(images, tmp_path / "data", known=first.table["sha256"][:5])
    assert len(third.table) == 7
    assert len(third.marks_of_known) >= 5
    fourth, _, _ = looked(images, tmp_path / "data", seen=first.marks | {"nothing"})
    assert len(fourth.table) == 0
    os.utime(files[1])  # another time, the same bytes: read, and known by its content
    assert len(looked(images, tmp_path / "data", seen=first.marks)[0].table) == 0


def test_the_training_data_themselves_are_not_new(images: Path, tmp_path: Path) -> None:
    manifest = read_table(images / "artifacts/ingest/manifest.parquet")
    arrived, _, measured = looked(images, images / "data", known=manifest["sha256"])
    assert len(arrived.table) == 0
    assert measured.metrics["num_new"] == 0


def test_half_copied_files_wait_and_broken_ones_are_counted(images: Path, tmp_path: Path) -> None:
    files = monitored.more_images(tmp_path / "data", 12, 6)
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    (tmp_path / "data" / "circle" / "broken.png").write_bytes(b"\x89PNG not at all")
    old = time.time() - 3600
    os.utime(tmp_path / "data" / "circle" / "broken.png", (old, old))
    arrived, _, measured = looked(images, tmp_path / "data")
    assert arrived.num_arriving == 1
    assert arrived.unreadable == {"truncated_or_corrupt": 1}
    assert measured.metrics["num_unreadable"] == 1
    assert measured.metrics["share_unreadable"] == pytest.approx(1 / 12)
    files[0].write_bytes(whole)
    later, _, _ = looked(images, tmp_path / "data", seen=arrived.marks)
    assert list(later.table["id"]) == [files[0].relative_to(tmp_path / "data").as_posix()]
    assert later.unreadable == {}, "each is counted once"


def test_without_a_profile_drift_is_not_measured_and_its_rules_fail(images: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(images / BUNDLE, bare / BUNDLE, ignore=shutil.ignore_patterns("profile"))
    monitored.more_images(tmp_path / "data", 20, 7)
    _, _, measured = looked(bare, tmp_path / "data")
    assert "share_of_columns" not in measured.metrics
    assert "profile_samples" in measured.headline
    rules = [
        rule("monitor.share_of_columns", at_most=0.5),
        rule("monitor.embeddings_drifted", at_most=0, optional=True),
    ]
    verdict = figures.judge(rules, measured.metrics, measured.why_not)
    assert [one.passed for one in verdict.rules] == [False, True]
    assert "profile_samples" in verdict.rules[0].why


def rule(metric: str, optional: bool = False, **limit: float) -> Any:
    return operations.Rule(metric=metric, optional=optional, **limit)


def test_a_rule_holds_on_its_limit_and_fails_beyond() -> None:
    rules = [rule("monitor.accuracy", at_least=0.5), rule("monitor.num_unreadable", at_most=3)]
    verdict = figures.judge(rules, {"accuracy": 0.5, "num_unreadable": 4.0})
    assert [one.passed for one in verdict.rules] == [True, False]
    assert not verdict.passed
    assert verdict.rules[1].why == "4 is above 3, by 1"
    assert figures.judge(rules[:1], {"accuracy": float("nan")}).rules[0].why == "not measured"


def test_an_unknown_metric_is_told_with_the_known_ones() -> None:
    assert figures.unknown("monitor.accuracy_low") == ""
    told = figures.unknown("monitor.acuracy")
    assert "did you mean `monitor.accuracy`?" in told
    assert all(f"monitor.{name}" in told for name in figures.METRICS)


def test_a_bundle_of_another_decision_or_a_broken_one_is_refused(images: Path, tmp_path: Path) -> None:
    monitored.more_images(tmp_path / "data", 12, 8)
    base = Job.at(tmp_path / "job", "monitor", decision="multi_label")
    inner = Job("ingest", base.run, base.work("arrived"), ())
    arrived = arrivals.gather(
        tmp_path / "data", SOURCES["image_classification"], (), (), inner, Job.at(tmp_path, "monitor"), 0.0
    )
    with pytest.raises(InputError, match="multi_label"):
        answers.ask(images / BUNDLE, arrived.table, inner.root, base)
    broken = Path(shutil.copytree(images / BUNDLE, tmp_path / "broken"))
    (broken / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match="cannot be run"):
        answers.ask(broken, arrived.table, inner.root, Job.at(tmp_path, "monitor"))


def test_a_source_that_does_not_fit_the_task_is_told(tmp_path: Path) -> None:
    run = Job.at(tmp_path, "monitor", task="text_classification")
    assert isinstance(run.run, Run)
    inner = Job("ingest", run.run, run.work("arrived"), ())
    with pytest.raises(InputError, match=r"monitor\.source"):
        arrivals.gather(tmp_path, SOURCES["image_classification"], (), (), inner, run, 0.0)


def test_the_fingerprint_sees_every_change_and_reads_no_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "deep" / "a").write_text("1")
    first = folders.fingerprint(data)
    assert folders.fingerprint(data) == first
    (data / "deep" / "a").chmod(0)  # nobody may read it
    assert folders.fingerprint(data) == first
    (data / "deep" / "b").symlink_to("nowhere")
    second = folders.fingerprint(data)
    os.utime(data / "deep" / "a", (1, 1))
    assert len({first, second, folders.fingerprint(data), folders.fingerprint(data / "deep")}) == 4
