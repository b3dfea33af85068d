"""A training run that is killed again and again ends with the bytes of one that was left alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_training import digests, params, upstream

KEPT = ".graftline/finetune"


def settings(epochs: int) -> dict[str, Any]:
    """Two phases, augmentation, mixing and dropout: all that draws random numbers."""
    strategy = {"name": "lp_ft", "probe_epochs": epochs // 4, "epochs": epochs}
    return {"strategy": strategy, "references": [], "patience": 10_000, "mixup": 0.4, "dropout": 0.2}


def live(root: Path, epochs: int) -> None:
    """A process that trains, quietly."""
    import torch

    from components.finetune import stage
    from components.job import Job

    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    job = Job.at(root, "finetune", stage.NEEDS)
    job.clear()
    stage.run(params(**settings(epochs)), job)


def step_of(root: Path) -> int:
    """Bytes and files that it has come to: grows with each checkpoint."""
    return sum(path.stat().st_mtime_ns for path in (root / KEPT).rglob("*.safetensors"))


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_killed_at_random_it_ends_with_the_same_bytes(tmp_path: Path, kills: int) -> None:
    """Each life is ended by SIGKILL at a random moment after its first checkpoint or two, wherever it is then: in a
    step, in writing a checkpoint, between the phases."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tiny_training", "timm", "components.finetune.runs"])
    upstream(tmp_path / "killed", {"name": "light"})
    shutil.copytree(tmp_path / "killed", tmp_path / "whole")
    epochs, draw = 4 * kills, random.Random(kills)
    whole = context.Process(target=live, args=(tmp_path / "whole", epochs))
    whole.start()
    killed = 0
    while True:
        one = context.Process(target=live, args=(tmp_path / "killed", epochs))
        one.start()
        if killed == kills:
            break
        before, until, seen = step_of(tmp_path / "killed"), draw.choice([0, 1, 1, 2]), 0
        while seen < until and one.is_alive():
            time.sleep(0.002)
            with contextlib.suppress(OSError):
                now = step_of(tmp_path / "killed")
                seen, before = seen + (now != before), now
        one.join(draw.uniform(0, 0.3))
        assert one.exitcode is None, "it ended before it could be killed: take more epochs"
        os.kill(one.pid or 0, signal.SIGKILL)
        one.join()
        assert one.exitcode == -signal.SIGKILL
        killed += 1
    for last in (one, whole):
        last.join()
        assert last.exitcode == 0
    found = [digests(tmp_path / name / "artifacts/.building/finetune") for name in ("killed", "whole")]
    assert found[0] == found[1]
    assert "runs/main/weights.safetensors" in found[0]
