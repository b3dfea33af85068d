"""The contract of tasks: every plugin, found by itself, from a sample to the network's inputs."""

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
from components.preprocessing.image_classification import Preprocessing


def _images(root: Path) -> pd.DataFrame:
    return factories.manifest(root, factories.image_folder(root / "data", per_label=3))


def _texts(root: Path) -> pd.DataFrame:
    del root
    return factories.text_manifest(per_label=3)


CANONICAL: dict[str, tuple[Callable[[Path], pd.DataFrame], dict[str, Any], dict[str, str], str]] = {
    "image_classification": (
        _images,
        asdict(Preprocessing(16, 24, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))),
        {"path": "nowhere"},
        "cannot_open",
    ),
    "text_classification": (_texts, factories.text_preprocessing(max_tokens=12), {"text": " \n"}, "empty_text"),
}
"""Task -> what makes a manifest, a backbone's preprocessing, and inputs that cannot be read with their reason."""

NAMES = plugins.names("tasks")
PUBLIC = (
    "INPUTS", "FILES", "Unreadable", "Params", "inspect", "prepare", "decoder", "collate", "model_inputs",
    "free_axes", "lengths", "fit", "preview_rows", "picture", "change", "example",
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
    assert set(task.FILES) <= set(task.INPUTS)
    assert task.model_inputs(CANONICAL[name][1])


@pytest.mark.parametrize("name", NAMES)
def test_inspecting_gives_the_hash_and_finite_properties_each_time(name: str, tmp_path: Path) -> None:
    make, task = CANONICAL[name][0], plugins.load("tasks", name)
    table = make(tmp_path)
    inputs = {column: table[f"input.{column}"].iloc[0] for column in task.INPUTS}
    seen = task.inspect(inputs, tmp_path)
    assert seen == task.inspect(inputs, tmp_path)
    assert len(seen.sha256) == 64
    assert all(isinstance(v, float) and np.isfinite(v) for v in seen.properties.values())


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_read_has_a_stable_reason(name: str, tmp_path: Path) -> None:
    task = plugins.load("tasks", name)
    with pytest.raises(task.Unreadable) as told:
        task.inspect(CANONICAL[name][2], tmp_path)
    assert told.value.reason == CANONICAL[name][3]


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_prepared_in_order_and_collate_gives_the_networks_inputs(name: str, tmp_path: Path) -> None:
    make, how = CANONICAL[name][:2]
    table, task = make(tmp_path), plugins.load("tasks", name)
    (tmp_path / "cache").mkdir()
    rows = task.prepare(table, how, tmp_path, tmp_path / "cache", 2, plain)
    assert len(rows) == len(table)
    backwards = task.prepare(table[::-1], how, tmp_path, tmp_path / "cache", 1, plain)
    for one, other in zip(task.collate(rows, how), task.collate(backwards[::-1], how)):
        np.testing.assert_array_equal(one, other)
    inputs = task.collate(rows, how)
    assert len(inputs) == len(task.model_inputs(how))
    free = task.free_axes(how)
    for number, (array, likeness) in enumerate(zip(inputs, task.example(how, len(table)))):
        fixed = [axis for axis in range(array.ndim) if axis not in free]
        assert [array.shape[a] for a in fixed] == [likeness.shape[a] for a in fixed]
        assert all(array.shape[axis] <= size for axis, (_, size) in free.items())
        assert array.dtype == likeness.dtype
        for i in range(len(rows)):
            alone = task.collate(rows[i : i + 1], how)[number]
            np.testing.assert_array_equal(array[i : i + 1][tuple(slice(n) for n in alone.shape)], alone)


@pytest.mark.parametrize("name", NAMES)
def test_lengths_are_those_that_collate_gives(name: str, tmp_path: Path) -> None:
    make, how = CANONICAL[name][:2]
    table, task = make(tmp_path), plugins.load("tasks", name)
    (tmp_path / "cache").mkdir()
    rows = task.prepare(table, how, tmp_path, tmp_path / "cache", 2, plain)
    lengths = task.lengths(rows)
    assert (lengths is None) == (not task.free_axes(how))
    if lengths is not None:
        assert [task.collate(rows[i : i + 1], how)[0].shape[1] for i in range(len(rows))] == list(lengths)
        assert len(set(lengths)) > 1


@pytest.mark.parametrize("name", NAMES)
def test_rows_can_be_looked_at_and_compared(name: str, tmp_path: Path) -> None:
    make, task = CANONICAL[name][0], plugins.load("tasks", name)
    rows = task.preview_rows(make(tmp_path), tmp_path, 32)
    assert all(task.picture(row).size >= (32, 32) for row in rows)
    assert task.change(rows[0], rows[0]) == 0
    assert 0 < task.change(rows[0], rows[-1]) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_decoder_names_its_library(name: str) -> None:
    assert "/" in plugins.load("tasks", name).decoder()


@pytest.mark.parametrize("name", NAMES)
def test_example_is_the_same_each_time(name: str) -> None:
    task, how = plugins.load("tasks", name), CANONICAL[name][1]
    for one, other in zip(task.example(how, 3), task.example(how, 3)):
        np.testing.assert_array_equal(one, other)
