"""A day compressed: 288 scheduled runs of the project in miniature through `serve`, with faults sprinkled in.

    python tests/chaos/soak.py                      288 runs, one due each 8 s: about 50 minutes on two cores
    python tests/chaos/soak.py --runs 10 --pace 6   a trial of two minutes

Everything is as on a user's machine: serve with a server of its own, Prefect's schedule (every 5 minutes are here
some seconds: an interval), each run a process. The faults, by turns: kill -9 of a run; a disk full for a run (file
sizes limited from outside); params with a mistake; a refusal; changed data; the server killed; serve killed, each time
started again as systemd would. Clocks are not turned: that needs a shim under every process, or root.

What must hold at the end: every due run ran once or is told to have been due while nobody served; each left one
record; no process, temporary file or descriptor is left; memory does not grow; records stay bounded after prune.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent.parent)]

import miniature  # noqa: E402
import psutil  # noqa: E402
import served  # noqa: E402

from pipelines import runs  # noqa: E402

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
KEPT = 20
"""Records kept by prune here."""


@dataclass
class Sample:
    """The serve process at one moment."""

    at: float
    fds: int
    threads: int
    rss: int
    children: int


@dataclass
class Soak:
    """What goes on."""

    root: Path
    num: int
    pace: float
    lives: list[list[Sample]] = field(default_factory=list)
    """Samples of each serve process."""
    done: Counter[str] = field(default_factory=Counter)
    """Faults that were done."""
    recorded: set[str] = field(default_factory=set)
    """Prefect's runs that have, or had, a record."""


def _flow_runs(root: Path) -> list[dict[str, Any]]:
    """What Prefect's database says of the scheduled runs."""
    place = root / ".graftline" / "prefect" / "prefect.db"
    if not place.exists():
        return []
    asked = (
        "select f.id, f.name, f.state_type, f.auto_scheduled, f.expected_start_time, f.start_time, s.message "
        "from flow_run f left join flow_run_state s on s.id = f.state_id"
    )
    with suppress(sqlite3.OperationalError):
        database = sqlite3.connect(f"file:{place}?mode=ro", uri=True, timeout=10)
        try:
            names = ("id", "name", "state", "auto", "due", "began", "message")
            return [dict(zip(names, row)) for row in database.execute(asked)]
        finally:
            database.close()
    return []


def _ended(root: Path) -> int:
    return sum(one["state"] in FINAL for one in _flow_runs(root))


def _running(root: Path) -> int | None:
    """Process of a run that goes on, past its very beginning."""
    for one in runs.history(root)[:5]:
        if runs.alive(root, one):
            return one.lease.pid
    return None


# --- faults ---


def _kill_run(soak: Soak) -> bool:
    pid = _running(soak.root)
    if pid is None:
        return False
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()
    return True


def _full_disk(soak: Soak) -> bool:
    """From now on this run's files may not grow beyond some bytes."""
    pid = _running(soak.root)
    if pid is None:
        return False
    with suppress(psutil.NoSuchProcess, OSError):
        for one in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            one.rlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    return True


def _edit(before: str, after: str) -> Callable[[Soak], bool]:
    """params.yaml is different for three runs."""

    def do(soak: Soak) -> bool:
        miniature.turn_knob(soak.root, before, after)
        time.sleep(3 * soak.pace)
        miniature.turn_knob(soak.root, after, before)
        return True

    return do


def _touch_data(soak: Soak) -> bool:
    (soak.root / "data" / "numbers.txt").write_text(f"1 2 3 {random.random()}\n")
    return True


FAULTS: dict[str, Callable[[Soak], bool]] = {
    "kill -9 of a run": _kill_run,
    "disk full for a run": _full_disk,
    "data changed": _touch_data,
    "params with a mistake": _edit("at_least: 1.0", "at_least: much"),
    "refusal": _edit("at_least: 1.0", "at_least: 9.0"),
    "a defect of a stage": _edit('suffix: ".v1"', "suffix: fault"),
}
ENDS = ("server killed", "serve ended", "serve killed")


def _server_of(process: psutil.Process) -> psutil.Process | None:
    return next((c for c in process.children(recursive=True) if "server" in c.cmdline()), None)


# --- the loop ---


def soak(root: Path, num: int, pace: float, seed: int = 1) -> list[tuple[str, str, str, bool]]:
    """Run it; rows of the table: what, measured, limit, whether it holds."""
    one = Soak(root, num, pace)
    chance = random.Random(seed)
    miniature.make(root)
    served.prepare(root, ("train.py:train", f"{{interval: {pace}}}"))
    settings = root / "infra" / "operations.yaml"
    settings.write_text(settings.read_text().replace("keep: 1000", f"keep: {KEPT}"))
    miniature.commit(root)
    began = time.monotonic()
    ends = list(ENDS) if num >= 20 else ["serve killed"]
    every = num // (len(ends) + 1)
    for life in range(len(ends) + 1):
        until = num if life == len(ends) else every * (life + 1)
        with served.serving(root) as serve:
            serve.wait_for("Serving ", 300)
            _live(one, serve, until, chance)
            _end(one, serve, ends[life] if life < len(ends) else "")
    return _judge(one, time.monotonic() - began)


def _live(soak: Soak, serve: served.Serve, until: int, chance: random.Random) -> None:
    process, samples = psutil.Process(serve.process.pid), []
    soak.lives.append(samples)
    next_fault = time.monotonic() + chance.uniform(1, 3) * soak.pace
    faults = list(FAULTS)
    while _ended(soak.root) < until:
        assert serve.process.poll() is None, serve.said[-3000:]
        if time.monotonic() > next_fault:
            name = chance.choice(faults)
            soak.done[name] += FAULTS[name](soak)
            next_fault = time.monotonic() + chance.uniform(1, 4) * soak.pace
        soak.recorded |= {r.flow_run_id for r in runs.history(soak.root) if r.flow_run_id}  # old ones go meanwhile
        with process.oneshot():
            samples.append(
                Sample(time.monotonic(), process.num_fds(), process.num_threads(), process.memory_info().rss,
                       len(process.children()))
            )  # fmt: skip
        time.sleep(0.3)


def _end(soak: Soak, serve: served.Serve, how: str) -> None:
    process = psutil.Process(serve.process.pid)
    if how == "server killed":
        server = _server_of(process)
        assert server is not None
        server.kill()
        serve.process.wait(120)
    elif how == "serve killed":
        process.kill()
        serve.process.wait(60)
    else:
        assert serve.end(seconds=120) == 0, serve.said[-3000:]
    soak.done[how or "serve ended"] += 1


# --- what must hold ---


def _judge(soak: Soak, seconds: float) -> list[tuple[str, str, str, bool]]:
    root = soak.root
    flow_runs = _flow_runs(root)
    now = time.strftime(
        "%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - 60)
    )  # what waits for its turn so long was missed
    open_still = [r for r in flow_runs if r["state"] in ("RUNNING", "PENDING", "CANCELLING")]
    missed = [r for r in flow_runs if r["state"] == "SCHEDULED" and str(r["due"]) < now]
    unserved = sum("while nobody served" in (r["message"] or "") for r in flow_runs)
    records = runs.history(root)
    once = Counter(r.flow_run_id for r in records if r.flow_run_id and not r.of)
    double = [run for run, times in once.items() if times > 1]
    recorded = soak.recorded | {r.flow_run_id for r in records}
    began = [r for r in flow_runs if r["began"]]
    plain = {_plain(name) for name in recorded}
    told = ("nobody served", "shutting down")  # ended before it had begun, and made up for by the next serve
    lost = [
        r for r in began if not any(word in (r["message"] or "") for word in told) and _plain(r["id"]) not in plain
    ]  # fmt: skip
    unended = [r.id for r in records if r.ended is None]
    time.sleep(3)
    left = [pid for pid in served.processes_of(root) if psutil.pid_exists(pid)]
    temporary = [p for p in root.rglob("*") if ".git/" not in p.as_posix() and _is_temporary(p, root)]
    before = _sizes(root)
    num_before = len(records)
    each = before["records"] // max(1, num_before)
    done = miniature.line(root, "prune")
    after = _sizes(root)
    kept = len(runs.history(root))
    megabytes = f"{before['prefect'] / 1e6:.1f} -> {after['prefect'] / 1e6:.1f}"
    rows = [
        ("runs that ended", str(_ended(root)), f"at least {soak.num}", _ended(root) >= soak.num),
        ("still open in Prefect", str(len(open_still)), "0", not open_still),
        ("due and not run, untold", str(len(missed)), "0", not missed),
        ("due while nobody served (told; newest made up for)", str(unserved), "", True),
        ("run twice", str(len(double)), "0", not double),
        ("runs without a record", str(len(lost)), "0", not lost),
        ("records that never ended", str(len(unended)), "0", not unended),
        ("processes left", str(len(left)), "0", not left),
        ("temporary files left", str(len(temporary)), "0", not temporary),
        *_growth(soak),
        ("records before and after prune", f"{num_before} -> {kept}", f"at most {KEPT}", kept <= KEPT),
        ("prune's exit code", str(done.returncode), "0", done.returncode == 0),
        ("bytes of records and notices a run", str(each), "51200", each < 51_200),
        ("Prefect's files in MB, before and after prune", megabytes, "", True),
        ("states", " ".join(f"{k}={v}" for k, v in sorted(Counter(r.state for r in records).items())), "", True),
        ("faults", "; ".join(f"{k}: {v}" for k, v in sorted(soak.done.items())), "", True),
        ("seconds", f"{seconds:.0f}", "", True),
    ]  # fmt: skip
    wrong = {"processes": left, "temporary": temporary, "lost": lost, "missed": missed, "open": open_still}
    for told, what in wrong.items():
        if what:
            print(told, what[:5], file=sys.stderr)
    return rows


def _plain(name: object) -> str:
    return str(name).replace("-", "")


def _is_temporary(path: Path, root: Path) -> bool:
    place = path.relative_to(root).as_posix()
    return path.is_file() and (".tmp" in path.name or place.startswith("artifacts/.building/"))


def _growth(soak: Soak) -> Iterator[tuple[str, str, str, bool]]:
    """Of the longest life of serve: medians of its second and its last quarter."""
    samples = max(soak.lives, key=len)
    quarter = max(1, len(samples) // 4)
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    for name, most in (("fds", 8.0), ("threads", 4.0), ("children", 4.0)):  # a run that goes on has five pipes
        early, late = (sorted(getattr(s, name) for s in part)[len(part) // 2] for part in (second, last))
        yield f"serve: {name}, early and late", f"{early} -> {late}", f"+{most:g}", late - early <= most
    early, late = (sorted(s.rss for s in part)[len(part) // 2] / 1e6 for part in (second, last))
    yield "serve: memory in MB, early and late", f"{early:.1f} -> {late:.1f}", "+5 %", late <= early * 1.05


def _sizes(root: Path) -> dict[str, int]:
    def size(place: Path) -> int:
        return sum(p.stat().st_size for p in place.rglob("*") if p.is_file())

    notices = root / ".graftline" / "notices.jsonl"
    return {
        "records": size(root / ".graftline" / "runs") + (notices.stat().st_size if notices.exists() else 0),
        "prefect": size(root / ".graftline" / "prefect"),
    }


def table(rows: list[tuple[str, str, str, bool]]) -> str:
    """To be read."""
    width = max(len(row[0]) for row in rows)
    return "\n".join(
        f"{what:{width}}  {'ok ' if holds else 'NO '} {found}{f'   (limit {limit})' if limit else ''}"
        for what, found, limit, holds in rows
    )


@contextmanager
def _place(given: str) -> Iterator[Path]:
    if given:
        yield Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def main() -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=288)
    parser.add_argument("--pace", type=float, default=8.0, help="seconds from one due run to the next")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--in", dest="place", default="", help="a folder that is left, to look at")
    options = parser.parse_args()
    with _place(options.place) as folder:
        rows = soak(folder / "mini", options.runs, options.pace, options.seed)
    print(table(rows))
    print(json.dumps({what: found for what, found, _, _ in rows}))
    return 0 if all(holds for *_, holds in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
