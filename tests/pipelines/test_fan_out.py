"""Settings side by side on the project in miniature: on threads, and on the workers of a dask cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import miniature
import pytest

from components.contracts import InputError, read_json, write_json
from pipelines import fan_out, operations, side, standings
from pipelines.fan_out import Setting, Wish

TWO = "- {name: low, set: {gate.at_least: 0.5}}\n- {name: high, set: {gate.at_least: 9, report.title: Strict}}\n"


def runner(project: Path, name: str, workers: int = 2, address: str = "null") -> None:
    path = project / operations.FILE
    path.parent.mkdir(exist_ok=True)
    there = miniature.REPOSITORY / "components" / "monitoring"
    shutil.copytree(there, project / "components" / "monitoring", ignore=shutil.ignore_patterns("__pycache__"))
    text = (miniature.REPOSITORY / operations.FILE).read_text("utf-8")
    before, _, _ = text.partition("fan_out:")
    path.write_text(f"{before}fan_out: {{runner: {name}, workers: {workers}, address: {address}}}\n")


def sweep(project: Path, *more: str) -> subprocess.CompletedProcess[str]:
    from prefect.settings import PREFECT_API_URL

    (project / "settings.yaml").write_text(TWO)
    environment = {**miniature.environment(), "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    words = ["sweep", "--changes", "settings.yaml", "--metric", "gate.passed", *more]
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *words], cwd=project, env=environment, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


@contextmanager
def cluster(project: Path) -> Iterator[str]:
    """Two workers of dask, each a process of its own, as they would be on other machines."""
    program = (
        "import sys\nfrom distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host='127.0.0.1') as c:\n"
        "        print(c.scheduler_address, flush=True)\n"
        "        sys.stdin.read()\n"
    )
    own = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, cwd=project, env={**miniature.environment(), "PYTHONPATH": str(project)},
    )  # fmt: skip
    assert own.stdin is not None
    assert own.stdout is not None
    try:
        yield own.stdout.readline().strip()
    finally:
        own.stdin.close()
        try:
            own.wait(timeout=20)
        finally:
            own.kill()
            own.stdout.close()


def test_settings_run_side_by_side_and_one_refused_does_not_lose_the_other(
    finished_project: Path, prefect_server: None
) -> None:
    runner(finished_project, "threads")
    before = (finished_project / "params.yaml").read_bytes()
    done = sweep(finished_project)
    assert done.returncode == 0, done.stderr
    told = read_json(finished_project / standings.FOLDER / "sweep.json")
    rows = {row["name"]: row for row in told["rows"]}
    assert (rows["low"]["state"], rows["high"]["state"]) == ("done", "refused")
    assert (rows["low"]["value"], rows["high"]["value"]) == (1.0, 0.0)
    assert told["verdict"]["winner"] == "low"
    assert "gate.at_least: 0.5" in done.stdout
    settings = {one["name"]: one for one in told["settings"]}
    assert "ingest" not in settings["low"]["seconds"], "it came from DVC's cache"
    assert "gate" in settings["low"]["seconds"]
    assert not list((finished_project / fan_out.FOLDER).iterdir()), "workspaces are removed"
    assert (finished_project / "params.yaml").read_bytes() == before
    assert (finished_project / standings.FOLDER / "sweep.png").exists()
    again = sweep(finished_project, "--keep")
    settings = {one["name"]: one for one in read_json(finished_project / standings.FOLDER / "sweep.json")["settings"]}
    assert "gate" not in settings["low"]["seconds"], f"DVC has it already\n{again.stderr}"
    assert "title: Strict" in (Path(settings["high"]["workspace"]) / "params.yaml").read_text()


@pytest.mark.slow
def test_the_same_on_the_processes_of_a_dask_cluster(finished_project: Path, prefect_server: None) -> None:
    with cluster(finished_project) as address:
        runner(finished_project, "dask", 2, address)
        done = sweep(finished_project)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in read_json(finished_project / standings.FOLDER / "sweep.json")["rows"]}
    assert (rows["low"]["state"], rows["high"]["state"]) == ("done", "refused")


@pytest.mark.slow
def test_the_same_on_a_local_cluster_of_dask(finished_project: Path, prefect_server: None) -> None:
    runner(finished_project, "dask")
    done = sweep(finished_project)
    assert done.returncode == 0, done.stderr
    assert read_json(finished_project / standings.FOLDER / "sweep.json")["verdict"]["winner"] == "low"


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_a_runner_that_is_not_installed_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.flows import fan_out as flow

    monkeypatch.setitem(sys.modules, f"prefect_{name}", None)
    with pytest.raises(InputError, match=rf"fan_out.runner is {name}.*pip install 'graftline\[{name}\]'"):
        flow.runner(operations.FanOut(runner=name, workers=1, address=None))  # type: ignore[arg-type]


def test_threads_have_no_address() -> None:
    with pytest.raises(ValueError, match="threads have no address"):
        operations.FanOut(runner="threads", workers=1, address="127.0.0.1:8786")


def planned(**wish: str) -> list[Setting]:
    return fan_out.planned(miniature.REPOSITORY, Wish(**wish))  # type: ignore[arg-type]


def test_a_list_gives_a_setting_for_each_of_its_members() -> None:
    found = planned(over="select.candidates")
    assert [one.name[:29] for one in found] == ["timm-tf_efficientnet_lite0-im", "timm-tf_efficientnet_lite1-im"]
    assert all(len(one.changes["select.candidates"]) == 1 for one in found)


def test_values_are_set_and_the_rest_of_params_stays() -> None:
    found = planned(over="finetune.batch_size", values="[16, 64]")
    text = side.changed(miniature.REPOSITORY, found[1].changes)
    assert "batch_size: 64 " in text
    assert "# samples a step" in text
    assert "max_per" not in text


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"over": "finetune.batch_size", "values": "[16, 1]"}, r"setting 1: params.yaml: 1 mistake\n.*batch_size"),
        ({"over": "finetune.batch_sice", "values": "[16, 32]"}, "did you mean `batch_size`"),
        ({"over": "finetune.strategy"}, "no list of which one can be tried"),
        ({"over": "finetun.strategy", "values": "[1, 2]"}, "params.yaml has no finetun"),
        ({"over": "finetune.batch_size", "values": "[16]"}, "at least two settings"),
        ({"over": "finetune.batch_size", "values": "[16, 16]"}, "at least two settings|differ"),
        ({"over": "finetune.batch_size", "values": "[16"}, "--values: not valid YAML"),
        ({}, "give either --over KEY"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_runs(wish: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        planned(**wish)


def test_a_file_of_changes_that_is_wrong_says_where(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("- {name: a, set: {run.seed: 1}}\n- {name: ../b, set: {run.seed: 2}}\n")
    with pytest.raises(InputError, match=r"entry 2: a name of letters.*'\.\./b'"):
        planned(changes=str(path))


def result(name: str, right: str, **more: object) -> dict[str, object]:
    from components.evaluate.stage import NEEDS  # noqa: F401  the stage whose figures these are

    value = right.count("1") / len(right)
    interval = {"value": value, "low": max(0.0, value - 0.1), "high": min(1.0, value + 0.1), "level": 0.95}
    plain = {"state": "done", "code": 0, "told": "", "metrics": {}, "seconds": {"finetune": 1.5}}
    return {
        "name": name,
        "changes": {"run.seed": name},
        "right": right,
        "ids": "x",
        "validation": interval,
        **plain,
        **more,
    }


@pytest.mark.parametrize(("differ", "close"), [(3, True), (40, False)])
def test_who_is_ahead_is_called_only_where_the_same_samples_say_so(tmp_path: Path, differ: int, close: bool) -> None:
    found = [result("b", "1" * (190 - differ) + "0" * (10 + differ)), result("a", "1" * 190 + "0" * 10)]
    told = standings.conclude(tmp_path, found, standings.METRIC)
    verdict = read_json(tmp_path / standings.FOLDER / "sweep.json")["verdict"]
    assert verdict["winner"] == "a"
    assert verdict["close"] == (["b"] if close else [])
    assert ("Too close to call against b" in "\n".join(told)) == close
    assert "ids" not in (tmp_path / standings.FOLDER / "sweep.json").read_text()


def test_other_samples_are_compared_by_intervals_and_the_test_split_is_warned_about(tmp_path: Path) -> None:
    metrics = {"evaluate.accuracy": 0.9, "evaluate.accuracy_low": 0.85, "evaluate.accuracy_high": 0.95}
    other = {"evaluate.accuracy": 0.8, "evaluate.accuracy_low": 0.7, "evaluate.accuracy_high": 0.86}
    found = [result("a", "11", metrics=metrics), result("b", "11", metrics=other)]
    told = "\n".join(standings.conclude(tmp_path, found, "evaluate.accuracy"))
    assert "Too close to call against b" in told
    assert "test split" in told


def test_training_time_of_what_came_from_the_cache_is_that_of_the_sweep_before(tmp_path: Path) -> None:
    write_json(tmp_path / "x", {})
    standings.conclude(tmp_path, [result("a", "11"), result("b", "10")], standings.METRIC)
    cached = [result("a", "11", seconds={}), result("c", "10", seconds={})]
    standings.conclude(tmp_path, cached, standings.METRIC)
    rows = {row["name"]: row for row in read_json(tmp_path / standings.FOLDER / "sweep.json")["rows"]}
    assert (rows["a"]["training_seconds"], rows["c"]["training_seconds"]) == (1.5, None)


def test_a_workspace_that_a_killed_sweep_left_is_taken_up_again(finished_project: Path) -> None:
    os.environ["PATH"] = miniature.environment()["PATH"]
    place = finished_project / fan_out.FOLDER / "low"
    side.prepare(finished_project, place, {"gate.at_least": 0.5})
    (place / "components" / "stray.py").write_text("")
    (place / "artifacts" / "ingest" / "mark").write_text("")
    side.prepare(finished_project, place, {"gate.at_least": 0.5})
    assert not (place / "components" / "stray.py").exists()
    assert (place / "artifacts" / "ingest" / "mark").exists()
