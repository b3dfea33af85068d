"""What DVC cannot watch is told with its path, before a run stumbles over it or does not see it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from components import watched


def plant(data: Path, what: str) -> None:
    (data / "cats").mkdir(parents=True)
    (data / "cats/1.png").write_bytes(b"x")
    store = data.parent / "store"
    store.mkdir()
    if what == "link to a folder":
        (data / "dogs").symlink_to(store)
    elif what == "cannot be opened":
        (data / "cats/2.png").symlink_to("/nowhere/at/all")
    elif what == "not a plain file":
        os.mkfifo(data / "cats/pipe.png")
    elif what == "not UTF-8":
        Path(os.fsdecode(os.fsencode(data / "cats") + b"/bad\xff.png")).write_bytes(b"x")
    elif what == "hide data":
        (data / "cats/.dvcignore").write_text("*.png")
    elif what == "clean":
        (data / "cats/3.png").symlink_to(data / "cats/1.png")


@pytest.mark.parametrize("what", ["link to a folder", "cannot be opened", "not a plain file", "not UTF-8", "hide data"])
def test_each_is_told_once_with_its_path(what: str, tmp_path: Path) -> None:
    plant(tmp_path / "data", what)
    told = watched.problems(tmp_path / "data")
    assert len(told) == 1
    assert what in told[0]
    assert str(tmp_path / "data") in told[0]
    told[0].encode()


def test_linked_files_are_fine_as_dvc_reads_them(tmp_path: Path) -> None:
    plant(tmp_path / "data", "clean")
    assert watched.problems(tmp_path / "data") == []
    assert watched.problems(tmp_path / "data/cats/1.png") == []


def test_many_are_counted_not_listed(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.png").symlink_to("/nowhere")
    assert watched.problems(tmp_path)[-1] == "and 4 more of the kind"
