"""One finished bundle for all tests of the stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import upstream

from components.contracts import write_json
from components.handoff import stage
from components.job import Job


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its bundle in artifacts/handoff/bundle; not to be changed."""
    root = tmp_path_factory.mktemp("project")
    upstream.before_handoff(root, Path(__file__).parents[3])
    (root / ".git").mkdir()
    (root / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (root / ".git/packed-refs").write_text(f"# pack-refs with: peeled\n{'1' * 40} refs/heads/main\n")
    job = Job.at(root, "handoff", stage.NEEDS)
    job.clear()
    write_json(job.out("metrics.json"), stage.run(stage.Params(licence="", contact="", examples=3), job))
    job.publish()
    return root
