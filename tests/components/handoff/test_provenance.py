"""provenance.json: what is written is read again, and nothing else is taken for it."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from signed import origin

from components.contracts import Commit, InputError
from components.handoff import provenance


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
