"""The BOM: valid by both schemas, the same bytes each time, nothing invented, and scored honestly."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from signed import origin

from components.handoff import bom, completeness, schemas
from components.handoff.stated import Stated

MODEL = "5" * 64
LOCK = f"""# a comment
numpy==2.4.1 \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
    # via pandas
onnxruntime==1.31.1 ; python_version >= "3.11" \\
    --hash=sha256:{"c" * 64}
Py_Other.Name==1.0
"""
REQUIREMENTS = ("numpy==2.4.1", "onnxruntime==1.31.1", "py-other-name==1.0")


def _interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "level": 0.95}


def facts(**changes: Any) -> dict[str, Any]:
    """As facts.collect gives them, with what the section's params add."""
    record = {
        "task": "image_classification", "decision": "single_label", "strategy": {"name": "full", "epochs": 2},
        "epochs": 2, "backbone": {"name": "timm", "model": "lite0"}, "preprocessing": {"width": 32},
    }  # fmt: skip
    export = {
        "inputs": [{"name": "image", "shape": ["batch", "height", "width", 3], "dtype": "uint8"}],
        "outputs": [
            {"name": "label", "shape": ["batch"], "dtype": "int64"},
            {"name": "embedding", "shape": ["batch", 16], "dtype": "float32"},
        ],
    }
    groups = [
        {"grouping": "light", "group": "dark", "num": 9, "small": False, "measures": {"accuracy": _interval(0.5)}}
    ]
    gaps = [{"grouping": "light", "measure": "accuracy", "worst": "dark", "best": "bright", "gap": _interval(0.2)}]
    return {
        "name": "net", "description": "Labels one image.", "contact": "", "licence": "", "seed": 17,
        "record": record, "export": export, "chosen": {"title": "lite0"}, "stated": {},
        "sample": {"input": "an image of any size", "limits": ["One image at a time."]},
        "decision": {"answer": "one of 3 labels", "limit": "It always answers."},
        "data": {"num_used": 9, "num_quarantined": 1, "num_labels": 3}, "splits": {"train": 5, "test": 4},
        "shipped": {
            "exact": True, "of": "", "title": "model.onnx", "split": "test", "limits": [],
            "measures": {"accuracy": _interval(0.9), "ece": {"value": None, "low": None, "high": None}},
        },
        "groups": {"groups": groups, "gaps": gaps}, **changes,
    }  # fmt: skip


def build(**changes: Any) -> dict[str, Any]:
    return bom.build(facts(**changes), origin(), MODEL, LOCK, REQUIREMENTS)


def everything() -> dict[str, str]:
    """All that an owner can state."""
    return {name: "https://example.org/x" if name in ("repository", "website", "download", "paper") else "said"
            for name in Stated.model_fields}  # fmt: skip


@pytest.mark.parametrize("version", schemas.BOM_VERSIONS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"licence": "apache-2.0", "contact": "Ada <ada@example.org>", "stated": everything()},
        {"licence": "MIT OR Apache-2.0"},
        {"licence": "our own"},
        {"groups": {"groups": [], "gaps": []}},
    ],
)
def test_it_is_valid_by_both_strict_schemas(version: str, changes: dict[str, Any]) -> None:
    assert schemas.bom_errors(build(**changes), version) == []


@pytest.mark.parametrize("version", schemas.BOM_VERSIONS)
def test_the_schemas_can_refuse(version: str) -> None:
    whole = build()
    for spoil in (
        lambda b: b.update(serialNumber="17"),
        lambda b: b["components"][0].update(modelcard={}),
        lambda b: b["components"][0]["modelCard"]["modelParameters"]["approach"].update(type="guessing"),
        lambda b: b["components"][0]["hashes"][0].update(content="xyz"),
    ):
        spoilt = copy.deepcopy(whole)
        spoil(spoilt)
        assert schemas.bom_errors(spoilt, version)


def test_the_same_content_is_the_same_bytes_and_other_content_another_serial_number() -> None:
    assert json.dumps(build()) == json.dumps(build())
    serials = {build()["serialNumber"], build(licence="mit")["serialNumber"], build(name="other")["serialNumber"]}
    assert len(serials) == 3
    assert all(
        re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", s)
        for s in serials
    )
    assert "timestamp" not in json.dumps(build())


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(inner)


def test_what_the_owner_did_not_state_says_so() -> None:
    bare = build()
    model = bare["components"][0]
    assert model["licenses"] == [{"license": {"name": "not stated by owner"}}]
    assert model["supplier"] == {"name": "not stated by owner"}
    assert model["modelCard"]["considerations"]["useCases"] == ["not stated by owner"]
    assert "vcs" not in {one["type"] for one in model["externalReferences"]}
    assert not [
        text
        for text in _strings(build(stated=everything(), licence="mit", contact="a"))
        if text == "not stated by owner"
    ]


def test_licences_are_spdx_where_they_are() -> None:
    def of(licence: str) -> Any:
        return build(licence=licence)["components"][0]["licenses"]

    assert of("apache-2.0") == [{"license": {"id": "Apache-2.0"}}]
    assert of("MIT OR Apache-2.0") == [{"expression": "MIT OR Apache-2.0"}]
    assert of("our own") == [{"license": {"name": "our own"}}]


def test_parts_are_named_by_hash() -> None:
    parts = {one["bom-ref"]: one for one in build()["components"]}
    assert parts["model"]["hashes"] == [{"alg": "SHA-256", "content": MODEL}]
    assert parts["base-weights"]["hashes"][0]["content"] == "ab" * 32
    assert parts["base-weights"]["licenses"] == [{"license": {"id": "MIT"}}]
    assert parts["data"]["hashes"][0]["content"] == "1" * 64
    assert parts["lock"]["hashes"][0]["content"] == "4" * 64
    numpy = parts["pypi/numpy"]
    assert (numpy["purl"], numpy["scope"]) == ("pkg:pypi/numpy@2.4.1", "required")
    assert [h["content"] for h in numpy["externalReferences"][0]["hashes"]] == ["a" * 64, "b" * 64]
    assert "externalReferences" not in parts["pypi/py-other-name"], "the lock has no hash of it"


def test_measured_quality_has_its_intervals() -> None:
    metrics = build()["components"][0]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert metrics == [
        {"type": "accuracy", "value": "0.9", "slice": "test",
         "confidenceInterval": {"lowerBound": "0.8", "upperBound": "1"}},
        {"type": "accuracy", "value": "0.5", "slice": "test, light: dark",
         "confidenceInterval": {"lowerBound": "0.4", "upperBound": "0.6"}},
    ]  # fmt: skip
    fair = build()["components"][0]["modelCard"]["considerations"]["fairnessAssessments"]
    assert fair[0]["groupAtRisk"] == "light: dark"
    assert fair[0]["harms"] == "accuracy differs by 0.2 (0.1 to 0.3) from that of bright"


def test_a_model_of_texts_says_what_it_reads() -> None:
    record = facts()["record"] | {
        "preprocessing": {
            "max_tokens": 24,
            "files": {"tokenizer.json": json.dumps({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}})},
        },
    }  # fmt: skip
    found = {f.name: f.value for f in completeness.fields(build(record=record))}
    assert (found["vocab_size"], found["tokenizer_class"], found["context_length"]) == ("2", "BPE", "24")
    assert found["block_count"] == "not stated by owner"


def test_completeness_is_scored_by_the_registrys_weights() -> None:
    bare, whole = completeness.fields(build()), completeness.fields(build(licence="mit", stated=everything()))
    assert {c: sum(f.points for f in bare if f.category == c) for c in completeness.WEIGHTS} == {
        "required": 16, "metadata": 11, "component": 22, "model card": 37, "references": 13,
    }  # fmt: skip
    assert completeness.score(bare) == pytest.approx(
        20 + 20 * 4 / 11 + 20 * 19 / 22 + 30 * (3 + 2 + 2 + 2 + 1 + 1 + 1 + 1 + 1 + 1 + 1) / 37, abs=0.06
    )
    assert completeness.score(whole, applying=True) == 100
    assert 90 < completeness.score(whole) < 95, "fields of language models count against it in the plain score"


def test_every_field_counts() -> None:
    """A BOM without it scores less."""
    whole = completeness.fields(build(licence="mit", stated=everything()))
    full = completeness.score(whole, applying=True)
    for field in [f for f in whole if f.stated]:
        lacking = [
            completeness.Found(f.category, f.name, f.points, completeness.UNSTATED) if f is field else f for f in whole
        ]
        assert completeness.score(lacking, applying=True) < full
    assert completeness.fields({"components": []})[0].value == completeness.UNSTATED


def test_it_is_told_field_by_field() -> None:
    lines = completeness.told(build())
    assert len(lines) == len(completeness.FIELDS) + 2
    assert lines[0] == "required    bomFormat                           4  CycloneDX"
    assert lines[-2].startswith("completeness ")
    assert "suppliedBy" in lines[-1]
