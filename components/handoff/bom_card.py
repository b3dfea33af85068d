"""The model card inside the BOM: parameters, measured quality with intervals, considerations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from components.handoff.provenance import Provenance

UNSTATED = "not stated by owner"
NOT_APPLICABLE = "does not apply"
CARD = "genai:aibom:modelcard:"
"""Prefix of the properties of a model card, by the OWASP taxonomy."""
OF_LANGUAGE_MODELS = (
    "blockCount",
    "attentionHeadCount",
    "attentionHeadCountKV",
    "feedForwardLength",
    "ropeDimensionCount",
)

Json = dict[str, Any]
Facts = Mapping[str, Any]
"""What the card tells (facts.collect), `licence`, `contact`, and what is `stated` by the owner."""


def card(facts: Facts, origin: Provenance) -> Json:
    record, export = facts["record"], facts["export"]
    shapes = {one["name"]: one["shape"] for one in export["outputs"]}
    text = _tokens(record["preprocessing"])
    told: Json = {
        "hyperparameter": json.dumps(origin.params.get("finetune") or record["strategy"], sort_keys=True),
        "modelCardExplainability": facts["stated"].get("explainability"),
        "embeddingLength": next(
            (size for size in reversed(shapes.get("embedding", [])) if isinstance(size, int)), None
        ),
        "quantizationVersion": export.get("variant", "fp32"),
        "quantizationFileType": "ONNX",
        **(
            text or dict.fromkeys(("vocabSize", "tokenizerClass", "contextLength", *OF_LANGUAGE_MODELS), NOT_APPLICABLE)
        ),
    }
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": f"{record['task'].replace('_', '-')}, {record['decision'].replace('_', '-')}",
            "modelArchitecture": str(record["backbone"].get("model") or facts["chosen"]["title"]),
            "datasets": [{"ref": "data"}],
            "inputs": [{"format": _tensor(one)} for one in export["inputs"]],
            "outputs": [{"format": _tensor(one)} for one in export["outputs"]],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(facts))},
        "considerations": _considerations(facts),
        "properties": properties({CARD + name: value for name, value in told.items()}),
    }


def _tokens(preprocessing: Json) -> Json:
    """What a model of texts reads at most and how it cuts texts up, where it is one."""
    if "max_tokens" not in preprocessing:
        return {}
    model = json.loads(preprocessing["files"]["tokenizer.json"])["model"]
    return {
        "vocabSize": len(model["vocab"]),
        "tokenizerClass": model.get("type"),
        "contextLength": preprocessing["max_tokens"],
        **dict.fromkeys(OF_LANGUAGE_MODELS),
    }


def _tensor(one: Json) -> str:
    return f"{one['name']}: {one['dtype']} [{', '.join(map(str, one['shape']))}]"


def _metrics(facts: Facts) -> Iterable[Json]:
    """Of the file that ships first; what is known of the float32 network alone says so, where another one ships."""
    own = facts["shipped"]
    for name, found in sorted(own["measures"].items()):
        yield from _metric(name, found, own["split"])
    split = "test" if own["exact"] else "test, float32 network"
    if not own["exact"]:
        for name, found in sorted(facts["float32"]["test"].items()):
            yield from _metric(name, found, split)
    for row in facts["groups"]["groups"]:
        for name, found in sorted((row.get("measures") or {}).items()):
            yield from _metric(name, found, f"{split}, {row['grouping']}: {row['group']}")


def _metric(name: str, found: Json, where: str) -> Iterable[Json]:
    if found.get("value") is None:
        return
    told: Json = {"type": name, "value": f"{found['value']:.6g}", "slice": where}
    if found.get("low") is not None and found.get("high") is not None:
        told["confidenceInterval"] = {"lowerBound": f"{found['low']:.6g}", "upperBound": f"{found['high']:.6g}"}
    yield told


def _considerations(facts: Facts) -> Json:
    stated = facts["stated"]
    limits = [
        facts["decision"]["limit"], "The figures hold for data like the test split.",
        "Groups that the data does not name were not looked at.", *facts["sample"]["limits"],
        *facts["shipped"]["limits"],
    ]  # fmt: skip
    fair = []
    for gap in facts["groups"].get("gaps", []):
        size = gap.get("gap") or {}
        if size.get("value") is not None:
            sized = f"{size['value']:.4g} ({size['low']:.4g} to {size['high']:.4g})"
            told = f"{gap['measure']}{facts['shipped']['of']} differs by {sized} from that of"
            fair.append({
                "groupAtRisk": f"{gap['grouping']}: {gap['worst']}",
                "harms": f"{told} {gap['best']}", "mitigationStrategy": stated.get("mitigation") or UNSTATED,
            })  # fmt: skip
    risk = {"name": stated.get("ethical") or UNSTATED, "mitigationStrategy": stated.get("mitigation") or UNSTATED}
    return {
        "users": [stated.get("users") or UNSTATED],
        "useCases": [stated.get("intended_use") or UNSTATED],
        "technicalLimitations": limits,
        "performanceTradeoffs": [
            str(facts["export"].get("why") or "model.onnx computes in fp32; no smaller variant ships")
        ],
        "ethicalConsiderations": [risk],
        **({"fairnessAssessments": fair} if fair else {}),
    }


def properties(values: Mapping[str, Any]) -> list[Json]:
    """Sorted; what nobody said says so."""
    shown = {k: json.dumps(v, sort_keys=True) if isinstance(v, dict | list) else v for k, v in values.items()}
    return [{"name": k, "value": UNSTATED if v in (None, "") else str(v)} for k, v in sorted(shown.items())]
