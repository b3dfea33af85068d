"""A finished bundle by another implementation: onnxruntime-node against the bundle's own predict.py.

    python tests/node/second_implementation.py BUNDLE SAMPLES... [--number 100]

SAMPLES are image or text files, folders of them, or a project's artifacts/validate/accepted.parquet, of which the test
split is taken (from the project's folder). The first `number` are run. JavaScript reads PNG files and texts by itself,
and tokenises with @huggingface/tokenizers; other images are read by the bundle's preprocessing.py for both. Both
packages come from npm once and are kept below the system's folder for temporary files. Prints one line and ends with 1
if a decision or a text's tokens differ, or a probability by more than 1e-4.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import node_runtime as node  # noqa: E402  found by the line above


def samples(given: list[Path], room: Path, number: int) -> list[Path]:
    """Files; the texts of a table are written into `room`."""
    found: list[Path] = []
    for path in given:
        if path.suffix == ".parquet":
            found += _of_table(path, room, number)
        else:
            found += sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != ".") if path.is_dir() else [path]
    return found[:number]


def _of_table(path: Path, room: Path, number: int) -> list[Path]:
    import pandas as pd

    table = pd.read_parquet(path)
    rows = table[table["split"] == "test"].head(number)
    if "input.path" in rows:
        return [Path(name) for name in rows["input.path"]]
    if "input.text_pair" in rows and rows["input.text_pair"].notna().any():
        sys.exit("pairs of texts are not read in JavaScript")
    found = []
    for place, text in enumerate(rows["input.text"]):
        found.append(room / f"{place:05d}.txt")
        found[-1].write_bytes(text.encode())
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("samples", type=Path, nargs="*")
    parser.add_argument("--number", type=int, default=100)
    given = parser.parse_args()
    if given.bundle is None:  # `make benchmarks` runs every file here, and there may be no bundle
        print(f"nothing to do: name a bundle and samples\n{parser.format_usage()}", end="")
        return 0
    with tempfile.TemporaryDirectory() as room:
        files = samples(given.samples, Path(room), given.number)
        if not files:
            parser.error("no samples there")
        try:
            found = node.compare(given.bundle, files)
        except node.Unavailable as error:
            sys.exit(str(error))
    print(
        f"{found.num_samples} samples, onnxruntime-node against predict.py: {found.other_decisions} other decisions, "
        f"{found.other_ids} other tokens, probabilities differ by {found.max_difference:.2g} at most"
    )
    return 0 if found.same else 1


if __name__ == "__main__":
    sys.exit(main())
