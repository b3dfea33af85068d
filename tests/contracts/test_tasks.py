"""The contract of tasks: every plugin, found by itself, from a sample's file to a loss that goes down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pandas as pd
import pytest

from components import params, plugins
from components.preprocessing.image_classification import Preprocessing, Unreadable


def _images(root: Path) -> pd.DataFrame:
    return factories.manifest(root, factories.image_folder(root / "data", per_label=3))


CANONICAL: dict[str, tuple[Callable[[Path], pd.DataFrame], dict[str, Any], str]] = {
    "image_classification": (
        _images,
        asdict(Preprocessing(16, 24, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))),
        "path",
    ),
}
"""Task -> what makes a manifest, a backbone's preprocessing, and the input that names a file."""

NAMES = plugins.names("tasks")
PUBLIC = (
    "MODALITY", "INPUTS", "MODEL_INPUTS", "Params", "inspect", "prepare", "collate", "loss", "picture",
    "example",
)  # fmt: skip


def plain(items: Any, what: str, total: int) -> Any:
    return items


def test_every_task_has_a_canonical_setting() -> None:
    assert set(NAMES) == set(CANONICAL), "describe the new task in CANONICAL"


@pytest.mark.parametrize("name", NAMES)
def test_a_task_has_all_that_stages_ask_of_it(name: str) -> None:
    task = plugins.load("tasks", name)
    assert [p for p in PUBLIC if not hasattr(task, p)] == []
    assert issubclass(task.Params, params.Params)
    assert task.INPUTS
    assert task.MODEL_INPUTS


@pytest.mark.parametrize("name", NAMES)
def test_inspecting_gives_the_hash_and_finite_properties_each_time(name: str, tmp_path: Path) -> None:
    make, _, column = CANONICAL[name]
    table, task = make(tmp_path), plugins.load("tasks", name)
    inputs = {column: table[f"input.{column}"].iloc[0]}
    seen = task.inspect(inputs, tmp_path)
    assert seen == task.inspect(inputs, tmp_path)
    assert len(seen.sha256) == 64
    assert all(isinstance(v, float) and np.isfinite(v) for v in seen.properties.values())


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_read_has_a_stable_reason(name: str, tmp_path: Path) -> None:
    task = plugins.load("tasks", name)
    with pytest.raises(Unreadable) as told:
        task.inspect({CANONICAL[name][2]: "nowhere"}, tmp_path)
    assert told.value.reason == "cannot_open"


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_prepared_in_order_and_collate_gives_the_networks_inputs(name: str, tmp_path: Path) -> None:
    make, how, _ = CANONICAL[name]
    table, task = make(tmp_path), plugins.load("tasks", name)
    (tmp_path / "cache").mkdir()
    rows = task.prepare(table, how, tmp_path, tmp_path / "cache", 2, plain)
    assert len(rows) == len(table)
    backwards = task.prepare(table[::-1], how, tmp_path, tmp_path / "cache", 1, plain)
    np.testing.assert_array_equal(rows, backwards[::-1])
    inputs = task.collate(rows, how)
    assert len(inputs) == len(task.MODEL_INPUTS)
    for array, likeness in zip(inputs, task.example(how, len(table))):
        assert (array.shape, array.dtype) == (likeness.shape, likeness.dtype)
        one_by_one = np.concatenate([task.collate(rows[i : i + 1], how)[0] for i in range(len(rows))])
        np.testing.assert_array_equal(one_by_one, array)
    assert task.picture(rows[0]).size


@pytest.mark.parametrize("name", NAMES)
def test_example_is_the_same_each_time(name: str) -> None:
    task, how = plugins.load("tasks", name), CANONICAL[name][1]
    for one, other in zip(task.example(how, 3), task.example(how, 3)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_chance_at_equal_logits_and_falls_for_right_ones(name: str) -> None:
    import torch

    task = plugins.load("tasks", name)
    targets = torch.tensor([0, 2, 1])
    equal = task.loss(torch.zeros(3, 4), targets)
    assert equal.item() == pytest.approx(np.log(4), abs=1e-6)
    right = 5.0 * torch.nn.functional.one_hot(targets, 4)
    assert task.loss(right, targets).item() < 0.1
    assert task.loss(right, targets, label_smoothing=0.2).item() > task.loss(right, targets).item()
