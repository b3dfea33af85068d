"""Training runs that take seconds, and what several processes do in tests: they must be able to import it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pandas as pd
import psutil
import torch

from components import plugins
from components.contracts import write_json, write_table
from components.finetune import stage
from components.finetune.team import Team, digest
from components.job import Job

BACKBONE = {"name": "timm", "model": "test_efficientnet", "image_size": 32, "weights": {"source": "random"}}


def upstream(root: Path, policy: dict[str, Any] | None = None) -> pd.DataFrame:
    table = factories.manifest(root, factories.image_folder(root / "data"), split=True)
    write_table(root / "artifacts/validate/accepted.parquet", table)
    write_json(
        root / "artifacts/augment/policy.json",
        {"policy": policy or {"name": "identity"}, "seed": 17, "note": ""},
    )
    choice = plugins.choose("backbones", BACKBONE)
    chosen = {
        "backbone": choice.spec(),
        "title": "tiny",
        "preprocessing": choice.load().preprocessing(choice.params),
    }
    (root / "artifacts/select/files").mkdir(parents=True)
    write_json(root / "artifacts/select/chosen.json", {**chosen, "pretrained": True, "why": "", "runners_up": []})
    return table


def params(**changed: Any) -> stage.Params:
    given: dict[str, Any] = {
        "strategy": {"name": "full", "epochs": 2}, "references": ["from_scratch", "frozen_probe"], "batch_size": 8,
        "precision": "auto", "patience": 5, "weight_decay": 0.01, "label_smoothing": 0.0, "warmup": 0.1,
        "max_gradient_norm": 1.0, "schedule": "cosine", "mixup": 0.0, "cutmix": 0.0, "dropout": 0.0, "processes": 1,
        "label_shares": [],
    }  # fmt: skip
    return stage.Params.model_validate({**given, **changed})


def run(make_job: Callable[..., Job], root: Path, **changed: Any) -> tuple[dict[str, float], Job]:
    job = make_job("finetune", stage.NEEDS)
    return stage.run(params(**changed), job), job


def digests(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def same_on_all(given: Any, job: Job, team: Team) -> dict[str, float]:
    """What each process computes is the same, and is what one would compute of the whole."""
    torch.manual_seed(0)
    values, weight = torch.randn(6, 3, 2, 2), torch.randn(3, requires_grad=True)
    plain = torch.nn.BatchNorm2d(3)
    synced = torch.nn.BatchNorm2d(3)
    plain(values).mul(weight.view(1, -1, 1, 1)).square().sum().backward()
    expected, weight.grad = weight.grad, None
    part = values[team.part(np.arange(6))].requires_grad_()
    with team.statistics():
        synced(part).mul(weight.view(1, -1, 1, 1)).square().sum().backward()
    team.sum_gradients([weight])
    assert expected is not None
    torch.testing.assert_close(weight.grad, expected)
    torch.testing.assert_close(synced.running_var, plain.running_var)
    torch.testing.assert_close(synced.running_mean, plain.running_mean)
    team.must_agree("the statistics", digest(synced.state_dict()))
    assert not listening(os.getpid())
    team.must_agree("the rank", str(team.rank))
    return {}


def listening(pid: int) -> list[str]:
    """Addresses beyond this machine on which a process waits for calls."""
    held = psutil.Process(pid).net_connections(kind="inet")
    return [c.laddr.ip for c in held if c.status == "LISTEN" and c.laddr.ip not in ("127.0.0.1", "::1")]


def wait_long(given: Any, job: Job, team: Team) -> dict[str, float]:
    """The first waits for a second that does something else."""
    job.report(f"pid{team.rank}").write_text(str(os.getpid()))
    if team.rank:
        (job.root / "reports/finetune/pid1").write_text(str(os.getpid()))
        if given == "fault":
            raise LookupError("not there")
        time.sleep(60)
    team.total(torch.ones(1))
    return {}
