"""Two machines, as far as one can play them: two torchrun agents, each in a copy of the project of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import projects
import pytest
from tiny_training import digests, upstream

from components.contracts import Verdict, read_json, write_json

pytestmark = pytest.mark.slow


def agent(project: Path, rank: int, port: int) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node",
        "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "trial",
        "-m", "pipelines.stage", "finetune",
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def train(*machines: Path) -> list[str]:
    port = free_port()
    agents = [agent(project, rank, port) for rank, project in enumerate(machines)]
    try:
        return [one.communicate(timeout=240)[1] for one in agents]
    finally:
        for one in agents:
            one.kill()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("machines")

    def change(values: Any) -> None:
        values["run"]["device"] = "cpu"
        values["finetune"] |= {"strategy": {"name": "full", "epochs": 2}, "references": [], "processes": 2}
        values["finetune"]["batch_size"] = 8

    first = projects.make_project(folder / "first", change)
    upstream(first)
    write_json(first / "artifacts/validate/verdict.json", Verdict("validate", True))
    return [first, Path(shutil.copytree(first, folder / "second", symlinks=True))]


def test_the_first_machine_writes_and_the_other_only_computes(machines: list[Path]) -> None:
    first, second = machines
    told = train(first, second)
    assert (first / "artifacts/finetune/metrics.json").exists(), "\n".join(told)
    assert read_json(first / "artifacts/finetune/metrics.json")["num_samples_seen_main"] > 0
    assert read_json(first / "reports/finetune/status.json")["exit_code"] == 0
    assert read_json(first / "artifacts/finetune/lineage.json")["params"]["finetune"]["processes"] == 2
    assert not (second / "artifacts/finetune").exists()
    assert not (second / "reports/finetune/status.json").exists()
    once = digests(first / "artifacts/finetune/runs")
    shutil.rmtree(first / "artifacts/finetune")
    here = projects.sh(first, sys.executable, "-m", "pipelines.stage", "finetune")  # both on one machine
    assert digests(first / "artifacts/finetune/runs") == once, here.stderr


def test_machines_with_other_params_do_not_train(machines: list[Path]) -> None:
    first, second = machines
    projects.edit(second, lambda values: values["finetune"].update(weight_decay=0.5))
    try:
        told = train(first, second)
    finally:
        projects.edit(second, lambda values: values["finetune"].update(weight_decay=0.01))
    assert "what decides the weights (data, params, code, libraries) of process 2 of 2 is not that" in told[0]
    assert read_json(first / "reports/finetune/status.json")["exit_code"] == 2
