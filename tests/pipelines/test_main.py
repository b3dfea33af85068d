"""The command line: fast answers, every mistake told at once, exit codes."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import miniature
import pytest

HEAVY = ("dvc", "matplotlib", "numpy", "pandas", "prefect", "pydantic", "sklearn", "timm", "torch")
COMMANDS = ("run", "repro", "check", "status", "summary", "new", "list")


def timed(root: Path, *arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Processor seconds, which are what it takes on a machine that is not busy."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = miniature.line(root, *arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


def test_help_answers_at_once_and_names_every_command(repository: Path) -> None:
    seconds, done = timed(repository, "--help")
    assert seconds < 0.5
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"\n    {command} " in done.stdout
    assert "exit codes" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(repository: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.__main__ import main

    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"\n  python -m pipelines {command}" in capsys.readouterr().out


def test_parsing_loads_nothing_heavy(repository: Path) -> None:
    code = f"import sys, pipelines.__main__; print(sorted(set(sys.modules) & set({HEAVY})))"
    assert miniature.call(repository, sys.executable, "-c", code).stdout.strip() == "[]"


def test_every_mistake_of_the_real_params_is_told_within_a_second(repository: Path, tmp_path: Path) -> None:
    for name in ("components", "pipelines"):
        (tmp_path / name).symlink_to(repository / name)
    shutil.copy(repository / "dvc.yaml", tmp_path)
    text = (repository / "params.yaml").read_text("utf-8")
    for before, after in (("task: image_classification", "task: image_clasification"), ("seed: 17", "seed: x")):
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "params.yaml").write_text(text + "\nvalidatee: {}\n")
    for command in ("check", "repro", "run"):
        seconds, done = timed(tmp_path, command)
        assert seconds < 1.0, command
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "3 mistakes" in done.stderr
        for told in ("run.task: no task is called 'image_clasification'", "run.seed: ", "validatee: unknown key"):
            assert told in done.stderr
    assert not (tmp_path / ".dvc").exists()


def test_data_that_is_not_there_is_told_before_dvc_starts(finished_project: Path) -> None:
    shutil.rmtree(finished_project / "data")
    done = miniature.line(finished_project, "repro")
    assert done.returncode == 2
    assert "  - data is not there; ingest reads it" in done.stderr


def test_outside_a_project_it_says_so(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "pipelines").symlink_to(repository / "pipelines")
    (tmp_path / "components").symlink_to(repository / "components")
    done = miniature.line(tmp_path, "check")
    assert done.returncode == 2
    assert "params.yaml is not in" in done.stderr


def test_with_nothing_stale_neither_dvc_nor_prefect_is_started(finished_project: Path) -> None:
    seconds, done = timed(finished_project, "run")
    assert done.returncode == 0
    assert done.stdout == (
        f"Nothing to do: all 5 stages are unchanged since dvc.lock was written.\n\nSummary of {finished_project.name}\n"
    )
    assert seconds < 2.0
    assert miniature.line(finished_project, "repro").stdout == done.stdout
    code = "import sys; from pipelines.__main__ import main; main(['run']); print('prefect' in sys.modules)"
    assert miniature.call(finished_project, sys.executable, "-c", code).stdout.endswith("False\n")


def test_repro_ends_with_the_stages_own_code_and_the_summary(finished_project: Path) -> None:
    miniature.turn_knob(finished_project, "at_least: 1.0", "at_least: 9.0")
    done = miniature.line(finished_project, "repro")
    assert done.returncode == 3
    assert f"Summary of {finished_project.name}" in done.stdout
    *_, told, _rule, _remedy, withdrawn = done.stderr.rstrip().splitlines()
    assert told.startswith("export is not made, because gate refused")
    assert withdrawn.startswith("artifacts/handoff of an earlier run was taken away")
    assert not (finished_project / "artifacts/handoff").exists()
    told = miniature.line(finished_project, "status").stdout
    assert "gate       unchanged" in told
    assert "export     runs: artifacts/gate/verdict.json changed" in told
    assert "last time it ended refused: export is not made, because gate refused:" in told
    assert "handoff    runs: artifacts/export/model.txt is not there" in told


def test_status_tells_what_waits_for_a_stale_stage(finished_project: Path) -> None:
    miniature.turn_knob(finished_project, 'suffix: ".v1"', 'suffix: ".v2"')
    told = miniature.line(finished_project, "status").stdout.splitlines()
    assert told[2:] == [
        "report     unchanged",
        "export     runs: export.suffix: .v1 -> .v2",
        "handoff    runs if what it reads comes out different",
    ]


def test_repro_of_one_stage(finished_project: Path) -> None:
    done = miniature.line(finished_project, "repro", "gat")
    assert done.returncode == 2
    assert done.stderr == "no stage is called 'gat'. The line: ingest gate report export handoff\n"
    miniature.turn_knob(finished_project, "title: Result", "title: Outcome")
    assert miniature.line(finished_project, "repro", "report").returncode == 0
    assert "Outcome" in (finished_project / "artifacts" / "report" / "index.html").read_text()


def test_list_gives_every_plugin_its_sentence(repository: Path) -> None:
    from components import plugins

    told = miniature.line(repository, "list").stdout
    for family in plugins.families():
        assert f"{family}\n" in told
        for name in plugins.names(family):
            assert f"\n  {name} " in told
    assert "no card" not in told


def test_output_that_nobody_reads_is_no_error(finished_project: Path) -> None:
    done = miniature.call(finished_project, "bash", "-c", "python -m pipelines list | true; echo ${PIPESTATUS[0]}")
    assert (done.stdout.strip(), done.stderr) == ("0", "")
