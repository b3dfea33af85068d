"""The flows `sweep` and `score`: tasks side by side, on the task runner that `fan_out` in infra/operations.yaml names.

threads: on this machine. dask, ray: on a local cluster of theirs, or at an address. Scheduler and workers at an address
must see the project under the same path (a shared file system), have the same environment, and load the project's code:
start them in its folder with PYTHONPATH=. Tried were threads, a local dask cluster of threads, and one of processes at
an address of this machine; not tried were several machines, and ray.
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from components.contracts import InputError
from pipelines import dvc_cli, fan_out, operations, shards
from pipelines.fan_out import Setting
from pipelines.flows import server


def runner(how: operations.FanOut) -> TaskRunner[Any]:
    """What runs tasks side by side.

    Raises:
        InputError: its package is not installed.
    """
    if how.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=how.workers)
    try:
        module: Any = importlib.import_module(f"prefect_{how.runner}")
    except ImportError:
        raise InputError(
            f"{operations.FILE}: fan_out.runner is {how.runner}, which is not installed here: "
            f"pip install 'graftline[{how.runner}]', or set it to threads"
        ) from None
    found: TaskRunner[Any]
    if how.runner == "dask":
        logging.getLogger("distributed").setLevel(logging.ERROR)  # a line for each worker that comes and goes
        # Each task waits for processes of its own, so threads are enough, and they listen on no port.
        local = {"n_workers": how.workers, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
        found = (
            module.DaskTaskRunner(address=how.address) if how.address else module.DaskTaskRunner(cluster_kwargs=local)
        )
    else:
        options = {"address": how.address} if how.address else {"init_kwargs": {"num_cpus": how.workers}}
        found = module.RayTaskRunner(**options)
    return found


def run(root: Path, settings: list[Setting], until: str | None, keep: bool) -> list[dict[str, Any]]:
    """The flow `sweep` from a command line; what came of each setting, in their order.

    Raises:
        InputError: no server, or no runner.
    """
    found: list[dict[str, Any]] = _called(root, sweep, len(settings), str(root), fan_out.plain(settings), until, keep)
    return found


def score(root: Path, work: list[shards.Shard]) -> list[str]:
    """The flow `score` from a command line; the file that each shard wrote, in their order.

    Raises:
        InputError: no server or no runner, or a shard that could not be labelled.
    """
    found: list[str] = _called(root, score_all, len(work), [one.plain() for one in work])
    return found


def _called(root: Path, which: Any, num_tasks: int, *given: Any) -> Any:
    chosen = runner(operations.section(root, operations.FanOut))
    server.hush()
    with server.reached(root), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state = which.with_options(task_runner=chosen)(*given, return_state=True)
        server.settle(state.state_details.flow_run_id, num_tasks)
        return state.result()


@flow(name="sweep", persist_result=False)
def sweep(root: str, settings: list[dict[str, Any]], until: str | None = None, keep: bool = False) -> Any:
    """Every setting as a task run of its own name. One that fails does not stop the others."""
    futures = [
        try_setting.with_options(task_run_name=one["name"]).submit(root, one["name"], one["changes"], until, keep)
        for one in settings
    ]
    found = [_result(future, one) for future, one in zip(futures, settings)]
    rows = [{"setting": one["name"], "state": one["state"], **one["metrics"]} for one in found]
    create_table_artifact(rows, key="sweep", description="What each setting came to")
    return Completed(data=found, message=", ".join(f"{one['name']}: {one['state']}" for one in found))


def _result(future: Any, setting: dict[str, Any]) -> dict[str, Any]:
    """What the task told; where it died without a word (a worker that is gone), that."""
    try:
        future.wait()
        state: State[Any] = future.state
        given = state.result(raise_on_failure=False)
    except Exception as error:  # a worker that is gone, or one that cannot load this code
        given = error
    if isinstance(given, SettingFailed):
        return given.found
    if isinstance(given, dict):
        return given
    told = f"no worker ran it ({type(given).__name__}: {given}); do they see this folder, and load its code?"
    return {**setting, "state": "fault", "code": dvc_cli.FAULT, "told": told, "metrics": {}, "seconds": {}}


class SettingFailed(Exception):
    """So that Prefect shows the task run as failed; `found` is what came of it."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__(found)
        self.found = found

    def __str__(self) -> str:
        return f"{self.found['state']}: {self.found['told']}"


@task(cache_policy=NO_CACHE, persist_result=False)
def try_setting(root: str, name: str, changes: dict[str, Any], until: str | None, keep: bool) -> dict[str, Any]:
    """One setting, in its workspace."""
    found = fan_out.one(root, name, changes, until, keep)
    if found["state"] not in ("done", "refused"):
        raise SettingFailed(found)
    return found


@flow(name="score", persist_result=False)
def score_all(work: list[dict[str, Any]]) -> Any:
    """Every shard as a task run."""
    futures = [label.with_options(task_run_name=f"shard {i}").submit(one) for i, one in enumerate(work, 1)]
    return Completed(data=[future.result() for future in futures], message=f"{len(work)} shards")


@task(cache_policy=NO_CACHE, persist_result=False)
def label(one: dict[str, Any]) -> str:
    """One shard; the file that it wrote."""
    return shards.label(one)
