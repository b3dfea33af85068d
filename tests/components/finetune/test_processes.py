"""Several processes train one model: the same weights as each other, nearly those of one, and they end together."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from safetensors.torch import load_file
from tiny_training import digests, listening, params, run, same_on_all, upstream, wait_long

from components.contracts import InputError, read_json
from components.finetune import launch, stage
from components.finetune.team import Team
from components.job import Job

SETTINGS: dict[str, Any] = {"strategy": {"name": "full", "epochs": 1, "frozen_norm": False}, "references": []}


def difference(a: Path, b: Path) -> float:
    mine, other = (load_file(job / "runs/main/weights.safetensors") for job in (a, b))
    return max(float((mine[k].double() - other[k].double()).abs().max()) for k in mine)


def test_two_processes_agree_with_one_but_for_rounding(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    """Batch normalisation over the whole batch, with its own statistics: what a part of a batch has is far off."""
    upstream(tmp_path, {"name": "light"})
    alone = shutil.copytree(run(make_job, tmp_path, **SETTINGS)[1].building, tmp_path / "alone")
    _, job = run(make_job, tmp_path, **SETTINGS, processes=2)
    one, two = (pd.read_csv(folder / "history.csv") for folder in (alone, job.building))
    assert np.allclose(one["train_loss"], two["train_loss"], rtol=1e-4)
    assert np.allclose(one["validation_loss"], two["validation_loss"], rtol=1e-3)
    assert 0 < difference(alone, job.building) < 2e-3  # rates of up to 3e-3, and AdamW turns tiny gradients into steps
    assert "2 processes" in read_json(job.building / "runs/main/run.json")["note"]


@pytest.mark.slow
def test_a_killed_process_loses_an_epoch_at_most_and_the_next_run_ends_with_the_same_bytes(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    upstream(tmp_path, {"name": "light"})
    settings = {**SETTINGS, "strategy": {"name": "lp_ft", "probe_epochs": 3, "epochs": 4}, "processes": 2}
    expected = digests(run(make_job, tmp_path, **settings)[1].building)
    place = tmp_path / ".graftline" / "finetune"
    assert not list(place.rglob("*.safetensors"))
    killed: list[float] = []

    def kill() -> None:
        while not list(place.rglob("1.safetensors")):
            time.sleep(0.01)
        children = [c for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())]
        killed.append(time.monotonic())
        children[-1].kill()

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(launch.ProcessDied, match="was killed"):
        run(make_job, tmp_path, **settings)
    assert time.monotonic() - killed[0] < 5
    assert list(place.rglob("1.safetensors"))
    assert digests(run(make_job, tmp_path, **settings)[1].building) == expected


@pytest.mark.slow
def test_statistics_and_gradients_are_those_of_the_whole_batch_nothing_listens_beyond_and_who_differs_is_told(
    make_job: Callable[..., Job],
) -> None:
    with pytest.raises(InputError, match="the rank of process 2 of 2 is not that of process 1"):
        launch.together(2, same_on_all, "", make_job("finetune"))
    assert not listening(os.getpid())


def test_a_killed_process_ends_all_within_seconds_and_is_named(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    job = make_job("finetune")
    place = tmp_path / "reports/finetune/pid1"

    def kill() -> None:
        while not (place.exists() and place.read_text()):
            time.sleep(0.05)
        killed.append(time.monotonic())
        os.kill(int(place.read_text()), signal.SIGKILL)

    killed: list[float] = []
    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(launch.ProcessDied, match=r"process 2 of 2 was killed \(signal 9\), as happens when memory"):
        launch.together(2, wait_long, "", job)
    assert time.monotonic() - killed[0] < 5
    assert not psutil.pid_exists(int((tmp_path / "reports/finetune/pid0").read_text()))


@pytest.mark.slow
def test_a_fault_of_one_is_told_with_its_trace(make_job: Callable[..., Job]) -> None:
    with pytest.raises(RuntimeError, match="process 2 of 2: LookupError: not there") as told:
        launch.together(2, wait_long, "fault", make_job("finetune"))
    assert "in wait_long" in str(told.value.__cause__)


def test_more_processes_than_a_batch_has_samples_are_a_mistake(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    team = Team(0, 3)
    with pytest.raises(InputError, match=r"finetune.processes is 3, but a batch has 2 samples"):
        team.check_batches([np.arange(4), np.arange(2)])


def test_another_number_than_torchrun_started_is_a_mistake(
    tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(launch.VARIABLES, ("1", "4", "1", "localhost", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"finetune.processes is 1, but torchrun started 4"):
        stage.run(params(), make_job("finetune", stage.NEEDS))
