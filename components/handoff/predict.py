"""Label images with the model in this folder.

    python predict.py image.png [more.jpg ...] [--top 3] [--json]
    python predict.py --check

Needs numpy, pillow and onnxruntime (requirements.txt) and the files beside it; runs from any folder.
`--check` compares every file with SHA256SUMS, and the model's answers for the images in example/ with
those of the training code.

From Python, with this folder on the path: `Predictor().predict([content_of_a_file, ...])`.

Exit codes: 0 done; 1 the check failed, or a file of this folder is missing or broken; 2 wrong arguments, or
an image that cannot be read (the others are still labelled).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # this folder stays as its checksums say

try:
    import numpy as np
    import onnxruntime
    from image_preprocessing import (  # type: ignore[import-not-found]  # lies beside this file once shipped
        Preprocessing,
        Unreadable,
        load,
        normalise,
    )
except ImportError as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"error: {error}. Install what is needed: python -m pip install -r requirements.txt")

HERE = Path(__file__).resolve().parent
BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image."""

    label: str
    probabilities: dict[str, float]
    """Label -> calibrated probability, the most probable first."""
    embedding: Any
    """float32 [D], the features before the last layer."""


class Predictor:
    """The model of a bundle's folder, ready to label images."""

    def __init__(self, folder: Path = HERE, threads: int = 0) -> None:
        """`threads` of ONNX Runtime; 0 lets it decide."""
        self.labels: list[str] = json.loads((folder / "labels.json").read_text("utf-8"))
        spec = json.loads((folder / "preprocessing.json").read_text("utf-8"))
        self.preprocessing = Preprocessing.read(spec)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name

    def read(self, content: bytes) -> np.ndarray:
        """The bytes of an image file -> pixels, uint8 [height, width, 3].

        Raises:
            image_preprocessing.Unreadable: they are not an image that can be used.
        """
        pixels: np.ndarray = load(content, self.preprocessing)
        return pixels

    def predict(self, contents: Sequence[bytes]) -> list[Prediction]:
        """Label the bytes of image files, in their order.

        Raises:
            image_preprocessing.Unreadable: one of them is not an image that can be used.
        """
        return self.predict_pixels([self.read(content) for content in contents])

    def predict_pixels(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Label images that `read` gave."""
        found = []
        for start in range(0, len(images), BATCH):
            feed = {self.input: normalise(np.stack(images[start : start + BATCH]), self.preprocessing)}
            outputs = self.session.run(["label", "probabilities", "embedding"], feed)
            found += [self._prediction(*row) for row in zip(*outputs)]
        return found

    def _prediction(self, label: Any, probabilities: np.ndarray, embedding: np.ndarray) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")
        named = {self.labels[i]: float(probabilities[i]) for i in order}
        return Prediction(self.labels[int(label)], named, embedding)


def check_examples(predictor: Predictor, folder: Path = HERE) -> list[str]:
    """The golden examples that the model does not give again, one line each; none if all is well."""
    expected = json.loads((folder / "example" / "expected.json").read_text("utf-8"))
    problems = []
    for example in expected["examples"]:
        found = predictor.predict([(folder / "example" / example["file"]).read_bytes()])[0]
        wanted = example["probabilities"]
        gap = max(abs(found.probabilities[label] - wanted[label]) for label in wanted)
        if found.label != example["predicted"] or not gap <= expected["tolerance"]:
            problems.append(
                f"example/{example['file']}: {found.label}, expected {example['predicted']}; "
                f"probabilities differ by {gap:.2g}, {expected['tolerance']:.2g} is allowed"
            )
    return problems


def check_files(folder: Path = HERE) -> list[str]:
    """The files that are not as SHA256SUMS says, one line each; none if all is well."""
    problems = []
    for line in (folder / "SHA256SUMS").read_text("utf-8").splitlines():
        digest, name = line.split("  ", 1)
        place = folder / name
        if not place.is_file():
            problems.append(f"{name}: it is missing")
        elif hashlib.sha256(place.read_bytes()).hexdigest() != digest:
            problems.append(f"{name}: it has been changed")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Label images with the model in this folder.")
    parser.add_argument("images", nargs="*", metavar="image", help="image files")
    parser.add_argument("--top", type=int, default=3, help="how many labels to show (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON with all probabilities")
    parser.add_argument("--check", action="store_true", help="check this folder's files and examples")
    given = parser.parse_args(arguments)
    if not given.images and not given.check:
        parser.error("name at least one image, or --check")
    if given.top < 1:
        parser.error("--top must be at least 1")
    try:
        broken = check_files() if given.check else []
        if not broken:
            predictor = Predictor()
            broken = check_examples(predictor) if given.check else []
    except Exception as error:  # onnxruntime's own errors for a damaged model derive from nothing narrower
        broken = [f"this folder is not whole: {error}"]
    if broken:
        print("\n".join(f"error: {line}" for line in broken), file=sys.stderr)
        return 1
    if given.check:
        print("ok: files and examples are as they were made", file=sys.stderr if given.json else sys.stdout)
    return _label(predictor, given.images, given.top, given.json) if given.images else 0


def _label(predictor: Predictor, names: Sequence[str], top: int, as_json: bool) -> int:
    """Label in batches, so that a thousand names take no more memory than sixteen."""
    told: list[dict[str, Any]] = []
    for start in range(0, len(names), BATCH):
        rows: list[dict[str, Any]] = []
        pixels = []
        for name in names[start : start + BATCH]:
            rows.append({"file": name})
            try:
                pixels.append(predictor.read(Path(name).read_bytes()))
            except (OSError, Unreadable) as error:
                rows[-1]["error"] = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        predictions = iter(predictor.predict_pixels(pixels))
        for row in rows:
            told.append(row if "error" in row else {**row, **_row(next(predictions))})
            _show(told[-1], top, as_json)
    if as_json:
        print(json.dumps(told, indent=1, ensure_ascii=False))
    return 2 if any("error" in row for row in told) else 0


def _row(prediction: Prediction) -> dict[str, Any]:
    return {"label": prediction.label, "probabilities": prediction.probabilities}


def _show(row: dict[str, Any], top: int, as_json: bool) -> None:
    if "error" in row:
        print(f"error: {row['file']}: {row['error']}", file=sys.stderr)
    elif not as_json:
        best = list(row["probabilities"].items())[:top]
        print(f"{row['file']}: " + ", ".join(f"{label} {value:.4f}" for label, value in best))


if __name__ == "__main__":
    sys.exit(main())
