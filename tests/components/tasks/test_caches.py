"""Caches never serve what other code, another library or other weights would not have made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import factories
import numpy as np
import pytest

from components import samples
from components.job import Job
from components.preprocessing import image_classification as pixels
from components.tasks import image_classification as task

HOW = {"height": 16, "width": 16, "mean": [0.5] * 3, "std": [0.5] * 3}


def test_pixels_are_decoded_again_when_the_code_or_the_library_changed(
    tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = factories.manifest(tmp_path, factories.image_folder(tmp_path / "data", per_label=2))
    job = make_job("stage")

    def prepare() -> np.ndarray:
        return np.array(task.prepare(table, HOW, tmp_path, job.cache("pixels"), 1, job.progress))

    before = prepare()
    real = pixels.fit
    monkeypatch.setattr(pixels, "fit", lambda image, how: 255 - real(image, how))
    assert np.array_equal(prepare(), before)  # the same code on disk: from the cache
    changed = tmp_path / "pixels.py"
    changed.write_text(Path(pixels.__file__).read_text() + "# inverted\n")
    monkeypatch.setattr(pixels, "__file__", str(changed))
    assert np.array_equal(prepare(), 255 - before)
    monkeypatch.setattr(task.PIL, "__version__", "0")
    assert len(list(job.cache("pixels").glob("*.npy"))) == 2
    prepare()
    assert len(list(job.cache("pixels").glob("*.npy"))) == 3


def test_select_and_finetune_share_a_key(tmp_path: Path) -> None:
    """One has the preprocessing with tuples, the other from JSON with lists."""
    table = factories.manifest(tmp_path, factories.image_folder(tmp_path / "data", per_label=2))
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in HOW.items()}
    assert samples.digest_of(table, HOW) == samples.digest_of(table, tuples)
    assert samples.digest_of(table, HOW) != samples.digest_of(table, {**HOW, "height": 17})
    assert samples.digest_of(table, HOW) != samples.digest_of(table[::-1], HOW)


def test_features_are_computed_anew_where_the_networks_code_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from components import features, model

    network, asked = model.Head(3, 2), []

    def found() -> np.ndarray:
        def compute() -> np.ndarray:
            asked.append(1)
            return np.zeros((2, 3), np.float32)

        return features.cached_features(network, "samples", tmp_path, compute)

    found()
    found()
    assert len(asked) == 1
    changed = tmp_path / "model.py"
    changed.write_text(Path(model.__file__).read_text() + "# other pooling\n")
    monkeypatch.setattr(sys.modules["components.model"], "__file__", str(changed))
    found()
    assert len(asked) == 2
