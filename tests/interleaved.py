"""Variants timed against each other on a machine that does nothing else: one process a variant, in turns.

A variant is the same script called with `--variant NAME`. It times what counts within `timed()` and ends with `tell()`;
`compare` calls them round by round. Before each process the machine must be idle; a round in which others took more
than a sliver of the processors while the clock ran is thrown away, and another one run instead. On a machine that is
busy (`--busy`) processor time is compared, which others disturb little: good enough to try a script, not to judge by.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IDLE = 0.08
"""Busy processors, at most, before a process begins; over LOOK seconds."""
LOOK = 1.5
FOREIGN = 0.06
"""Processors that others may use, at most, while the clock runs."""
MARK = "MEASURED "
THREADS = 2
PINS = ("OMP_WAIT_POLICY", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "OPENBLAS_CORETYPE")

Round = dict[str, dict[str, Any]]
"""Variant -> what it told: seconds, foreign, and its own figures."""


@dataclass
class Timing:
    """How long, and how many processors others used meanwhile."""

    seconds: float = 0.0
    processor: float = 0.0
    foreign: float = 0.0


@dataclass(frozen=True)
class Variant:
    """One way to do it."""

    name: str
    words: tuple[str, ...] = ()
    """Of its command line, beside --variant."""
    env: Mapping[str, str] = field(default_factory=dict)


def busy() -> float:
    """Seconds that the processors of this machine were busy since it started, or were kept from us."""
    first = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()
    user, nice, system, _, _, irq, softirq, steal = (int(v) for v in first[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own() -> float:
    """Seconds of processor time that this process and its ended children took."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextmanager
def timed() -> Iterator[Timing]:
    """The clock runs within it."""
    found = Timing()
    taken, mine, began = busy(), own(), time.perf_counter()
    yield found
    found.seconds, found.processor = time.perf_counter() - began, own() - mine
    found.foreign = max(0.0, busy() - taken - found.processor) / found.seconds


def tell(timing: Timing, **figures: Any) -> None:
    """What `compare` reads."""
    print(MARK + json.dumps({**vars(timing), **figures}), flush=True)


def wait_for_quiet(most: float) -> None:
    """Until the machine is idle.

    Raises:
        SystemExit: it never was, for `most` seconds.
    """
    began = told = time.monotonic()
    while True:
        before = busy()
        time.sleep(LOOK)
        now = (busy() - before) / LOOK
        if now <= IDLE:
            return
        if time.monotonic() - began > most:
            raise SystemExit(f"the machine is not idle: {now:.2f} processors are busy (wait longer, or try --busy)")
        if time.monotonic() - told > 20:
            told = time.monotonic()
            print(f"waiting: {now:.2f} processors are busy", file=sys.stderr, flush=True)


def options(doc: str | None, rounds: int = 5) -> argparse.ArgumentParser:
    """What every such script takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--busy", action="store_true", help="only try it: processor time, no idle machine needed")
    parser.add_argument("--wait", type=float, default=900, help="seconds to wait for an idle machine, at most")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=17, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def pinned(instruction_set: str) -> dict[str, str]:
    """Environment of a stage with this run.instruction_set."""
    found = {"OMP_WAIT_POLICY": "PASSIVE"}
    if instruction_set == "avx2":
        found |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}
        found["OPENBLAS_CORETYPE"] = "Haswell"
    return found


def call(script: str, variant: Variant, words: Sequence[str], *, crowded: bool) -> dict[str, Any]:
    """One process of a variant; what it told. On a `crowded` machine threads must not spin, and seconds are those of
    the processors."""
    clean = {k: v for k, v in os.environ.items() if k not in PINS}
    threads = {f"{name}_NUM_THREADS": str(THREADS) for name in ("OMP", "MKL", "OPENBLAS")}
    env = clean | threads | {"HF_HUB_OFFLINE": "1"} | dict(variant.env)
    env |= {"OMP_WAIT_POLICY": "PASSIVE"} if crowded else {}
    command = [sys.executable, script, "--variant", variant.name, *variant.words, *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK))
    return {**found, "seconds": found["processor"]} if crowded else found


def compare(script: str, variants: Sequence[Variant], given: argparse.Namespace, words: Sequence[str]) -> list[Round]:
    """Rounds that nothing disturbed, each with every variant once, in turn; each round has a seed of its own.

    Raises:
        SystemExit: the machine is not idle, or too many rounds were disturbed.
    """
    found: list[Round] = []
    for attempt in range(3 * given.rounds):
        if len(found) == given.rounds:
            break
        this: Round = {}
        for variant in variants:
            if not given.busy:
                wait_for_quiet(given.wait)
            seed = ["--seed", str(given.seed + len(found))]
            this[variant.name] = call(script, variant, [*words, *seed], crowded=given.busy)
        worst = max(one["foreign"] for one in this.values())
        times = ", ".join(f"{name} {one['seconds']:.2f} s" for name, one in this.items())
        kept = given.busy or worst <= FOREIGN
        print(f"round {attempt + 1}: {times}; others {worst:.2f}{'' if kept else ', thrown away'}", file=sys.stderr)
        if kept:
            found.append(this)
    if len(found) < given.rounds:
        raise SystemExit(f"only {len(found)} rounds of {given.rounds} were not disturbed")
    return found


def ratios(rounds: Sequence[Round], slow: str, fast: str) -> list[float]:
    """How many times as fast, round by round."""
    return [one[slow]["seconds"] / one[fast]["seconds"] for one in rounds]


def ranged(values: Sequence[float], digits: int = 2) -> str:
    """Median (smallest to largest)."""
    middle, low, high = (f"{v:.{digits}f}" for v in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def show(title: str, rows: Sequence[Sequence[str]], given: argparse.Namespace) -> None:
    """A table; the first row is its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    noise = "; A TRIAL, of processor time on a busy machine" if given.busy else ""
    print(f"\n{title}; {THREADS} threads, {given.rounds} rounds{noise}")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def verdict(met: Mapping[str, bool]) -> int:
    """Say what was promised and not kept; 0 if nothing, else 1."""
    for what, kept in met.items():
        print(f"{'met' if kept else 'NOT MET'}: {what}")
    return 0 if all(met.values()) else 1
