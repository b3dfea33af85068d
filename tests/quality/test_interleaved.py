"""What benchmarks conclude from what they timed, and that `make benchmarks` runs all of them."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import interleaved
import pytest
from interleaved import Variant

WAYS = [Variant("slow"), Variant("fast")]


def _given(*words: str) -> argparse.Namespace:
    return interleaved.options("").parse_args(words)


class _Calls:
    """In place of processes."""

    def __init__(self, foreign: Sequence[float] = ()) -> None:
        self.foreign = list(foreign)
        self.made: list[tuple[str, str, bool]] = []

    def __call__(self, script: str, variant: Variant, words: Sequence[str], *, crowded: bool) -> dict[str, Any]:
        self.made.append((variant.name, words[-1], crowded))
        foreign = self.foreign.pop(0) if self.foreign else 0.0
        return {"seconds": 2.0 if variant.name == "slow" else 1.0, "foreign": foreign}


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of an idle machine: how long each process would have waited for it."""
    waits: list[float] = []
    monkeypatch.setattr(interleaved, "wait_for_quiet", waits.append)
    return waits


def test_ratios_are_round_by_round() -> None:
    rounds = [
        {"slow": {"seconds": 3.0}, "fast": {"seconds": 2.0}},
        {"slow": {"seconds": 8.0}, "fast": {"seconds": 2.0}},
    ]
    assert interleaved.ratios(rounds, "slow", "fast") == [1.5, 4.0]
    assert interleaved.ratios(rounds, "slow", "slow") == [1.0, 1.0]
    assert interleaved.ranged([1.5, 4.0, 2.0]) == "2.00 (1.50 to 4.00)"


def test_a_goal_that_is_not_met_fails_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert interleaved.verdict({"one": True, "two": True}) == 0
    assert interleaved.verdict({"one": True, "two": False}) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == ["met: one", "NOT MET: two"]


def test_variants_take_turns_and_each_round_has_a_seed(monkeypatch: pytest.MonkeyPatch, quiet: list[float]) -> None:
    calls = _Calls()
    monkeypatch.setattr(interleaved, "call", calls)
    rounds = interleaved.compare("x.py", WAYS, _given("--rounds", "2"), [])
    assert calls.made == [("slow", "17", False), ("fast", "17", False), ("slow", "18", False), ("fast", "18", False)]
    assert interleaved.ratios(rounds, "slow", "fast") == [2.0, 2.0]
    assert len(quiet) == 4


def test_a_round_that_others_disturbed_is_thrown_away_and_run_again(
    monkeypatch: pytest.MonkeyPatch, quiet: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    limit = interleaved.FOREIGN
    calls = _Calls([0.0, 2 * limit, limit, 0.0, 0.0, 0.0])
    monkeypatch.setattr(interleaved, "call", calls)
    rounds = interleaved.compare("x.py", WAYS, _given("--rounds", "2"), [])
    assert [one["slow"]["foreign"] for one in rounds] == [limit, 0.0]
    assert [seed for name, seed, _ in calls.made if name == "slow"] == ["17", "17", "18"]
    assert capsys.readouterr().err.count("thrown away") == 1


def test_too_many_disturbed_rounds_end_it(monkeypatch: pytest.MonkeyPatch, quiet: list[float]) -> None:
    monkeypatch.setattr(interleaved, "call", _Calls([1.0] * 12))
    with pytest.raises(SystemExit, match="only 0 rounds of 2"):
        interleaved.compare("x.py", WAYS, _given("--rounds", "2"), [])


def test_busy_waits_for_nothing_and_keeps_every_round(monkeypatch: pytest.MonkeyPatch, quiet: list[float]) -> None:
    calls = _Calls([1.0] * 4)
    monkeypatch.setattr(interleaved, "call", calls)
    assert len(interleaved.compare("x.py", WAYS, _given("--rounds", "2", "--busy"), [])) == 2
    assert all(crowded for *_, crowded in calls.made)
    assert (len(calls.made), quiet) == (4, [])


def test_busy_compares_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    told = interleaved.MARK + '{"seconds": 9.0, "processor": 2.0, "foreign": 1.0, "loss": 0.5}'

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        given.append(env.get("OMP_WAIT_POLICY", ""))
        return subprocess.CompletedProcess(command, 0, f"other words\n{told}\n", "")

    given: list[str] = []
    monkeypatch.setattr(subprocess, "run", run)
    assert interleaved.call("x.py", WAYS[0], [], crowded=True)["seconds"] == 2.0
    assert interleaved.call("x.py", WAYS[0], [], crowded=False)["seconds"] == 9.0
    assert given == ["PASSIVE", ""]


def test_a_variant_that_fails_ends_it_with_its_words(tmp_path: Path) -> None:
    script = tmp_path / "x.py"
    script.write_text("import sys\nsys.exit('what is wrong')\n")
    with pytest.raises(SystemExit, match="what is wrong"):
        interleaved.call(str(script), WAYS[0], [], crowded=True)


def test_make_benchmarks_runs_all_and_fails_at_the_end(tmp_path: Path) -> None:
    shutil.copyfile(Path(__file__).parents[2] / "Makefile", tmp_path / "Makefile")
    home = tmp_path / "tests" / "benchmarks"
    home.mkdir(parents=True)
    (tmp_path / ".venv").mkdir()
    (home / "a.py").write_text("import sys\nsys.exit(1)\n")
    (home / "b.py").write_text("print('b ran')\n")
    (home / "c.py").write_text("raise ValueError\n")

    def make() -> subprocess.CompletedProcess[str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}  # `make test` runs this
        env = {**own, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        command = ["make", "-o", "setup", "benchmarks"]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    done = make()
    assert done.returncode != 0
    assert "b ran" in done.stdout
    assert done.stdout.splitlines()[-1] == "not as promised: tests/benchmarks/a.py tests/benchmarks/c.py"
    (home / "a.py").write_text("")
    (home / "c.py").unlink()
    assert make().returncode == 0
