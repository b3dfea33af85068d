"""Many triggers at once, over two clones that share a cache: one at a time, nothing lost, nothing run twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import miniature
import pytest

from pipelines import clones, history, runs

TRIGGERS = 8
ROUNDS = int(os.environ.get("GRAFTLINE_ROUNDS", "50"))
"""Of the slow test."""
COUNTED = """def run(params, job):
    import contextlib, time
    name = __name__.split(".")[1]
    def leave(word):
        with open(os.environ["COUNTS"], "a") as handle:
            handle.write(f"{word} {job.root.name} {name} {time.monotonic()}\\n")
    leave("began")
    try:
        return body(params, job)
    finally:
        leave("ended")


def body(params, job):"""


@dataclass(frozen=True)
class Began:
    """One stage's body, as it really ran."""

    root: str
    stage: str
    start: float
    end: float


class Pair:
    """Two clones that share a cache, and an account of every stage's body that ran in either."""

    def __init__(self, folder: Path) -> None:
        self.roots = (folder / "one", folder / "two")
        self.counts = folder / "counts.txt"
        self.environment = {**miniature.environment(), "COUNTS": str(self.counts)}
        first, second = self.roots
        miniature.make(first)
        for stage in miniature.STAGES:
            path = first / "components" / stage / "stage.py"
            text = path.read_text("utf-8").replace("def run(params, job):", COUNTED)
            path.write_text(text.replace('"""\n', '"""\nimport os\n', 1), "utf-8")
        miniature.commit(first)
        history.clone_project(first, second)

    def round(self, number: int, commands: list[list[str]]) -> list[subprocess.CompletedProcess[str]]:
        """The same change in both clones, then every command at once, by turns in the one and the other."""
        self.counts.write_text("")
        for root in self.roots:
            miniature.turn_knob(root, f"seed: {number}", f"seed: {number + 1}")
        children = []
        for i, command in enumerate(commands):
            environment = {**self.environment, "GRAFTLINE_TRIGGER": f"{runs.KINDS[i % 5]}: number {i} of {number}"}
            out, root = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}, self.roots[i % 2]
            children.append(subprocess.Popen(command, cwd=root, env=environment, text=True, process_group=0, **out))
        try:
            told = [child.communicate(timeout=240)[0] for child in children]
        finally:
            for child in children:
                child.kill()
        return [subprocess.CompletedProcess(c.args, c.returncode, t) for c, t in zip(children, told)]

    def ran(self) -> list[Began]:
        """What really ran in the last round."""
        open_, found = {}, []
        for line in self.counts.read_text("utf-8").splitlines():
            word, root, stage, when = line.split()
            if word == "began":
                assert (root, stage) not in open_, f"{stage} twice at a time in {root}"
                open_[root, stage] = float(when)
            else:
                found.append(Began(root, stage, open_.pop((root, stage)), float(when)))
        assert not open_
        return found

    def check(self, done: list[subprocess.CompletedProcess[str]], before: int) -> None:
        """One at a time per work tree, no trigger lost, nothing run twice, and the same result in both."""
        for one in done:
            assert one.returncode == 0, f"{one.args}: {one.returncode}\n{one.stdout}"
        ran = self.ran()
        assert Counter(one.stage for one in ran) == dict.fromkeys(miniature.STAGES, 1)
        for root in {one.root for one in ran}:
            mine = sorted((one for one in ran if one.root == root), key=lambda one: one.start)
            assert all(a.end <= b.start for a, b in pairwise(mine)), mine
        records = [one for root in self.roots for one in runs.history(root)]
        mine_and_yours = sorted(records, key=lambda one: one.id)[before:]
        recorded = [one for one in done if "pipelines" in one.args]
        assert len(mine_and_yours) == len(recorded)
        assert {one.state for one in mine_and_yours} <= {"done", "unchanged"}
        assert len({one.trigger.cause for one in mine_and_yours}) == len(recorded)
        locks = [(root / "dvc.lock").read_bytes() for root in self.roots]
        assert locks[0] == locks[1]
        assert list((clones.cache(self.roots[0]) / clones.FOLDER / clones.TURNS).iterdir()) == []


REPRO = [sys.executable, "-m", "pipelines", "repro"]
RUN = [sys.executable, "-m", "pipelines", "run"]
PLAIN = [sys.executable, "-m", "dvc", "repro"]


def test_eight_triggers_at_once_run_the_line_once(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    done = pair.round(1, [REPRO] * TRIGGERS)
    pair.check(done, 0)
    states = Counter(one.state for root in pair.roots for one in runs.history(root))
    assert states == {"done": 1, "unchanged": TRIGGERS - 1} or states["done"] == 2  # who restores from the cache
    assert any("The same line runs already" in one.stdout for one in done)


def test_different_params_do_not_wait_for_each_other(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    for root in pair.roots:
        miniature.turn_knob(root, "pause: 0", f"pause: {1 + pair.roots.index(root) / 2}")
    done = pair.round(1, [REPRO] * 2)
    assert [one.returncode for one in done] == [0, 0]
    assert not any("The same line runs already" in one.stdout for one in done)
    first, second = (one for one in pair.ran() if one.stage == "ingest")
    assert max(first.start, second.start) < min(first.end, second.end)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield str(PREFECT_API_URL.value())


@pytest.mark.slow
@pytest.mark.timeout(ROUNDS * 120 + 240)
def test_many_rounds_of_triggers_of_every_kind(tmp_path: Path, server: str) -> None:
    pair = Pair(tmp_path)
    pair.environment["PREFECT_API_URL"] = server
    began = time.monotonic()
    for number in range(1, ROUNDS + 1):
        before = sum(len(runs.history(root)) for root in pair.roots)
        pair.check(pair.round(number, [REPRO, REPRO, RUN, REPRO, REPRO, RUN, REPRO, REPRO]), before)
    print(f"{ROUNDS} rounds of {TRIGGERS} triggers in {time.monotonic() - began:.0f} s")


@pytest.mark.slow
@pytest.mark.timeout(ROUNDS * 120 + 240)
def test_a_plain_dvc_repro_beside_ours_harms_neither(tmp_path: Path) -> None:
    """In one work tree, as a plain DVC knows nothing of other clones. It may refuse to work beside others, as it does;
    ours wait for it, and whatever it leaves is right."""
    pair = Pair(tmp_path)
    refused = 0
    for number in range(1, ROUNDS + 1):
        before = sum(len(runs.history(root)) for root in pair.roots)
        other = [sys.executable, "-c", "pass"]
        commands = [one for ours in (REPRO, PLAIN, REPRO, REPRO) for one in (ours, other)]
        done = pair.round(number, commands)
        plain = [one for one in done if "dvc" in one.args]
        refused += sum(one.returncode != 0 for one in plain)
        assert all("Unable to acquire" in one.stdout or "busy" in one.stdout for one in plain if one.returncode), plain
        for one in done:
            assert one in plain or one.returncode == 0, one.stdout
        assert Counter(one.stage for one in pair.ran()) == dict.fromkeys(miniature.STAGES, 1)
        assert len(runs.history(pair.roots[0])) == before + 3
        assert {one.state for one in runs.history(pair.roots[0])} <= {"done", "unchanged"}
    print(f"{ROUNDS} rounds beside a plain dvc repro, which was refused in {refused}")
