"""`python -m pipelines serve`: schedules, events and the watch, on one machine with nothing else.

It uses the server that PREFECT_API_URL names, or starts one on 127.0.0.1 whose database lies in the project
(.graftline/prefect), so that its history survives restarts and projects do not mix. It registers the deployments of
infra/prefect/prefect.yaml and runs what is due, each run as a process of its own; watch.py looks after the rest.

What is due while a run of the same deployment is on waits for its turn; runs of different deployments that both need
the project wait for each other in dvc_cli.turn. Of what was due while nobody served, the newest run of each deployment
is made up for, once; so is one that the last serve's end interrupted. When serve ends, everything that it started ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from prefect.runner import Runner
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from components.contracts import InputError
from components.params import load_yaml
from pipelines import dvc_cli, operations
from pipelines.flows import deployments, leftovers, served, server, watch

HOME = ".graftline/prefect"
"""Where a server that is started here keeps its database and its leases."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
TIES = "GRAFTLINE_SERVED"
"""How a flow run's process knows whose child it is (pipelines/flows/__init__.py): it ends when serve is gone."""
WORDS = (
    "  records    python -m pipelines runs (.graftline/runs); notices in .graftline/notices.jsonl",
    "  ends with  Ctrl-C or SIGTERM, and with it all that it runs",
)
AT_ONCE = 8
"""Most runs at a time: one of each deployment, and a person's promote or rollback never waits for a place."""


def serve(root: Path, port: int, host: str = "127.0.0.1") -> int:
    """Keep the project's deployments until Ctrl-C or SIGTERM; the exit code.

    Raises:
        InputError: another serve keeps this project, the port is taken, the server does not answer, a file of the
            settings has a mistake, or it would listen beyond this machine without authentication.
    """
    root = root.resolve()
    settings = operations.read(root)
    project = str(load_yaml(root / "params.yaml").get("run", {}).get("name", "")) or root.name
    auth = os.environ.get("PREFECT_SERVER_API_AUTH_STRING", "")
    if host not in LOOPBACK and not auth:
        raise InputError(
            f"--host: {host} can be reached from other machines, and the server would let anybody in. "
            "Set PREFECT_SERVER_API_AUTH_STRING=NAME:PASSWORD, or leave it at 127.0.0.1"
        )
    os.chdir(root)  # where flow runs find their code
    secret = {PREFECT_API_AUTH_STRING: PREFECT_API_AUTH_STRING.value() or auth} if auth else {}
    with served.only_one(root) as uses, temporary_settings(secret), _server(root, port, host) as (url, runs):
        server.hush()
        known = deployments.load(root, project)
        uses(url)
        os.environ[TIES] = str(os.getpid())
        try:
            return asyncio.run(_keep(root, known, settings, url, runs))
        finally:
            os.environ.pop(TIES, None)
            leftovers.end_unwatched(root)


@contextmanager
def _server(root: Path, port: int, host: str) -> Iterator[tuple[str, Callable[[], bool]]]:
    if PREFECT_API_URL.value():
        with server.reached(root) as url:
            yield url, lambda: True
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host if host != "localhost" else "127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"--port: {port} cannot be listened at ({error.strerror}). Name another one; or, if Prefect's server "
                f"of another project is there, share it: PREFECT_API_URL=http://127.0.0.1:{port}/api"
            ) from None
    home = root / HOME
    home.mkdir(parents=True, exist_ok=True)
    besides = {
        "PREFECT_HOME": str(home),
        # Kept in files, a lease outlives a restart of the server, and so is given back when its time is over.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
    }
    dvc_cli.say(f"Starting Prefect's server at http://{host}:{port} (8 to 20 s)")
    with server.started(root, port, {k: os.environ.get(k, v) for k, v in besides.items()}, host) as (url, runs):
        yield url, runs


async def _keep(
    root: Path, known: list[deployments.RunnerDeployment], settings: operations.Operations, url: str,
    runs: Callable[[], bool],
) -> int:  # fmt: skip
    runner = Runner(name=f"serve-{os.getpid()}", limit=AT_ONCE, pause_on_shutdown=False, query_seconds=_pace())
    ids: dict[str, UUID] = {}
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    def end(*_: object) -> None:
        loop.call_soon_threadsafe(ended.set)

    for wish in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wish, end)
    runner.handle_sigterm = end  # type: ignore[method-assign]  # it would take SIGTERM for itself
    await asyncio.to_thread(leftovers.refuse_foreign, root, known)
    for one in known:
        ids[str(one.flow_name)] = await runner.aadd_deployment(one)
    await asyncio.to_thread(leftovers.unschedule, known, ids)
    told = await asyncio.to_thread(leftovers.settle, root, ids)
    dvc_cli.say("\n".join([*told, f"Serving {root}", f"  pages      {url.removesuffix('/api')}", *WORDS]))
    running = asyncio.create_task(runner.start())
    while not runner.started and not running.done():
        await asyncio.sleep(0.02)
    over = threading.Event()
    greeting = asyncio.create_task(asyncio.to_thread(_greet, ids))
    watching = asyncio.create_task(asyncio.to_thread(watch.keep_on, root, ids, settings, over))
    alive = asyncio.create_task(_while(runs))
    waiting = asyncio.create_task(ended.wait())
    try:
        await asyncio.wait({running, watching, alive, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        over.set()
        if not waiting.done():
            dvc_cli.say(_complaint(root, alive.done()))
        else:
            dvc_cli.say("Ending what runs; interrupt again and it is killed.")
            for wish in (signal.SIGINT, signal.SIGTERM):
                signal.signal(wish, lambda *_: _signal_all(runner, kill=True))
        for task in (alive, waiting):
            task.cancel()
        asking = asyncio.create_task(_ask_again(runner))
        with suppress(Exception):
            await runner.astop()
        asking.cancel()
        await asyncio.gather(running, watching, greeting, return_exceptions=True)
    return 0 if waiting.done() and not waiting.cancelled() else 1


def _greet(ids: dict[str, UUID]) -> None:
    with suppress(Exception):  # the server may just be going
        dvc_cli.say("\n".join(leftovers.greeting(ids)))


def _pace() -> float:
    """Seconds between two looks for what is due."""
    return float(os.environ.get("PREFECT_RUNNER_POLL_FREQUENCY", "5"))


async def _while(runs: Callable[[], bool]) -> None:
    while runs():
        await asyncio.sleep(1)


def _complaint(root: Path, server_is_gone: bool) -> str:
    if server_is_gone:
        return f"Prefect's server ended; see {root / server.LOG}. Start serve again (systemd does, see infra/systemd)."
    return "Prefect's server has not answered for too long. Start serve again (systemd does, see infra/systemd)."


async def _ask_again(runner: Runner) -> None:
    """Prefect makes an exception of SIGTERM, and one that is raised in the wrong place (a weak reference's callback) is
    lost: so a run that does not end is asked once more, before Prefect kills it after half a minute."""
    await asyncio.sleep(12)
    _signal_all(runner, kill=False)


def _signal_all(runner: Runner, kill: bool) -> None:
    for flow_run_id in runner._process_manager.flow_run_ids():
        if handle := runner._process_manager.get(flow_run_id):
            with suppress(ProcessLookupError):
                handle.hard_kill() if kill else handle.graceful_kill()
