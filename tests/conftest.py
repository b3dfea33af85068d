"""Pins arithmetic before any library is loaded, refuses sockets beyond this machine, and gives tiny real data."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(
    OMP_NUM_THREADS="2", MKL_NUM_THREADS="2", OPENBLAS_NUM_THREADS="2", MPLBACKEND="Agg", OMP_WAIT_POLICY="PASSIVE",
    ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2", MKL_CBWR="AVX2", OPENBLAS_CORETYPE="Haswell",
    GX_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1", HF_HUB_OFFLINE="1", PREFECT_SERVER_ANALYTICS_ENABLED="false",
)  # fmt: skip

import pytest

# Who started a run is guessed from these: here it is nobody but the test, on a developer's machine and in CI alike.
for _name in ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "GRAFTLINE_TRIGGER"):
    os.environ.pop(_name, None)

# A shell without job control starts background jobs with SIGINT ignored, and so would everything started here be;
# tests that press Ctrl-C need it heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parent.parent
_CONNECT = socket.socket.connect


def _refuse(self: socket.socket, address: Any) -> Any:
    host = address[0] if isinstance(address, tuple) else address
    local = self.family == getattr(socket, "AF_UNIX", None) or str(host) in ("127.0.0.1", "localhost", "::1", "0.0.0.0")
    if not local:
        raise OSError(f"tests may not reach {host}: no network beyond this machine")
    return _CONNECT(self, address)


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Any:
    """A test that needs the network is a defect."""
    socket.socket.connect = _refuse  # type: ignore[method-assign]
    yield
    socket.socket.connect = _CONNECT  # type: ignore[method-assign]


@pytest.fixture
def repository() -> Path:
    """The root of this repository."""
    return REPOSITORY


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Any]:
    """`make_job("stage", needs)` -> a Job in the test's own folder."""
    from components.job import Job

    def make(stage: str, needs: tuple[str, ...] = (), **settings: Any) -> Job:
        job = Job.at(tmp_path, stage, needs, **settings)
        job.clear()
        return job

    return make
