"""The UCI handwritten digits that scikit-learn carries: 1,797 grey images of 8x8 px, ten classes.

What: writes each as a PNG of its own below artifacts/ingest/samples, so that the rest is as with files.
When: a first run with nothing to download.
Not when: you have data of your own.
Settings: limit.
Cost: under 2 s.
Evidence here: the default run; README, "What it printed".
Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998, doi 10.24432/C50P49.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from components import params
from components.contracts import Found
from components.job import Job

INPUTS = ("path",)
EXPECTS = "It reads nothing there: the digits come with scikit-learn."


class Params(params.Params):
    """Options."""

    limit: int | None = Field(default=None, ge=20)
    """Only the first so many images, for a quick try."""


def find(params: Params, data: Path, job: Job) -> Iterator[Found]:
    """Yields the digits in their published order."""
    del data
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    for index, (pixels, label) in enumerate(zip(grey[: params.limit], digits.target)):
        name = f"samples/{index:04d}.png"
        Image.fromarray(pixels, "L").save(job.out(name))
        yield Found(id=f"{index:04d}", label=str(label), inputs={"path": f"artifacts/ingest/{name}"})
