"""What orchestration costs: `python tests/benchmarks/orchestration.py [--rounds 7] [--real]` prints a table.

Every figure is the wall time of a process of its own; what is compared takes turns, round by round, so that a busy
minute of the machine hits all alike. Medians, and the range. Needs a quiet machine; starts one Prefect server.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import miniature  # noqa: E402
import projects  # noqa: E402

EMPTY = """
from prefect import flow, task
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
@task
def nothing(): pass
@flow
def empty():
    for _ in range({num}): nothing()
with temporary_settings({{PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}}): empty()
"""
STUB = '''
def _run(name, root):
    """Writes what dvc.yaml declares, and does nothing else."""
    for out in {s.name: s for s in dag.load(root)}[name].outs:
        path = root / out
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.write_text('{"passed": true, "one": 1.0}')
        else:
            path.mkdir(exist_ok=True)
            (path / "file").write_text(name)


if __name__'''

Times = dict[str, list[float]]


def timed(command: list[str], folder: Path) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=miniature.environment(), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return seconds


def small(folder: Path) -> Path:
    """Five tiny stages."""
    miniature.make(folder)
    return folder


def real(folder: Path) -> Path:
    """The graph of this repository, whose stages only write what they declare."""
    folder.mkdir()
    projects.make_project(folder, lambda values: None)
    stage = folder / "pipelines" / "stage.py"
    stage.write_text(stage.read_text("utf-8").replace("\nif __name__", STUB, 1), "utf-8")
    return folder


def measure(rounds: int, ways: dict[str, Callable[[], float]]) -> Times:
    """Each way once a round, in turn; a first round is thrown away."""
    times: Times = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            seconds = way()
            if number:
                times[name].append(seconds)
    return times


def show(title: str, times: Times) -> None:
    """A line each."""
    print(f"\n{title}")
    for name, values in times.items():
        print(f"  {name:44} {statistics.median(values):7.3f} s   ({min(values):.3f} to {max(values):.3f})")


def show_pairs(told: str, first: list[float], second: list[float], how: Callable[[float, float], float]) -> None:
    """How the second compares with the first, round by round."""
    values = [how(a, b) for a, b in zip(first, second, strict=True)]
    print(f"  {told:44} {statistics.median(values):7.3f}     ({min(values):.3f} to {max(values):.3f})")


def whole_runs(project: Path, num: int, rounds: int) -> None:
    """Runs in which every stage runs, from an empty record and an empty cache."""
    lock = project / "dvc.lock"

    def fresh(*words: str) -> float:
        for place in ("artifacts", ".dvc/cache", ".dvc/tmp", "reports"):
            shutil.rmtree(project / place, ignore_errors=True)
        lock.unlink(missing_ok=True)
        return timed([sys.executable, "-m", *words], project)

    times = measure(
        rounds,
        {
            "plain dvc repro": lambda: fresh("dvc", "repro"),
            "python -m pipelines repro": lambda: fresh("pipelines", "repro"),
            "python -m pipelines run, a warm server": lambda: fresh("pipelines", "run"),
            f"Prefect's own flow of {num} empty tasks": lambda: timed(
                [sys.executable, "-c", EMPTY.format(num=num)], project
            ),
            "importing what run needs beside repro's": lambda: timed(
                [sys.executable, "-c", "import pipelines.flows.train"], project
            ),
        },
    )
    show(f"{project.name}: every one of {num} stages runs", times)
    _, repro, run, _, imports = times.values()
    show_pairs("run adds to repro, s", repro, run, lambda a, b: b - a)
    added = [b - a for a, b in zip(repro, run, strict=True)]
    show_pairs("of that beyond the import, s", imports, added, lambda a, b: b - a)
    show_pairs("of that beyond 0.25 s, ms a task", imports, added, lambda a, b: 1000 * (b - a - 0.25) / num)


def nothing_to_do(project: Path, rounds: int) -> None:
    """No-ops."""
    timed([sys.executable, "-m", "dvc", "repro"], project)
    times = measure(
        rounds,
        {
            "dvc status": lambda: timed([sys.executable, "-m", "dvc", "status"], project),
            "python -m pipelines run": lambda: timed([sys.executable, "-m", "pipelines", "run"], project),
        },
    )
    show(f"{project.name}: nothing to do", times)
    status, run = times.values()
    show_pairs("run / dvc status (at most 1.2)", status, run, lambda a, b: b / a)


def main() -> None:
    """The table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--real", action="store_true", help="the graph of twelve stages too")
    options = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["PREFECT_HOME"] = str(place / "prefect")
        os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
        from pipelines.flows import server

        made = [(small(place / "miniature"), 5), *([(real(place / "line"), 12)] if options.real else [])]
        with server.started(place, server.free_port()) as (url, _):
            os.environ["PREFECT_API_URL"] = url
            for project, num in made:
                nothing_to_do(project, options.rounds)
                whole_runs(project, num, options.rounds)


if __name__ == "__main__":
    main()
