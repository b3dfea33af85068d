"""How much of what a BOM of a model can say this one says, field by field.

Fields, categories and weights are those of the OWASP AIBOM generator's registry (src/models/field_registry.json,
2026); its paths are mended to where CycloneDX has the fields: the model is a component, and the paths to
`$.component` reach nothing. "not stated by owner" counts as missing. A field of language models that a classifier has
none of ("does not apply") counts as missing in the plain score, and not at all in the one of what applies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.handoff.bom_card import CARD, NOT_APPLICABLE, UNSTATED

WEIGHTS = {"required": 20, "metadata": 20, "component": 20, "model card": 30, "references": 10}


@dataclass(frozen=True)
class Found:
    """One field."""

    category: str
    name: str
    points: float
    value: str
    """What the BOM says, `not stated by owner`, or `does not apply`."""

    @property
    def stated(self) -> bool:
        """Whether it says something."""
        return self.value not in (UNSTATED, NOT_APPLICABLE)


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(value, list):
            value = value[int(key)] if len(value) > int(key) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def _model(bom: dict[str, Any]) -> Any:
    parts = bom.get("components", [])
    return next((one for one in parts if one.get("type") == "machine-learning-model" and "modelCard" in one), {})


def _in(path: str) -> Callable[[dict[str, Any]], Any]:
    return lambda bom: _at(bom, path)


def _of_model(path: str) -> Callable[[dict[str, Any]], Any]:
    return lambda bom: _at(_model(bom), path)


def _property(name: str, path: str = "metadata.properties") -> Callable[[dict[str, Any]], Any]:
    return lambda bom: next((p["value"] for p in _at(bom, path) or [] if p["name"] == name), None)


def _card(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda bom: _property(CARD + name, "properties")(_at(_model(bom), "modelCard") or {})


def _reference(*kinds: str) -> Callable[[dict[str, Any]], Any]:
    def find(bom: dict[str, Any]) -> Any:
        places = [
            *(_model(bom).get("externalReferences") or []),
            *(_at(bom, "metadata.component.externalReferences") or []),
        ]
        return next((one["url"] for one in places if one["type"] in kinds), None)

    return find


_PARAMETERS, _CONSIDERED = "modelCard.modelParameters", "modelCard.considerations"
FIELDS: tuple[tuple[str, str, float, Callable[[dict[str, Any]], Any]], ...] = (
    ("required", "bomFormat", 4, _in("bomFormat")),
    ("required", "specVersion", 4, _in("specVersion")),
    ("required", "serialNumber", 4, _in("serialNumber")),
    ("required", "version", 4, _in("version")),
    ("metadata", "primaryPurpose", 4, _of_model(f"{_PARAMETERS}.task")),
    ("metadata", "suppliedBy", 4, _of_model("supplier.name")),
    ("metadata", "standardCompliance", 1, _property("standardCompliance")),
    ("metadata", "domain", 1, _property("domain")),
    ("metadata", "autonomyType", 1, _property("autonomyType")),
    ("component", "name", 4, _of_model("name")),
    ("component", "type", 4, _of_model("type")),
    ("component", "version", 4, _of_model("version")),
    ("component", "purl", 3, _of_model("purl")),
    ("component", "description", 3, _of_model("description")),
    ("component", "licenses", 3, lambda bom: _licence(_model(bom))),
    ("component", "externalReferences", 1, _of_model("externalReferences.0.url")),
    ("model card", "datasets", 3, _of_model(f"{_PARAMETERS}.datasets.0.ref")),
    ("model card", "ethicalConsiderations", 2, _of_model(f"{_CONSIDERED}.ethicalConsiderations.0.name")),
    ("model card", "energyConsumption", 2, _property("energyConsumption")),
    ("model card", "hyperparameter", 2, _card("hyperparameter")),
    ("model card", "technicalLimitations", 2, _of_model(f"{_CONSIDERED}.technicalLimitations.0")),
    ("model card", "safetyRiskAssessment", 2, _property("safetyRiskAssessment")),
    ("model card", "intendedUse", 2, _of_model(f"{_CONSIDERED}.useCases.0")),
    ("model card", "typeOfModel", 2, _of_model(f"{_PARAMETERS}.modelArchitecture")),
    ("model card", "modelExplainability", 1, _card("modelCardExplainability")),
    ("model card", "energyQuantity", 1, _property("energyQuantity")),
    ("model card", "energyUnit", 1, _property("energyUnit")),
    ("model card", "informationAboutTraining", 1, _property("informationAboutTraining")),
    ("model card", "informationAboutApplication", 1, _property("informationAboutApplication")),
    ("model card", "metric", 1, _property("metric")),
    ("model card", "metricDecisionThreshold", 1, _property("metricDecisionThreshold")),
    ("model card", "modelDataPreprocessing", 1, _property("modelDataPreprocessing")),
    ("model card", "useSensitivePersonalInformation", 1, _property("useSensitivePersonalInformation")),
    ("model card", "vocab_size", 1, _card("vocabSize")),
    ("model card", "tokenizer_class", 1, _card("tokenizerClass")),
    ("model card", "context_length", 1, _card("contextLength")),
    ("model card", "embedding_length", 1, _card("embeddingLength")),
    ("model card", "block_count", 1, _card("blockCount")),
    ("model card", "attention_head_count", 1, _card("attentionHeadCount")),
    ("model card", "attention_head_count_kv", 1, _card("attentionHeadCountKV")),
    ("model card", "feed_forward_length", 1, _card("feedForwardLength")),
    ("model card", "rope_dimension_count", 1, _card("ropeDimensionCount")),
    ("model card", "quantization_version", 1, _card("quantizationVersion")),
    ("model card", "quantization_file_type", 1, _card("quantizationFileType")),
    ("references", "vcs", 4, _reference("vcs")),
    ("references", "website", 4, _reference("website")),
    ("references", "downloadLocation", 3, _reference("distribution", "website")),
    ("references", "paper", 2, _reference("documentation")),
)
"""Category, field, points, where it stands."""


def _licence(model: dict[str, Any]) -> Any:
    told = _at(model, "licenses.0") or {}
    return told.get("expression") or _at(told, "license.id") or _at(told, "license.name")


def fields(bom: dict[str, Any]) -> list[Found]:
    """Every field with what the BOM says."""
    return [
        Found(category, name, points, UNSTATED if (value := get(bom)) in (None, "") else str(value))
        for category, name, points, get in FIELDS
    ]


def score(found: list[Found], applying: bool = False) -> float:
    """Of 100; `applying`: without the fields that do not apply."""
    total = 0.0
    for category, weight in WEIGHTS.items():
        asked = [f for f in found if f.category == category and not (applying and f.value == NOT_APPLICABLE)]
        total += weight * sum(f.points for f in asked if f.stated) / sum(f.points for f in asked)
    return round(total, 1)


def told(bom: dict[str, Any]) -> list[str]:
    """Lines for people: each field, then the two scores."""
    found = fields(bom)
    lines = [f"{f.category:11} {f.name:32} {f.points:>4g}  {_short(f.value)}" for f in found]
    missing = ", ".join(f.name for f in found if f.value == UNSTATED)
    lines += [f"completeness {score(found)} of 100; of the fields that apply {score(found, applying=True)}"]
    return [*lines, f"not stated by owner: {missing}"] if missing else lines


def _short(value: str) -> str:
    return value if len(value) <= 70 else value[:67] + "..."
