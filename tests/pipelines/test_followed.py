"""The line by one DVC process that is followed: what it tells, what it leaves, and that nothing outlives a limit."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import miniature
import pytest
from living import dvc_processes, runs, wait_until

from pipelines import dvc_cli
from pipelines.followed import Ended, followed, started
from pipelines.limits import Clock, Limits

LINE = ["ingest", "gate", "report", "export", "handoff"]
NO_LIMITS = Limits()


def walk(root: Path, limits: Limits = NO_LIMITS) -> tuple[dict[str, tuple[str, ...]], dict[str, Ended], list[str]]:
    """Reasons and ending of each stage that DVC came to, and the lines that stages printed."""
    reasons, ended, lines = {}, {}, []
    with followed(root, limits) as line:
        for step in line.steps():
            reasons[step.name] = step.reasons
            ended[step.name] = line.take(step, lines.append)
    return reasons, ended, lines


def stage_of(root: Path) -> Callable[[], int]:
    """Gives the process of the stage `ingest`, once it runs."""
    place = root / "reports" / "ingest" / "pid"
    place.unlink(missing_ok=True)

    def ask() -> int:
        wait_until(lambda: place.exists() and bool(place.read_text()))
        return int(place.read_text())

    return ask


def test_it_leaves_the_record_of_a_plain_dvc_repro(new_project: Path, finished_project: Path) -> None:
    reasons, ended, lines = walk(new_project)
    assert list(reasons) == LINE
    assert ended == dict.fromkeys(LINE, Ended(ran=True))
    assert set(reasons.values()) == {("it has no record in dvc.lock yet",)}
    assert "ingest is reading" in lines
    assert (new_project / "dvc.lock").read_bytes() == (finished_project / "dvc.lock").read_bytes()
    assert dvc_cli.stale(new_project) == {}


def test_a_missing_output_comes_from_the_cache_and_a_refusal_stops_only_what_needs_it(finished_project: Path) -> None:
    (finished_project / "artifacts" / "ingest" / "mean.json").unlink()
    miniature.turn_knob(finished_project, "at_least: 1.0", "at_least: 9.0")
    with started(finished_project):
        reasons, ended, _ = walk(finished_project)
    assert list(ended) == LINE[:-1], "what needs a stage that failed is left out"
    assert (reasons["ingest"], ended["ingest"]) == (("artifacts/ingest/mean.json is not there",), Ended())
    assert ended["gate"] == ended["report"] == Ended(ran=True)
    assert (ended["export"].code, ended["export"].ran) == (dvc_cli.REFUSED, True)
    assert "mean at least 9.0: too low" in ended["export"].told


def test_a_mistake_and_a_missing_input_are_told(finished_project: Path) -> None:
    numbers = finished_project / "data" / "numbers.txt"
    numbers.write_text("")
    _, ended, _ = walk(finished_project)
    assert ended == {"ingest": Ended(dvc_cli.MISTAKE, "ingest.data: numbers.txt is empty", ran=True)}
    numbers.unlink()
    numbers.parent.rmdir()
    _, ended, _ = walk(finished_project)
    assert ended["ingest"].code == dvc_cli.MISTAKE
    assert ended["ingest"].told.startswith("DVC: ")
    assert "data" in ended["ingest"].told


def test_a_broken_graph_is_dvcs_own_error(finished_project: Path) -> None:
    graph = finished_project / "dvc.yaml"
    graph.write_text(graph.read_text() + "  worse: {cmd: 1, deps: 7}\n")
    with pytest.raises(dvc_cli.DvcError, match=r"DVC: .*dvc\.yaml"):
        walk(finished_project)


@pytest.mark.parametrize("who", ["the stage", "DVC"])
def test_killed_is_told_as_killed(finished_project: Path, who: str) -> None:
    miniature.turn_knob(finished_project, "pause: 0", "pause: 60")
    stage = stage_of(finished_project)

    def kill() -> None:
        own = stage()
        os.kill(own if who == "the stage" else os.getpgid(own), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    _, ended, _ = walk(finished_project)
    killer.join()
    assert list(ended) == ["ingest"]
    assert ended["ingest"].code == dvc_cli.FAULT
    assert "memory" in ended["ingest"].told
    wait_until(lambda: not runs(stage()), 5)
    assert not dvc_processes(finished_project)


@pytest.mark.parametrize(
    ("limits", "key"),
    [(Limits(max_stage_minutes=0.02), "runs.max_stage_minutes"), (Limits(max_run_hours=0.0005), "runs.max_run_hours")],
)
def test_what_takes_too_long_is_ended_with_all_its_processes(finished_project: Path, limits: Limits, key: str) -> None:
    miniature.turn_knob(finished_project, "pause: 0", "pause: 60")
    _, ended, _ = walk(finished_project, limits)
    assert list(ended) == ["ingest"]
    assert ended["ingest"].code == dvc_cli.TIMED_OUT
    assert key in ended["ingest"].told
    assert not dvc_processes(finished_project)
    miniature.turn_knob(finished_project, "pause: 60", "pause: 0")
    assert all(one.code == dvc_cli.DONE for one in walk(finished_project)[1].values()), "it can run again"


def test_a_clock_tells_which_limit_comes_first() -> None:
    clock = Clock(Limits(max_stage_minutes=60, max_run_hours=1.5))
    assert "runs.max_run_hours" in clock.told
    clock.begin("ingest")
    assert clock.told.startswith("ingest took longer than 60 minutes (runs.max_stage_minutes")
    assert clock.until is not None
    whole = clock.until
    clock.begin()
    assert clock.until is not None
    assert clock.until > whole, "between stages only the run's time counts"
    assert Clock(Limits()).until is None
