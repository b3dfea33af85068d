"""Shards give the table that one call gives, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_by_hand
import pytest

from components.contracts import InputError
from pipelines import shards

PREDICT = '''
"""Labels by the length of what it reads; the third sample of a batch of four cannot be read."""
import json, sys
words = sys.argv[1:]
if "--lines" in words:
    name = words[words.index("--lines") + 1]
    samples = [({"file": name, "line": i}, line) for i, line in enumerate(open(name, "rb"), 1)]
else:
    samples = [({"file": name}, open(name, "rb").read()) for name in words[words.index("--") + 1:]]
rows = []
for number, (where, content) in enumerate(samples):
    if b"bad" in content:
        rows.append({**where, "error": "cannot be read"})
    else:
        share = len(content) % 7 / 7 + number % 4  # of the place in a batch, so that batches must be the same
        rows.append({**where, "label": "a", "probabilities": {"a": share, "b": 1 - share}})
print(json.dumps(rows, indent=1))
raise SystemExit(2 if any("error" in row for row in rows) else 0)
'''


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(made_by_hand, "PREDICT", PREDICT)
    found = made_by_hand.bundle(tmp_path / "tiny")
    (found / "preprocessing.py").write_text("AHEAD = 4\n")
    (found / "SHA256SUMS").unlink()
    made_by_hand.sums(found)
    return found


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow's loop without a server: what Prefect adds is shown by the sweep."""
    from pipelines.flows import fan_out

    monkeypatch.setattr(fan_out, "score", lambda root, work: [shards.label(one.plain()) for one in work])


def table(root: Path, bundle: Path, given: Path, num: int, kind: str) -> bytes:
    out = root / f"out{num}{kind}"
    shards.score(root, str(bundle), given, out, num, None, True)
    return out.read_bytes()


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet"])
def test_any_number_of_shards_gives_the_same_bytes(tmp_path: Path, bundle: Path, plainly: None, kind: str) -> None:
    lines = tmp_path / "in.txt"
    lines.write_text("".join(f"{'bad' if i == 6 else 'x' * (i % 5)}\n" for i in range(21)) + "no newline")
    folder = tmp_path / "files"
    for i in range(11):
        (folder / str(i % 2)).mkdir(parents=True, exist_ok=True)
        (folder / str(i % 2) / f"{i}").write_text("y" * i)
    for given in (lines, folder):
        whole = table(tmp_path, bundle, given, 1, kind)
        assert table(tmp_path, bundle, given, 3 if kind == ".csv" else 100, kind) == whole
    assert not list((tmp_path / shards.FOLDER).iterdir())


def test_rows_bear_the_name_and_line_of_the_input(tmp_path: Path, bundle: Path, plainly: None) -> None:
    import pandas as pd

    given = tmp_path / "in.txt"
    given.write_text("".join(f"{i}\n" for i in range(10)))
    table(tmp_path, bundle, given, 3, ".parquet")
    rows = pd.read_parquet(tmp_path / "out3.parquet")
    assert list(rows["line"]) == list(range(1, 11))
    assert set(rows["file"]) == {str(given)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"out": "labels.txt"}, r"its name must end with .jsonl, .csv, .parquet"),
        ({"num": 0}, "at least 1"),
        ({"given": "nothing"}, "give a folder of files, or a file of lines"),
    ],
)
def test_mistakes(tmp_path: Path, bundle: Path, change: dict[str, Any], told: str) -> None:
    (tmp_path / "in.txt").write_text("a\n")
    asked: dict[str, Any] = {"out": "o.csv", "num": 1, "given": "in.txt", **change}
    with pytest.raises(InputError, match=told):
        shards.score(
            tmp_path, str(bundle), tmp_path / asked["given"], tmp_path / asked["out"], asked["num"], None, True
        )
