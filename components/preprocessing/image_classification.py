"""What the network sees of an image: one implementation for training, evaluation and deployment.

What: an image file's bytes -> RGB pixels -> pixels of the network's size -> its input. Needs only numpy and pillow and
imports nothing of this project, because this very file is shipped in the bundle, as preprocessing.py beside predict.py.
The deployed graph begins with RGB pixels of any size; what `fit` and `normalise` do is inside it too
(components/graphs/image_classification.py), so pixels that were fitted here pass through it unchanged.
When: a sample is one image file.
Not when: colour profiles, more than 8 bits a channel, or more than the first frame matter.
Settings: those of `Preprocessing`; they come from the chosen backbone and lie in preprocessing.json.
Cost: one full decode an image.
Evidence here: tests/components/tasks/test_image_preprocessing.py; predict.py gives what the training code gives on
28 odd images (tests/components/handoff/test_predict.py).
Source: EXIF 2.32, Orientation; PNG specification, alpha; the rules below are our own.

Rules, for every file:

- EXIF rotation is applied; of an animation or a multi-page file the first frame is used.
- Transparency (RGBA, LA, PA, palette) is laid over `background`.
- 16-bit grey is scaled by its full range (65535 -> 255), never clipped. Float images are refused.
- Grey, palette, CMYK and other modes become RGB. Colour profiles are not applied: colours are as stored.
- The content decides what a file is, not its suffix; only FORMATS are tried, so nothing is run by a decoder.
- Every byte that the pixels need is decoded, and the checksums of a PNG must fit. A JPEG has none: one whose
  bytes were changed, but not cut, is decoded as it is.
- At most MAX_MEGAPIXELS; an RGBA image of that many takes 1.2 GB for a moment.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

REQUIRES = ("pillow",)
"""Packages that this file needs beside numpy."""
NOUN = "image"
"""What one sample is called."""
FILES: tuple[str, ...] = ()
"""Files that the settings rest on."""
AHEAD = 16
"""Samples that predict.py reads before it runs the network."""
MAX_MEGAPIXELS = 100
FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000")
_RESAMPLE = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
INTERPOLATIONS = tuple(_RESAMPLE)
FITS = ("squash", "crop", "pad")
IMAGE = "image"
"""Name of the deployed model's input."""
INSIDE = "inside"
"""Key of preprocessing.json that tells what the model does by itself; nothing here rests on it."""
# First bytes that are an image's: what begins so and cannot be opened is a broken image, not another file.
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\xffO\xffQ")
_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
_PILLOW = r"PIL\..*"
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it tells stderr what is judged here


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
    """squash: stretch to size. crop: cut out the middle in the network's proportions, then scale. pad: scale the whole
    image to fit, fill up with background."""
    background: tuple[int, int, int] = (255, 255, 255)

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Preprocessing:
        """From its JSON form."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        return cls(**values)


def decode(content: bytes) -> tuple[Image.Image, str]:
    """Decode fully. Returns the upright image in its own mode, and a note for a reader ("" if none).

    Raises:
        Unreadable: empty, not_an_image, too_large, truncated_or_corrupt.
    """
    if not content:
        raise Unreadable("empty", "0 bytes")
    _hush()
    try:
        image = _open(content)
        frames = _num_frames(image)
        image.load()
        notes = [f"first of {frames} frames"] if frames > 1 else []
        upright = _turn_upright(image)
    except Unreadable:
        raise
    except MemoryError:
        raise Unreadable("too_large", "it does not fit into memory") from None
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise Unreadable("truncated_or_corrupt", _in_short(error)) from None
    if not upright:
        notes.append("unreadable EXIF, not turned")
    return image, "; ".join(notes)


def _open(content: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=_formats())
    except Image.DecompressionBombError:
        raise Unreadable("too_large", f"over {MAX_MEGAPIXELS} megapixels") from None
    except MemoryError:
        raise
    except Exception as error:
        if content.startswith(_BEGINNINGS) or content[8:12] == b"WEBP" or content[4:12] == b"ftypavif":
            told = "broken header" if isinstance(error, Image.UnidentifiedImageError) else _in_short(error)
            raise Unreadable("truncated_or_corrupt", told) from None
        raise Unreadable("not_an_image", "none of the formats that are read") from None
    if image.width * image.height > MAX_MEGAPIXELS * 1_000_000:
        raise Unreadable("too_large", f"{image.width}x{image.height}, over {MAX_MEGAPIXELS} megapixels")
    if min(image.size) < 1:
        raise Unreadable("truncated_or_corrupt", f"{image.width}x{image.height} pixels")
    if image.format == "PNG":
        image.verify()  # the checksums; an image cannot be read after it
        image = Image.open(io.BytesIO(content), formats=("PNG",))
    return image


def _num_frames(image: Image.Image) -> int:
    """Frames that can be reached; damage behind the first one does not matter, as only that is used."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:
        image.seek(0)
        return 1


def _turn_upright(image: Image.Image) -> bool:
    """Apply the EXIF rotation in place; False if the EXIF block cannot be read."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:
        return False
    return True


@functools.cache
def _formats() -> tuple[str, ...]:
    """FORMATS that this Pillow was built with."""
    Image.init()
    return tuple(f for f in FORMATS if f in Image.OPEN)


def _hush() -> None:
    """Pillow warns of what is judged here (sizes, odd EXIF, palettes); its words are not for users.

    A filter for Pillow's own modules alone, because `catch_warnings` is not safe beside threads.
    """
    if not any(f[0] == "ignore" and f[3] is not None and f[3].pattern == _PILLOW for f in warnings.filters):
        warnings.filterwarnings("ignore", module=_PILLOW)


def _in_short(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text[:200]


def to_rgb(image: Image.Image, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """RGB, 8 bits a channel, by the rules at the top.

    Raises:
        Unreadable: unsupported_mode, for float pixels, integers over 16 bits, or a mode with no way to RGB.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_integers(image)
    if image.mode == "F":
        raise Unreadable("unsupported_mode", "float pixels have no stated range; save as 8 or 16 bits")
    _hush()
    try:
        if image.mode in _WITH_ALPHA or "transparency" in image.info:
            over = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", over.size, (*background, 255)), over).convert("RGB")
        return image.convert("RGB")
    except (ValueError, OSError) as error:
        raise Unreadable("unsupported_mode", f"{image.mode}: {_in_short(error)}") from None


def _from_integers(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise Unreadable("unsupported_mode", f"{image.mode} with values beyond 16 bits")
    grey = (values.astype(np.uint32) + 128) // 257  # v * 255 / 65535 = v / 257, to the nearest
    return Image.fromarray(grey.astype(np.uint8), "L").convert("RGB")


def fit(image: Image.Image, how: Preprocessing) -> np.ndarray:
    """An RGB image at the network's size: uint8 [height, width, 3]."""
    size = (how.width, how.height)
    if how.fit == "squash":
        image = _resize(image, size, how)
    elif how.fit == "crop":
        inner = _largest(image.size, size)
        left, top = ((side - part) // 2 for side, part in zip(image.size, inner))
        image = _resize(image.crop((left, top, left + inner[0], top + inner[1])), size, how)
    elif how.fit == "pad":
        inner = _largest(size, image.size)
        padded = Image.new("RGB", size, how.background)
        padded.paste(_resize(image, inner, how), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
        image = padded
    else:
        raise ValueError(f"fit {how.fit!r} is not one of {FITS}")
    return np.asarray(image, dtype=np.uint8)


def _resize(image: Image.Image, size: tuple[int, int], how: Preprocessing) -> Image.Image:
    """Rows first, then columns. Which comes first changes the last bit, and in one call it depends on the sizes and on
    the version of Pillow; so that the order stays, each has a call of its own."""
    resample = _RESAMPLE[how.interpolation]
    return image.resize((size[0], image.height), resample).resize(size, resample)


def _largest(inside: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The largest (width, height) inside one that has the proportions of another: to the nearest pixel, and a side
    never vanishes. In whole numbers, so that the deployed graph computes the same."""
    (width, height), (wide, high) = inside, shape
    return (
        min(width, max(1, (2 * height * wide + high) // (2 * high))),
        min(height, max(1, (2 * width * high + wide) // (2 * wide))),
    )


def load(content: bytes, how: Preprocessing) -> np.ndarray:
    """From a file's bytes to uint8 [height, width, 3]: decode, to_rgb, fit."""
    return fit(to_rgb(decode(content)[0], how.background), how)


def affine(how: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of each channel, float32 [3]: (v / 255 - mean) / std = v * scale + offset."""
    mean, std = np.asarray(how.mean, dtype=np.float64), np.asarray(how.std, dtype=np.float64)
    return (1.0 / (255.0 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def normalise(pixels: np.ndarray, how: Preprocessing) -> np.ndarray:
    """uint8 [N, height, width, 3] -> float32 [N, 3, height, width], (v / 255 - mean) / std a channel."""
    scale, offset = affine(how)
    values = pixels.astype(np.float32) * scale + offset
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


class Reader:
    """From a sample to the model's input, by the settings in a bundle's folder."""

    def __init__(self, folder: Path) -> None:
        spec = json.loads((folder / "preprocessing.json").read_text("utf-8"))
        self.how = Preprocessing.read({k: v for k, v in spec.items() if k != INSIDE})

    def read(self, sample: bytes) -> np.ndarray:
        """The bytes of an image file -> uint8 [height, width, 3].

        Raises:
            Unreadable: they are not an image that can be used.
        """
        return load(sample, self.how)

    def length(self, row: np.ndarray) -> int:
        """How long a row is; all are of one size."""
        return len(row)

    def inputs(self, rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The model's input by its name. The model resizes too; fitted here, images of all sizes go in one batch."""
        return {IMAGE: np.stack(rows)}

    def summary(self, sample: bytes) -> dict[str, Any]:
        """One sample, told in short, for whoever prepares it in another language: as the model may be given it, and as
        the network in the model sees it before it is normalised."""
        image = to_rgb(decode(sample)[0], self.how.background)
        return {IMAGE: _in_figures(np.asarray(image)), "resized": _in_figures(fit(image, self.how))}


def from_file(path: Path) -> bytes:
    """What `Reader.read` takes, from a file."""
    return path.read_bytes()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What predict.py takes samples from."""
    parser.add_argument("images", nargs="*", metavar="image", help="image files")


def asked(given: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Callable[[], bytes]]]:
    """What the arguments stand for: of each sample where it is from, and how to get it (OSError, Unreadable)."""
    return (({"file": name}, functools.partial(from_file, Path(name))) for name in given.images)


def shipped(spec: dict[str, Any], reads: Sequence[str] = ()) -> dict[str, Any]:
    """The settings that this file needs, of those that a backbone gave; what the model reads is always one image."""
    del reads
    return asdict(Preprocessing.read(spec))


def describe(spec: dict[str, Any]) -> dict[str, Any]:
    """For whoever calls the model without this file: its `inputs` by name, and what its `free` dimensions beside the
    batch stand for."""
    how = Preprocessing.read(spec)
    meaning = (
        "RGB image, upright, channels last (batch, row, column, channel): red, green, blue, 8 bits each, as stored. "
        f"Any size; the model takes it to {how.width}x{how.height} px by itself, and leaves one of that size as it is"
    )
    free = {"height": "rows of the images, the same for all of a batch", "width": "their columns"}
    return {"inputs": {IMAGE: {"meaning": meaning, "unit": "1 of 255", "range": [0, 255]}}, "free": free}


def _in_figures(pixels: np.ndarray) -> dict[str, Any]:
    """uint8 [height, width, 3] in short."""
    return {
        "shape": list(pixels.shape),
        "mean_by_channel": [round(float(v), 3) for v in pixels.mean(axis=(0, 1), dtype=np.float64)],
        "first_pixel": pixels[0, 0].tolist(),
        "middle_pixel": pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].tolist(),
    }


def words(spec: dict[str, Any], reads: Sequence[str] = ()) -> dict[str, Any]:
    """What the model card says of samples; `fit` explains figures of tasks.image_classification.fit."""
    del reads
    how = Preprocessing.read(spec)
    return {
        "input": f"image of any size and mode, taken to {how.width}x{how.height} px by `{how.fit}`",
        "usage": ["python predict.py image.png --top 3"],
        "limits": [
            "The model resizes and normalises by itself, as in training; what it is given must be upright RGB with "
            "transparency laid over the background. An image shrunk by other means before gives other answers."
        ],
        "fit": {},
    }
