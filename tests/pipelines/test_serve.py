"""Serve: schedules, events and the watch on one machine, against real Prefect servers."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import miniature
import pytest
import served

from components.contracts import InputError
from components.params import load_yaml

REPOSITORY = Path(__file__).parent.parent.parent
FLOWS = {"train", "monitor", "prune", "promote", "rollback", "backtest"}


@pytest.fixture
def api(prefect_server: None) -> str:
    """Of the session's server."""
    from prefect.settings import PREFECT_API_URL

    return str(PREFECT_API_URL.value())


@pytest.fixture
def project(_new_project: Path, tmp_path: Path) -> Path:
    """In miniature, with deployments: train without a schedule, and a monitor that leaves a line of each run."""
    import shutil

    root = Path(shutil.copytree(_new_project, tmp_path / "served", symlinks=True))
    miniature.turn_knob(root, "name: mini", f"name: {tmp_path.name}")  # deployments of one server bear it
    served.prepare(root, ("train.py:train", ""), ("noted.py:monitor", ""))
    return root


@pytest.fixture
def client(prefect_server: None) -> Iterator[Any]:
    """Of the session's server."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as one:
        yield one


def noted(root: Path) -> list[list[str]]:
    """Trigger and cause of each run of `noted.py:monitor`."""
    path = root / "noted.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(holds: Any, seconds: float = 180, told: Any = lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)


# --- infra/prefect/prefect.yaml ---


def test_prefect_itself_deploys_all_of_the_file_and_serve_reads_the_same(
    api: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    from pipelines.flows import deployments

    name = f"deployed-{os.getpid()}"
    variables = {"PREFECT_API_URL": api, "GRAFTLINE_PROJECT": name, "GRAFTLINE_ROOT": str(REPOSITORY)}
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name="graftline", type="process"))
    words = ["--no-prompt", "deploy", "--prefect-file", deployments.FILE, "--all"]
    done = miniature.call(REPOSITORY, "python", "-m", "prefect", *words, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    ours = {str(one.flow_name): one for one in deployments.load(REPOSITORY, name)}
    assert set(ours) == FLOWS
    for flow, own in ours.items():
        theirs = client.read_deployment_by_name(f"{flow}/{name}")
        assert theirs.work_pool_name == "graftline"
        assert theirs.pull_steps == [
            {"prefect.deployments.steps.set_working_directory": {"directory": str(REPOSITORY)}}
        ]
        assert (theirs.entrypoint, theirs.description, theirs.tags) == (own.entrypoint, own.description, own.tags)
        assert (theirs.global_concurrency_limit.limit, own.concurrency_limit) == (1, 1)
        assert theirs.concurrency_options == own.concurrency_options
        assert theirs.concurrency_options.collision_strategy == "ENQUEUE"
        planned = [(one.schedule.cron, one.schedule.timezone, one.slug, one.active) for one in theirs.schedules]
        assert planned == [(one.schedule.cron, one.schedule.timezone, one.slug, one.active) for one in own.schedules]
        assert {"root", "trigger", "cause"} <= set(theirs.parameter_openapi_schema["properties"])


def test_what_is_scheduled_is_what_the_file_says(tmp_path: Path) -> None:
    raw = {one["entrypoint"]: one for one in load_yaml(REPOSITORY / "infra/prefect/prefect.yaml")["deployments"]}
    crons = {place.split(":")[1]: [s["cron"] for s in one["schedules"]] for place, one in raw.items()}
    assert {flow for flow, one in crons.items() if one} == {"train", "monitor", "prune"}
    assert all(s.get("slug") and s["timezone"] for one in raw.values() for s in one["schedules"])


def test_a_schedule_that_is_changed_or_taken_out_of_the_file_is_changed_or_gone(
    project: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.flows import deployments, leftovers

    monkeypatch.chdir(project)
    seen = []
    for schedule in ("{cron: '1 2 * * *', slug: a}", "{cron: '3 4 * * *', slug: a}", ""):
        served.prepare(project, ("noted.py:monitor", schedule))
        (one,) = deployments.load(project, name_of(project))
        leftovers.unschedule([one], {"monitor": one.apply()})
        found = client.read_deployment_by_name(f"monitor/{name_of(project)}")
        seen.append([s.schedule.cron for s in found.schedules])
    assert seen == [["1 2 * * *"], ["3 4 * * *"], []]


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ("{cron: 'every day'}", "cron"),
        ("{slug: never}", "one of cron, interval, rrule"),
        ("{cron: '1 * * * *', interval: 5}", "one of cron, interval, rrule"),
    ],
)
def test_a_schedule_that_is_none_is_told_with_its_place(project: Path, schedule: str, told: str) -> None:
    from pipelines.flows import deployments

    served.prepare(project, ("noted.py:monitor", schedule))
    with pytest.raises(InputError, match=r"infra/prefect/prefect.yaml: pipelines/flows/noted.py:monitor") as caught:
        deployments.load(project, "mini")
    assert told in str(caught.value)


def test_a_flow_that_is_not_there_is_told(project: Path) -> None:
    from pipelines.flows import deployments

    served.prepare(project, ("absent.py:train", ""))
    with pytest.raises(InputError, match=r"absent.py:train: no flow can be loaded"):
        deployments.load(project, "mini")


# --- refusals ---


def test_a_second_serve_of_the_project_is_told_of_the_first(project: Path) -> None:
    from pipelines.flows import served as here

    assert here.url(project) == ""
    with here.only_one(project) as uses:
        uses("http://127.0.0.1:4200/api")
        assert here.url(project) == "http://127.0.0.1:4200/api"
        told = rf"serve keeps this project already: process {os.getpid()}, http://127.0.0.1:4200/api"
        with pytest.raises(InputError, match=told), here.only_one(project):
            pass
    assert here.url(project) == ""
    with here.only_one(project):
        pass


def test_another_project_of_the_same_name_on_a_server_is_not_taken_over(
    project: Path, tmp_path: Path, api: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.flows import deployments, leftovers

    monkeypatch.chdir(project)
    known = deployments.load(project, "twice")
    leftovers.refuse_foreign(project, known)
    for one in known:
        one.apply()
    leftovers.refuse_foreign(project, known)
    with pytest.raises(InputError, match=rf"monitor/twice is the project in {project}|train/twice is the project in"):
        leftovers.refuse_foreign(tmp_path / "elsewhere", known)


# --- the whole ---


def name_of(root: Path) -> str:
    """run.name."""
    return str(load_yaml(root / "params.yaml")["run"]["name"])


def open_runs(client: Any, root: Path, *flows: str) -> list[Any]:
    """Runs of its deployments that run now, by Prefect."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )

    ids = [client.read_deployment_by_name(f"{flow}/{name_of(root)}").id for flow in flows]
    kinds: Any = ["RUNNING", "PENDING", "CANCELLING"]
    mine = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=ids),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds)),
    )
    return list(client.read_flow_runs(flow_run_filter=mine))


def run_of(client: Any, root: Path, flow: str, **parameters: str) -> UUID:
    found = client.read_deployment_by_name(f"{flow}/{name_of(root)}")
    made: UUID = client.create_flow_run_from_deployment(found.id, parameters=parameters).id
    return made


def test_it_serves_new_data_and_ends_with_all_that_runs(project: Path, api: str, client: Any) -> None:
    miniature.turn_knob(project, "pause: 0", "pause: 60")
    with served.serving(project, api) as serve:
        serve.wait_for("Serving ")
        assert "pages" in serve.said
        second = miniature.line(project, "serve", "--port", str(serve.port))
        assert (second.returncode, second.stdout) == (2, "")
        assert "serve keeps this project already" in second.stderr
        run_of(client, project, "train", trigger="hand", cause="a test")
        (project / "data" / "more.txt").write_text("4\n")
        wait_until(lambda: noted(project), told=lambda: serve.said)
        assert noted(project) == [["data", "data: 2 files, +1 since the last look"]]
        wait_until(lambda: (project / "reports" / "ingest" / "pid").exists(), told=lambda: serve.said)
        assert len(open_runs(client, project, "train", "monitor")) >= 1
        assert serve.end() == 0, serve.said
    assert open_runs(client, project, "train", "monitor") == []
    assert "Traceback" not in serve.said
    wait_until(lambda: served.processes_of(project) == [], 10, lambda: served.processes_of(project))
    records = json.loads(miniature.line(project, "runs", "--json").stdout)
    assert [(one["flow"], one["state"]) for one in records if one["flow"] == "train"] == [("train", "interrupted")]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("wish", [signal.SIGINT, signal.SIGKILL])
def test_however_it_ends_nothing_goes_on_and_the_next_serve_takes_up(
    project: Path, api: str, client: Any, wish: signal.Signals
) -> None:
    miniature.turn_knob(project, "pause: 0", "pause: 6")
    served.prepare(project, ("train.py:train", "{interval: 600}"), ("noted.py:monitor", ""))
    with served.serving(project, api) as serve:
        serve.wait_for("Serving ")
        run_of(client, project, "train", trigger="hand", cause="a test")
        wait_until(lambda: (project / "reports" / "ingest" / "pid").exists(), told=lambda: serve.said)
        serve.end(wish)
    wait_until(lambda: served.processes_of(project) == [], 30, lambda: served.processes_of(project))
    with served.serving(project, api) as serve:
        serve.wait_for(f"train/{name_of(project)}")
        wait_until(lambda: (project / "dvc.lock").exists(), told=lambda: serve.said)
        assert serve.end() == 0, serve.said
    assert open_runs(client, project, "train", "monitor") == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_schedule_fires_and_what_was_missed_runs_once(project: Path) -> None:
    """With a server of its own, as the test server plans no runs."""
    served.prepare(project, ("noted.py:monitor", "{interval: 10}"))
    with served.serving(project) as serve:
        serve.wait_for("Serving ")
        wait_until(lambda: len(noted(project)) >= 2, 120, told=lambda: serve.said)
        assert serve.end() == 0
    assert (project / ".graftline" / "prefect" / "prefect.db").exists()
    time.sleep(30)  # three are missed
    before = len(noted(project))
    served.prepare(project, ("noted.py:monitor", "{interval: 3600}"))
    with served.serving(project) as serve:
        serve.wait_for("runs now, due")
        wait_until(lambda: len(noted(project)) > before, told=lambda: serve.said)
        time.sleep(15)
        assert serve.end() == 0
    late = noted(project)[before:]
    assert len(late) == 1, late
    assert late[0][0] == "schedule"
    assert "were due; the newest stands for all" in late[0][1]
