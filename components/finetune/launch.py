"""Start the processes that train together, and see that they end together.

On one machine they are started here: they find each other on the loopback interface, nothing listens beyond it, and
they die with the stage however it ends. On several machines torchrun starts them, one stage a process:

    torchrun --nnodes 2 --node-rank 0 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29400 \\
        -m pipelines.stage finetune

with `processes: 8` in params.yaml, and the same on the other machine with `--node-rank 1`, each in a copy of the
project at the same commit with the same inputs. The first process writes what the stage writes. What torchrun listens
on is neither encrypted nor asks who calls: use it in a network that is yours alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from multiprocessing.connection import wait
from typing import Any, TypeVar

from components import tied
from components.contracts import InputError
from components.job import Job

T = TypeVar("T")
Work = Callable[[Any, Job, Any], dict[str, float]]
"""(params, job, team) -> metrics."""

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""By which torchrun tells a process which one it is."""
HOST = "127.0.0.1"
GRACE = 0.5
"""Seconds in which those that fall with a first one may tell why."""


class ProcessDied(InputError):
    """One of the processes was ended from outside."""


class Quiet(Job):
    """The job of a process that is not the first: it has the same to read, and nobody to tell."""

    def say(self, text: str) -> None:
        """The first process says it."""

    def progress(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Only passes on."""
        del what, total
        yield from items


def together(processes: int, work: Work, params: Any, job: Job) -> dict[str, float]:
    """`work` by so many processes; the first one's metrics.

    Raises:
        InputError: another number than torchrun started; or what one of them raised.
        ProcessDied: one was killed.
    """
    from components.finetune.team import ALONE, Team, joined

    given = os.environ
    if all(name in given for name in VARIABLES):
        size = int(given["WORLD_SIZE"])
        if size != processes:
            raise InputError(
                f"finetune.processes is {processes}, but torchrun started {size}. The number decides the last bits of "
                "the weights, so it stands in params.yaml: make the two the same."
            )
        team = Team(int(given["RANK"]), size, int(given["LOCAL_RANK"]))
        if size > 1:
            with joined(team):
                return work(params, _own(job, team.rank), team)
    return work(params, job, ALONE) if processes == 1 else _spawned(processes, work, params, job)


def _own(job: Job, rank: int) -> Job:
    return Quiet(**{f.name: getattr(job, f.name) for f in fields(Job)}) if rank else job


def _spawned(num: int, work: Work, params: Any, job: Job) -> dict[str, float]:
    store = _listen()
    context = multiprocessing.get_context("spawn")
    about = (num, store.port, os.getpid(), work, params, job)
    crew = [context.Process(target=_member, args=(rank, *about), daemon=True) for rank in range(num)]
    try:
        for one in crew:
            one.start()
        _see_to_the_end(crew, store)
    finally:
        for one in crew:
            if one.is_alive():
                one.kill()
                one.join()
    metrics: dict[str, float] = json.loads(store.get("metrics"))
    return metrics


def _listen() -> Any:
    """Where the processes find each other and leave their last words; torch's own would listen on every interface."""
    from torch.distributed import TCPStore

    listener = socket.socket()
    listener.bind((HOST, 0))
    listener.listen(1024)
    port = listener.getsockname()[1]
    return TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())


def _see_to_the_end(crew: list[Any], store: Any) -> None:
    while left := [one.sentinel for one in crew if one.exitcode is None]:
        wait(left)
        if any(one.exitcode for one in crew):
            time.sleep(GRACE)
            raise _why({rank: one.exitcode for rank, one in enumerate(crew) if one.exitcode}, len(crew), store)


def _why(codes: dict[int, int], num: int, store: Any) -> BaseException:
    """What ended them: a mistake that one told; else that one was killed; else the first fault. Others' faults then
    come of having lost it."""
    spoke = [rank for rank in codes if store.check([f"told {rank}"])]
    told = {rank: json.loads(store.get(f"told {rank}")) for rank in spoke}
    for one in told.values():
        if mistake := _mendable(one):
            return mistake
    killed = [(rank, -code) for rank, code in codes.items() if code < 0]
    if killed or not told:
        rank, number = killed[0] if killed else (min(codes), 0)
        how = f"was killed (signal {number})" if number else f"ended with {codes[rank]}, without a word"
        memory = ", as happens when memory runs out" if number == signal.SIGKILL else ""
        return ProcessDied(
            f"process {rank + 1} of {num} {how}{memory}; the others were ended. Run again to go on from the last "
            "epoch; if memory was short, take fewer (finetune.processes) or a smaller finetune.batch_size"
        )
    rank, one = min(told.items(), key=lambda item: "distributed" in item[1]["trace"])  # a lost peer: last
    fault = RuntimeError(f"process {rank + 1} of {num}: {one['name']}: {one['words']}")
    fault.__cause__ = RuntimeError(f"\n{one['trace']}")
    return fault


def _words(error: BaseException, trace: str) -> str:
    """What a process says of its end, as text: whoever reads it runs nothing of what it holds."""
    kind = "mistake" if isinstance(error, InputError) else "system" if isinstance(error, OSError) else "fault"
    system = [getattr(error, name, None) for name in ("errno", "strerror", "filename")]
    told = {"kind": kind, "name": type(error).__name__, "words": str(error), "system": system, "trace": trace}
    return json.dumps(told, default=str)


def _mendable(told: dict[str, Any]) -> InputError | OSError | None:
    """What stage.py tells a user without a traceback; None: a fault."""
    if told["kind"] == "mistake":
        return InputError(told["words"])
    if told["kind"] == "system":
        number, text, name = told["system"]
        return OSError(told["words"]) if number is None else OSError(number, text, name)
    return None


def _member(rank: int, num: int, port: int, parent: int, work: Work, params: Any, job: Job) -> None:
    """The life of one process."""
    tied.to(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    from torch.distributed import TCPStore

    from components.finetune.team import Team, joined

    if sys.platform == "linux":  # else gloo listens, and NCCL calls, where the machine's name leads to
        os.environ.update(GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo")
    store = TCPStore(HOST, port, is_master=False)
    team = Team(rank, num, rank)
    try:
        with joined(team, store):
            metrics = work(params, _own(job, rank), team)
        if rank == 0:
            store.set("metrics", json.dumps(metrics))
    except BaseException as error:
        store.set(f"told {rank}", _words(error, traceback.format_exc()))
        os._exit(1)  # at once: what torch's threads still wait for will not come
