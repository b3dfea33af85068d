"""Projects in miniature and a Prefect server for the tests of the line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import miniature
import pytest


@pytest.fixture(scope="session")
def _new_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("new") / "mini"
    miniature.make(root)
    return root


@pytest.fixture(scope="session")
def _finished_project(_new_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(_new_project, tmp_path_factory.mktemp("finished") / "mini", symlinks=True))
    done = miniature.call(root, sys.executable, "-m", "dvc", "repro")
    assert done.returncode == 0, done.stderr
    miniature.commit(root)
    return root


@pytest.fixture
def new_project(_new_project: Path, tmp_path: Path) -> Path:
    """A project in miniature that has not run yet."""
    return Path(shutil.copytree(_new_project, tmp_path / "new", symlinks=True))


@pytest.fixture
def finished_project(_finished_project: Path, tmp_path: Path) -> Path:
    """The same after a plain `dvc repro`, with its record committed."""
    return Path(shutil.copytree(_finished_project, tmp_path / "finished", symlinks=True))


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A real Prefect server of this session's own; takes about 8 s to start."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
