"""A bundle whose model.onnx is not the float32 network: every page tells the figures of the file that ships."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from components.contracts import read_json
from components.handoff import facts, schemas, serving
from pipelines.__main__ import main

OWN, FLOAT32 = 0.8125, 0.91
TITLE = "model.onnx (int8_static)"


@pytest.fixture
def bundle(finished_variant: Path) -> Path:
    return finished_variant / "artifacts/handoff/bundle"


@pytest.fixture
def card(bundle: Path) -> str:
    return (bundle / "card.md").read_text()


@pytest.fixture
def annex(bundle: Path) -> dict[str, str]:
    parts = re.split(r"^## ", (bundle / "annex_iv.md").read_text(), flags=re.M)[1:]
    return {part.split(" ", 1)[0]: part for part in parts}


def test_the_first_figure_is_the_files_own_and_named_so(card: str) -> None:
    lines = card.split("---\n", 2)[2].splitlines()
    first = next(line for line in lines if "ccuracy" in line)
    assert first.startswith(f"Accuracy of {TITLE} on the test split: 0.8125, 95% interval 0.7925 to 0.8325.")
    assert first.endswith("The float32 network that it was made from: 0.9100, 95% interval 0.8900 to 0.9300.")


def test_hubs_read_the_files_own_figures(card: str) -> None:
    (line,) = (line for line in card.splitlines() if line.startswith("model-index: "))
    metrics = json.loads(line.removeprefix("model-index: "))[0]["results"][0]["metrics"]
    assert {one["value"] for one in metrics} == {OWN}
    assert all(one["name"] == f"{one['type']} of {TITLE}" for one in metrics)


def test_both_stand_side_by_side_in_the_table(card: str) -> None:
    assert f"| measure | {TITLE} | 95% interval | the float32 network | 95% interval |" in card
    assert "| accuracy | 0.8125 | 0.7925 to 0.8325 | 0.91 | 0.89 to 0.93 |" in card


def test_what_is_known_of_the_float32_network_alone_says_so(card: str, annex: dict[str, str]) -> None:
    for told in (
        f"groups and drift was measured of the float32 network, which {TITLE} was\nmade from, and of that alone",
        "The weakest labels of the float32 network, by F1:",
        "Did transfer help the training of the float32 network? Transfer helped",
        "Of the float32 network: Worst group: dark.",
        "Of the float32 network: No drift seen.",
        "gate: passed, on the figures of the float32 network",
        f"Not judged again on {TITLE}, because its own figures do not tell: bias.worst_group_accuracy at least 0.9.",
        f"export: passed, on those of {TITLE}",
    ):
        assert told in card, told
    for number, told in (
        ("2(a)", "did transfer help the training of the float32 network? Transfer helped"),
        ("2(g)", "groups of the float32 network: Worst group: dark."),
        ("2(g)", f"known of the float32 network alone, not of {TITLE}: bias.worst_group_accuracy at least 0.9"),
        ("3", "accuracy of the float32 network by brightness: worst dark"),
    ):
        assert told in annex[number], told


def test_no_figure_of_the_float32_network_stands_alone(card: str, bundle: Path) -> None:
    """quality.json says 0.91 of every measure."""
    table = card[card.index("| measure | model.onnx") : card.index("What follows about labels")]
    for page in (card.replace(table, ""), (bundle / "annex_iv.md").read_text()):
        lines = [line for line in page.splitlines() if "0.91" in line]
        assert lines, "it is told"
        assert all("float32" in line for line in lines), lines


def test_the_annex_tells_the_files_own_figures(annex: dict[str, str]) -> None:
    assert f"expected calibration error of {TITLE}: 0.8125" in annex["2(e)"]
    for number in ("2(g)", "3"):
        assert f"- Accuracy of {TITLE} on the test split: 0.8125" in annex[number]
    assert "Inner values beyond the calibrated ones are cut off." in annex["3"]


def test_each_parity_is_named(card: str, annex: dict[str, str], bundle: Path) -> None:
    rows = re.findall(r"^\| (.+?) \| \d+ \| (\S+) \| \S+ \| (\d+) \|$", card, flags=re.M)
    parity = read_json(bundle / "evaluation.json")["parity"]
    exact = parity["float32"]
    float32 = (f"{exact['relative']:.4g}", "0")
    assert rows == [(TITLE, "0.64", "2"), ("the float32 network (fp32)", *float32)]
    assert (
        f"{TITLE} against the trained network in PyTorch: at most 0.64 of the outputs' scale, 2 labels" in annex["2(g)"]
    )
    assert "the float32 network (fp32) against the trained network in PyTorch" in annex["2(g)"]


def test_the_limits_of_the_variant_stand_in_the_card_and_the_bom(
    card: str, bundle: Path, finished_variant: Path
) -> None:
    (limit,) = read_json(finished_variant / "artifacts/export/export.json")["limits"]
    assert f"\n- {limit}\n" in card.split("## Bias, Risks, and Limitations")[1].split("\n## ")[0]
    model = next(one for one in read_json(bundle / "bom.cdx.json")["components"] if one["bom-ref"] == "model")
    assert limit in model["modelCard"]["considerations"]["technicalLimitations"]


def test_the_bom_tells_the_files_own_figures_and_names_the_others(bundle: Path) -> None:
    assert schemas.problems(bundle) == []
    told = read_json(bundle / "bom.cdx.json")
    model = next(one for one in told["components"] if one["bom-ref"] == "model")
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    accuracy = {one["slice"]: one["value"] for one in metrics if one["type"] == "accuracy"}
    assert accuracy.pop("test") == str(OWN)
    assert accuracy.pop("test, float32 network") == str(FLOAT32)
    assert accuracy
    assert all(where.startswith("test, float32 network, brightness: ") for where in accuracy)
    assert {"name": "metric", "value": f"accuracy of {TITLE} on the test split: {OWN}"} in told["metadata"][
        "properties"
    ]


def test_programs_find_both_by_their_keys(bundle: Path) -> None:
    told = read_json(bundle / "evaluation.json")
    assert told["variant"] == "int8_static"
    assert {key: one["accuracy"]["value"] for key, one in told["quality"].items()} == {
        "shipped": OWN,
        "float32": FLOAT32,
    }
    assert set(told["parity"]) == {"shipped", "float32"}
    assert told["of_float32"] == ["per_label", "transfer", "groups", "drift"]
    metrics = read_json(bundle / "metrics.json")
    shipped = {key: metrics["shipped"][key] for key in ("accuracy", "accuracy_low", "accuracy_high")}
    assert shipped == pytest.approx({"accuracy": OWN, "accuracy_low": OWN - 0.02, "accuracy_high": OWN + 0.02})


def test_the_profile_is_of_the_file_that_ships(bundle: Path) -> None:
    assert read_json(bundle / "profile/profile.json")["variant"] == "int8_static"


def test_float32_and_int8_of_one_training_differ(
    bundle: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", str(finished / "artifacts/handoff/bundle"), str(bundle), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = {one["metric"]: one for one in told["metrics"]}
    assert found["shipped.accuracy"]["b"]["value"] == OWN
    assert found["shipped.accuracy"]["difference"] != 0
    assert found["evaluate.accuracy"]["difference"] == 0
    assert [told["graph"][side]["variant"] for side in "ab"] == ["fp32", "int8_static"]


NODES: dict[str, Any] = {
    "inputs": [{"name": "ids", "shape": ["batch", "length"], "dtype": "int64"}],
    "outputs": [{"name": "label", "shape": ["batch"], "dtype": "int64"}],
}


def test_a_server_puts_no_batches_together_where_an_answer_depends_on_its_batch() -> None:
    for variant in ("fp32", "fp16", "int8_static"):
        assert "\ndynamic_batching { }\n" in serving.config("a", {**NODES, "variant": variant})
    text = serving.config("a", {**NODES, "variant": "int8_dynamic"})
    assert not re.search(r"^dynamic_batching", text, flags=re.M)
    assert "# No dynamic_batching: an answer of int8_dynamic depends on the samples of its batch." in text
    assert "max_batch_size: 64" in text, "a batch of one caller is his own choice"


def test_every_rung_that_says_so_is_among_those_that_depend_on_their_batch() -> None:
    from components import plugins

    rungs = {name: plugins.load("export.rungs", name) for name in plugins.names("export.rungs")}
    assert {name for name, rung in rungs.items() if any("its batch" in one for one in rung.LIMITS)} == {
        *serving.BY_BATCH
    }


def test_metrics_are_flat_and_leave_out_what_was_not_measured() -> None:
    measures = {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}, "ece": {"value": None, "low": None, "high": None}}
    assert facts.metrics(measures) == {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6}
