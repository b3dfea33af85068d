"""Label samples with the model in this folder.

    python predict.py SAMPLE [MORE ...] [--top 3] [--json]
    python predict.py --check
    python predict.py --help

Needs the packages of requirements.txt and the files beside it; runs from any folder. What a sample is, and how it
becomes the network's input, stands in preprocessing.py. `--check` compares every file with SHA256SUMS, and the
model's answers for the samples in example/ with those that stand in example/expected.json.

From Python, with this folder on the path: `Predictor().predict([sample, ...])`, of what `preprocessing.Reader.read`
takes.

Exit codes: 0 done; 1 the check failed, or a file of this folder is missing or broken; 2 wrong arguments, or
a sample that cannot be read (the others are still labelled).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # this folder stays as its checksums say

try:
    import numpy as np
    import onnxruntime
    import preprocessing  # type: ignore[import-not-found]  # lies beside this file once shipped
except ImportError as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"error: {error}. Install what is needed: python -m pip install -r requirements.txt")

HERE = Path(__file__).resolve().parent
BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """What the model says of one sample."""

    decision: str | list[str]
    """The label that it decides for; a list for a model that may decide for several, or for none."""
    probabilities: dict[str, float]
    """Label -> calibrated probability, the most probable first."""
    embedding: Any
    """float32 [D], the features before the last layer."""


class Predictor:
    """The model of a bundle's folder, ready to label samples."""

    def __init__(self, folder: Path = HERE, threads: int = 0) -> None:
        """`threads` of ONNX Runtime; 0 lets it decide."""
        self.labels: list[str] = json.loads((folder / "labels.json").read_text("utf-8"))
        self.reader = preprocessing.Reader(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.output: str = self.session.get_outputs()[0].name
        """Name of the decision: label, or labels."""

    def predict(self, samples: Iterable[Any]) -> list[Prediction]:
        """Label samples, in their order.

        Raises:
            preprocessing.Unreadable: one of them cannot be used.
        """
        return self.predict_rows([self.reader.read(sample) for sample in samples])

    def predict_rows(self, rows: Sequence[Any]) -> list[Prediction]:
        """Label what `reader.read` gave, in its order; the longest go through first, with others of their length."""
        order = sorted(range(len(rows)), key=lambda i: -self.reader.length(rows[i]))
        found: dict[int, Prediction] = {}
        for start in range(0, len(rows), BATCH):
            some = order[start : start + BATCH]
            feed = self.reader.inputs([rows[i] for i in some])
            outputs = self.session.run([self.output, "probabilities", "embedding"], feed)
            found |= {i: self._prediction(*row) for i, row in zip(some, zip(*outputs))}
        return [found[i] for i in range(len(rows))]

    def _prediction(self, decided: Any, probabilities: np.ndarray, embedding: np.ndarray) -> Prediction:
        several = [label for label, yes in zip(self.labels, decided) if yes] if np.ndim(decided) else None
        order = np.argsort(-probabilities, kind="stable")
        named = {self.labels[i]: float(probabilities[i]) for i in order}
        return Prediction(self.labels[int(decided)] if several is None else several, named, embedding)


def check_examples(predictor: Predictor, folder: Path = HERE) -> list[str]:
    """The golden examples that the model does not give again, one line each; none if all is well."""
    expected = json.loads((folder / "example" / "expected.json").read_text("utf-8"))
    problems = []
    for example in expected["examples"]:
        found = predictor.predict([preprocessing.from_file(folder / "example" / example["file"])])[0]
        wanted = example["probabilities"]
        gap = float(np.max([abs(found.probabilities[label] - wanted[label]) for label in wanted]))  # NaN stays NaN
        if found.decision != example["predicted"] or not gap <= expected["tolerance"]:
            problems.append(
                f"example/{example['file']}: {found.decision}, expected {example['predicted']}; "
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
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a name or text it cannot show
    noun = preprocessing.NOUN
    parser = argparse.ArgumentParser(description=f"Label {noun}s with the model in this folder.")
    preprocessing.add_arguments(parser)
    takes = set(vars(parser.parse_args([])))
    parser.add_argument("--top", type=int, default=3, help="how many labels to show (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON with all probabilities")
    parser.add_argument("--check", action="store_true", help="check this folder's files and examples")
    given = parser.parse_args(arguments)
    some = any(getattr(given, name) for name in takes)
    if not some and not given.check:
        parser.error(f"name at least one {noun}, or --check")
    if given.top < 1:
        parser.error("--top must be at least 1")
    try:
        asked = preprocessing.asked(given)
    except ValueError as error:
        parser.error(str(error))
    try:
        problems, told = _checked() if given.check else ([], "")
        predictor = Predictor() if some and not problems else None
    except Exception as error:  # onnxruntime's own errors for a damaged model derive from nothing narrower
        problems = [f"this folder is not whole: {error}"]
    if problems:
        print("\n".join(f"error: {line}" for line in problems), file=sys.stderr)
        return 1
    if given.check:
        print(told, file=sys.stderr if given.json else sys.stdout)
    return _label(predictor, asked, given.top, given.json) if predictor else 0


def _checked() -> tuple[list[str], str]:
    """What is wrong with this folder, and what to say if nothing is."""
    problems = check_files()
    if problems or not (HERE / "example").is_dir():
        return problems, "ok: files are as they were made. There are no examples here: answers were not checked"
    return check_examples(Predictor()), "ok: files and examples are as they were made"


def _label(predictor: Predictor, asked: Iterable[Any], top: int, as_json: bool) -> int:
    """A bunch after the other, so that any number of samples takes no more memory than one bunch."""
    told: list[dict[str, Any]] = []
    remaining, failed = iter(asked), False
    while bunch := list(itertools.islice(remaining, preprocessing.AHEAD)):
        lines: list[dict[str, Any]] = []
        rows = []
        for where, get in bunch:
            lines.append(dict(where))
            try:
                rows.append(predictor.reader.read(get()))
            except (OSError, preprocessing.Unreadable) as error:
                lines[-1]["error"] = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        predictions = iter(predictor.predict_rows(rows))
        for line, (where, _) in zip(lines, bunch):
            if "error" not in line:
                found = next(predictions)
                line |= {predictor.output: found.decision, "probabilities": found.probabilities}
            failed |= "error" in line
            told += [line] if as_json else []
            _show(line, where, predictor.output, top, as_json)
    if as_json:
        print(json.dumps(told, indent=1, ensure_ascii=(sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")))
    return 2 if failed else 0


def _show(line: dict[str, Any], where: dict[str, Any], output: str, top: int, as_json: bool) -> None:
    name = ":".join(" ".join(str(part).split()) for part in where.values())
    name = name if "file" in where or len(name) <= 60 else name[:59] + "…"
    if "error" in line:
        print(f"error: {name}: {line['error']}", file=sys.stderr)
    elif not as_json:
        best = list(line["probabilities"].items())[:top]
        decided = f"[{', '.join(line[output])}] " if isinstance(line[output], list) else ""
        print(f"{name}: {decided}" + ", ".join(f"{label} {value:.4f}" for label, value in best))


if __name__ == "__main__":
    sys.exit(main())
