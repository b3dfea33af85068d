"""infra/systemd/graftline@.service: systemd's own opinion where it is installed, else what it must hold."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parent.parent.parent / "infra" / "systemd" / "graftline@.service"


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text("utf-8"))
    return parser


def test_it_starts_serve_in_the_project_and_comes_back() -> None:
    parser = unit()
    service = parser["Service"]
    assert service["ExecStart"] == "%f/.venv/bin/python -m pipelines serve --port ${GRAFTLINE_PORT}"
    assert service["WorkingDirectory"] == "%f"
    assert (service["Restart"], service["KillMode"]) == ("on-failure", "mixed")
    assert parser["Install"]["WantedBy"] == "multi-user.target"
    # What training needs: processes beside it, the GPU, code that is made while it runs, files outside its own group.
    assert not {"PrivateDevices", "MemoryDenyWriteExecute", "PrivateNetwork", "ProtectHome"} & set(service)


def test_it_runs_as_the_projects_owner_and_can_write_where_caches_lie() -> None:
    text = UNIT.read_text("utf-8")
    service = unit()["Service"]
    assert service["User"] not in ("", "root", "0")
    assert "#   User=" in text  # and how to name another
    assert "DynamicUser" not in service
    # `strict` makes home folders, shared DVC caches and ~/.prefect read-only
    assert (service["ProtectSystem"], set(service) & {"ReadOnlyPaths", "InaccessiblePaths"}) == ("full", set())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_itself_finds_nothing_wrong(tmp_path: Path) -> None:
    project = tmp_path / "digits"
    (project / ".venv" / "bin").mkdir(parents=True)
    shutil.copy("/bin/true", project / ".venv" / "bin" / "python")
    escaped = ["systemd-escape", "--path", str(project)]
    name = subprocess.run(escaped, capture_output=True, text=True, check=True).stdout.strip()
    unit = tmp_path / f"graftline@{name}.service"
    shutil.copy(UNIT, unit)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
