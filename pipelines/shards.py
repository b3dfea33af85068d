"""`python -m pipelines score`: a bundle labels many samples, in shards side by side; one table, in the input's order.

A shard is a stretch of the input whose length is a multiple of what the bundle's predict.py reads at a time, so each
sample is in the same batch however many shards there are: the table is the same, byte for byte.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.contracts import InputError, write_atomic
from pipelines import bundles, processes

FOLDER = ".graftline/score"
FORMATS = (".jsonl", ".csv", ".parquet")
LINES = (".jsonl", ".txt")
MOST = 2000
"""Files whose names are given to one process at most: a command line has an end."""
_FORGOTTEN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


@dataclass(frozen=True)
class Shard:
    """One stretch of the input."""

    bundle: str
    files: tuple[str, ...]
    """Names of files; none where the samples are lines."""
    lines: str
    """A file with the lines of this shard, or ""."""
    first: int
    """Lines before it in the whole input."""
    given: str
    """The whole input's name."""
    step: int
    """Files that are labelled at a time."""
    out: str
    """Where its rows are written, as JSON lines."""

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "files": list(self.files)}


def score(root: Path, bundle: str, given: Path, out: Path, num: int, key: str | None, unsigned: bool) -> list[str]:
    """Label a folder of files, or a file of lines (.txt, .jsonl), into a .jsonl, .csv or .parquet; what to tell.

    Raises:
        InputError: nothing to label, or an input or output of another kind.
        Refused: the bundle does not hold; nothing of it was run.
    """
    if out.suffix.lower() not in FORMATS:
        raise InputError(f"--out {out}: its name must end with {', '.join(FORMATS)}")
    if num < 1:
        raise InputError(f"--shards {num}: at least 1")
    with bundles.trusted(root, bundle, bundles.trusted_key(key, unsigned), unsigned) as (folder, told):
        with _workplace(root) as place:
            work = _cut(folder, given, num, place)
            if len(work) == 1:
                label(work[0].plain())
            else:
                from pipelines.flows import fan_out

                fan_out.score(root, work)
            rows = [row for one in work for row in _rows(Path(one.out))]
        _write(rows, out)
    wrong = sum("error" in row for row in rows)
    return [f"verified: {told}", f"{len(rows)} samples in {len(work)} shards, {wrong} of them unreadable: {out}"]


@contextmanager
def _workplace(root: Path) -> Iterator[Path]:
    place = root.resolve() / FOLDER / str(os.getpid())
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _cut(folder: Path, given: Path, num: int, place: Path) -> list[Shard]:
    step = _ahead(folder)
    if given.is_dir():
        samples: Sequence[Any] = sorted(str(p) for p in given.rglob("*") if p.is_file() and not p.name.startswith("."))
    elif given.is_file() and given.suffix.lower() in LINES:
        with given.open("rb") as handle:
            samples = list(handle)
    else:
        raise InputError(f"{given}: give a folder of files, or a file of lines that ends with {' or '.join(LINES)}")
    if not samples:
        raise InputError(f"{given} has nothing to label")
    blocks = -(-len(samples) // step)
    borders = [min(i * blocks // min(num, blocks) * step, len(samples)) for i in range(min(num, blocks) + 1)]
    found = []
    for number, (start, end) in enumerate(zip(borders, [*borders[1:-1], len(samples)])):
        lines = place / f"{number}{given.suffix.lower()}"
        if not given.is_dir():
            lines.write_bytes(b"".join(samples[start:end]))
        about = ((), str(lines)) if not given.is_dir() else (tuple(samples[start:end]), "")
        several = max(1, MOST // step) * step
        found.append(Shard(str(folder), *about, start, str(given), several, str(place / f"{number}.rows")))
    return found


def _ahead(folder: Path) -> int:
    """How many samples predict.py reads at a time; looked up and not imported, as it is another's code."""
    found = re.search(r"^AHEAD = (\d+)$", (folder / "preprocessing.py").read_text("utf-8"), re.MULTILINE)
    if not found:
        raise InputError(f"{folder.name}: its preprocessing.py does not say AHEAD; it is of another version")
    return int(found[1])


def label(one: dict[str, Any]) -> str:
    """Label one shard; the file that it wrote. May run in another process, or on a machine that sees the same folders.

    Raises:
        InputError: the bundle's predict.py could not.
    """
    shard = Shard(**{**one, "files": tuple(one["files"])})
    program = Path(shard.bundle) / "predict.py"
    environment = {name: value for name, value in os.environ.items() if name not in _FORGOTTEN}
    if shard.lines:
        calls = [["--lines", shard.lines]]
    else:
        starts = range(0, len(shard.files), shard.step)
        calls = [["--", *shard.files[start : start + shard.step]] for start in starts]
    told: list[str] = []
    for words in calls:
        command = [sys.executable, "-B", str(program.absolute()), "--json", *words]
        code, out, complaint = processes.quietly(command, Path.cwd(), environment=environment)
        if code not in (0, 2) or not out.strip():
            last = bundles.printable((complaint.splitlines() or [f"it ended with {code}"])[-1])
            raise InputError(f"predict.py of {program.parent.name}: {last}")
        for row in json.loads(out):
            if shard.lines:
                row |= {"file": shard.given, **({"line": row["line"] + shard.first} if "line" in row else {})}
            told.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomic(Path(shard.out), "".join(told).encode("utf-8", "surrogateescape"))
    return shard.out


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="surrogateescape") as handle:
        for line in handle:
            yield json.loads(line)


def _write(rows: list[dict[str, Any]], out: Path) -> None:
    if out.suffix.lower() == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomic(out, text.encode("utf-8", "surrogateescape"))
        return
    import pandas as pd

    from components.contracts import write_table

    labels = sorted({label for row in rows for label in row.get("probabilities", {})})
    flat = []
    for row in rows:
        one = {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items() if k != "probabilities"}
        flat.append(one | {f"probability.{k}": row.get("probabilities", {}).get(k) for k in labels})
    table = pd.DataFrame(flat)
    order = [c for c in ("file", "line", "label", "labels", "error") if c in table.columns]
    table = table[[*order, *(c for c in table.columns if c not in order)]]
    if out.suffix.lower() == ".parquet":
        write_table(out, table)
    else:
        write_atomic(out, table.to_csv(index=False, lineterminator="\n").encode("utf-8", "surrogateescape"))
