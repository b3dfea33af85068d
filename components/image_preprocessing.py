"""What the network sees of an image: one implementation for training, evaluation and deployment.

Needs only numpy and pillow and imports nothing of this project, because this very file is shipped in the
bundle. Rules, for every file:

- EXIF rotation is applied; of an animation or a multi-page file the first frame is used.
- Transparency (RGBA, LA, PA, palette) is laid over `background`.
- 16-bit grey is scaled by its full range (65535 -> 255), never clipped. Float images are refused.
- Grey, palette, CMYK and other modes become RGB.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

MAX_MEGAPIXELS = 100
_RESAMPLE = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
INTERPOLATIONS = tuple(_RESAMPLE)
FITS = ("squash", "crop", "pad")


class Unreadable(ValueError):
    """The bytes are not an image that can be used; `reason` is a stable word for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become the network's input. Lists are accepted for tuples, so it can come from JSON."""

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    fit: str = "squash"
    """squash: stretch to size. crop: scale the shorter side, cut the middle. pad: scale the longer side, add background."""
    background: tuple[int, int, int] = (255, 255, 255)

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Preprocessing:
        """From its JSON form."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()})


def decode(content: bytes) -> tuple[Image.Image, str]:
    """Decode fully. Returns the upright image in its own mode, and a note for a reader ("" if none).

    Raises:
        Unreadable: empty, not_an_image, too_large, truncated_or_corrupt.
    """
    if not content:
        raise Unreadable("empty", "0 bytes")
    try:
        image = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise Unreadable("too_large", str(error)) from None
    except Exception as error:
        raise Unreadable("not_an_image", type(error).__name__) from None
    if image.width * image.height > MAX_MEGAPIXELS * 1_000_000:
        raise Unreadable("too_large", f"{image.width}x{image.height} is over {MAX_MEGAPIXELS} megapixels")
    frames = getattr(image, "n_frames", 1)
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except Exception as error:
        raise Unreadable("truncated_or_corrupt", str(error)[:200] or type(error).__name__) from None
    return image, f"first of {frames} frames" if frames > 1 else ""


def to_rgb(image: Image.Image, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """RGB, 8 bits a channel, by the rules at the top.

    Raises:
        Unreadable: unsupported_mode, for float pixels or integers over 16 bits.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise Unreadable("unsupported_mode", f"{image.mode} with values beyond 16 bits")
        return Image.fromarray((values * 255 / 65535 + 0.5).astype(np.uint8), "L").convert("RGB")
    if image.mode == "F":
        raise Unreadable("unsupported_mode", "float pixels have no stated range; save as 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, (*background, 255)), over).convert("RGB")
    return image.convert("RGB")


def fit(image: Image.Image, how: Preprocessing) -> np.ndarray:
    """An RGB image at the network's size: uint8 [height, width, 3]."""
    size, resample = (how.width, how.height), _RESAMPLE[how.interpolation]
    if how.fit == "squash":
        image = image.resize(size, resample)
    elif how.fit == "crop":
        image = ImageOps.fit(image, size, resample)
    elif how.fit == "pad":
        image = ImageOps.pad(image, size, resample, color=how.background)
    else:
        raise ValueError(f"fit {how.fit!r} is not one of {FITS}")
    return np.asarray(image, dtype=np.uint8)


def load(content: bytes, how: Preprocessing) -> np.ndarray:
    """From a file's bytes to uint8 [height, width, 3]: decode, to_rgb, fit."""
    return fit(to_rgb(decode(content)[0], how.background), how)


def normalise(pixels: np.ndarray, how: Preprocessing) -> np.ndarray:
    """uint8 [N, height, width, 3] -> float32 [N, 3, height, width], (x / 255 - mean) / std a channel."""
    scale = (1.0 / (255.0 * np.asarray(how.std, dtype=np.float64))).astype(np.float32)
    offset = (-np.asarray(how.mean, dtype=np.float64) / np.asarray(how.std, dtype=np.float64)).astype(np.float32)
    values = pixels.astype(np.float32) * scale + offset
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
