"""The stage freezes policy and seed, and its picture shows what training will see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pandas as pd
import pytest
import tiny_language_models as tiny
from PIL import Image
from pydantic import ValidationError

from components import plugins, samples
from components.augment import stage
from components.contracts import InputError, Refused, Rule, Verdict, read_json, read_table, write_json, write_table
from components.job import Job

TOP = 28


@pytest.fixture
def job(tmp_path: Path, make_job: Callable[..., Job]) -> Job:
    table = factories.manifest(tmp_path, factories.image_folder(tmp_path / "data"), split=True)
    write_table(tmp_path / "artifacts/validate/accepted.parquet", table)
    write_json(tmp_path / "artifacts/validate/verdict.json", Verdict("validate", True))
    return make_job("augment", stage.NEEDS)


def params(policy: Any = "light", rows: int = 5) -> stage.Params:
    return stage.Params.model_validate({"policy": policy, "preview_samples": rows})


def cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    step = stage.CELL + stage.GAP
    y, x = TOP + row * step, stage.MARGIN + column * step
    return sheet[y : y + stage.CELL, x : x + stage.CELL]


def train(job: Job) -> pd.DataFrame:
    table = read_table(job.root / "artifacts/validate/accepted.parquet")
    return table[table["split"] == "train"]


def test_policy_is_frozen_with_all_its_options_and_the_seed(job: Job) -> None:
    metrics = stage.run(params({"name": "light", "flip": True}), job)
    assert metrics["num_previewed"] == 5
    assert metrics["num_labels_shown"] == 3
    assert 0 < metrics["mean_change"] < 0.5
    found = read_json(job.building / "policy.json")
    assert sorted(found) == ["note", "policy", "seed"]
    assert found["seed"] == 17
    assert found["policy"] == {
        "name": "light", "max_shift": 0.08, "max_rotation_degrees": 10, "max_scale": 0.1, "max_brightness": 0.1,
        "max_contrast": 0.15, "flip": True,
    }  # fmt: skip
    assert plugins.choose("augment.policies", found["policy"]).spec() == found["policy"]


def test_picture_shows_the_sample_and_then_what_the_epochs_draw(job: Job) -> None:
    stage.run(params("trivial_augment"), job)
    sheet = np.asarray(Image.open(job.building / "preview.png"))
    chosen = stage.pick(train(job), 5, 17)
    rows = plugins.load("tasks", "image_classification").preview_rows(chosen, job.root, stage.CELL)
    choice = plugins.choose("augment.policies", "trivial_augment")
    vary = choice.load().build(choice.params)
    for index, (row, sample) in enumerate(zip(rows, chosen["id"])):
        assert np.array_equal(cell(sheet, index, 0), row)
        for epoch in range(stage.NUM_SHOWN):
            assert np.array_equal(cell(sheet, index, 1 + epoch), vary(row, samples.keyed_rng(17, epoch, sample)))


def test_identity_changes_nothing(job: Job) -> None:
    assert stage.run(params("identity"), job)["mean_change"] == 0


def test_rows_are_training_samples_of_different_labels_first(job: Job) -> None:
    chosen = stage.pick(train(job), 3, 17)
    assert list(chosen["label"]) == ["circle", "square", "triangle"]
    more = stage.pick(train(job), 7, 17)
    assert sorted(more["label"].value_counts()) == [2, 2, 3]
    assert set(chosen["id"]) < set(more["id"])
    assert len(stage.pick(train(job), 100, 17)) == len(train(job))


def test_the_label_is_drawn_beside_each_row(job: Job) -> None:
    stage.run(params(rows=3), job)
    sheet = np.asarray(Image.open(job.building / "preview.png"))
    step = stage.CELL + stage.GAP
    marks = [sheet[TOP + i * step : TOP + i * step + stage.CELL, : stage.MARGIN] for i in range(3)]
    assert all((m < 100).any() for m in marks)
    assert len({m.tobytes() for m in marks}) == 3
    rows = [[Image.new("RGB", (96, 96))]]
    for label in ("a very long label indeed\nwith lines", "", "猫", "<&>"):
        assert stage.sheet([label], rows).size[0] == stage.MARGIN + stage.CELL + 2 * stage.GAP


def test_pictures_of_other_shapes_are_put_in_the_middle() -> None:
    sheet = np.asarray(stage.sheet(["a"], [[Image.new("RGB", (96, 20))]]))
    found = cell(sheet, 0, 0)
    assert not found[38:58].any()
    assert found[:38].all()


def texts(job: Job, **columns: list[str]) -> Job:
    lines = ["a good film with a great story", "dear friend, a special offer", "مرحبا بالعالم 🙂", "word " * 900]
    table = pd.DataFrame({"id": [f"{i}" for i in range(4)], "sha256": "", "input.text": lines, **columns})
    table = table.assign(label=["good", "spam", "good", "spam"], split="train")
    write_table(job.root / "artifacts/validate/accepted.parquet", table)
    return replace(job, run=job.run.model_copy(update={"task": "text_classification"}))


def test_texts_are_shown_in_fewer_and_wider_columns(job: Job) -> None:
    job = texts(job)
    metrics = stage.run(params({"name": "eda", "deletion": 0.2, "swap": 0.2}, 4), job)
    assert 0.05 < metrics["mean_change"] < 0.6
    sheet = np.asarray(Image.open(job.building / "preview.png"))
    assert sheet.shape[1] < stage.MARGIN + stage.WIDEST + 20
    assert ((sheet == (255, 226, 120)).all(axis=2)).any(), "changed words are marked"
    columns = (sheet.shape[1] - stage.MARGIN) // (330 + stage.GAP)
    assert columns == 4
    assert stage.run(params("identity", 4), job)["mean_change"] == 0


def test_pairs_are_shown_and_the_picture_is_the_same_each_time(job: Job) -> None:
    job = texts(job, **{"input.text_pair": ["one more text", "", "another", "text " * 500]})
    found = []
    for _ in range(2):
        job.clear()
        stage.run(params("eda", 4), job)
        found.append((job.building / "preview.png").read_bytes())
    assert found[0] == found[1]


def test_what_a_policy_rests_on_is_recorded_and_its_variants_are_kept(job: Job, tmp_path: Path) -> None:
    job = texts(job)
    policy = {"name": "masked_lm", "network": tiny.pinned(tiny.masked(tmp_path / "network")), "share": 0.3}
    metrics = []
    for _ in range(2):
        job.clear()
        metrics.append(stage.run(params(policy, 4), job))
        found = read_json(job.building / "policy.json")
        assert len(found["provenance"]["network_sha256"]) == 64
        assert plugins.choose("augment.policies", found["policy"]).spec() == found["policy"]
        assert len(list((tmp_path / ".graftline/variants").rglob("*.json"))) == 4
    assert metrics[0] == metrics[1]
    assert metrics[0]["mean_change"] > 0


def test_the_same_bytes_each_time(job: Job) -> None:
    found = []
    for _ in range(2):
        job.clear()
        stage.run(params("trivial_augment"), job)
        found.append([(job.building / n).read_bytes() for n in ("policy.json", "preview.png")])
    assert found[0] == found[1]
    assert sorted(p.name for p in job.building.iterdir()) == ["policy.json", "preview.png"]


def test_a_policy_for_another_task_is_refused_with_the_key(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.load("augment.policies", "light"), "TASKS", ("text_classification",))
    with pytest.raises(InputError, match=r"augment\.policy: light is for text_classification.*identity"):
        stage.run(params(), job)


def test_no_training_sample_is_told(job: Job) -> None:
    write_table(job.root / "artifacts/validate/accepted.parquet", train(job).assign(split="test"))
    with pytest.raises(InputError, match="no training sample"):
        stage.run(params(), job)


def test_a_refused_data_set_stops_here(job: Job) -> None:
    rule = Rule("labels: no errors", False, 1.0, 0.0, -1.0, "one label only")
    write_json(job.root / "artifacts/validate/verdict.json", Verdict("validate", False, (rule,)))
    with pytest.raises(Refused, match="one label only"):
        stage.run(params(), job)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("lite", "did you mean `light`"),
        ({"name": "light", "degrees": 3}, "unknown key"),
        ({"name": "light", "max_shift": 2}, "0.5"),
    ],
)
def test_a_mistake_in_params_is_told(policy: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        params(policy)
