"""Finished projects, not to be changed."""

from __future__ import annotations

from pathlib import Path

import monitored
import pytest


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of images."""
    return monitored.images(tmp_path_factory)


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of texts."""
    return monitored.of_texts(tmp_path_factory.mktemp("texts"))
