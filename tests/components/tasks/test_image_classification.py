"""What one full read tells, what it refuses, and that prepared rows are the files' pixels."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import factories
import numpy as np
import odd_images
import pytest
from PIL import Image

from components.preprocessing import image_classification as pixels
from components.preprocessing.image_classification import Preprocessing, Unreadable
from components.samples import SampleChanged
from components.tasks import image_classification as task

HOW = asdict(Preprocessing(16, 16, (0.5,) * 3, (0.5,) * 3))


def reason(path: str, root: Path) -> str:
    with pytest.raises(Unreadable) as told:
        task.inspect({"path": path}, root)
    return told.value.reason


def plain(items: Any, what: str, total: int) -> Any:
    return items


def test_golden_properties(tmp_path: Path) -> None:
    """Left half black, right half red: luma 0 and 0.299."""
    Image.fromarray(odd_images.halves(20, 10, (0, 0, 0), (255, 0, 0))).save(tmp_path / "a.png")
    seen = task.inspect({"path": "a.png"}, tmp_path)
    expected = {
        "width": 20, "height": 10, "aspect_ratio": 2, "brightness": 0.1495, "contrast": 0.1495,
        "saturation": 0.5, "sharpness": 0.5 * (2 * 0.299 / 18),
        "num_bytes": (tmp_path / "a.png").stat().st_size,
    }  # fmt: skip
    assert seen.properties == pytest.approx(expected)
    assert seen.sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert seen.note == ""


@pytest.mark.parametrize(("name", "odd"), odd_images.odd().items())
def test_every_odd_file_has_finite_properties(name: str, odd: odd_images.Odd, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(odd.content)
    seen = task.inspect({"path": name}, tmp_path)
    assert all(np.isfinite(value) for value in seen.properties.values())
    assert odd.note in seen.note
    assert (seen.properties["height"], seen.properties["width"]) == odd.expected.shape[:2]
    for key in ("brightness", "contrast", "saturation"):
        assert 0 <= seen.properties[key] <= 1


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    assert reason("folder.png", tmp_path) == "not_a_file"
    assert reason("pipe.png", tmp_path) == "not_a_file"
    assert reason("/dev/zero", tmp_path) == "not_a_file"
    for name in ("gone.png", "link.png", "itself.png", "nul\0byte.png", "x" * 400 + ".png"):
        assert reason(name, tmp_path) == "cannot_open"


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as handle:
        handle.truncate(task.MAX_BYTES + 1)  # sparse: takes no room
    assert reason("large.png", tmp_path) == "too_large"


def test_prepared_rows_are_the_files_pixels_and_are_kept(tmp_path: Path) -> None:
    folder = factories.image_folder(tmp_path / "data", per_label=3)
    table = factories.manifest(tmp_path, folder)
    cache = tmp_path / "cache"
    cache.mkdir()
    rows = task.prepare(table, HOW, tmp_path, cache, 2, plain)
    how = Preprocessing.read(HOW)
    for index, path in enumerate(table["input.path"]):
        np.testing.assert_array_equal(rows[index], pixels.load((tmp_path / path).read_bytes(), how))
    kept = list(cache.iterdir())
    assert len(kept) == 1
    written = kept[0].stat().st_mtime_ns
    np.testing.assert_array_equal(task.prepare(table, HOW, tmp_path, cache, 1, plain), rows)
    assert kept[0].stat().st_mtime_ns == written
    task.prepare(table[::-1], HOW, tmp_path, cache, 2, plain)
    task.prepare(table, {**HOW, "height": 8}, tmp_path, cache, 2, plain)
    assert len(list(cache.iterdir())) == 3
    task.prepare(table, {**HOW, "mean": (0, 0, 0)}, tmp_path, cache, 2, plain)
    assert len(list(cache.iterdir())) == 3, "mean and std are applied later"


def test_a_sample_that_changed_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    folder = factories.image_folder(tmp_path / "data", per_label=3)
    table = factories.manifest(tmp_path, folder)
    (tmp_path / table["input.path"].iloc[4]).write_bytes(b"other")
    cache = tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(SampleChanged, match="has changed"):
        task.prepare(table, HOW, tmp_path, cache, 2, plain)
    assert list(cache.iterdir()) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = factories.image_folder(tmp_path / "data", per_label=3)
    table = factories.manifest(tmp_path, folder)
    cache = tmp_path / "cache"
    cache.mkdir()

    def full(items: Any, what: str, total: int) -> Any:
        for index, item in enumerate(items):
            if index == 2:
                raise OSError(28, "No space left on device")
            yield item

    with pytest.raises(OSError, match="No space left"):
        task.prepare(table, HOW, tmp_path, cache, 2, full)
    assert list(cache.iterdir()) == []
