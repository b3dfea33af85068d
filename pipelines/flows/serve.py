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
from pipelines.flows.served import PACE, PORT

HOME = ".graftline/prefect"
"""Where a server that is started here keeps its database and its leases."""
WORDS = (
    "  records    python -m pipelines runs (.graftline/runs); notices in .graftline/notices.jsonl",
    "  ends with  Ctrl-C or SIGTERM, and with it all that it runs",
)
AT_ONCE = 8
"""Most runs at a time: one of each deployment, and a person's promote or rollback never waits for a place."""


def serve(root: Path, port: int | None = None) -> int:
    """Keep the project's deployments until Ctrl-C or SIGTERM; the exit code. `port`: of a server that is started here.

    Raises:
        InputError: another serve keeps this project, the port is taken, the server does not answer, or a file or
            variable of the settings has a mistake.
    """
    root = root.resolve()
    settings = operations.read(root)
    project = str(load_yaml(root / "params.yaml").get("run", {}).get("name", "")) or root.name
    auth = os.environ.get("PREFECT_SERVER_API_AUTH_STRING", "")
    os.chdir(root)  # where flow runs find their code
    secret = {PREFECT_API_AUTH_STRING: PREFECT_API_AUTH_STRING.value() or auth} if auth else {}
    with served.only_one(root) as uses, temporary_settings(secret), _server(root, port) as (url, runs):
        server.hush()
        known = deployments.load(root, project)
        uses(url)
        try:
            with served.named(root):
                return asyncio.run(_keep(root, known, settings, url, runs))
        finally:
            leftovers.end_unwatched(root)


@contextmanager
def _server(root: Path, given: int | None) -> Iterator[tuple[str, Callable[[], bool]]]:
    if PREFECT_API_URL.value():
        if given is not None:
            dvc_cli.say(f"--port {given} means nothing here: PREFECT_API_URL names a server, so none is started")
        with server.reached(root) as url:
            yield url, lambda: True
        return
    port = PORT if given is None else given
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
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
    dvc_cli.say(f"Starting Prefect's server at http://127.0.0.1:{port} (8 to 20 s)")
    with server.started(root, port, {k: os.environ.get(k, v) for k, v in besides.items()}) as (url, runs):
        yield url, runs


async def _keep(
    root: Path, known: list[deployments.RunnerDeployment], settings: operations.Operations, url: str,
    runs: Callable[[], bool],
) -> int:  # fmt: skip
    pace = served.seconds(PACE, 5)
    runner = Runner(name=f"serve-{os.getpid()}", limit=AT_ONCE, pause_on_shutdown=False, query_seconds=pace)
    ended = _wishes(runner)
    await asyncio.to_thread(leftovers.refuse_foreign, root, known)
    ids = {str(one.flow_name): await runner.aadd_deployment(one) for one in known}
    await asyncio.to_thread(leftovers.unschedule, known, ids)
    told = await asyncio.to_thread(leftovers.settle, root, ids)
    dvc_cli.say("\n".join([*told, f"Serving {root}", f"  pages      {url.removesuffix('/api')}", *WORDS]))
    running = asyncio.create_task(runner.start())
    while not runner.started and not running.done():
        await asyncio.sleep(0.02)
    over = threading.Event()
    greeting = asyncio.create_task(asyncio.to_thread(_greet, ids))
    watching = asyncio.create_task(asyncio.to_thread(watch.keep_on, root, ids, settings, over))
    alive, waiting = asyncio.create_task(_while(runs)), asyncio.create_task(ended.wait())
    try:
        await asyncio.wait({running, watching, alive, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        over.set()
        wished = waiting.done() and not waiting.cancelled()
        dvc_cli.say("Ending what runs; interrupt again and it is killed." if wished else _complaint(root, alive.done()))
        for task in (alive, waiting):
            task.cancel()
        await _stop(runner, wished)
        await asyncio.gather(running, watching, greeting, return_exceptions=True)
    return 0 if wished else 1


def _wishes(runner: Runner) -> asyncio.Event:
    """Set by Ctrl-C and SIGTERM from now on."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    def end(*_: object) -> None:
        loop.call_soon_threadsafe(ended.set)

    for wish in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wish, end)
    runner.handle_sigterm = end  # type: ignore[method-assign]  # it would take SIGTERM for itself
    return ended


async def _stop(runner: Runner, wished: bool) -> None:
    """End what runs. A second wish kills it."""
    if wished:
        for wish in (signal.SIGINT, signal.SIGTERM):
            signal.signal(wish, lambda *_: _signal_all(runner, kill=True))
    asking = asyncio.create_task(_ask_again(runner))
    with suppress(Exception):
        await runner.astop()
    asking.cancel()


def _greet(ids: dict[str, UUID]) -> None:
    with suppress(Exception):  # the server may just be going
        dvc_cli.say("\n".join(leftovers.greeting(ids)))


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
