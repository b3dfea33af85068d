"""provenance.json: what is written is read again, and nothing else is taken for it."""

from __future__ import annotations

import copy
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from signed import origin

from components.contracts import Commit, InputError
from components.handoff import provenance

REPOSITORY = Path(__file__).parents[3]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for where in (None, Commit(note="git is not installed here"), Commit("d" * 40, True)):
        written = origin(where)
        (tmp_path / "provenance.json").write_text(json.dumps(provenance.statement(written)))
        assert provenance.read(tmp_path) == written
    assert written.model_sha256 == "5" * 64


def test_it_is_an_in_toto_statement_with_slsa_provenance() -> None:
    value = provenance.statement(origin())
    assert value["_type"] == "https://in-toto.io/Statement/v1"
    assert value["predicateType"] == "https://slsa.dev/provenance/v1"
    assert [s["name"] for s in value["subject"]] == ["card.md", "model.onnx"]
    built, ran = value["predicate"]["buildDefinition"], value["predicate"]["runDetails"]
    named = {one["name"]: one["digest"] for one in built["resolvedDependencies"]}
    assert named["source"] == {"gitCommit": "c" * 40}
    assert {"manifest", "accepted manifest", "base weights", "requirements.lock", "components/job.py"} <= set(named)
    assert built["externalParameters"]["params"] == {s: {"x": 1} for s in ("export", "ingest", "validate")}
    assert ran["metadata"] == {}, "no times"
    assert ran["builder"]["id"]


def test_what_is_not_known_is_not_invented() -> None:
    value = provenance.statement(origin(Commit(note="the project has no commit yet")))
    built = value["predicate"]["buildDefinition"]
    assert "source" not in {one["name"] for one in built["resolvedDependencies"]}
    source = built["internalParameters"]["source"]
    assert source == {"commit": None, "clean": None, "differing": [], "note": "the project has no commit yet"}


@pytest.mark.parametrize("content", ["", "[]", "null", "{", '{"_type": "x"}', "[" * 5000, '"\\ud800"'])
def test_anything_else_is_refused_in_words(content: str, tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text(content)
    with pytest.raises(InputError, match=r"provenance\.json is not"):
        provenance.read(tmp_path)


def test_a_folder_without_it_is_origin(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        provenance.read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("buildDefinition.internalParameters.environment.packages", [1], "environment.packages"),
        ("buildDefinition.internalParameters.environment.packages", {"numpy": 2}, "environment.packages"),
        ("buildDefinition.internalParameters.environments_that_differ", {"ingest": 1}, "that_differ.ingest"),
        ("buildDefinition.internalParameters.source.differing", [1], "differing"),
        ("buildDefinition.externalParameters.params", {"run": [1]}, "params.run"),
        ("runDetails.byproducts.1.annotations.ingest.inputs", {"data": 7}, "stages.ingest.inputs"),
        ("runDetails.byproducts.1.annotations.ingest.code", [7], "stages.ingest.code"),
        ("buildDefinition.resolvedDependencies.0.digest", {"sha256": 7}, "digest"),
    ],
)
def test_what_has_another_type_is_told_by_its_key(path: str, value: Any, told: str) -> None:
    whole = json.loads(json.dumps(provenance.statement(origin())))
    at: Any = whole["predicate"]
    *keys, last = path.split(".")
    for key in keys:
        at = at[int(key) if isinstance(at, list) else key]
    at[last] = value
    with pytest.raises(provenance.ProvenanceError, match=re.escape(told)):
        provenance.parse(whole)


def test_a_model_rests_on_what_runs_its_stages_too() -> None:
    """A commit that changed one of these is another commit of the model."""
    files = provenance.rests_on(["components/job.py"])
    assert files == sorted(files)
    assert {"components/job.py", "pipelines/stage.py", "pipelines/history.py", "infra/libraries.yaml"} <= set(files)
    assert all((REPOSITORY / path).is_file() for path in files)


def test_300_broken_statements_are_refused_or_read_and_never_a_fault() -> None:
    whole = provenance.statement(origin())
    refused = 0
    for seed in range(300):
        rng = random.Random(seed)
        value = copy.deepcopy(whole)
        at: Any = value
        for _ in range(rng.randrange(1, 6)):
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = rng.choice(keys)
            if not isinstance(at[key], dict | list) or not at[key]:
                break
            parent, at = at, at[key]
            last = key
        else:
            parent[last] = rng.choice([None, 1, "x", [], {}, [1], {"name": 1}])
        if at is not value and isinstance(at, dict) and rng.random() < 0.5:
            at.pop(rng.choice(list(at)), None)
        try:
            provenance.parse(value)
        except InputError:
            refused += 1
    assert refused > 80
