"""bom.cdx.json: what the model is made of, as a CycloneDX ML-BOM that is valid as 1.6 and as 1.7.

Written as plain JSON, because cyclonedx-python-lib 11.12 has no model card. Without a time; the serial number is a
UUID of the content, so the same content is the same bytes. What only the owner can say and did not say is
"not stated by owner"; what a model of this kind has none of "does not apply". Nothing is guessed.
Source: CycloneDX 1.6 (ECMA-424); names of properties as the OWASP AIBOM generator reads them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping

from components.handoff.bom_card import UNSTATED, Facts, Json, card, properties
from components.handoff.provenance import Provenance
from components.requirements_lock import canonical, locked

FILE = "bom.cdx.json"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:graftline:bom")


def build(facts: Facts, origin: Provenance, model: str, lock: str, requirements: Iterable[str]) -> Json:
    """The whole BOM. `model` is the sha256 of model.onnx; `lock` requirements.lock's text; `requirements` the lines
    of the bundle's requirements.txt."""
    hashes = {f"{name}=={version}": files for name, (version, files) in locked(lock).items()}
    serving = dict(line.split("==") for line in requirements)
    libraries = [_library(name, version, hashes, "required") for name, version in sorted(serving.items())]
    used = {n: v for e in (origin.environment, *origin.environments_that_differ.values()) for n, v in _packages(e)}
    libraries += [_library(n, v, {}, "excluded") for n, v in sorted(used.items()) if n not in serving]
    base = _base_weights(origin)
    parts = [_model(facts, origin, model), *base, _data(facts, origin), *libraries, *_lock(origin)]
    refs = {part["bom-ref"] for part in parts}
    made_of = sorted({"base-weights", "data", "lock"} & refs)
    told: Json = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": _metadata(facts),
        "components": parts,
        "dependencies": [
            {"ref": "bundle", "dependsOn": ["model", *sorted(f"pypi/{name}" for name in serving)]},
            {"ref": "model", "dependsOn": made_of},
        ],
    }
    return numbered(told)


def numbered(told: Json) -> Json:
    """With the serial number of its content."""
    content = {key: value for key, value in told.items() if key != "serialNumber"}
    serial = uuid.uuid5(NAMESPACE, json.dumps(content, sort_keys=True, ensure_ascii=False))
    return {**content, "serialNumber": f"urn:uuid:{serial}"}


def _packages(environment: Json) -> list[tuple[str, str]]:
    return [(canonical(name), str(version)) for name, version in environment.get("packages", {}).items()]


def _library(name: str, version: str, hashes: dict[str, list[str]], scope: str) -> Json:
    """`scope`: required to run the bundle; excluded: it made the model, and does not go along."""
    purl = f"pkg:pypi/{canonical(name)}@{version}"
    told = {
        "type": "library",
        "bom-ref": f"pypi/{name}",
        "name": name,
        "version": version,
        "purl": purl,
        "scope": scope,
    }
    files = hashes.get(f"{canonical(name)}=={version}", [])
    if not files:
        return told
    place = {
        "type": "distribution", "url": purl,  # which index it came from is not recorded
        "comment": "any one of the files with these hashes, as requirements.lock has them", "hashes": _sha256(*files),
    }  # fmt: skip
    return {**told, "externalReferences": [place]}


def _sha256(*digests: str) -> list[Json]:
    return [{"alg": "SHA-256", "content": digest} for digest in digests]


def _licences(told: str | None) -> list[Json]:
    """An SPDX id or expression where it is one, else the words of who said it."""
    from cyclonedx.spdx import fixup_id, is_expression

    if not told or told == UNSTATED:
        return [{"license": {"name": UNSTATED}}]
    known = fixup_id(told)
    if known:
        return [{"license": {"id": known}}]
    return [{"expression": told}] if is_expression(told) else [{"license": {"name": told}}]


def _base_weights(origin: Provenance) -> list[Json]:
    told = origin.base_weights
    if not told.get("sha256"):
        return []
    named = str(told.get("repository") or told.get("package") or told.get("file") or "base weights")
    revision = told.get("revision")
    purl = f"pkg:huggingface/{named}@{revision}" if told.get("repository") and revision else None
    return [
        _without_none({
            "type": "machine-learning-model", "bom-ref": "base-weights", "name": named,
            "version": str(revision or f"sha256-{told['sha256'][:16]}"), "purl": purl,
            "description": "pretrained weights that training began with", "hashes": _sha256(told["sha256"]),
            "licenses": _licences(told.get("licence")),
            "properties": properties({k: v for k, v in told.items() if k not in ("licence", "sha256")}),
        })
    ]  # fmt: skip


def _lock(origin: Provenance) -> list[Json]:
    if not origin.lock_sha256:
        return []
    told = "every library that made the model, with its version and hashes; not in the bundle"
    return [
        {"type": "file", "bom-ref": "lock", "name": "requirements.lock", "description": told, "scope": "excluded",
         "hashes": _sha256(origin.lock_sha256)}
    ]  # fmt: skip


def _data(facts: Facts, origin: Provenance) -> Json:
    data, stated = facts["data"], facts["stated"]
    counts = {
        "num_used": data["num_used"],
        "num_quarantined": data["num_quarantined"],
        "num_labels": data["num_labels"],
    }
    counts |= {f"num_{split}": num for split, num in facts["splits"].items()}
    told = {
        "type": "dataset", "name": facts["name"], "contents": {"properties": properties(counts)},
        "classification": stated.get("data_classification") or UNSTATED,
        "sensitiveData": [stated.get("personal_data") or UNSTATED],
        "description": stated.get("data") or UNSTATED,
        "governance": {"owners": [{"organization": {"name": stated.get("data_owner") or UNSTATED}}]},
    }  # fmt: skip
    return {
        "type": "data", "bom-ref": "data", "name": f"{facts['name']} data", "data": [told],
        "version": f"sha256-{origin.data['manifest_sha256'][:16]}",
        "description": "labelled samples, by a manifest that has the sha256 of each; not in the bundle",
        "hashes": _sha256(origin.data["manifest_sha256"]), "licenses": _licences(stated.get("data_licence")),
    }  # fmt: skip


def _metadata(facts: Facts) -> Json:
    stated = facts["stated"]
    own = facts["shipped"]
    accuracy = own["measures"].get("accuracy", {}).get("value")
    told = {
        "safetyRiskAssessment": stated.get("safety_risk"),
        "energyConsumption": stated.get("energy"),
        "energyQuantity": stated.get("energy_kwh"),
        "energyUnit": "kWh" if stated.get("energy_kwh") else None,
        "informationAboutTraining": f"{facts['record']['strategy']['name']}, {facts['record']['epochs']} epochs, seed "
        f"{facts['seed']}; every parameter is in provenance.json",
        "informationAboutApplication": stated.get("intended_use"),
        "metric": None if accuracy is None else f"accuracy of {own['title']} on the {own['split']} split: {accuracy}",
        "metricDecisionThreshold": facts["decision"]["answer"],
        "modelDataPreprocessing": facts["sample"]["input"],
        "useSensitivePersonalInformation": stated.get("personal_data"),
        "standardCompliance": stated.get("standards"),
        "domain": stated.get("domain"),
        "autonomyType": stated.get("autonomy"),
    }
    bundle = {
        "type": "application", "bom-ref": "bundle", "name": facts["name"],
        "description": "a folder that runs the model: its files and their hashes stand in SHA256SUMS",
        "externalReferences": _references({"documentation": stated.get("paper")}),
    }  # fmt: skip
    return {
        "lifecycles": [{"phase": "build"}],
        "tools": {"components": [{"type": "application", "name": "graftline"}]},
        "authors": [{"name": facts["contact"] or UNSTATED}],
        "component": bundle,
        "supplier": {"name": stated.get("supplier") or UNSTATED},
        "properties": properties(told),
    }


def _model(facts: Facts, origin: Provenance, sha256: str) -> Json:
    stated, version = facts["stated"], f"sha256-{sha256[:16]}"
    places = {
        "vcs": stated.get("repository"), "website": stated.get("website"), "distribution": stated.get("download"),
        "model-card": "card.md", "attestation": "provenance.json",
    }  # fmt: skip
    return {
        "type": "machine-learning-model", "bom-ref": "model", "name": facts["name"], "version": version,
        "purl": f"pkg:generic/{facts['name']}@{version}?checksum=sha256:{sha256}",
        "description": facts["description"], "supplier": {"name": stated.get("supplier") or UNSTATED},
        "licenses": _licences(facts["licence"]), "hashes": _sha256(sha256),
        "externalReferences": _references(places),
        "modelCard": card(facts, origin),
    }  # fmt: skip


def _references(places: Mapping[str, str | None]) -> list[Json]:
    """What was stated; a reference needs an address, so the others are left out and the scorer tells them."""
    return [{"type": kind, "url": url} for kind, url in places.items() if url]


def _without_none(values: Json) -> Json:
    return {k: v for k, v in values.items() if v is not None}
