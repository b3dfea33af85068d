"""One GPU, one stage at a time: a stage that may use it waits for its turn, before its time limit begins to count.

Two measures, for two reaches. On this machine a lock of the kernel (flock), which is free the instant its holder is
gone, however it went, and needs no server that all projects share. Among all that use one Prefect server, its global
concurrency limit `gpu`, where somebody made one (`prefect gcl create gpu --limit 1`): its lease lasts a minute, so a
run that died gives the slot back within one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.concurrency.sync import concurrency

from components.params import load_yaml
from pipelines import dvc_cli

USERS = ("augment", "select", "finetune", "evaluate", "drift")
"""Stages whose networks run on run.device. The others read files, or measure what ships, on the CPU."""
LIMIT = "gpu"
LEASE_SECONDS = 60
LOCKS = "/dev/shm"
"""Of all users of this machine, and gone after a restart."""


@contextmanager
def turn(root: Path, stage: str) -> Iterator[None]:
    """Hold the GPU that this stage of the project would use; nothing, where it uses none."""
    device = _device(root) if stage in USERS else None
    if device is None:
        yield
        return
    with _alone(device), concurrency(LIMIT, occupy=1, lease_duration=LEASE_SECONDS, strict=False):
        yield


def _device(root: Path) -> str | None:
    """Which one: the first of CUDA_VISIBLE_DEVICES, else 0; None: run.device or the machine has none."""
    run = load_yaml(root / "params.yaml").get("run")
    wished = run.get("device", "auto") if isinstance(run, dict) else "auto"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists()
    if wished == "cpu" or (wished == "auto" and not there) or visible == "":
        return None
    return (visible or "0").split(",")[0].strip().replace("/", "-")


@contextmanager
def _alone(device: str) -> Iterator[None]:
    path = Path(LOCKS) / f"graftline-gpu-{device}.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            dvc_cli.say(f"Another run has GPU {device}; waiting for it to end.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
