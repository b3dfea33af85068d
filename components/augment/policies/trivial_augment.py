"""TrivialAugment Wide: one operation, drawn uniformly, at a strength drawn uniformly.

What: of 14 operations one is drawn for each sample, with one of 31 strengths and, where it has one, a sign. Here, other
than in the paper's code, shears are about the middle and affine operations resample bilinearly. What comes into view
is black.
When: natural pictures and enough epochs (tens); it needs no tuning.
Not when: few epochs; digits, text or anything that a rotation up to 135 degrees turns into another label (6 and 9);
inputs under about 64 px, as translations go up to 32 px (lower max_translation_px).
Settings: max_translation_px.
Cost: 0.1 ms an image at 64 px, 0.7 ms at 224 px (one core, November 2026).
Evidence here: tests/contracts/test_policies.py (golden bytes; every operation acts, and is drawn evenly).
Source: Müller and Hutter, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, ICCV 2021, algorithm 1
and the Wide space of table 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import Field

from components import params

if TYPE_CHECKING:
    from PIL import Image

TASKS = ("image_classification",)
NUM_STRENGTHS = 31
Affine = tuple[float, float, float, float, float, float]


class Params(params.Params):
    """Options."""

    max_translation_px: int = Field(default=32, ge=0, le=1000)
    """Largest translation in pixels of the prepared sample."""


class Operation(NamedTuple):
    """`apply(image, amount)`; the amount runs from 0 to `largest`, to both sides if signed."""

    apply: Callable[[Image.Image, float], Image.Image]
    largest: float
    signed: bool


def build(
    params: Params, *, cache: Path | None = None, device: str = "cpu"
) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """A function from a prepared row, uint8 [height, width, 3], and random numbers to a new row."""
    del cache, device
    from PIL import Image

    operations = list(space(params.max_translation_px).values())

    def vary(row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        which, strength = int(rng.integers(len(operations))), int(rng.integers(NUM_STRENGTHS))
        negative = bool(rng.integers(2))
        operation = operations[which]
        amount = operation.largest * strength / (NUM_STRENGTHS - 1)
        if operation.signed and negative:
            amount = -amount
        image = Image.fromarray(np.ascontiguousarray(row))
        return np.array(operation.apply(image, amount), dtype=np.uint8)

    return vary


def space(max_translation_px: float) -> dict[str, Operation]:
    """The 14 operations of the Wide space with their largest amounts."""
    from PIL import ImageEnhance, ImageOps

    def enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
        return Operation(lambda image, amount: kind(image).enhance(1 + amount), 0.99, True)

    return {
        "identity": Operation(lambda image, _: image, 0, False),
        "auto_contrast": Operation(lambda image, _: ImageOps.autocontrast(image), 0, False),
        "equalize": Operation(lambda image, _: ImageOps.equalize(image), 0, False),
        "rotate": Operation(lambda image, degrees: _affine(image, *_rotation(degrees)), 135, True),
        "solarize": Operation(lambda image, amount: ImageOps.solarize(image, round(256 - amount)), 256, False),
        "color": enhance(ImageEnhance.Color),
        "posterize": Operation(lambda image, amount: ImageOps.posterize(image, 8 - round(amount)), 6, False),
        "contrast": enhance(ImageEnhance.Contrast),
        "brightness": enhance(ImageEnhance.Brightness),
        "sharpness": enhance(ImageEnhance.Sharpness),
        "shear_x": Operation(lambda image, amount: _affine(image, 1, amount, 0, 1), 0.99, True),
        "shear_y": Operation(lambda image, amount: _affine(image, 1, 0, amount, 1), 0.99, True),
        "translate_x": Operation(lambda i, px: _affine(i, 1, 0, 0, 1, x=px), max_translation_px, True),
        "translate_y": Operation(lambda i, px: _affine(i, 1, 0, 0, 1, y=px), max_translation_px, True),
    }


def _rotation(degrees: float) -> tuple[float, float, float, float]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return cos, sin, -sin, cos


def _affine(image: Image.Image, a: float, b: float, c: float, d: float, x: float = 0, y: float = 0) -> Image.Image:
    """Output pixel p comes from M (p - middle) + middle + (x, y), M = [[a, b], [c, d]]; beyond the image is black."""
    from PIL import Image

    u, v = image.width / 2, image.height / 2
    inverse: Affine = (a, b, u - a * u - b * v + x, c, d, v - c * u - d * v + y)
    return image.transform(image.size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
