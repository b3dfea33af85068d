"""Bundles with a real model.onnx and a reference profile, as `handoff` makes them, and data that arrive later."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pandas as pd
import pytest
import upstream

from components.contracts import write_json
from components.handoff import stage
from components.handoff.stated import Stated
from components.job import Job

REPOSITORY = Path(__file__).parent.parent
LABELS = factories.SHAPES[:3]


def finish(root: Path, profile_samples: int = 200, **settings: Any) -> Path:
    """A project with its bundle."""
    upstream.before_handoff(root, REPOSITORY, **settings)
    return hand_over(root, profile_samples)


def hand_over(root: Path, profile_samples: int) -> Path:
    """Run the stage `handoff` and publish what it made."""
    job = Job.at(root, "handoff", stage.NEEDS)
    job.clear()
    params = stage.Params(licence="", contact="", examples=1, profile_samples=profile_samples, stated=Stated())
    write_json(job.out("metrics.json"), stage.run(params, job))
    job.publish()
    return root


def of_images(root: Path) -> Path:
    """240 images of three shapes."""
    return finish(root, per_label=80)


def images(folders: pytest.TempPathFactory) -> Path:
    """The same, made once for all tests of a session: copy it, or leave it as it is."""
    place = folders.getbasetemp() / "images-made-once"
    return place if place.exists() else of_images(place)


def of_texts(root: Path) -> Path:
    """240 texts of two labels, by word vectors."""
    table = factories.text_manifest(120, split=True)
    return finish(root, before=upstream.before_text_export, spec=upstream.word_vectors(root), table=table)


def more_images(folder: Path, num: int, seed: int, shifted: bool = False, labelled: bool = True) -> list[Path]:
    """Images as those of the project; `shifted`: by a camera that is much brighter and blurred."""
    from PIL import Image, ImageFilter

    rng = np.random.default_rng(seed)
    made = []
    for n in range(num):
        label = LABELS[n % len(LABELS)]
        image: Image.Image = factories.shape_image(label, rng)
        if shifted:
            image = image.filter(ImageFilter.GaussianBlur(2)).point(lambda v: 120 + v // 2)
        place = folder / (label if labelled else "") / f"later-{seed}-{n:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        store = io.BytesIO()
        image.save(store, "PNG")
        place.write_bytes(store.getvalue())
        made.append(place)
    return made


def more_texts(place: Path, num: int, seed: int, shifted: bool = False, labelled: bool = True) -> Path:
    """A table of texts as those of the project; `shifted`: long ones, in capitals."""
    rng = np.random.default_rng(1000 + seed)
    labels = [sorted(factories.WORDS)[n % 2] for n in range(num)]
    texts = [factories.sentence(label, rng) for label in labels]
    if shifted:
        texts = [f"{text.upper()} {' '.join(rng.choice(factories.FILLERS, 40)).upper()}!" for text in texts]
    place.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"text": texts, "label": labels if labelled else [""] * num}).to_csv(place, index=False)
    return place
