"""The reference profile: small, anonymous, and as good as the reference itself."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from components import plugins
from components.contracts import RunRecord, read_json, write_json, write_table
from components.drift import columns as rules
from components.drift import sides
from components.handoff import profile
from components.handoff.bundle import Bundle
from components.job import Job
from components.samples import keyed_seed

NEEDS = ("validate", "evaluate", "drift", "export")
RECORD = RunRecord(
    run="main", role="candidate", task="text_classification", decision="single_label", backbone={}, pretrained=True,
    strategy={}, labels=("cat", "dog"), preprocessing={},
)  # fmt: skip
DETECTORS = [("columns", "ks"), ("embeddings", "permutation_mmd"), ("embeddings", "classifier_two_sample")]


def _side(rng: np.random.Generator, num: int, shift: float) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    table = pd.DataFrame(
        {
            "id": [f"secret-{i:04d}" for i in range(num)],
            "sha256": ["ab" * 32] * num,
            "input.text": ["what nobody may read"] * num,
            "label": rng.choice(["cat", "dog"], num),
            "attribute.site": rng.choice(["x", "y"], num),
            "property.brightness": rng.normal(shift, 1, num),
            "property.width": np.where(np.arange(num) % 9 == 0, np.nan, rng.integers(10, 90, num)),
            "note": ["private"] * num,
        }
    )
    sure = rng.beta(8, 2 + 8 * shift, num).astype(np.float32)
    confidence = np.maximum(sure, 1 - sure).astype(np.float64)
    said = pd.DataFrame({"predicted": rng.choice(["cat", "dog"], num), "confidence": confidence})
    return table, said, rng.normal(shift, 1, (num, 12)).astype(np.float32)


def _answered(said: pd.DataFrame, features: np.ndarray, place: Path) -> None:
    """outputs.safetensors of the stage export: what the file that ships answers for the validation samples."""
    sure = said["confidence"].to_numpy(np.float32)
    cat = np.where(said["predicted"] == "cat", sure, 1 - sure)
    place.parent.mkdir(parents=True, exist_ok=True)
    save_file({"probabilities": np.stack([cat, 1 - cat], axis=1), "embedding": features}, place)


@pytest.fixture
def job(make_job: Any) -> Job:
    """A project with 300 training and 120 validation samples."""
    made: Job = make_job("handoff", NEEDS)
    art, rng = made.root / "artifacts", np.random.default_rng(1)
    train, _, _ = _side(rng, 300, 0)
    held, said, features = _side(rng, 120, 0)
    held["id"] = [f"hidden-{i:04d}" for i in range(120)]
    write_table(
        art / "validate/accepted.parquet", pd.concat([train.assign(split="train"), held.assign(split="validation")])
    )
    write_json(art / "validate/verdict.json", {"stage": "validate", "passed": True, "rules": []})
    told = pd.concat([said, held[["id"]]], axis=1).assign(run="main", split="validation")
    write_table(art / "evaluate/predictions.parquet", pd.concat([told, told.assign(run="from_scratch")]))
    save_file({"validation": features, "test": features[:5]}, art / "evaluate/embeddings.safetensors")
    _answered(said, features, art / "export/outputs.safetensors")
    column = {"column": "brightness", "detector": "ks", "score": 0.9, "p_value": 0.5, "threshold": 0.05}
    whole = {"detector": "permutation_mmd", "threshold": 0.01, "p_value": 0.7, "drifted": False}
    write_json(art / "drift/drift.json", {"columns": [column], "embeddings": whole, "current": "the test split"})
    spec = {"columns": {"name": "ks", "alpha": 0.05}, "embeddings": {"name": "permutation_mmd", "alpha": 0.01}}
    write_json(art / "drift/lineage.json", {"params": {"drift": spec}})
    return made


def _write(job: Job, num_samples: int, where: str = "bundle") -> tuple[dict[str, Any], Path]:
    bundle = Bundle(job.root / where, {})
    return profile.write(bundle, job, RECORD, num_samples, "int8_static"), bundle.folder / profile.FOLDER


def _digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_none_are_written_where_none_are_asked_for(job: Job) -> None:
    told, folder = _write(job, 0)
    assert told == {}
    assert not folder.exists()


def test_outputs_and_embeddings_are_those_of_the_file_that_ships(job: Job) -> None:
    """Not those of the float32 network: a deployer compares them with what the file answers him."""
    rng = np.random.default_rng(4)
    _, said, features = _side(rng, 120, 0)
    _answered(said, features, job.root / "artifacts/export/outputs.safetensors")
    told, folder = _write(job, 1000)
    _, outputs, embeddings = profile.read(folder)
    pd.testing.assert_frame_equal(outputs, said)
    np.testing.assert_array_equal(embeddings, features)
    assert told["variant"] == "int8_static"
    assert (told["outputs"]["by"], told["embeddings"]["by"]) == ("model.onnx", "model.onnx")
    assert "model.onnx (int8_static)" in told["note"]


def test_answers_belong_to_the_samples_in_the_order_of_their_ids(job: Job) -> None:
    place = job.root / "artifacts/validate/accepted.parquet"
    before = profile.read(_write(job, 1000)[1])[1]
    write_table(place, pd.read_parquet(place).iloc[::-1])
    pd.testing.assert_frame_equal(profile.read(_write(job, 1000, "again")[1])[1], before)


def test_it_says_what_can_be_told_from_it(job: Job) -> None:
    told, _ = _write(job, 10)
    assert told["risk"] == profile.RISK
    assert "embeddings, from which the content" in told["risk"]


def test_it_says_what_how_many_and_who_judged(job: Job) -> None:
    told, folder = _write(job, 200)
    assert told == read_json(folder / "profile.json")
    assert {p.name for p in folder.iterdir()} == set(profile.FILES)
    table, said, features = profile.read(folder)
    assert (told["properties"]["num"], told["properties"]["of"], len(table)) == (200, 300, 200)
    assert (told["outputs"]["num"], told["outputs"]["of"], len(said), len(features)) == (120, 120, 120, 120)
    assert told["properties"]["split"], told["outputs"]["split"] == ("train", "validation")
    assert told["judged_by"]["columns"]["detector"] == {"name": "ks", "alpha": 0.05}
    assert told["judged_by"]["columns"]["baseline"]["brightness"]["threshold"] == 0.05
    assert told["judged_by"]["embeddings"]["baseline"]["p_value"] == 0.7


@pytest.mark.parametrize("num", [50, 1000])
def test_no_id_and_no_content_is_inside(job: Job, num: int) -> None:
    _, folder = _write(job, num)
    table, said, _ = profile.read(folder)
    assert set(table.columns) == {"label", "property.brightness", "property.width"}
    assert set(said.columns) == {"predicted", "confidence"}
    content = b"".join(p.read_bytes() for p in folder.iterdir()) + table.to_csv().encode() + said.to_csv().encode()
    for private in (b"secret", b"hidden", b"nobody", b"private", b"ab" * 32):
        assert private not in content


def test_the_same_run_gives_the_same_bytes_whatever_the_rows_order(job: Job) -> None:
    before = _digests(_write(job, 60)[1])
    place = job.root / "artifacts/validate/accepted.parquet"
    write_table(place, pd.read_parquet(place).sample(frac=1, random_state=3))
    assert _digests(_write(job, 60, "again")[1]) == before


def test_another_seed_draws_other_samples(job: Job) -> None:
    first = profile.read(_write(job, 60)[1])[0]
    other = Job.at(job.root, "handoff", NEEDS, seed=18)
    assert not profile.read(_write(other, 60, "other")[1])[0].equals(first)


def _judged(kind: str, name: str, before: sides.Side, now: sides.Side) -> dict[str, float]:
    module = plugins.load("drift.detectors", name)
    if kind == "columns":
        every = [one for one in sides.columns(before, now, with_labels=True) if not rules.why_not(one)]
        return dict(module.score_columns(module.Params(), every, lambda _: Path("unused")))
    shift = module.score_embeddings(module.Params(), before.embeddings, now.embeddings, keyed_seed(17, "drift", name))
    return {"score": shift.score, "p_value": shift.p_value}


def _both(job: Job, num_samples: int) -> tuple[sides.Side, sides.Side]:
    """The reference as the drift stage reads it, and as the profile has it."""
    return sides.reference(job), sides.Side(*profile.read(_write(job, num_samples)[1]))


@pytest.mark.parametrize(("kind", "name"), DETECTORS)
@pytest.mark.parametrize("shift", [0.0, 0.15, 1.0])
def test_all_of_the_reference_gives_the_very_numbers(job: Job, kind: str, name: str, shift: float) -> None:
    now = sides.Side(*_side(np.random.default_rng(9), 150, shift))
    real, profiled = _both(job, 1000)
    assert _judged(kind, name, profiled, now) == _judged(kind, name, real, now)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_part_of_the_reference_gives_the_same_verdict(job: Job, shift: float) -> None:
    """150 of 300 and 60 of 120: a large shift is found, none is not; a null p-value moves by the sampling alone."""
    now = sides.Side(*_side(np.random.default_rng(9), 150, shift))
    for kind, name in (("columns", "ks"), ("embeddings", "permutation_mmd")):
        real, profiled = (_judged(kind, name, side, now) for side in _both(job, 60))
        if kind == "embeddings":
            assert (real["p_value"] <= 0.01) == (profiled["p_value"] <= 0.01) == (shift == 1.0)
        else:
            assert set(real) == set(profiled)
            assert (real["brightness"] <= 1e-4) == (profiled["brightness"] <= 1e-4) == (shift == 1.0)
