"""The monitor loop for real: a schedule of one minute, data shifted on purpose, retrained, promoted, rolled back.

Also a script, which prints what happened when:  python tests/e2e/test_monitor_loop.py
About five minutes on two quiet cores.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent.parent)]

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import served  # noqa: E402
from miniature import call, commit  # noqa: E402
from PIL import Image  # noqa: E402
from projects import make_project, sh  # noqa: E402
from ruamel.yaml import YAML  # noqa: E402

PER_LABEL = 30
NUM_SHIFTED = 12
"""A label."""


def small(values: Any) -> None:
    values["ingest"] |= {"source": {"name": "image_folder"}, "data": "data/images"}
    values["select"]["candidates"] = [
        {"name": "timm", "model": "test_efficientnet", "image_size": 32, "weights": {"source": "random"}}
    ]
    values["select"]["scores"] = [{"name": "knn_probe"}]
    values["finetune"] |= {"strategy": {"name": "full", "epochs": 1}, "references": []}
    values["evaluate"]["num_bootstrap"] = 100
    values["bias"] |= {"num_bootstrap": 100, "num_permutations": 100, "min_group_size": 5}
    values["gate"]["rules"] = [
        {"metric": "evaluate.accuracy", "at_least": 0.0},
        {"metric": "bias.worst_group_accuracy", "at_least": 0.0},  # the quality blessing asks for one about groups
    ]
    values["export"] |= {"variant": "fp32", "rungs": []}


def operate(path: Path) -> None:
    """Settings for impatient people: everything by itself, no cool-down, a look each minute."""
    yaml = YAML()
    values = yaml.load(path / "infra" / "operations.yaml")
    values["monitor"] |= {"min_samples": 50, "cool_down_hours": 0, "then": "promote"}
    values["promote"] |= {"max_loss": None, "min_queries": 10}
    yaml.dump(values, path / "infra" / "operations.yaml")
    place = path / "infra" / "prefect" / "prefect.yaml"
    deployments = yaml.load(place)
    for one in deployments["deployments"]:
        one["schedules"] = [{"cron": "* * * * *", "slug": "each-minute"}] if "monitor" in one["entrypoint"] else []
    yaml.dump(deployments, place)


def digits(folder: Path, first: int, per_label: int, shifted: bool) -> None:
    """Handwritten digits as pictures of 32 px; shifted: ink and paper change places, and all is darker."""
    from sklearn.datasets import load_digits

    found = load_digits()
    for label in range(10):
        for number in np.flatnonzero(found.target == label)[first : first + per_label]:
            pixels = found.images[number] / 16
            pixels = (1 - pixels) * 0.4 if shifted else pixels
            place = folder / str(label) / f"{number:04}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 255).astype(np.uint8)).convert("RGB").resize((32, 32)).save(place)


def pipelines(project: Path, *words: str) -> str:
    """What the command prints. Not by `sh`, whose one date for all commits GTO cannot read."""
    done = call(project, sys.executable, "-m", "pipelines", *words, timeout=1200)
    assert done.returncode == 0, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def live(project: Path) -> str:
    """Version that is live, by the pointer."""
    return str(json.loads((project / "deployed" / "production.json").read_text())["version"])


def loop(folder: Path, say: Any = print) -> list[dict[str, Any]]:
    """All of it; the records of the runs, the newest first."""
    began = time.monotonic()

    def told(what: str) -> None:
        say(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    project = make_project(folder / "digits", small)
    with (project / ".gitignore").open("a") as handle:
        handle.write("data/images/\n")
    operate(project)
    sh(project, "git", "config", "user.name", "test")
    sh(project, "git", "config", "user.email", "test@example.invalid")
    digits(project / "data" / "images", 0, PER_LABEL, shifted=False)
    commit(project)
    pipelines(project, "repro")
    sh(project, "git", "add", "-A")
    sh(project, "git", "-c", "commit.gpgsign=false", "commit", "-qm", "the first model")
    pipelines(project, "keygen")
    pipelines(project, "release", "--version", "1.0.0")
    pipelines(project, "promote", "1.0.0", "--because", "the first")
    assert live(project) == "1.0.0"
    told("1.0.0 is live")
    with served.serving(project) as serve:
        serve.wait_for("Serving ", 120)
        told("serving")
        digits(project / "data" / "images", PER_LABEL, NUM_SHIFTED, shifted=True)
        told("shifted data arrived")
        _until(lambda: "drift" in _events(project), 300, serve)
        told("drift was noticed")
        _until(lambda: live(project) != "1.0.0", 900, serve)
        told(f"{live(project)} is live")
        _until(lambda: not _open(project), 120, serve)
        started = time.monotonic()
        pipelines(project, "rollback", "--because", "the pictures were inverted by mistake")
        took = time.monotonic() - started
        told(f"{live(project)} is live again; rollback took {took:.1f} s")
        assert live(project) == "1.0.0"
        assert serve.end() == 0, serve.said[-3000:]
    records: list[dict[str, Any]] = json.loads(pipelines(project, "runs", "--json", "--last", "100"))
    for one in reversed(records):
        trigger = one["trigger"]
        told(f"{one['id']} {one['flow']:8} {one['state']:9} {trigger['kind']} {trigger['cause'][:70]} {trigger['run']}")
    return records


def _until(holds: Any, seconds: float, serve: served.Serve) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert serve.process.poll() is None, serve.said[-3000:]
        assert time.monotonic() < deadline, serve.said[-5000:]
        time.sleep(2)


def _events(project: Path) -> list[str]:
    path = project / ".graftline" / "notices.jsonl"
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []


def _open(project: Path) -> list[str]:
    return [one["id"] for one in json.loads(pipelines(project, "runs", "--json")) if one["ended"] is None]


def check(records: list[dict[str, Any]]) -> None:
    """The records tell the chain by ids."""
    by_flow: dict[str, list[dict[str, Any]]] = {}
    for one in records:
        by_flow.setdefault(one["flow"], []).append(one)
    (retraining,) = [one for one in by_flow["train"] if one["trigger"]["kind"] == "drift"]
    monitor = next(one for one in by_flow["monitor"] if one["id"] == retraining["trigger"]["run"])
    assert monitor["trigger"]["kind"] in ("data", "schedule")
    assert retraining["state"] == monitor["state"] == "done"
    assert "monitor." in retraining["trigger"]["cause"] or "drift" in retraining["trigger"]["cause"]
    promotion = by_flow["promote"][0]
    assert promotion["within"] == monitor["id"]
    assert retraining["within"] == monitor["id"]
    assert monitor["started"] <= retraining["started"] <= promotion["started"] <= by_flow["rollback"][0]["started"]
    assert "inverted by mistake" in by_flow["rollback"][0]["trigger"]["cause"]
    assert {one["state"] for one in by_flow["monitor"]} <= {"done", "unchanged", "refused", "interrupted"}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_drift_is_noticed_retrained_promoted_and_rolled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # the keys
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "config"))
    check(loop(tmp_path))


if __name__ == "__main__":
    import os

    with tempfile.TemporaryDirectory(prefix="loop-", ignore_cleanup_errors=True) as place:
        os.environ |= {"HOME": f"{place}/home", "XDG_CONFIG_HOME": f"{place}/home/config"}
        check(loop(Path(place)))
