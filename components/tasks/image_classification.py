"""Image classification: one image, and its label or labels.

What: reads an image file, knows its properties, turns it into the network's input.
When: every sample is one image; run.decision says whether it has one label or several.
Not when: boxes or masks.
Settings: none; the network's own preprocessing comes from the chosen backbone.
Cost: one full decode a sample in `ingest`, one more in the first stage that needs pixels, cached after.
Evidence here: tests/components/ingest and tests/contracts/test_tasks.py.
Source: the rules for modes stand at the top of components/preprocessing/image_classification.py.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL

from components import params, samples
from components.contracts import Inspection, whole
from components.preprocessing import image_classification as pixels
from components.preprocessing.image_classification import Preprocessing, Unreadable

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

INPUTS = ("path",)
"""Columns `input.*` that a source must give."""
FILES = ("path",)
"""Those of them that name a file."""
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm", ".avif", ".jp2",
)  # fmt: skip
"""What a file's name must end in for a source to take it for a sample, in small letters."""
MAX_BYTES = 500_000_000
"""Larger files are set aside unread."""


class Params(params.Params):
    """No options."""


def inspect(inputs: dict[str, str], root: Path) -> Inspection:
    """Read a sample once, whole.

    Raises:
        Unreadable: with a stable reason: those of components/preprocessing, and cannot_open, not_a_file.
    """
    content = _read(inputs["path"], root)
    image, note = pixels.decode(content)
    width, height, mode = image.width, image.height, image.mode
    rgb = pixels.to_rgb(image)
    properties = {"width": float(width), "height": float(height), "aspect_ratio": width / height}
    properties |= {"num_bytes": float(len(content)), **_appearance(rgb)}
    notes = [n for n in (note, f"mode {mode}" if mode not in ("RGB", "L") else "") if n]
    return Inspection(hashlib.sha256(content).hexdigest(), properties, "; ".join(notes))


def _read(path: str, root: Path) -> bytes:
    """Reading a pipe would wait for ever and a device never ends, so only plain files are read."""
    try:
        place = samples.locate(root, path)
        state = place.stat()
        if stat.S_ISREG(state.st_mode) and state.st_size <= MAX_BYTES:
            return place.read_bytes()
    except OSError as error:
        raise Unreadable("cannot_open", error.strerror or type(error).__name__) from None
    except ValueError:
        raise Unreadable("cannot_open", "no file can have this name") from None
    if stat.S_ISREG(state.st_mode):
        raise Unreadable("too_large", f"{state.st_size / 1e6:.0f} MB, over {MAX_BYTES / 1e6:.0f} MB")
    raise Unreadable("not_a_file", "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe or a device")


def _appearance(rgb: Image.Image) -> dict[str, float]:
    """Brightness and contrast: mean and deviation of luma; saturation: mean of (max - min) a pixel; all in
    0..1. Sharpness: mean absolute second difference of luma. Over at most 256 px a side: `rgb` is shrunk."""
    rgb.thumbnail((256, 256))
    values = np.asarray(rgb, dtype=np.float64) / 255
    luma = values @ np.array([0.299, 0.587, 0.114])
    parts = [np.abs(np.diff(luma, 2, axis=axis)) for axis in (0, 1) if luma.shape[axis] > 2]
    return {
        "brightness": float(luma.mean()),
        "contrast": float(luma.std()),
        "saturation": float((values.max(axis=2) - values.min(axis=2)).mean()),
        "sharpness": float(np.mean([p.mean() for p in parts])) if parts else 0.0,
    }


def prepare(
    table: pd.DataFrame,
    preprocessing: dict[str, Any],
    root: Path,
    cache: Path,
    threads: int,
    progress: Callable[[Iterable[Any], str, int], Iterator[Any]],
) -> np.ndarray:
    """Decoded pixels of the rows, uint8 [N, height, width, 3], in a memory map kept under `cache`.

    The key holds the samples' hashes, the preprocessing and the decoding code, so a stale file is never served.
    """
    how = Preprocessing.read(preprocessing)
    geometry = {k: v for k, v in asdict(how).items() if k not in ("mean", "std")}
    place = cache / f"{samples.digest_of(table, geometry, decoder())}.npy"
    if not place.exists():
        rows = list(zip(table["input.path"], table["sha256"]))

        def load(row: tuple[str, str]) -> np.ndarray:
            return pixels.load(samples.read_checked(root, *row), how)

        decoded = samples.in_threads(load, rows, threads)
        shape = (len(rows), how.height, how.width, 3)
        with whole(place) as store:  # not a memory map, which ends the process when the disk is full
            layout = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(store, layout)
            for image in progress(decoded, f"decoding at {how.width}x{how.height}", len(rows)):
                store.write(image.tobytes())
    return np.load(place, mmap_mode="r")


def decoder() -> str:
    """What turns bytes into pixels: this code and the library under it. Part of every cache's key."""
    code = b"".join(Path(str(module)).read_bytes() for module in (__file__, pixels.__file__))
    return f"{hashlib.sha256(code).hexdigest()}/pillow {PIL.__version__}"


def collate(rows: np.ndarray, preprocessing: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """The network's inputs for some prepared rows: one float32 array [N, 3, height, width]."""
    return (pixels.normalise(np.asarray(rows), Preprocessing.read(preprocessing)),)


def model_inputs(preprocessing: dict[str, Any]) -> tuple[str, ...]:
    """Names of the network's inputs, in order."""
    del preprocessing
    return ("pixels",)


def free_axes(preprocessing: dict[str, Any]) -> dict[int, tuple[str, int]]:
    """Axes of every input, beside the batch, that are free: axis -> (name, largest size). Here none."""
    del preprocessing
    return {}


def lengths(rows: np.ndarray) -> None:
    """How long each prepared row is, so that like can be batched with like: images are all of one size."""
    del rows


def fit(rows: np.ndarray, preprocessing: dict[str, Any]) -> dict[str, float]:
    """How well this preprocessing fits the samples: nothing is measured for images."""
    del rows, preprocessing
    return {}


def preview_rows(table: pd.DataFrame, root: Path, side: int) -> list[np.ndarray]:
    """Samples as rows to look at: uint8 [side, side, 3], scaled up without smoothing if smaller."""
    grey = (0.5, 0.5, 0.5)
    kinds = [Preprocessing(side, side, grey, grey, interpolation=i, fit="pad") for i in ("nearest", "bicubic")]
    rows = []
    for path, sha256, width in zip(table["input.path"], table["sha256"], table["property.width"]):
        rows.append(pixels.load(samples.read_checked(root, path, sha256), kinds[int(width >= side)]))
    return rows


def picture(row: np.ndarray, before: np.ndarray | None = None) -> Image.Image:
    """A row as a picture to look at; what differs from `before` is seen without a mark."""
    from PIL import Image

    del before
    return Image.fromarray(np.asarray(row))


def as_file(row: Mapping[str, Any], root: Path) -> tuple[bytes, str]:
    """A row of the manifest as a file of its own: content, and the end of its name."""
    path = row["input.path"]
    return samples.read_checked(root, path, row["sha256"]), PurePosixPath(path).suffix.lower()


def change(row: np.ndarray, varied: np.ndarray) -> float:
    """How much of a sample a policy changed, 0..1: mean absolute difference of the pixels over 255."""
    return float(np.abs(varied.astype(float) - row).mean() / 255)


def example(preprocessing: dict[str, Any], batch: int) -> tuple[np.ndarray, ...]:
    """Network inputs of the right shape, from a fixed seed; for export and cost."""
    how = Preprocessing.read(preprocessing)
    rows = np.random.default_rng(0).integers(0, 256, (batch, how.height, how.width, 3), dtype=np.uint8)
    return collate(rows, json.loads(json.dumps(asdict(how))))
