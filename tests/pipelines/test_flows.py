"""The Prefect flow against a real Prefect server: it shows the line as it is, and DVC's record is the same."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import miniature
import pytest
from living import dvc_processes, wait_until
from living import runs as runs_still

from components.contracts import InputError
from pipelines import dag, dvc_cli, runs

LINE = ["ingest", "gate", "report", "export", "handoff"]


@pytest.fixture
def flows(prefect_server: None) -> Any:
    """The module; it imports Prefect, so only where a server runs."""
    from pipelines.flows import train

    return train


def last_run() -> tuple[Any, dict[str, Any]]:
    """The newest flow run, and its task runs by name in the order in which they ran."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.events.worker import EventsWorker

    EventsWorker.drain_all(timeout=10)
    deadline = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        mine = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
        while True:  # task runs reach the server as events, which it takes up in its own time
            tasks = client.read_task_runs(flow_run_filter=mine)
            if len(tasks) == len(LINE) and all(task.state.is_final() for task in tasks):
                break
            assert time.monotonic() < deadline, states({task.name: task for task in tasks})
            time.sleep(0.1)
    return flow_run, {t.name: t for t in sorted(tasks, key=lambda t: t.expected_start_time)}


def run_of(flow_run_id: str) -> Any:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run_id))


def last_state() -> str:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        return str(client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0].state_name)


def artifacts(flow_run: Any) -> dict[str, Any]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id]))
    with get_client(sync_client=True) as client:
        return {a.key: a for a in client.read_artifacts(artifact_filter=mine)}


def states(tasks: dict[str, Any]) -> dict[str, str]:
    return {name: task.state_name for name, task in tasks.items()}


def test_it_runs_the_line_and_leaves_the_record_of_a_plain_dvc_repro(
    flows: Any, new_project: Path, finished_project: Path
) -> None:
    code, told = flows.run(new_project)
    assert (code, told) == (0, "5 stages: 5 ran, 0 unchanged")
    assert (new_project / "dvc.lock").read_bytes() == (finished_project / "dvc.lock").read_bytes()
    flow_run, tasks = last_run()
    assert list(tasks) == LINE == [stage.name for stage in dag.load(new_project)]
    assert states(tasks) == dict.fromkeys(LINE, "Completed")
    assert tasks["gate"].state.message == "it has no record in dvc.lock yet"
    left = artifacts(flow_run)
    assert {f"mini-{name}-metrics" for name in LINE} | {
        "mini-report-pages", "mini-summary", "mini-progress",
    } == set(left)  # fmt: skip
    assert '{"metric": "num_used", "value": 3}' in left["mini-ingest-metrics"].data
    assert (new_project / "artifacts" / "report" / "index.html").as_uri() in left["mini-report-pages"].data
    assert left["mini-progress"].data == 100
    assert left["mini-ingest-metrics"].task_run_id == tasks["ingest"].id
    edges = {name: [one.id for one in task.task_inputs.get("wait_for", [])] for name, task in tasks.items()}
    assert edges["gate"] == [tasks["ingest"].id]
    assert edges["report"] == edges["export"] == [tasks["gate"].id]


def test_unchanged_stages_show_as_cached_and_a_turned_knob_as_run(flows: Any, finished_project: Path) -> None:
    before = (finished_project / "dvc.lock").read_bytes()
    assert flows.run(finished_project) == (0, "5 stages: 0 ran, 5 unchanged")
    assert states(last_run()[1]) == dict.fromkeys(LINE, "Cached")
    assert (finished_project / "dvc.lock").read_bytes() == before
    miniature.turn_knob(finished_project, 'suffix: ".v1"', 'suffix: ".v2"')
    assert flows.run(finished_project)[0] == 0
    _, tasks = last_run()
    assert states(tasks) == dict.fromkeys(LINE, "Cached") | {"export": "Completed", "handoff": "Completed"}
    assert tasks["export"].state.message == "export.suffix: .v1 -> .v2"
    assert dvc_cli.stale(finished_project) == {}


def test_a_refusal_ends_as_refused_and_its_report_is_made(flows: Any, finished_project: Path) -> None:
    miniature.turn_knob(finished_project, "at_least: 1.0", "at_least: 9.0")
    code, told = flows.run(finished_project)
    assert code == 3
    assert "mean at least 9.0: too low" in told
    flow_run, tasks = last_run()
    assert (flow_run.state_name, flow_run.state.type.value) == ("Refused", "FAILED")
    assert states(tasks) == {
        "ingest": "Cached", "gate": "Completed", "report": "Completed", "export": "Refused", "handoff": "Skipped",
    }  # fmt: skip
    assert "Traceback" not in tasks["export"].state.message
    assert "mini-summary" in artifacts(flow_run)


def test_a_mistake_ends_as_one_and_the_stages_lines_reach_prefect(flows: Any, finished_project: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.logging.handlers import APILogWorker

    (finished_project / "data" / "numbers.txt").write_text(" ")
    assert flows.run(finished_project) == (2, "ingest: ingest.data: numbers.txt is empty")
    flow_run, tasks = last_run()
    assert flow_run.state_name == "Mistake"
    assert states(tasks) == {"ingest": "Mistake", **dict.fromkeys(LINE[1:], "Skipped")}
    APILogWorker.drain_all(timeout=10)
    with get_client(sync_client=True) as client:
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run.id])))
    assert "ingest is reading" in [log.message for log in logs]


def test_a_stage_that_takes_too_long_shows_as_timed_out(flows: Any, finished_project: Path) -> None:
    miniature.turn_knob(finished_project, "pause: 0", "pause: 60")
    (finished_project / "infra").mkdir(exist_ok=True)
    settings = Path(__file__).parents[2] / "infra" / "operations.yaml"
    text = settings.read_text("utf-8").replace("max_stage_minutes: null", "max_stage_minutes: 0.03")
    (finished_project / "infra" / "operations.yaml").write_text(text)
    code, told = flows.run(finished_project)
    assert code == 124
    assert "runs.max_stage_minutes in infra/operations.yaml" in told
    flow_run, tasks = last_run()
    assert flow_run.state_name == "TimedOut"
    assert states(tasks) == {"ingest": "TimedOut", **dict.fromkeys(LINE[1:], "Skipped")}
    assert runs.history(finished_project)[0].state == "timed_out"


def test_waiting_for_its_turn_does_not_count(
    flows: Any, finished_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (finished_project / "infra").mkdir(exist_ok=True)
    shutil.copy(Path(__file__).parents[2] / "infra" / "operations.yaml", finished_project / "infra")
    clocks: list[float] = []
    plain = flows.followed

    @contextmanager
    def noted(root: Path, allowed: Any) -> Iterator[Any]:
        with plain(root, allowed) as steps:
            clocks.append(steps.clock.until)
            yield steps

    monkeypatch.setattr(flows, "followed", noted)
    code = "import sys, time; from pathlib import Path; from pipelines import dvc_cli\n"
    code += "with dvc_cli.turn(Path.cwd()): print('held', flush=True); time.sleep(3); print(time.monotonic())"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=finished_project, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert flows.run(finished_project)[0] == 0
        assert clocks[0] >= float(other.stdout.readline()) + 24 * 3600  # the clock is the machine's, not the process's


AS_PREFECT_CALLS_IT = """
from pathlib import Path
from pipelines.flows.train import train
for words in (("{root}", "drift", "4 of 6 columns drifted"), ("{root}/data",), ("{root}", "whim")):
    state = train(*words, return_state=True)
    print(state.name, state.message, sep="|", flush=True)
params = Path("params.yaml")
params.write_text(params.read_text().replace("name: mini", "nmae: mini").replace("seed: 1", "seed: many"))
state = train("{root}", return_state=True)
print(state.name, state.message.splitlines()[0], sep="|")
"""


def test_as_a_deployment_it_checks_records_and_tells_who_started_it(flows: Any, finished_project: Path) -> None:
    from prefect.settings import PREFECT_API_URL

    environment = {**miniature.environment(), "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    command = [sys.executable, "-c", AS_PREFECT_CALLS_IT.format(root=finished_project)]
    done = subprocess.run(
        command, cwd=finished_project, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[0] == "Completed|5 stages: 0 ran, 5 unchanged"
    assert told[1].startswith("Mistake|")
    assert "is no project: dvc.yaml is not there" in told[1]
    assert told[2].startswith("Mistake|trigger: 'whim' is none. Known: hand, schedule")
    assert told[3] == "Mistake|params.yaml: 3 mistakes"
    assert "Traceback" not in done.stderr
    kept = runs.history(finished_project)
    assert [one.state for one in kept] == ["mistake", "unchanged"]
    assert (kept[1].trigger.kind, kept[1].trigger.cause) == ("drift", "4 of 6 columns drifted")
    flow_run = run_of(kept[1].flow_run_id)
    assert {"project: mini", "trigger: drift"} <= set(flow_run.tags)
    assert "4 of 6 columns drifted" in artifacts(flow_run)["mini-summary"].data


def test_a_project_that_is_removed_under_it_is_told(flows: Any, finished_project: Path) -> None:
    miniature.turn_knob(finished_project, "pause: 0", "pause: 1")
    pid = finished_project / "reports" / "ingest" / "pid"
    pid.unlink()

    def remove() -> None:
        wait_until(pid.exists)
        shutil.rmtree(finished_project, ignore_errors=True)

    remover = threading.Thread(target=remove)
    remover.start()
    code, told = flows.run(finished_project)
    remover.join()
    assert code == 2
    assert "is gone" in told
    assert last_state() == "Mistake"


@pytest.mark.parametrize(("wish", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_it_ends_everything_and_says_so(
    flows: Any, finished_project: Path, wish: signal.Signals, code: int
) -> None:
    from prefect.settings import PREFECT_API_URL

    miniature.turn_knob(finished_project, "pause: 0", "pause: 60")
    place = finished_project / "reports" / "ingest" / "pid"
    place.unlink()
    environment = {**miniature.environment(), "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    command = [sys.executable, "-m", "pipelines", "run"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=finished_project, env=environment, text=True, **quiet) as process:
        wait_until(lambda: place.exists() and bool(place.read_text()), 60)
        stage = int(place.read_text())
        process.send_signal(wish)
        _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "Traceback" not in told
    assert not runs_still(stage)
    assert not dvc_processes(finished_project)
    flow_run, tasks = last_run()
    assert (flow_run.state_name, flow_run.state.type.value) == ("Interrupted", "CANCELLED")
    assert states(tasks) == {"ingest": "Interrupted", **dict.fromkeys(LINE[1:], "Skipped")}
    assert runs.history(finished_project)[0].state == "interrupted"


def test_no_stage_is_ever_retried(flows: Any) -> None:
    assert flows.run_stage.retries == flows.train.retries == 0


def test_a_server_that_does_not_answer_is_told(flows: Any, finished_project: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(InputError, match=r"PREFECT_API_URL names http://127.0.0.1:9/api"),
    ):
        flows.run(finished_project)


def test_without_a_server_it_starts_one_for_the_run(
    finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    miniature.turn_knob(finished_project, 'note: "."', 'note: "!"')
    done = miniature.call(finished_project, sys.executable, "-m", "pipelines", "run", timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Starting Prefect's server for this run" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == f"Summary of {finished_project.name}"
    with sqlite3.connect(tmp_path / "prefect" / "prefect.db") as database:
        rows = database.execute("select name, state_name from task_run").fetchall()
    database.close()
    assert dict(rows) == dict.fromkeys(LINE, "Cached") | {"handoff": "Completed"}
