"""The stage `export` on real images and a real tiny network."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import upstream

from components import plugins
from components.contracts import (
    InputError,
    Interval,
    Refused,
    Rule,
    Verdict,
    read_json,
    read_table,
    record,
    write_json,
    write_table,
)
from components.job import Job


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    root = tmp_path_factory.mktemp("project")
    upstream.before_export(root)
    return root, upstream.export(root)


def _digests(root: Path) -> dict[str, str]:
    folder = root / "artifacts/export"
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _prepared(root: Path) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    from components.model import load_run

    model, record = load_run(root / "artifacts/finetune/runs/main")
    task = plugins.load("tasks", "image_classification")
    job = Job.at(root)
    rows = task.prepare(
        upstream.test_rows(root), record.preprocessing, root, job.cache("pixels"), 2, lambda items, *_: items
    )
    return model, record, task.collate(rows, record.preprocessing)[0], np.ascontiguousarray(rows)


def test_the_model_gives_what_the_training_code_gives(project: tuple[Path, dict[str, float]]) -> None:
    import onnxruntime

    root, _ = project
    model, _, pixels, images = _prepared(root)
    session = onnxruntime.InferenceSession(root / "artifacts/export/model.onnx")
    label, probabilities, embedding = session.run(None, {"image": images})
    with torch.inference_mode():
        features = model.backbone(torch.from_numpy(pixels))
        logits = model.head(features)
    expected = torch.softmax(logits / upstream.TEMPERATURE, 1).numpy()
    assert label.dtype == np.int64
    np.testing.assert_array_equal(label, logits.argmax(1).numpy())
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    np.testing.assert_allclose(embedding, features.numpy(), atol=1e-4)
    # the comparison can fail: without the temperature it does
    assert np.abs(probabilities - torch.softmax(logits, 1).numpy()).max() > 0.01


def test_any_batch_size_is_taken(project: tuple[Path, dict[str, float]]) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(project[0] / "artifacts/export/model.onnx")
    for batch in (1, 2, 5):
        found = session.run(None, {"image": np.zeros((batch, 40, 33, 3), np.uint8)})
        assert [len(f) for f in found] == [batch] * 3


def test_export_json_says_what_was_measured(project: tuple[Path, dict[str, float]]) -> None:
    root, metrics = project
    told = read_json(root / "artifacts/export/export.json")
    assert told["inputs"] == [{"name": "image", "shape": ["batch", "height", "width", 3], "dtype": "uint8"}]
    assert [(o["name"], o["dtype"]) for o in told["outputs"]] == [
        ("label", "int64"), ("probabilities", "float32"), ("embedding", "float32"),
    ]  # fmt: skip
    assert told["outputs"][1]["shape"] == ["batch", 3]
    parity = told["parity"]
    assert parity["num_samples"] == len(upstream.test_rows(root)) == 21
    assert {b: (v["num_samples"], v["last_batch"]) for b, v in parity["batches"].items()} == {
        "1": (21, 1), "7": (21, 7), "16": (21, 5),
    }  # fmt: skip
    assert 0 < parity["relative"] < 1e-4
    assert parity["flips"] == 0
    assert told["temperature"] == upstream.TEMPERATURE
    assert metrics["parity_max_relative"] == parity["relative"]
    assert metrics["opset"] == told["opset"] == 20
    assert metrics["size_mb"] == pytest.approx((root / "artifacts/export/model.onnx").stat().st_size / 1e6, abs=1e-3)


def test_golden_examples_are_of_different_labels(project: tuple[Path, dict[str, float]]) -> None:
    examples = read_json(project[0] / "artifacts/export/export.json")["examples"]
    assert len({e["label"] for e in examples}) == 3
    assert all(sum(e["probabilities"]) == pytest.approx(1, abs=1e-5) for e in examples)


def test_a_second_run_gives_the_same_bytes(project: tuple[Path, dict[str, float]]) -> None:
    root, metrics = project
    before = _digests(root)
    assert upstream.export(root) == metrics
    assert _digests(root) == before


def test_latency_is_reported_and_not_hashed(project: tuple[Path, dict[str, float]]) -> None:
    root, _ = project
    found = read_json(root / "reports/export/ladder.json")["rungs"][0]
    assert set(found["latency_ms"]) == {"1", "16"}
    assert found["memory_mb"] > found["size_mb"]
    assert (root / "reports/export/ladder.png").read_bytes().startswith(b"\x89PNG")
    for name in ("export.json", "variants/ladder.json", "verdict.json"):
        text = (root / "artifacts/export" / name).read_text()
        assert not any(word in text for word in ("_ms", "seconds", "memory_mb")), name


def test_a_refused_gate_stops_before_anything_is_made(tmp_path: Path) -> None:
    upstream.before_export(tmp_path, per_label=8)
    upstream.judge(tmp_path, False)
    with pytest.raises(Refused, match=r"gate refused(.|\n)*below 0.95"):
        upstream.export(tmp_path)
    assert not (tmp_path / "artifacts/export").exists()


def test_a_model_that_differs_is_refused_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that writes another network's weights: the condition must hold it."""
    from components.decisions import single_label
    from components.export.network import Deployed
    from components.export.parity import ParityError
    from components.export.targets import onnx as target

    upstream.before_export(tmp_path, per_label=8)
    other = Deployed(upstream.network(upstream.backbone_spec(), 3, seed=1), upstream.TEMPERATURE, single_label).eval()
    real = target.export
    monkeypatch.setattr(target, "export", lambda model, *rest: real(other, *rest))
    with pytest.raises(ParityError, match=r"export\.max_difference") as caught:
        upstream.export(tmp_path)
    assert isinstance(caught.value, Refused)
    assert not list(tmp_path.glob("artifacts/**/model.onnx"))


TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("texts")
    upstream.before_text_export(root, spec := upstream.tiny_bert(root))
    shutil.rmtree(spec["weights"]["path"])  # a run needs nothing but its own folder
    upstream.export(root)
    return root


def test_a_text_run_has_batch_and_length_free(texts: Path) -> None:
    import onnxruntime

    told = read_json(texts / "artifacts/export/export.json")
    assert told["inputs"] == [{"name": name, "shape": ["batch", "length"], "dtype": "int64"} for name in TEXT_INPUTS]
    assert [o["shape"] for o in told["outputs"]] == [["batch"], ["batch", 2], ["batch", 32]]
    assert told["parity"]["num_samples"] == len(upstream.test_rows(texts))
    assert (told["parity"]["relative"] < 1e-4, told["parity"]["flips"]) == (True, 0)
    session = onnxruntime.InferenceSession(texts / "artifacts/export/model.onnx")
    for batch in (1, 2, 7):
        for length in (1, 9, 24):
            ones = np.ones((batch, length), np.int64)
            found = session.run(None, dict.fromkeys(TEXT_INPUTS, ones))
            assert [len(f) for f in found] == [batch] * 3


def test_a_text_run_gives_what_torch_gives_at_any_padding(texts: Path) -> None:
    import onnxruntime

    from components.model import Feed, load_run

    model, record = load_run(texts / "artifacts/finetune/runs/main")
    feed = Feed.of(record.task, record.preprocessing)
    rows = feed.prepare(upstream.test_rows(texts), Job.at(texts))
    session = onnxruntime.InferenceSession(texts / "artifacts/export/model.onnx")
    together = feed.collate(rows)
    probabilities = session.run(["probabilities"], dict(zip(record.preprocessing["inputs"], together)))[0]
    with torch.inference_mode():
        logits = torch.cat([model(*map(torch.from_numpy, feed.collate(rows[i : i + 1]))) for i in range(len(rows))])
    np.testing.assert_allclose(probabilities, torch.softmax(logits / upstream.TEMPERATURE, 1), atol=1e-5)
    assert (together[1].min(axis=0) == 0).any()  # some were padded


def test_params_out_of_range_are_refused() -> None:
    from pydantic import ValidationError

    from components.export.stage import Params

    with pytest.raises(ValidationError) as caught:
        Params.model_validate({"target": "onx", "max_difference": {"embedding": 0}, "max_flips": -1})
    told = str(caught.value)
    assert all(key in told for key in ("did you mean `onnx`", "max_difference", "max_flips"))


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    root = tmp_path_factory.mktemp("quantised")
    upstream.before_export(root, per_label=40)
    static = {"name": "int8_static", "parts": 2}
    settings = {"rungs": ["int8_dynamic", static], "variant": "int8_static", "max_loss": 1.0, "max_size_mb": 0.1}
    return root, upstream.export(root, **settings)


def test_a_pinned_variant_ships_with_float32_beside_it(quantised: tuple[Path, dict[str, float]]) -> None:
    root, metrics = quantised
    told = read_json(root / "artifacts/export/export.json")
    assert (told["variant"], told["decided"], told["why"]) == (
        "int8_static", "pinned", "export.variant pins int8_static",
    )  # fmt: skip
    assert set(_digests(root)) == {
        "export.json", "metrics.json", "model.onnx", "variants/fp32.onnx", "variants/ladder.json", "verdict.json",
        "companion/companion.json", "outputs.safetensors",
    }  # fmt: skip
    assert "no other graph" in read_json(root / "artifacts/export/companion/companion.json")["why"]
    ladder = read_json(root / "artifacts/export/variants/ladder.json")
    rungs = {rung["name"]: rung for rung in ladder["rungs"]}
    assert [rung["shipped"] for rung in rungs.values()] == [False, False, True]
    assert rungs["int8_dynamic"]["why"].startswith("not tried: ")
    assert rungs["fp32"]["why"] == "not asked for: export.variant pins int8_static"
    loss = rungs["int8_static"]["losses"]["validation"]
    assert (metrics["accuracy_gain"], metrics["accuracy_gain_low"]) == (loss["gain"]["value"], loss["gain"]["low"])
    assert rungs["int8_static"]["losses"]["test"]["num_samples"] == len(upstream.test_rows(root))
    assert 0 < loss["outputs"]["embedding"]["mean_relative"] < 0.2
    num = len(upstream.rows_of(root, "validation"))
    assert {batch: one["num_samples"] for batch, one in loss["batches"].items()} == {"1": min(64, num), "7": num}
    assert "cut off" in told["limits"][0]


def test_golden_examples_of_a_variant_are_its_own(quantised: tuple[Path, dict[str, float]]) -> None:
    import onnxruntime

    root, _ = quantised
    _, _, _, images = _prepared(root)
    places = [root / "artifacts/export" / name for name in ("model.onnx", "variants/fp32.onnx")]
    own, first = (onnxruntime.InferenceSession(place) for place in places)
    told = read_json(root / "artifacts/export/export.json")
    ids = list(upstream.test_rows(root)["id"])
    gaps = []
    for example in told["examples"]:
        one = images[ids.index(example["id"])][None]
        np.testing.assert_allclose(
            example["probabilities"], own.run(["probabilities"], {"image": one})[0][0], atol=1e-6
        )
        gaps.append(np.abs(first.run(["probabilities"], {"image": one})[0][0] - example["probabilities"]).max())
    assert max(gaps) > 1e-5
    assert told["example_tolerance"] > 1e-4


def test_a_model_over_budget_is_a_refusal_of_what_rests_on_it(quantised: tuple[Path, dict[str, float]]) -> None:
    root, metrics = quantised
    assert metrics["blessed"] == 0
    rules = read_json(root / "artifacts/export/verdict.json")["rules"]
    assert [(rule["name"], rule["passed"]) for rule in rules] == [
        ("load and query in a fresh process", True), ("export.max_size_mb at most 0.1", False),
    ]  # fmt: skip
    assert rules[0]["why"].endswith("the test split has fewer than 100 samples")
    assert "test samples" in rules[0]["why"]
    with pytest.raises(Refused, match=r"export refused:(.|\n)*`export\.max_size_mb`"):
        Job.at(root, "handoff", ("export",)).source("export", "model.onnx")


def _asked(root: Path, split: str, name: str = "model.onnx") -> dict[str, np.ndarray]:
    """What a file that export left says of a split, by itself."""
    import onnxruntime

    record = read_json(root / "artifacts/finetune/runs/main/run.json")
    task, job = plugins.load("tasks", "image_classification"), Job.at(root)
    rows = task.prepare(
        upstream.rows_of(root, split), record["preprocessing"], root, job.cache("pixels"), 2, lambda items, *_: items
    )
    session = onnxruntime.InferenceSession(root / "artifacts/export" / name)
    return dict(zip(("label", "probabilities", "embedding"), session.run(None, {"image": np.ascontiguousarray(rows)})))


@pytest.mark.parametrize("which", ["project", "quantised"])
def test_what_ships_is_measured_by_itself(which: str, request: pytest.FixtureRequest) -> None:
    from sklearn import metrics as reference

    root, _ = request.getfixturevalue(which)
    told = read_json(root / "artifacts/export/export.json")
    worth, found = told["shipped"], _asked(root, "test")
    rows = upstream.test_rows(root)
    labels = sorted(set(rows["label"]))
    guess = [labels[i] for i in found["label"]]
    assert (worth["variant"], worth["split"], worth["num_samples"]) == (told["variant"], "test", len(rows))
    assert set(worth["measures"]) == {
        "accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "f1_macro", "log_loss", "ece",
    }  # fmt: skip
    for name, wanted in {
        "accuracy": reference.accuracy_score(rows["label"], guess),
        "balanced_accuracy": reference.balanced_accuracy_score(rows["label"], guess),
        "f1_macro": reference.f1_score(rows["label"], guess, average="macro"),
        "log_loss": -np.log(found["probabilities"][range(len(rows)), [labels.index(n) for n in rows["label"]]]).mean(),
    }.items():
        interval = worth["measures"][name]
        assert interval["value"] == pytest.approx(wanted, rel=1e-5), name
        assert interval["low"] <= interval["value"] <= interval["high"]
        assert interval["level"] == upstream.QUALITY["level"]
    assert {*told["parity"]} - {*worth["parity"]} == {"limits", "max_flips", "from_float64", "runtime"}
    assert set(worth["parity"]["batches"]) == {"1", "7", "16"}
    if which == "project":
        assert {k: told["parity"][k] for k in worth["parity"]} == worth["parity"]
    else:
        assert worth["parity"]["relative"] > 100 * told["parity"]["relative"]


@pytest.mark.parametrize("which", ["project", "quantised"])
def test_outputs_of_what_ships_are_kept_in_the_order_of_ids(which: str, request: pytest.FixtureRequest) -> None:
    from safetensors.numpy import load_file

    root, _ = request.getfixturevalue(which)
    kept, found = load_file(root / "artifacts/export/outputs.safetensors"), _asked(root, "validation")
    assert set(kept) == {"probabilities", "embedding"}
    for name, values in kept.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, found[name], atol=1e-4)
    if which == "quantised":
        other = _asked(root, "validation", "variants/fp32.onnx")
        assert np.abs(other["embedding"] - kept["embedding"]).max() > 1e-3


def test_the_gates_rules_are_judged_again_on_what_ships(quantised: tuple[Path, dict[str, float]]) -> None:
    from components.export import shipped

    root, _ = quantised
    measures = read_json(root / "artifacts/export/export.json")["shipped"]["measures"]
    intervals = {name: record(Interval, told) for name, told in measures.items()}
    floor = measures["accuracy"]["low"]

    def passed(name: str, metric: str, side: str, limit: float) -> Rule:
        return Rule(name, True, 1.0, limit, 0.1, metric=metric, side=side)

    gate = Verdict("gate", True, (
        passed("quality (evaluate.accuracy_low at least x)", "evaluate.accuracy_low", "at_least", floor),
        passed("evaluate.accuracy_low at least y", "evaluate.accuracy_low", "at_least", floor + 1e-9),
        passed("evaluate.ece at most 0", "evaluate.ece", "at_most", 0.0),
        passed("evaluate.transfer_gain_low at least 0", "evaluate.transfer_gain_low", "at_least", 0.0),
        passed("bias.accuracy_gap at most 0.1", "bias.accuracy_gap", "at_most", 0.1),
        passed("written by an older gate", "", "", 0.1),
    ))  # fmt: skip
    rules, others = shipped.judged_again(gate, intervals, 21, "int8_static")
    assert [(rule.name, rule.passed) for rule in rules] == [
        ("quality (evaluate.accuracy_low at least x), of int8_static", True),
        ("evaluate.accuracy_low at least y, of int8_static", False),
        ("evaluate.ece at most 0, of int8_static", False),
    ]
    assert rules[0].margin == 0
    assert (rules[2].value, rules[2].margin) == (measures["ece"]["value"], -measures["ece"]["value"])
    assert [name.split()[0] for name in others] == ["evaluate.transfer_gain_low", "bias.accuracy_gap", "written"]


def test_a_model_that_fails_the_gates_rule_is_refused(tmp_path: Path) -> None:
    """The gate passed the trained network; what ships is judged by what it gives itself."""
    upstream.before_export(tmp_path, per_label=8)
    bias = Rule("bias.accuracy_gap at most 0.1", True, 0.0, 0.1, 0.1, "", "bias.accuracy_gap", "at_most")
    name, of = "evaluate.accuracy_low at least 0.999", {"metric": "evaluate.accuracy_low", "side": "at_least"}
    verdict = Verdict("gate", True, (Rule(name, True, 1.0, 0.999, 0.001, "", **of), bias))
    write_json(tmp_path / "artifacts/gate/verdict.json", verdict)
    assert upstream.export(tmp_path)["blessed"] == 0
    told = read_json(tmp_path / "artifacts/export/export.json")["shipped"]
    assert told["not_judged_again"] == ["bias.accuracy_gap at most 0.1"]
    with pytest.raises(Refused, match=r"evaluate\.accuracy_low at least 0\.999, of fp32: measured on the file"):
        Job.at(tmp_path, "handoff", ("export",)).source("export", "model.onnx")


def test_a_flip_that_params_allow_is_not_held_against_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch decides one tie otherwise: the file is blessed by the answers that it gave itself."""
    from components.export import parity

    real = parity.eager

    def flipped(*rest: Any) -> dict[str, np.ndarray]:
        found = real(*rest)
        return {**found, "label": np.concatenate([(found["label"][:1] + 1) % 3, found["label"][1:]])}

    upstream.before_export(tmp_path, per_label=8)
    monkeypatch.setattr(parity, "eager", flipped)
    metrics = upstream.export(tmp_path, max_flips=1)
    assert (metrics["flips"], metrics["blessed"]) == (1, 1)
    with pytest.raises(parity.ParityError, match="1 of 6 labels flip"):
        upstream.export(tmp_path, max_flips=0)


@pytest.mark.slow
def test_a_quantised_variant_has_the_same_bytes_each_time(quantised: tuple[Path, dict[str, float]]) -> None:
    root, metrics = quantised
    before = _digests(root)
    static = {"name": "int8_static", "parts": 2}
    settings = {"rungs": ["int8_dynamic", static], "variant": "int8_static", "max_loss": 1.0, "max_size_mb": 0.1}
    assert upstream.export(root, **settings) == metrics
    assert _digests(root) == before


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"variant": "int8"}, "is not among auto, fp32, fp16"),
        ({"variant": "int8_static"}, "is not among auto, fp32, fp16"),
        ({"rungs": ["fp16", "fp16"]}, "names each once"),
        ({"rungs": ["fp32"]}, "not fp32, which is always there"),
        ({"rungs": ["int8_statik"]}, "did you mean `int8_static`"),
        ({"max_loss": -0.1}, "max_loss"),
        ({"min_speedup": 0.9}, "min_speedup"),
        ({"max_memory_mb": 0}, "max_memory_mb"),
    ],
)
def test_settings_that_make_no_ladder_are_refused(settings: dict[str, Any], told: str) -> None:
    from pydantic import ValidationError

    from components.export.stage import Params

    with pytest.raises(ValidationError) as caught:
        Params.model_validate({**upstream.EXPORT, "rungs": ["fp16"], **settings})
    assert told in str(caught.value)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_empty_split_is_told(split: str, tmp_path: Path) -> None:
    upstream.before_export(tmp_path, per_label=8)
    place = tmp_path / "artifacts/validate/accepted.parquet"
    table = read_table(place)
    write_table(place, table[table["split"] != split])
    with pytest.raises(InputError, match=rf"validate\.split\.{split}"):
        upstream.export(tmp_path)
