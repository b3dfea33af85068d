"""`python -m pipelines diff`: what differs between two bundles, and whether it matters."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_by_hand
import pytest
from made_by_hand import interval

from components.contracts import InputError
from components.handoff import signing
from pipelines import diff, latency
from pipelines.__main__ import main
from pipelines.diff import Side, compare, difference
from pipelines.diff_tables import summary

PARTS = ("metrics", "slices", "graph", "size", "data", "code", "params", "libraries", "weights")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Side]:
    def make(name: str, **changes: Any) -> Side:
        return Side(made_by_hand.bundle(tmp_path / name, **changes), name)

    return make


def _evaluation(accuracy: float) -> dict[str, Any]:
    told: dict[str, Any] = made_by_hand._told()["evaluation"]
    told["quality"]["shipped"]["accuracy"] = told["quality"]["float32"]["accuracy"] = interval(accuracy)
    told["groups"]["groups"][0]["measures"]["accuracy"] = interval(accuracy)
    return told


def test_a_bundle_does_not_differ_from_itself(make: Callable[..., Side]) -> None:
    told = compare(make("a"), make("b"))
    assert told["same_model"]
    assert told["files"] == {"only_a": [], "only_b": [], "differ": {}}
    assert set(PARTS) <= set(told)
    assert all(one["verdict"] == "equal" for one in (*told["metrics"], *told["slices"]["rows"]))
    for part in ("code", "params", "libraries", "data"):
        assert not told[part]["differ"]
        assert not told[part]["only_a"]
        assert not told[part]["only_b"]
    lines = summary(told)
    assert lines[0] == "the same model.onnx, byte for byte"
    assert all(
        "same" in line or "accuracy of model.onnx is 0.9 in both" in line or "figures of groups" in line
        for line in lines
    )


def test_each_part_names_what_changed(make: Callable[..., Side]) -> None:
    base = made_by_hand._told()
    b = make(
        "b", weight=2, evaluation=_evaluation(0.7), manifest="9" * 64, commit="2" * 40,
        params={**base["params"], "finetune": {"batch_size": 64, "patience": 3}},
        packages={"torch": "2.14.0", "numpy": "2.4.0"}, base_weights={**base["base_weights"], "sha256": "cd" * 32},
        code={**base["code"], "components/job.py": "7" * 64, "components/new.py": "8" * 64},
        ladder={"variant": "int8_dynamic"},
    )  # fmt: skip
    told = compare(make("a", ladder={"variant": "fp32"}), b)
    assert not told["same_model"]
    assert told["params"]["differ"] == {"finetune.batch_size": [32, 64]}
    assert told["params"]["only_b"] == ["finetune.patience"]
    assert list(told["code"]["differ"]) == ["components/job.py"]
    assert told["code"]["only_b"] == ["components/new.py"]
    assert told["code"]["commit"] == ["1" * 40, "2" * 40]
    assert told["libraries"]["differ"] == {"torch": ["2.13.0", "2.14.0"]}
    assert list(told["weights"]["base"]["differ"]) == ["sha256"]
    assert not told["data"]["same_samples"]
    assert told["data"]["same_splits"]
    assert [told["graph"][x]["variant"] for x in "ab"] == ["fp32", "int8_dynamic"]
    accuracy = next(one for one in told["metrics"] if one["metric"] == "shipped.accuracy")
    assert accuracy["verdict"] == "worse"
    dark = next(one for one in told["slices"]["rows"] if one["group"] == "dark")
    assert (dark["verdict"], dark["small"]) == ("worse", False)
    assert next(one for one in told["slices"]["rows"] if one["group"] == "odd")["small"]
    text = "\n".join(summary(told))
    for line in (
        "fp32 -> int8_dynamic",
        "accuracy of model.onnx 0.9 -> 0.7",
        "worse",
        "2 files of code differ",
        "1 library differs",
    ):
        assert line in text, line


def test_the_graph_is_read_from_the_model_itself(make: Callable[..., Side]) -> None:
    told = diff.graph(make("a"))
    assert told["ops"] == {"MatMul": 1, "Softmax": 1}
    assert told["opsets"] == {"ai.onnx": 20}
    assert told["inputs"] == [{"name": "pixels", "dtype": "float", "shape": ["batch", 4]}]
    assert told["weights"] == {"float": 1}


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x80\x04K\x01."])
def test_a_model_that_is_none_is_refused(make: Callable[..., Side], content: bytes) -> None:
    side = make("a")
    (side.folder / "model.onnx").write_bytes(content)
    with pytest.raises(InputError):
        diff.graph(side)


def test_the_interval_of_a_difference_is_that_of_the_method() -> None:
    """MOVER by hand: 0.8 [0.7, 0.85] and 0.9 [0.86, 0.95]."""
    told = difference("accuracy", {"value": 0.8, "low": 0.7, "high": 0.85}, {"value": 0.9, "low": 0.86, "high": 0.95})
    assert told["difference"] == pytest.approx(0.1)
    assert told["low"] == pytest.approx(0.1 - (0.04**2 + 0.05**2) ** 0.5)
    assert told["high"] == pytest.approx(0.1 + (0.05**2 + 0.1**2) ** 0.5)
    assert told["verdict"] == "better"


@pytest.mark.parametrize(
    ("metric", "b", "verdict"),
    [("accuracy", 0.80, "worse"), ("accuracy", 0.99, "better"), ("accuracy", 0.91, "no evidence"),
     ("evaluate.log_loss", 0.80, "better"), ("bias.accuracy_gap", 0.99, "worse"), ("accuracy", 0.90, "equal")],
)  # fmt: skip
def test_a_difference_matters_only_with_evidence_and_in_its_direction(metric: str, b: float, verdict: str) -> None:
    assert difference(metric, interval(0.9), interval(b))["verdict"] == verdict


def test_what_was_not_measured_is_said() -> None:
    assert difference("m", {"value": None}, interval(0.9))["verdict"] == "not measured on both sides"
    assert difference("m", {"value": 0.5}, {"value": 0.6})["verdict"] == "no interval"


def test_bundles_go_by_folder_project_tar_and_tag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = made_by_hand.Project(tmp_path / "project")
    made = made_by_hand.bundle(tmp_path / "tiny-1.0.0")
    project.commit(project.run(made, {"a": "x"}), "tiny@v1.0.0")
    shutil.copytree(made, project.root / "artifacts/handoff/bundle")
    signing.write_tar(made, "tiny-1.0.0", tmp_path / "tiny-1.0.0.tar")
    for name in (str(made), str(project.root), str(tmp_path / "tiny-1.0.0.tar"), "tiny@v1.0.0", "HEAD", "main"):
        assert diff.diff(project.root, name, str(made), as_json=True) == 0
        assert json.loads(capsys.readouterr().out)["files"] == {"only_a": [], "only_b": [], "differ": {}}, name


def test_a_version_that_the_cache_lost_is_told_plainly(tmp_path: Path) -> None:
    project = made_by_hand.Project(tmp_path / "project")
    made = made_by_hand.bundle(tmp_path / "tiny")
    outs = project.run(made, {"a": "x"})
    project.commit(outs)
    shutil.rmtree(project.cache)
    with pytest.raises(InputError, match=r"its list of files are not in DVC's cache.*dvc fetch --all-commits"):
        diff.diff(project.root, "HEAD", str(made))


def _link(tmp_path: Path) -> Path:
    place = tmp_path / "bad.tar"
    (tmp_path / "x").mkdir()
    (tmp_path / "x/link").symlink_to("/etc/passwd")
    with tarfile.open(place, "w") as tar:
        tar.add(tmp_path / "x", "x")
    return place


@pytest.mark.parametrize("kind", ["missing", "text", "folder", "link"])
def test_what_is_no_bundle_is_refused_without_a_traceback(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("no tar")
    (tmp_path / "folder").mkdir()
    name = str(_link(tmp_path)) if kind == "link" else str(tmp_path / kind)
    monkeypatch.chdir(tmp_path)
    assert main(["diff", name, name]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert told.count("\n") <= 2


def test_a_person_sees_first_what_it_comes_to(make: Callable[..., Side], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = make("a"), make("b", evaluation=_evaluation(0.7), weight=3)
    assert diff.diff(a.folder.parent, str(a.folder), str(b.folder)) == 0
    told = capsys.readouterr().out
    assert told.index("another model.onnx") < told.index("Metrics (B minus A)") < told.index("Groups (B minus A)")
    assert "worse" in told


def test_latency_is_a_ratio_of_turns_in_processes_of_their_own(make: Callable[..., Side]) -> None:
    a, b = make("a"), make("b", weight=2)
    told = latency.measure(a.folder, b.folder, threads=1, rounds=2, seconds=0.02, batches=(1,))
    one = told["batches"]["1"]
    assert one["a_ms"] > 0
    assert one["ratio_low"] <= one["ratio"] <= one["ratio_high"]
    (a.folder / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"model\.onnx is refused \[unknown_format\]"):
        latency.measure(a.folder, b.folder, threads=1, rounds=1, seconds=0.02, batches=(1,))


def _slow(bundle: Path) -> None:
    """A model that takes long for its bytes: it goes round in a loop."""
    import onnx

    body = onnx.parser.parse_graph("body (int64 i, bool on, float[2] a) => (bool again, float[2] b) {"
                                   " again = Identity(on)\n b = Sin(a) }")  # fmt: skip
    graph = onnx.parser.parse_graph("slow (float[2] x) => (float[2] y) <int64 most = {200000000}, bool yes = {1}> { }")
    graph.node.append(onnx.helper.make_node("Loop", ["most", "yes", "x"], ["y"], body=body))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    (bundle / "model.onnx").write_bytes(model.SerializeToString())


def test_a_model_that_is_too_slow_to_measure_is_told_in_words(make: Callable[..., Side]) -> None:
    a, b = make("a"), make("b")
    _slow(b.folder)
    with pytest.raises(InputError, match=r"b/model\.onnx was stopped: measuring a model may take 2 s in all"):
        latency.measure(a.folder, b.folder, threads=1, rounds=1, seconds=0.02, batches=(1,), max_seconds=2)


def test_variants_of_one_training_differ_in_what_ships_and_not_in_what_was_trained(
    make: Callable[..., Side], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = made_by_hand._told()["evaluation"]
    evaluation["quality"]["shipped"]["accuracy"] = interval(0.8)
    evaluation["variant"] = "int8_static"
    metrics = {**made_by_hand._told()["metrics"], "shipped": {"accuracy": 0.8}}
    a = make("a", ladder={"variant": "fp32"})
    b = make("b", evaluation=evaluation, metrics=metrics, ladder={"variant": "int8_static"})
    told = compare(a, b)
    found = {one["metric"]: one for one in told["metrics"]}
    assert found["shipped.accuracy"]["verdict"] == "worse"
    assert found["evaluate.accuracy"]["verdict"] == "equal"
    line = next(line for line in summary(told) if line.startswith("accuracy"))
    assert line.startswith("accuracy of model.onnx 0.9 -> 0.8")
    assert line.endswith("; of the float32 network is 0.9 in both")
    assert diff.diff(a.folder.parent, str(a.folder), str(b.folder)) == 0
    assert "shipped.accuracy" in capsys.readouterr().out


def test_of_two_float32_models_a_figure_is_shown_once(make: Callable[..., Side]) -> None:
    from pipelines import diff_tables

    told = compare(make("a"), make("b", evaluation=_evaluation(0.7)))
    names = [one["metric"] for one in diff_tables._metrics(told["metrics"]) if one["difference"]]
    assert names == ["shipped.accuracy"]
    assert "float32" not in "".join(summary(told))


GARBAGE: list[tuple[str, Any, str]] = [
    ("metrics.json", [1], "metrics.json"),
    ("metrics.json", None, "metrics.json"),
    ("metrics.json", {"evaluate": 3}, "metrics.json is not as a bundle has it: evaluate"),
    ("metrics.json", {"evaluate": {"accuracy": "high"}}, "evaluate.accuracy"),
    ("evaluation.json", [1, 2], "evaluation.json is not as a bundle has it: the whole of it"),
    ("evaluation.json", None, "evaluation.json"),
    ("evaluation.json", "text", "evaluation.json"),
    ("evaluation.json", {"quality": {"shipped": {"accuracy": "0.9"}}}, "quality.shipped.accuracy"),
    ("evaluation.json", {"quality": {"shipped": {"accuracy": {"value": "0.9"}}}}, "quality.shipped.accuracy.value"),
    ("evaluation.json", {"groups": {"groups": [{}]}}, "groups.groups.0.grouping"),
    ("evaluation.json", {"groups": [1]}, "evaluation.json"),
    ("evaluation.json", {"data": 3}, "evaluation.json"),
    ("evaluation.json", {"verdicts": [3]}, "verdicts.0"),
    ("ladder.json", [[]], ""),
]


@pytest.mark.parametrize(("name", "value", "told"), GARBAGE, ids=[f"{n} {json.dumps(v)}" for n, v, _ in GARBAGE])
def test_a_file_that_holds_garbage_is_named(
    name: str, value: Any, told: str, make: Callable[..., Side], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = make("a"), make("b")
    (b.folder / name).write_text(json.dumps(value))
    made_by_hand.sums(b.folder)  # its checksums hold
    for order in ((a, b), (b, a)):
        code = main(["diff", *(str(one.folder) for one in order)])
        said = capsys.readouterr().err
        assert code == (2 if told else 0), said
        assert told in said
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"packages": [1]}, "'environment.packages' is not a dict"),
        ({"params": {"run": {"threads": "lots"}}}, "run.threads 'lots'; it must be a number from 1 on"),
        ({"params": {"run": {"threads": 0}}}, "run.threads 0"),
        ({"params": {"run": 3}}, "'params.run' is not a dict"),
        ({"params": {}}, ""),
    ],
)
def test_a_provenance_that_holds_garbage_is_named(
    changes: dict[str, Any], told: str, make: Callable[..., Side], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(latency, "measure", lambda a, b, threads: {"batches": {}})
    a, b = make("a", **changes), make("b")
    code = main(["diff", "--measure", str(a.folder), str(b.folder)])
    said = capsys.readouterr().err
    assert code == (2 if told else 0), said
    assert told in said


def test_a_preprocessing_that_holds_garbage_is_named(make: Callable[..., Side]) -> None:
    side = make("a")
    (side.folder / "preprocessing.json").write_text("[1]")
    with pytest.raises(InputError, match=r"preprocessing\.json is not as a bundle has it"):
        latency.sizes(side.folder)


def test_figures_in_an_older_form_count_as_not_measured(make: Callable[..., Side]) -> None:
    evaluation = made_by_hand._told()["evaluation"]
    evaluation["quality"] = evaluation["quality"]["float32"]
    told = compare(make("a", evaluation=evaluation), make("b"))
    assert "accuracy of model.onnx was not measured on both sides" in summary(told)
