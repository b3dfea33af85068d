"""DVC through its one door: outcomes, waiting, mending, and no process left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import miniature
import pytest
from living import dvc_processes, runs, wait_until

from components.params import load_yaml
from pipelines import dag, dvc_cli, history

LINE = ("ingest", "gate", "report", "export", "handoff")
DVC = (sys.executable, "-m", "dvc")


def start(root: Path, *command: str) -> tuple[subprocess.Popen[str], int]:
    """Start a command that runs ingest; gives it and the process of the stage."""
    place = root / "reports" / "ingest" / "pid"
    place.unlink(missing_ok=True)
    process = subprocess.Popen(
        command, cwd=root, env=miniature.environment(), text=True, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_until(lambda: place.exists() and bool(place.read_text()))
    return process, int(place.read_text())


def test_the_line_of_this_repository_is_written_in_the_order_in_which_dvc_takes_it(repository: Path) -> None:
    from dvc.repo import Repo
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    with Repo(str(repository)) as repo:
        stages = collect_stages(repo, [str(repository / "dvc.yaml")])
        plan = [stage.name for stage in plan_repro(get_active_graph(repo.index.graph), stages)]
    assert plan == [stage.name for stage in dag.load(repository)] == list(load_yaml(repository / "dvc.yaml")["stages"])
    assert plan.index("report") < plan.index("export"), "a refusal must not keep plain `dvc repro` from the report"


def test_stale_tells_why(new_project: Path, finished_project: Path) -> None:
    assert dvc_cli.stale(new_project) == {name: ["it has no record in dvc.lock yet"] for name in LINE}
    assert dvc_cli.stale(finished_project) == {}
    miniature.turn_knob(finished_project, "at_least: 1.0", "at_least: 0.5")
    (finished_project / "data" / "numbers.txt").write_text("4 5 6\n")
    (finished_project / "artifacts" / "handoff" / "bundle.txt").unlink()
    assert dvc_cli.stale(finished_project) == {
        "ingest": ["data changed"],
        "gate": ["gate.at_least: 1.0 -> 0.5"],
        "handoff": ["artifacts/handoff/bundle.txt is not there"],
    }
    assert dvc_cli.stale(finished_project, "gate") == {"gate": ["gate.at_least: 1.0 -> 0.5"]}


def test_a_bumped_library_is_told_with_its_versions(finished_project: Path) -> None:
    (finished_project / "infra").mkdir()
    table = finished_project / "infra" / "libraries.yaml"
    table.write_text("numpy: 2.4.1 aaaa\nrich: 15.0 bbbb\n")
    graph = finished_project / "dvc.yaml"
    named = "params: [gate, run, {infra/libraries.yaml: [numpy, rich]}]"
    graph.write_text(graph.read_text().replace("params: [gate, run]", named))
    assert dvc_cli.repro(finished_project, "gate").code == dvc_cli.DONE
    table.write_text("numpy: 2.5.0 cccc\nrich: 15.0 dddd\n")
    assert dvc_cli.stale(finished_project, "gate")["gate"] == [
        "library numpy: 2.4.1 -> 2.5.0",
        "library rich: still 15.0, with another version of something that it needs",
    ]


def test_one_knob_runs_only_what_depends_on_it(finished_project: Path) -> None:
    miniature.turn_knob(finished_project, "title: Result", "title: Outcome")
    outcome = dvc_cli.repro(finished_project)
    assert outcome == dvc_cli.Outcome(("report",), ("ingest", "gate", "export", "handoff"), (), ())
    assert dvc_cli.stale(finished_project) == {}


def test_a_missing_output_comes_back_without_running(finished_project: Path) -> None:
    model = finished_project / "artifacts" / "export" / "model.txt"
    before = model.read_text()
    model.unlink()
    assert dvc_cli.repro(finished_project, "export") == dvc_cli.Outcome((), ("export",), (), ())
    assert model.read_text() == before


def test_a_refusal_stops_what_needs_it_and_still_gets_its_report(finished_project: Path) -> None:
    miniature.turn_knob(finished_project, "at_least: 1.0", "at_least: 9.0")
    outcome = dvc_cli.repro(finished_project)
    assert (outcome.ran, outcome.unchanged) == (("gate", "report"), ("ingest",))
    assert (outcome.failed, outcome.left_out, outcome.code) == (("export",), ("handoff",), dvc_cli.REFUSED)
    assert "mean at least 9.0: too low" in outcome.told
    assert "False" in (finished_project / "artifacts" / "report" / "index.html").read_text()
    assert not (finished_project / "artifacts" / "export" / "model.txt").exists()


def test_mistakes_faults_and_dvcs_own_errors_are_told_apart(
    finished_project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    miniature.turn_knob(finished_project, 'suffix: ".v1"', "suffix: fault")
    outcome = dvc_cli.repro(finished_project, "export")
    assert (outcome.failed, outcome.code) == (("export",), dvc_cli.FAULT)
    assert "a defect of the stage" in outcome.told
    (finished_project / "data" / "numbers.txt").write_text("")
    lines: list[str] = []
    outcome = dvc_cli.repro(finished_project, "ingest", on_line=lines.append)
    assert (outcome.failed, outcome.code) == (("ingest",), dvc_cli.MISTAKE)
    assert outcome.told == "ingest.data: numbers.txt is empty"
    assert "ingest is reading" in lines
    assert "ingest is reading" in capfd.readouterr().err, "what a stage prints is passed on"
    shutil.rmtree(finished_project / "data")
    with pytest.raises(dvc_cli.DvcError, match=r"DVC: failed to reproduce 'ingest': .*data"):
        dvc_cli.repro(finished_project, "ingest")


def test_a_killed_stage_is_told_as_one(finished_project: Path) -> None:
    miniature.turn_knob(finished_project, "pause: 0", "pause: 30")
    place = finished_project / "reports" / "ingest" / "pid"
    place.unlink()

    def kill() -> None:
        wait_until(lambda: place.exists() and bool(place.read_text()))
        os.kill(int(place.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = dvc_cli.repro(finished_project, "ingest")
    killer.join()
    assert (outcome.failed, outcome.code) == (("ingest",), dvc_cli.FAULT)
    assert "memory" in outcome.told


@pytest.mark.parametrize("content", ["", '{"write": {'])
def test_an_rwlock_that_dvc_would_refuse_is_removed(
    finished_project: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = finished_project / ".dvc" / "tmp" / "rwlock"
    lock.write_text(content)
    assert "corrupted" in miniature.call(finished_project, *DVC, "status").stderr, "plain DVC refuses it"
    assert dvc_cli.stale(finished_project) == {}
    assert "Mended: .dvc/tmp/rwlock" in capsys.readouterr().err


def test_a_cut_off_dvc_lock_comes_back_from_git(finished_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = finished_project / "dvc.lock"
    whole = lock.read_bytes()
    for content in (b"", whole[: whole.index(b"    cmd", 400) + 6]):
        lock.write_bytes(content)
        assert dvc_cli.stale(finished_project) == {}
        assert lock.read_bytes() == whole
        assert "restored from git's last commit" in capsys.readouterr().err


def test_wherever_dvc_lock_was_cut_off_dvc_works_again(finished_project: Path) -> None:
    lock = finished_project / "dvc.lock"
    whole = lock.read_bytes()
    ends = [whole.index(b"  gate:") + shift for shift in range(0, 60, 6)]
    for end in (*ends, len(whole) - 1):
        lock.write_bytes(whole[:end])
        dvc_cli.stale(finished_project)


def test_a_cut_off_dvc_lock_that_git_lacks_is_made_again_from_the_cache(
    finished_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = finished_project / "dvc.lock"
    whole = lock.read_bytes()
    subprocess.run(["git", "rm", "--quiet", "--cached", "dvc.lock"], cwd=finished_project, check=True)
    miniature.commit_staged(finished_project)
    lock.write_bytes(b"")
    outcome = dvc_cli.repro(finished_project)
    assert "removed, as git has none" in capsys.readouterr().err
    assert outcome == dvc_cli.Outcome((), LINE, (), ())
    assert lock.read_bytes() == whole


def test_a_second_run_waits_its_turn(finished_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys, time; from pathlib import Path; from pipelines import dvc_cli\n"
    code += "with dvc_cli.turn(Path.cwd()): print('held', flush=True); time.sleep(1.5)"
    other = subprocess.Popen([sys.executable, "-c", code], cwd=finished_project, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with dvc_cli.turn(finished_project):
        assert other.wait(1) == 0, "we waited for it to end"
    other.stdout.close()
    assert f"Another run (process {other.pid}) works in" in capsys.readouterr().err


def test_a_plain_dvc_repro_is_waited_for(finished_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniature.turn_knob(finished_project, "pause: 0", "pause: 1.5")
    plain, _ = start(finished_project, *DVC, "repro", "ingest")
    outcome = dvc_cli.repro(finished_project, "ingest")
    told = capsys.readouterr().err
    assert plain.wait(5) == 0
    assert plain.stderr is not None
    plain.stderr.close()
    assert "A `dvc` command" in told
    assert outcome.unchanged == ("ingest",), "what the other one made was not made again"


@pytest.mark.parametrize("who", ["plain dvc", "the line"])
def test_killed_outright_it_leaves_no_process_and_can_run_again(finished_project: Path, who: str) -> None:
    miniature.turn_knob(finished_project, "pause: 0", "pause: 60")
    command = (*DVC, "repro") if who == "plain dvc" else (sys.executable, "-m", "pipelines", "repro")
    process, stage = start(finished_project, *command)
    process.kill()
    process.communicate()
    wait_until(lambda: not runs(stage), 5)
    wait_until(lambda: not dvc_processes(finished_project), 5)
    miniature.turn_knob(finished_project, "pause: 60", "pause: 0")
    assert dvc_cli.repro(finished_project, "ingest").code == dvc_cli.DONE
    assert dvc_cli.stale(finished_project) == {}


@pytest.mark.parametrize(("wish", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop_it_stops_everything(finished_project: Path, wish: signal.Signals, code: int) -> None:
    miniature.turn_knob(finished_project, "pause: 0", "pause: 60")
    process, stage = start(finished_project, sys.executable, "-m", "pipelines", "repro")
    process.send_signal(wish)
    _, told = process.communicate(timeout=10)
    assert process.returncode == code
    assert "Traceback" not in told
    assert not runs(stage)
    assert not dvc_processes(finished_project)


@pytest.mark.parametrize(
    ("limit", "key", "stage"),
    [
        ("max_stage_minutes: 0.02", "max_stage_minutes", None),
        ("max_stage_minutes: 0.02", "max_stage_minutes", "gate"),
        ("max_run_hours: 0.0005", "max_run_hours", None),
    ],
)
def test_what_takes_too_long_is_ended_without_prefect_too(
    finished_project: Path, limit: str, key: str, stage: str | None
) -> None:
    body = finished_project / "components" / "gate" / "stage.py"
    body.write_text(
        body.read_text("utf-8").replace("    mean = ", "    import time; time.sleep(60)\n    mean = "), "utf-8"
    )
    miniature.turn_knob(finished_project, "at_least: 1.0", "at_least: 0.5")
    (finished_project / "infra").mkdir(exist_ok=True)
    text = re.sub(rf"{key}: \S+", limit, (miniature.REPOSITORY / "infra" / "operations.yaml").read_text("utf-8"))
    (finished_project / "infra" / "operations.yaml").write_text(text, "utf-8")
    began = time.monotonic()
    outcome = dvc_cli.repro(finished_project, stage)
    assert time.monotonic() - began < 30
    assert (outcome.code, outcome.ran) == (dvc_cli.TIMED_OUT, ())
    assert f"runs.{key} in infra/operations.yaml" in outcome.told
    assert not dvc_processes(finished_project)
    if key == "max_stage_minutes":
        assert outcome.failed == ("gate",)
        assert outcome.left_out == (() if stage else ("report", "export", "handoff"))
        assert outcome.unchanged == (() if stage else ("ingest",))


def test_push_and_pull_carry_the_outputs(finished_project: Path, tmp_path: Path) -> None:
    with (finished_project / ".dvc" / "config").open("a") as config:
        config.write(f"    remote = store\n['remote \"store\"']\n    url = {tmp_path / 'store'}\n")
    dvc_cli.push(finished_project)
    shutil.rmtree(finished_project / ".dvc" / "cache")
    shutil.rmtree(finished_project / "artifacts")
    subprocess.run(["git", "checkout", "--quiet", "artifacts"], cwd=finished_project, check=True)
    assert dvc_cli.stale(finished_project) != {}
    dvc_cli.pull(finished_project)
    assert dvc_cli.stale(finished_project) == {}


def test_push_without_a_remote_is_a_clear_error(finished_project: Path) -> None:
    with pytest.raises(dvc_cli.DvcError, match=r"dvc push: .*no remote specified"):
        dvc_cli.push(finished_project)


def test_a_clone_shares_the_cache(finished_project: Path, tmp_path: Path) -> None:
    target = tmp_path / "clone"
    history.clone_project(finished_project, target)
    outcome = dvc_cli.repro(target)
    assert outcome == dvc_cli.Outcome((), LINE, (), ()), "everything came from the shared cache"
    assert not (target / ".dvc" / "cache" / "files").exists()
    with pytest.raises(history.GitError, match="already exists"):
        history.clone_project(finished_project, target)
