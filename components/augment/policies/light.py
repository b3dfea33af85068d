"""Light: a little shift, rotation, scale, brightness and contrast.

What: one affine resampling (bilinear) about the middle, then contrast about the image's mean, then brightness; each
amount is uniform within its limit to both sides. What comes into view continues the edge.
When: the safe first choice for pictures where a small move does not change the label; digits, text, products, scans.
Not when: the amount itself is the label (angles, positions, brightness).
Settings: max_shift, max_rotation_degrees, max_scale, max_brightness, max_contrast, flip. flip is off because digits
and text do not survive it; turn it on for natural scenes without a handedness.
Cost: 0.25 ms an image at 64 px, 1.8 ms at 224 px (one core, November 2026).
Evidence here: tests/contracts/test_policies.py (golden bytes; with every limit at 0 nothing changes).
Source: Simard, Steinkraus and Platt, Best practices for convolutional neural networks applied to visual document
analysis, 2003, section 2, for affine distortion; the limits are our own choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import Field

from components import params

TASKS = ("image_classification",)


class Params(params.Params):
    """Options: the limits, to both sides."""

    max_shift: float = Field(default=0.08, ge=0, le=0.5)
    """Share of the width and of the height."""
    max_rotation_degrees: float = Field(default=10, ge=0, le=180)
    """Degrees."""
    max_scale: float = Field(default=0.1, ge=0, le=0.5)
    """0.1: from 0.9 to 1.1 of the size."""
    max_brightness: float = Field(default=0.1, ge=0, le=1)
    """Share of the full range that is added or taken."""
    max_contrast: float = Field(default=0.15, ge=0, le=1)
    """0.15: from 0.85 to 1.15 of the contrast."""
    flip: bool = False
    """Mirror left and right in half of the cases."""


def build(
    params: Params, *, cache: Path | None = None, device: str = "cpu"
) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """A function from a prepared row, uint8 [height, width, 3], and random numbers to a new row."""
    del cache, device

    def vary(row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        x, y, turn, size, light, contrast = rng.uniform(-1, 1, 6)
        mirrored = bool(rng.uniform() < 0.5) and params.flip  # drawn in any case: flip changes nothing else
        row = np.ascontiguousarray(row[:, ::-1] if mirrored else row)
        row = _move(
            row,
            (x * params.max_shift, y * params.max_shift),
            math.radians(turn * params.max_rotation_degrees),
            1 + size * params.max_scale,
        )
        return _light(row, light * params.max_brightness, 1 + contrast * params.max_contrast)

    return vary


def _move(row: np.ndarray, shift: tuple[float, float], radians: float, scale: float) -> np.ndarray:
    """Scale and rotate about the middle, then shift by shares of the size."""
    from PIL import Image

    height, width = row.shape[:2]
    cos, sin = math.cos(radians) / scale, math.sin(radians) / scale
    # PIL wants where each output pixel comes from: back by the shift, then back by the rotation about the middle
    x, y = width / 2 + shift[0] * width, height / 2 + shift[1] * height
    left, top = width / 2 - cos * x - sin * y, height / 2 + sin * x - cos * y
    corners = [(cos * u + sin * v + left, -sin * u + cos * v + top) for u in (0, width) for v in (0, height)]
    beyond = max(max(-u, u - width, -v, v - height) for u, v in corners)
    margin = max(0, math.ceil(beyond)) + 1
    wide = np.pad(row, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    inverse = (cos, sin, left + margin, -sin, cos, top + margin)
    moved = Image.fromarray(wide).transform((width, height), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
    return np.asarray(moved)


def _light(row: np.ndarray, brightness: float, contrast: float) -> np.ndarray:
    mean = row.mean()
    values = (np.arange(256) - mean) * contrast + mean + 255 * brightness
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)[row]
