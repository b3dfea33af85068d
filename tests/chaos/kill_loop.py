"""`python tests/chaos/kill_loop.py --kills 300 --seed 1 [--real] [--flows]`: kill -9, then one ordinary run.

Each round starts a run in a project of its own, kills at a moment drawn beforehand, and asks: is every process gone
after 5 s; does one ordinary `python -m pipelines repro` end with 0; is every output, and dvc.lock, what an undisturbed
run gives; is nothing left behind. Ends with a table, and with 1 if anything was not so.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from victims import DVC, FLOW, REPRO, Started, Subject, children, kill, living, stage_process, wait_until, words_of

MOMENTS = ("starting", "in its body", "publishing", "being recorded", "at the border")
"""Of a stage: its process begins; its outputs are half-made; they move into place; DVC stores them; dvc.lock has it."""
VICTIMS = ("all", "supervisor", "stage")
GONE = 5.0
"""Seconds until no process of a killed run may be alive."""
BORDERS = ("being recorded", "at the border")
LONG = 20.0
"""Seconds of a body that is to be killed before its end: an orphan would still be there when it is looked for."""
SHELLS = ("sh", "bash", "staying")
UNFINISHED = ("before all", "starting", "in its body")


@dataclass(frozen=True)
class Plan:
    """What one round does."""

    stage: str
    """The next to run when it starts."""
    moment: str
    """One of MOMENTS; or `before all`, `after all`."""
    victim: str
    way: str
    """repro, dvc or flow: what is killed."""
    at: float
    """Where in that moment, 0 to 1."""
    over_earlier: bool
    ahead: bool
    emptied: bool
    at_once: bool
    """The next run starts right after the kill; else when all processes are gone."""
    shell: str

    def __str__(self) -> str:
        state = [w for w, is_so in vars(self).items() if is_so is True]
        return f"{self.way}: {self.victim} killed, {self.stage} {self.moment} ({self.at:.2f}), {' '.join(state)}"


@dataclass
class Round:
    """What became of it."""

    plan: Plan
    landed: bool = False
    gone: float = 0.0
    """Seconds until every process was gone."""
    mended: tuple[str, ...] = ()
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def plans(subject: Subject, seed: int, flows: bool) -> Iterator[Plan]:
    """Without end: every stage and moment in turn, in an order drawn by the seed, a third of the kills each victim."""
    rng = random.Random(seed)
    ways = ("repro", "repro", "dvc", "flow") if flows else ("repro", "repro", "dvc")
    for number in itertools.count():
        places = [(stage, moment) for stage in subject.stages for moment in MOMENTS]
        places += [(subject.stages[0], "before all"), (subject.stages[-1], "after all")]
        rng.shuffle(places)
        for index, (stage, moment) in enumerate(places):
            victim = VICTIMS[(index + number) % 3]
            if victim == "stage" and moment not in MOMENTS[:3]:
                moment = rng.choice(MOMENTS[:3])
            yield Plan(
                stage, moment, victim, rng.choice(ways), rng.random(), rng.random() < 0.5, rng.random() < 0.85,
                rng.random() < 0.1, rng.random() < 0.4, rng.choice(SHELLS),
            )  # fmt: skip


def play(subject: Subject, plan: Plan, name: str, server: str = "") -> Round:
    """One round in a project of its own, which is removed if all went well."""
    began = time.monotonic()
    root = subject.project(name, plan.stage, plan.over_earlier, plan.ahead, plan.emptied)
    command = {"repro": REPRO, "dvc": DVC, "flow": FLOW}[plan.way]
    nap = f"{plan.stage}:{LONG if plan.moment in UNFINISHED else 0.02}"
    environment = subject.environment(f"{name}-killed", nap) | {"SHELL": shell(subject.folder, plan.shell)}
    if plan.way == "flow":
        environment |= {"PREFECT_API_URL": server, "PREFECT_HOME": str(subject.folder / "prefect")}
    done = Round(plan)
    killed = Started.of(root, command, environment)
    try:
        done.landed = _strike(subject, plan, root, killed)
        struck = time.monotonic()
        if not done.landed:
            return done
        if plan.victim != "supervisor" or plan.way == "dvc":
            killed.process.wait(60)  # the supervisor of a killed stage ends by itself, after what does not need that
            struck = max(struck, time.monotonic() - 0.01) if plan.victim == "stage" else struck
        if not plan.at_once:
            _see_them_gone(done, struck, name, root)
        again = Started.of(root, REPRO, subject.environment(f"{name}-again"))
        if plan.at_once:
            _see_them_gone(done, struck, name, None)
        code = again.process.wait(1800)
        told = again.told()
        done.mended = tuple(line for line in told.splitlines() if line.startswith("Mended"))
        if code:
            done.wrong.append(f"the next run ended with {code}: {told[-2000:]}")
        done.wrong += subject.differences(root)
        done.wrong += [f"still alive after the next run: {one}" for one in living(f"{name}-again", root).values()]
    finally:
        kill(living(f"{name}-killed"))
        killed.process.wait()
    done.seconds = time.monotonic() - began
    if not done.wrong:
        shutil.rmtree(root)
    return done


def shell(folder: Path, kind: str) -> str:
    """The shell by which DVC starts a stage; most become the command, and some stay between."""
    if kind != "staying":
        return shutil.which(kind) or "/bin/sh"
    path = folder / "staying"
    if not path.exists():
        path.write_text('#!/bin/sh\n/bin/sh "$@"\nexit $?\n')
        path.chmod(0o755)
    return str(path)


def _see_them_gone(done: Round, struck: float, name: str, root: Path | None) -> None:
    mark = f"{name}-killed"
    if not wait_until(lambda: not living(mark, root), GONE, 0.01):
        done.wrong.append(f"alive {GONE:.0f} s after the kill: {living(mark, root)}")
    done.gone = time.monotonic() - struck


def _strike(subject: Subject, plan: Plan, root: Path, killed: Started) -> bool:
    """Wait for the moment and kill; whether somebody was there to be killed."""
    pid, stage = killed.process.pid, plan.stage
    built, lock = root / "artifacts" / ".building" / stage, root / "dvc.lock"
    status = root / "reports" / stage / "status.json"
    body = max(0.02, subject.wanted.seconds[stage]) if subject.real else 0.15
    recorded = _stamp(lock)
    over = killed.process.poll
    found: list[int] = []

    def started() -> bool:
        if one := stage_process(pid, stage):
            found.append(one)
        return bool(found)

    # What to wait for, and how many seconds the moment lasts.
    signs = {
        "before all": (lambda: True, 1.2),
        "starting": (started, 0.35),
        "in its body": (built.is_dir, body),
        "publishing": ((built / "lineage.json").exists, 0.006),
        "being recorded": (lambda: _stamp(status) is not None, 0.06),
        "at the border": (lambda: _stamp(lock) != recorded, 0.015),
        "after all": (lambda: _stamp(lock) != recorded, 0.3),
    }
    sign, lasts = signs[plan.moment]
    if plan.victim == "stage" and not wait_until(lambda: started() or over() is not None, 600):
        return False
    if not wait_until(lambda: sign() or over() is not None, 600, 0.0005):
        return False
    time.sleep(plan.at * lasts)
    if over() is not None:
        return False
    if plan.victim == "stage":
        return bool(kill(found[:1]))
    if plan.victim == "supervisor":
        below = [one for one in children(pid) if "dvc" in words_of(one)]  # under ours, DVC is a supervisor, too
        return bool(kill(below if plan.way != "dvc" and below and plan.at * 100 % 2 < 1 else [pid]))
    return bool(kill(_shuffled(living(f"{root.name}-killed"), plan)))


def _shuffled(pids: dict[int, str], plan: Plan) -> list[int]:
    return random.Random(plan.at).sample(sorted(pids), len(pids))


def _stamp(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def loop(subject: Subject, kills: int, seed: int, server: str = "", at_a_time: int = 1) -> list[Round]:
    """So many kills that landed. Several at a time are in projects of their own, and only each other's noise."""
    rounds: list[Round] = []
    drawn = enumerate(plans(subject, seed, bool(server)))
    shell(subject.folder, "staying")  # so that no two make it
    with ThreadPoolExecutor(at_a_time) as pool:
        while len(rounds) < kills:
            some = itertools.islice(drawn, kills - len(rounds))
            for one in [pool.submit(play, subject, plan, f"round-{n:05}", server) for n, plan in some]:
                done = one.result()
                if not done.landed:
                    continue
                rounds.append(done)
                mended = "  " + "; ".join(done.mended) if done.mended else ""
                print(f"{len(rounds):4} {done.seconds:5.1f} s {done.plan}{mended}", flush=True)
                print(*(f"     WRONG: {one}\n" for one in done.wrong), sep="", end="", flush=True)
    return rounds


def table(subject: Subject, rounds: list[Round]) -> list[str]:
    """Coverage by stage, border and victim; and what came of it."""
    num = Counter((r.plan.stage, r.plan.moment) for r in rounds)
    lines = [f"{'':12}" + "".join(f"{m:>16}" for m in MOMENTS) + f"{'in all':>9}{'border':>9}"]
    for stage in subject.stages:
        cells = [num[stage, moment] for moment in MOMENTS]
        border = sum(num[stage, moment] for moment in BORDERS)
        lines.append(f"{stage:12}" + "".join(f"{n:16}" for n in cells) + f"{sum(cells):9}{border:9}")
    lines.append(f"before all {num[subject.stages[0], 'before all']}, after all {num[subject.stages[-1], 'after all']}")
    victims, ways = Counter(r.plan.victim for r in rounds), Counter(r.plan.way for r in rounds)
    lines.append(f"killed: {dict(victims)}; of: {dict(ways)}")
    mended = Counter(line.partition(":")[2].split(",")[0].strip() for r in rounds for line in r.mended)
    lines.append(f"mended by the next run: {dict(mended)}")
    lines.append(f"longest until every process was gone: {max(r.gone for r in rounds):.2f} s")
    wrong = sum(bool(r.wrong) for r in rounds)
    lines.append(f"{len(rounds)} kills in {sum(r.seconds for r in rounds):.0f} s; {wrong} went wrong")
    return lines


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """The address of a Prefect server that is warm."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/api"

    def answers() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
        return False

    try:
        assert wait_until(answers, 120, 0.2), "the Prefect server does not answer"
        yield url
    finally:
        process.terminate()
        process.wait()


def main(words: list[str] | None = None) -> int:
    """Returns 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", action="store_true", help="the real line at its smallest, not the miniature")
    parser.add_argument("--flows", action="store_true", help="a quarter of the runs by Prefect, with a warm server")
    parser.add_argument("--in", dest="place", type=Path, help="keep everything in this folder, which must be empty")
    asked = parser.parse_args(words)
    folder = (asked.place or Path(tempfile.mkdtemp(prefix="kills-"))).resolve()
    folder.mkdir(exist_ok=True)
    subject = Subject(folder, asked.real)
    with _server(folder) if asked.flows else nullcontext("") as server:
        rounds = loop(subject, asked.kills, asked.seed, server)
    print("\n".join(["", *table(subject, rounds)]))
    wrong = any(r.wrong for r in rounds)
    if not wrong and asked.place is None:
        shutil.rmtree(folder)
    elif wrong:
        print(f"The projects that went wrong lie in {folder}")
    return int(wrong)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
