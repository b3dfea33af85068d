"""Some of the matrix as a test; `python tests/reproducibility/matrix.py` is the whole of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from reproducibility import matrix

COMMAND = Path(__file__).with_name("matrix.py")


def test_the_matrix_has_nine_variations_and_more(tmp_path: Path) -> None:
    assert len([name for name in matrix.variations(tmp_path) if name != "reference"]) >= 9


def test_a_name_of_this_machine_in_what_was_made_is_found(tmp_path: Path) -> None:
    place = matrix.Place(tmp_path / "project")
    made = place.folder / "artifacts" / "stage"
    made.mkdir(parents=True)
    (made / "clean.json").write_text("{}")
    (made / "leak.bin").write_bytes(b"\0" + str(place.folder).encode() + b"/x\0")
    assert matrix.leaks(place) == ["artifacts/stage/leak.bin"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", matrix.PROJECTS)
def test_another_path_another_clock_and_another_order_of_files_give_the_same_bytes(kind: str) -> None:
    command = [sys.executable, str(COMMAND), kind, "--only", "path,clock,files"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("all the same")
