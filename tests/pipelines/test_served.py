"""What serve starts, and what it is answerable for: whom it ends, whom its server lets in, what a flow may be told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import miniature
import pytest
import served as trial

from components.contracts import InputError
from pipelines import flows, keeper, leases, records
from pipelines.flows import served
from pipelines.records import Record
from pipelines.triggers import Trigger

REPOSITORY = Path(__file__).parent.parent.parent
SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]
PASSWORD = "anna:only in a test"


@pytest.fixture
def sleeper() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes that do nothing, with these variables."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin(**environment: str) -> subprocess.Popen[bytes]:
        begun.append(subprocess.Popen(SLEEPS, env={**os.environ, **environment}))
        return begun[-1]

    yield begin
    for one in begun:
        one.kill()
        one.wait()


def lease_of(process: subprocess.Popen[bytes]) -> leases.Lease:
    return replace(leases.own(), pid=process.pid, started=leases.started(process.pid))


def put(root: Path, lease: leases.Lease, **values: Any) -> Record:
    one = Record(
        id=records.new_id(), flow="train", trigger=Trigger("schedule"), started=time.time(), lease=lease, **values
    )
    records.write(root, one)
    return one


# --- whom it ends ---


def test_at_its_end_it_ends_what_descends_from_it_and_nobody_else(
    tmp_path: Path, sleeper: Callable[..., subprocess.Popen[bytes]]
) -> None:
    from pipelines.flows import leftovers

    with served.named(tmp_path):
        ours, ended, elsewhere, in_container, renumbered = (sleeper() for _ in range(5))
    by_cron, of_another_serve = sleeper(), sleeper(**{served.OURS: "1 1"})
    for one in (ours, by_cron, of_another_serve):
        put(tmp_path, lease_of(one))
    put(tmp_path, lease_of(ended), ended=time.time())
    put(tmp_path, replace(lease_of(elsewhere), host="another"))
    put(tmp_path, replace(lease_of(in_container), space="pid:[1]"))
    put(tmp_path, replace(lease_of(renumbered), started="1"))
    leftovers.end_unwatched(tmp_path, seconds=10)
    assert ours.wait(10) == -signal.SIGTERM
    time.sleep(0.2)
    spared = (ended, elsewhere, in_container, renumbered, by_cron, of_another_serve)
    assert [one.poll() for one in spared] == [None] * 6


def test_what_the_reaper_starts_is_of_this_serve_but_not_tied_to_it(tmp_path: Path) -> None:
    names = (served.TIES, served.ROOT, served.OURS)
    told = f"import os; print(*(os.environ.get(name, '-') for name in {names!r}), sep='|')"
    with served.named(tmp_path):
        pid = keeper.spawn([sys.executable, "-c", told], {}, str(tmp_path / "log"))
        expected = f"-|-|{os.environ[served.OURS]}\n"
    os.waitpid(pid, 0)
    assert (tmp_path / "log").read_text() == expected


TELL = "import pipelines.flows, os, sys, time; print(os.environ.get('GRAFTLINE_SERVED')); sys.stdout.flush(); "


def test_a_flow_run_whose_serve_went_before_it_was_loaded_ends() -> None:
    gone = {**os.environ, served.TIES: "1"}
    done = subprocess.run([sys.executable, "-c", TELL + "time.sleep(60)"], env=gone, cwd=REPOSITORY, timeout=50)
    assert done.returncode == -signal.SIGTERM


def test_a_flow_run_of_a_living_serve_goes_on_and_hands_the_tie_to_nobody() -> None:
    tied = {**os.environ, served.TIES: str(os.getpid())}
    command = [sys.executable, "-c", TELL + "time.sleep(1.5)"]
    done = subprocess.run(command, env=tied, cwd=REPOSITORY, timeout=50, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


# --- what a flow may be told ---


@pytest.mark.parametrize("name", ["train", "monitor", "promote", "rollback", "prune", "backtest"])
def test_a_flow_that_serve_started_works_in_no_other_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    module = importlib.import_module(f"pipelines.flows.{'promote' if name == 'rollback' else name}")
    monkeypatch.setattr(flows, "_ROOT", str(tmp_path / "kept"))
    needed = {"date": "date"} if name == "backtest" else {}
    state = getattr(module, name).fn(root=str(tmp_path), **needed)
    assert state.name == "Mistake"
    assert state.message == (
        f"root: {tmp_path} is not the project that serve keeps here, {tmp_path / 'kept'}. Leave `root` as it is"
    )


def test_its_own_folder_however_it_is_called_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert flows.project(".") == flows.project(str(tmp_path)) == tmp_path
    monkeypatch.setattr(flows, "_ROOT", "")
    assert flows.project("/") == Path("/")


# --- whom its server lets in ---


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API of a server as we start them, with a password."""
    from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

    from pipelines.flows import server

    root = tmp_path_factory.mktemp("closed")
    besides = {"PREFECT_HOME": str(root / "prefect"), "PREFECT_SERVER_API_AUTH_STRING": PASSWORD}
    with (
        temporary_settings({PREFECT_API_AUTH_STRING: PASSWORD}),
        server.started(root, server.free_port(), besides) as (url, _),
    ):
        yield url


def test_other_web_pages_can_neither_read_nor_send(closed: str) -> None:
    import httpx

    own = closed.removesuffix("/api")
    name, _, word = PASSWORD.partition(":")
    with httpx.Client(base_url=closed, auth=(name, word)) as page:
        allowed = {
            origin: page.get("/admin/version", headers={"Origin": origin}).headers.get("access-control-allow-origin")
            for origin in (own, own.replace("127.0.0.1", "localhost"), "https://evil.example", "null")
        }
        assert list(allowed.values()) == [*list(allowed)[:2], None, None]
        asks = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        assert page.options("/flow_runs/", headers=asks).status_code == 400
        # what a page may send without asking first: a body of no type
        sent = page.post("/flows/", content=b'{"name": "evil"}', headers={"Origin": "https://evil.example"})
        assert (sent.status_code, sent.json()) == (403, {"detail": "Missing CSRF token."})


def test_prefects_own_client_flows_artifacts_and_logs_get_on_with_it(closed: str) -> None:
    from prefect import flow, get_run_logger, task
    from prefect.artifacts import create_markdown_artifact
    from prefect.client.orchestration import get_client

    from pipelines.flows import server

    server.drain()  # what tells of other tests' runs has their server and no password

    @task(persist_result=False)
    def double(number: int) -> int:
        return 2 * number

    @flow(name="closed", persist_result=False)
    def small() -> int:
        get_run_logger().info("from within")
        create_markdown_artifact("# here", key="closed")
        return double(21)

    assert small() == 42
    server.drain()
    with get_client(sync_client=True) as client:
        (one,) = client.read_flow_runs()
        assert (one.state_name, one.name != "") == ("Completed", True)
        server.settle(one.id, 1)
        assert [task_run.state_name for task_run in client.read_task_runs()] == ["Completed"]
        assert [artifact.key for artifact in client.read_artifacts()] == ["closed"]
        assert any("from within" in log.message for log in client.read_logs())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed here")
def test_its_own_pages_get_on_with_it(tmp_path: Path) -> None:
    """Without a password, as a browser would ask for one."""
    from prefect import flow

    from pipelines.flows import server

    @flow(name="to-be-seen", persist_result=False)
    def small() -> None:
        return None

    with server.started(tmp_path, server.free_port(), {"PREFECT_HOME": str(tmp_path / "prefect")}) as (url, _):
        small()
        server.drain()
        words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'chromium'}"]
        page = [f"{url.removesuffix('/api')}/runs", "--virtual-time-budget=15000", "--dump-dom"]
        done = subprocess.run(["chromium", *words, *page], capture_output=True, text=True, timeout=60)
    assert "to-be-seen" in done.stdout, done.stderr[-2000:]


def test_without_the_password_it_is_told_which_variable_is_missing(closed: str, tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from pipelines.flows import server

    told = "Set PREFECT_API_AUTH_STRING to what PREFECT_SERVER_API_AUTH_STRING is there"
    with served.only_one(tmp_path) as uses:
        uses(closed)
        for wrong in (None, "anna:something else"):
            with (
                temporary_settings({PREFECT_API_AUTH_STRING: wrong, PREFECT_API_URL: None}),
                pytest.raises(InputError, match=told),
                server.reached(tmp_path),
            ):
                pass


# --- what it is given ---


@pytest.mark.parametrize("port", ["0", "65536", "70000", "-1", "x", "²", ""])
def test_a_port_that_is_none_is_told(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.parser import parser

    with pytest.raises(SystemExit) as caught:
        parser().parse_args(["serve", f"--port={port}"])
    assert caught.value.code == 2
    assert "must be a number from 1 to 65535" in capsys.readouterr().err
    assert parser().parse_args(["serve", "--port", "65535"]).port == 65535


@pytest.mark.parametrize(("name", "value"), [(served.PACE, "1.5"), (served.PACE, "x"), (served.WATCH, "nan"),
    (served.WATCH, "-1"), (served.WATCH, "often")])  # fmt: skip
def test_a_variable_that_is_no_number_is_told(name: str, value: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "serve"], env={**miniature.environment(), name: value}, cwd=REPOSITORY,
        capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{name}: '{value}' must be a ")


WHERE = "entrypoint: 'pipelines/flows/prune.py:prune', concurrency_limit"


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ("entrypoint: pipelines/flows/train.py", "entrypoint: 'pipelines/flows/train.py' must be FILE:FLOW"),
        ("tags: []", "entrypoint: '' must be FILE:FLOW"),
        (
            f"{WHERE}: {{collision_strategy: ENQUEUE}}",
            "concurrency_limit.limit must be a whole number from 1; given: None",
        ),
        (f"{WHERE}: one", "concurrency_limit must be a whole number from 1; given: 'one'"),
        (f"{WHERE}: {{limit: 1, collision_strategy: X}}", "'X' is not a valid ConcurrencyLimitStrategy"),
    ],
)
def test_a_deployment_that_is_none_is_told_with_its_key(
    tmp_path: Path, rest: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.flows import deployments

    monkeypatch.chdir(REPOSITORY)
    (tmp_path / "infra" / "prefect").mkdir(parents=True)
    (tmp_path / deployments.FILE).write_text(f"deployments:\n  - {{name: a, {rest}}}\n")
    with pytest.raises(InputError, match=r"^infra/prefect/prefect.yaml: ") as caught:
        deployments.load(tmp_path, "a")
    assert told in str(caught.value)


# --- after a serve that was killed ---


def test_what_still_ends_is_waited_for_and_then_made_up_for(
    prefect_server: None, tmp_path: Path, sleeper: Callable[..., subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    from pipelines.flows import deployments, leftovers

    (tmp_path / "infra" / "prefect").mkdir(parents=True)
    entry = "{name: late, entrypoint: 'pipelines/flows/prune.py:prune', parameters: {root: .}}"
    (tmp_path / deployments.FILE).write_text(f"deployments:\n  - {entry}\n")
    monkeypatch.chdir(REPOSITORY)
    (made,) = deployments.load(tmp_path, "late")
    ids = {"prune": UUID(str(made.apply()))}
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(ids["prune"])
        client.set_flow_run_state(run.id, Running(), force=True)
        process = sleeper()
        record = put(tmp_path, lease_of(process), flow_run_id=str(run.id))

        def end() -> None:
            time.sleep(1.5)
            records.write(tmp_path, replace(record, state="interrupted", code=143, ended=time.time()))
            process.kill()

        ending = threading.Thread(target=end)
        ending.start()
        told = leftovers.settle(tmp_path, ids)
        ending.join()
        assert client.read_flow_run(run.id).state_name == "Crashed"
        assert any(line.startswith("prune: runs now, interrupted ") for line in told), told
        with suppress(Exception):
            client.delete_deployment(ids["prune"])


def test_what_lives_on_is_not_shown_as_crashed(
    prefect_server: None, tmp_path: Path, sleeper: Callable[..., subprocess.Popen[bytes]]
) -> None:
    from pipelines.flows import leftovers

    put(tmp_path, lease_of(sleeper()), flow_run_id="a")
    put(tmp_path, replace(leases.own(), pid=1, started="1"), flow_run_id="b")
    assert leftovers._let_end(tmp_path, {"a", "b"}, seconds=0.5) == {"a"}


def test_a_port_beside_a_server_that_is_named_is_told_to_mean_nothing(
    prefect_server: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.flows import serve

    with serve._server(tmp_path, trial.free_port()) as (url, _):
        assert url.startswith("http")
    assert "means nothing here: PREFECT_API_URL names a server" in capsys.readouterr().err
    with serve._server(tmp_path, None):
        pass
    assert capsys.readouterr().err == ""
