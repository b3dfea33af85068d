"""A stage that may use a GPU waits for its turn before its time limit begins to count.

The turn itself is taken by the stage (pipelines/gpu.py), however it was started. Here flows wait for each other, and
for what has the device already. Among all that use one Prefect server, its global concurrency limit `gpu` holds too,
where somebody made one (`prefect gcl create gpu --limit 1`): its lease lasts a minute, so a run that died gives the
slot back within one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.concurrency.sync import concurrency

from components.params import load_yaml
from pipelines import gpu

LIMIT = "gpu"
LEASE_SECONDS = 60


@contextmanager
def turn(root: Path, stage: str) -> Iterator[None]:
    """Be the flow whose stage uses the GPU next; nothing, where it uses none."""
    raw = load_yaml(root / "params.yaml")
    wished, processes = _of(raw, "run").get("device", "auto"), _of(raw, stage).get("processes", 1)
    devices = gpu.devices(stage, str(wished), processes if isinstance(processes, int) else 1)
    if not devices:
        yield
        return
    with gpu.held(devices, "turn"), concurrency(LIMIT, occupy=1, lease_duration=LEASE_SECONDS, strict=False):
        with gpu.held(devices):
            pass  # free now; the stage takes it itself
        yield


def _of(raw: dict[str, Any], section: str) -> dict[str, Any]:
    found = raw.get(section)
    return found if isinstance(found, dict) else {}
