"""The stage freezes policy and seed, and its preview shows what training will see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import factories
import numpy as np
import pytest
from PIL import Image

from components import plugins, samples
from components.augment import stage
from components.contracts import InputError, read_json, write_table
from components.job import Job


def upstream(root: Path) -> None:
    table = factories.manifest(root, factories.image_folder(root / "data"), split=True)
    write_table(root / "artifacts/validate/accepted.parquet", table)


def params(name: str = "light") -> stage.Params:
    return stage.Params.model_validate({"policy": {"name": name}, "preview_samples": 5})


def test_policy_is_frozen_with_all_its_options_and_the_seed(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path)
    job = make_job("augment", stage.NEEDS)
    assert stage.run(params(), job) == {"num_previewed": 5}
    found = read_json(job.building / "policy.json")
    assert found["seed"] == 17
    assert found["policy"]["degrees"] == 10
    assert plugins.choose("augment.policies", found["policy"]).name == "light"


def test_preview_shows_the_sample_and_then_what_training_draws(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path)
    job = make_job("augment", stage.NEEDS)
    stage.run(params(), job)
    sheet = np.asarray(Image.open(job.building / "preview.png"))
    first = sheet[24 : 24 + stage.SIDE, 110 : 110 + stage.SIDE]
    second = sheet[24 : 24 + stage.SIDE, 114 + stage.SIDE : 114 + 2 * stage.SIDE]
    assert first.std() > 10
    choice = plugins.choose("augment.policies", "light")
    change = choice.load().build(choice.params)
    folder = sorted(tmp_path.glob("data/*/*.png"))
    names = [p.relative_to(tmp_path / "data").as_posix() for p in folder]
    assert any(np.array_equal(change(first, samples.keyed_rng(17, 0, name)), second) for name in names)


def test_same_bytes_each_time(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path)
    found = []
    for _ in range(2):
        job = make_job("augment", stage.NEEDS)
        stage.run(params("trivial_augment"), job)
        found.append([(job.building / n).read_bytes() for n in ("policy.json", "preview.png")])
    assert found[0] == found[1]


def test_policy_for_another_task_is_refused_with_the_key(
    tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream(tmp_path)
    module: ModuleType = plugins.load("augment.policies", "light")
    monkeypatch.setattr(module, "TASKS", ("text_classification",))
    with pytest.raises(InputError, match=r"augment\.policy: light is for text_classification"):
        stage.run(params(), make_job("augment", stage.NEEDS))
