"""Where a bundle comes from: the lineages of all stages as one in-toto statement with SLSA provenance.

Statement v1 and SLSA provenance v1 (slsa.dev/spec/v1.2/provenance), of which Build L1 is claimed: provenance exists
and names what went in. No more, as a machine of the project's own built it. Without times and random ids, so that
the same inputs give the same bytes. What is not known is null or "not stated by owner".
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from components.contracts import Commit, InputError
from components.handoff.merging import Lineages, merge

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:graftline:build:dvc-line:v1"
BUILDER = "urn:graftline:builder:own-machine"
FILE = "provenance.json"
MAX_BYTES = 64_000_000

ALSO = (
    "pipelines/stage.py", "pipelines/dag.py", "pipelines/history.py", "pipelines/libraries.py",
    "infra/libraries.yaml", "dvc.yaml", "params.yaml", "requirements.lock",
)  # fmt: skip
"""What a model rests on beside the code of its stages: what runs them, and what they are told."""


class ProvenanceError(InputError):
    """A file is not the provenance of a bundle."""


@dataclass(frozen=True)
class Provenance:
    """What a bundle says of its making."""

    name: str
    """Of the project."""
    commit: str | None
    """The newest that changed a file that the model rests on; None: not known."""
    clean: bool | None
    """None of these files differed from the last commit."""
    differing: tuple[str, ...]
    """Those that did."""
    commit_note: str
    """Why something of this is not known."""
    params: dict[str, Any]
    """Section -> its values; all of params.yaml that the stages read."""
    environment: dict[str, Any]
    """Of most stages: as lineage.environment gives it."""
    environments_that_differ: dict[str, Any]
    """Stage -> its own, where it is another."""
    code: dict[str, str]
    """Path -> sha256 (of a folder: see lineage.hash_path)."""
    stages: dict[str, dict[str, Any]]
    """Stage -> inputs and outputs {path: sha256}, parents {stage: sha256 of its lineage}, code [path]."""
    base_weights: dict[str, Any]
    """Where the pretrained weights came from, with sha256 and licence; {} where there were none."""
    data: dict[str, str]
    """manifest_sha256, accepted_sha256."""
    weights_sha256: str
    """Of the trained weights, which are not in the bundle."""
    lock_sha256: str | None
    """Of requirements.lock."""
    subjects: dict[str, str] = field(default_factory=dict)
    """File of the bundle -> sha256: what this is the provenance of."""

    @property
    def model_sha256(self) -> str:
        """Of model.onnx; empty while the statement is not written."""
        return self.subjects.get("model.onnx", "")


def gather(
    name: str, lineages: Lineages, base_weights: dict[str, Any], weights: str, where: Commit, lock: str | None
) -> Provenance:
    """All but the subjects. `weights` is the sha256 of the trained ones, `lock` that of requirements.lock.

    Raises:
        MixedLineError: see `merge`.
    """
    merged = merge(lineages)
    ingest, validate = merged["stages"]["ingest"]["outputs"], merged["stages"]["validate"]["outputs"]
    return Provenance(
        name=name,
        commit=where.commit,
        clean=where.clean,
        differing=tuple(sorted(where.differing)),
        commit_note=where.note,
        base_weights=base_weights,
        data={
            "manifest_sha256": ingest["artifacts/ingest/manifest.parquet"],
            "accepted_sha256": validate["artifacts/validate/accepted.parquet"],
        },
        weights_sha256=weights,
        lock_sha256=lock,
        **merged,
    )


def rests_on(code: Iterable[str]) -> list[str]:
    """The files of a project whose history is the model's."""
    return sorted({*code, *ALSO})


def statement(told: Provenance) -> dict[str, Any]:
    """As JSON; `subjects` must be filled."""
    weights = told.base_weights.get("sha256")
    depends = [
        *_with_digest("manifest", told.data["manifest_sha256"], kind="data"),
        *_with_digest("accepted manifest", told.data["accepted_sha256"], kind="data"),
        *_with_digest("base weights", weights, kind="weights"),
        *_with_digest("requirements.lock", told.lock_sha256, kind="lock"),
        *([{"name": "source", "digest": {"gitCommit": told.commit}}] if told.commit else []),
        *(_code(path, digest) for path, digest in sorted(told.code.items())),
    ]
    internal = {
        "base_weights": told.base_weights,
        "environment": told.environment,
        "environments_that_differ": told.environments_that_differ,
        "source": {
            "commit": told.commit, "clean": told.clean, "differing": list(told.differing), "note": told.commit_note
        },
    }  # fmt: skip
    made = [{"name": "weights.safetensors", "digest": {"sha256": told.weights_sha256}}]
    return {
        "_type": STATEMENT,
        "subject": [{"name": n, "digest": {"sha256": h}} for n, h in sorted(told.subjects.items())],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"project": told.name, "params": told.params},
                "internalParameters": internal,
                "resolvedDependencies": depends,
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "metadata": {},
                "byproducts": [*made, {"name": "stages", "annotations": told.stages}],
            },
        },
    }


def _with_digest(name: str, sha256: Any, kind: str) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": sha256}, "annotations": {"kind": kind}}] if sha256 else []


def _code(path: str, digest: str) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": "code"}
    if not PurePosixPath(path).suffix:
        told["of"] = "a folder: sha256 of its sorted lines `path NUL sha256`"
    return {"name": path, "digest": {"sha256": digest}, "annotations": told}


def read(bundle: Path) -> Provenance:
    """What the bundle in that folder says of its making.

    Raises:
        ProvenanceError: there is no provenance.json, or it is not such a statement.
    """
    path = bundle / FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ProvenanceError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB: no bundle's provenance is")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ProvenanceError(f"{path} cannot be read ({error.strerror}); name the folder of a bundle") from None
    except (ValueError, RecursionError):
        raise ProvenanceError(f"{path} is not JSON") from None
    try:
        return parse(value)
    except ProvenanceError as error:
        raise ProvenanceError(f"{path} is not the provenance of a bundle: {error}") from None


def parse(value: Any) -> Provenance:
    """The inverse of `statement`.

    Raises:
        ProvenanceError: with the first thing that is not as it must be.
    """
    if _get(value, "_type", str) != STATEMENT or _get(value, "predicateType", str) != PREDICATE:
        raise ProvenanceError(f"it must be an in-toto statement v1 with the predicate {PREDICATE}")
    built = _get(value, "predicate.buildDefinition", dict)
    if _get(built, "buildType", str) != BUILD_TYPE:
        raise ProvenanceError(f"its buildType is {built['buildType']!a}, not {BUILD_TYPE!a}")
    internal, ran = _get(built, "internalParameters", dict), _get(value, "predicate.runDetails", dict)
    _get(ran, "builder.id", str)
    code, named = _dependencies(_get(built, "resolvedDependencies", list))
    made = {_get(one, "name", str): one for one in _get(ran, "byproducts", list)}
    return Provenance(
        name=_get(built, "externalParameters.project", str),
        params={
            section: _typed(one, dict, f"params.{section}")
            for section, one in _get(built, "externalParameters.params", dict).items()
        },
        environment=_environment(_get(internal, "environment", dict), "environment"),
        environments_that_differ={
            stage: _environment(one, f"environments_that_differ.{stage}")
            for stage, one in _get(internal, "environments_that_differ", dict).items()
        },
        code=code,
        stages={s: _stage(one, s) for s, one in _get(made.get("stages"), "annotations", dict).items()},
        base_weights=_get(internal, "base_weights", dict),
        data={"manifest_sha256": named.get("manifest", ""), "accepted_sha256": named.get("accepted manifest", "")},
        weights_sha256=_digest(made.get("weights.safetensors")),
        lock_sha256=named.get("requirements.lock"),
        subjects={_get(one, "name", str): _digest(one) for one in _get(value, "subject", list)},
        **_source(_get(internal, "source", dict)),
    )  # fmt: skip


def _dependencies(listed: list[Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Hashes of the code, and of all else, by name."""
    code: dict[str, str] = {}
    named: dict[str, str] = {}
    for one in listed:
        name, told = _get(one, "name", str), one.get("annotations")
        (code if isinstance(told, dict) and told.get("kind") == "code" else named)[name] = _digest(one)
    return code, named


def _source(source: dict[str, Any]) -> dict[str, Any]:
    commit, clean = source.get("commit"), source.get("clean")
    if not isinstance(commit, str | None) or not isinstance(clean, bool | None):
        raise ProvenanceError("internalParameters.source must hold a commit and whether it was clean")
    differing = tuple(_texts(source, "differing", list))
    return {"commit": commit, "clean": clean, "differing": differing, "commit_note": _get(source, "note", str)}


def _environment(told: Any, where: str) -> dict[str, Any]:
    for key in _typed(told, dict, where).keys() & {"packages", "pins"}:
        _texts(told, key, dict, where)
    return dict(told)


def _stage(one: Any, stage: str) -> dict[str, Any]:
    for key, kind in (("inputs", dict), ("outputs", dict), ("parents", dict), ("code", list)):
        _texts(one, key, kind, f"stages.{stage}")
    return dict(one)


def _texts(value: Any, key: str, kind: type, where: str = "") -> Any:
    """A list of texts, or a mapping of names to them."""
    name = f"{where}.{key}".strip(".")
    found = _typed(_get(value, key, object), kind, name)
    if not all(isinstance(one, str) for one in (found.values() if kind is dict else found)):
        raise ProvenanceError(f"{name!a} must hold texts alone")
    return found


def _digest(one: Any) -> str:
    found = next(iter(_get(one, "digest", dict).values()), "")
    if not isinstance(found, str):
        raise ProvenanceError("digest must be a text")
    return found


def _get(value: Any, path: str, kind: type) -> Any:
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ProvenanceError(f"{path!a} is missing")
        value = value[key]
    return _typed(value, kind, path)


def _typed(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise ProvenanceError(f"{where!a} is not a {kind.__name__}")
    return value
