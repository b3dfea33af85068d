"""The pages of a run as a browser shows them: a real Prefect server, headless Chromium, and what a person reads."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import miniature
import pytest

from pipelines import runs

pytestmark = pytest.mark.slow  # 20 s on a quiet machine: a server of its own, whose pages ask at its own port

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--window-size=1500,3000",
)  # fmt: skip


def text_of(browser: str, url: str, folder: Path, wanted: str) -> str:
    """The words on a page, once its scripts have run; looked at again while these are not among them."""
    for _ in range(4):
        text = _text(browser, url, folder)
        if wanted in text:
            break
    return text


def _text(browser: str, url: str, folder: Path) -> str:
    options = (*QUIET, f"--user-data-dir={folder}", "--virtual-time-budget=20000", "--dump-dom")
    done = subprocess.run([browser, *options, url], capture_output=True, text=True, timeout=90, check=True)
    return " ".join(re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", done.stdout, flags=re.DOTALL).split())


def test_a_refused_run_shows_its_stages_states_trigger_and_verdict(
    finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser to be had: none of {', '.join(BROWSERS)} is on PATH (apt-get install chromium)")
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from pipelines.flows import server

    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("GRAFTLINE_TRIGGER", "drift: 4 of 6 columns drifted")
    miniature.turn_knob(finished_project, "at_least: 1.0", "at_least: 9.0")
    with server.started(finished_project, server.free_port()) as (url, _):
        monkeypatch.setenv("PREFECT_API_URL", url)
        done = miniature.call(finished_project, sys.executable, "-m", "pipelines", "run", timeout=120)
        assert done.returncode == 3, done.stderr
        run = runs.history(finished_project)[0].flow_run_id
        with get_client(sync_client=True) as client:
            key = ArtifactFilter(key=ArtifactFilterKey(any_=["mini-summary"]))
            summary = client.read_artifacts(artifact_filter=key)[0].id
        host = url.removesuffix("/api")
        page = text_of(browser, f"{host}/runs/flow-run/{run}", tmp_path / "browser", "Beginning flow run")
        told = text_of(browser, f"{host}/artifacts/artifact/{summary}", tmp_path / "browser", "Triggered by")
    assert {"mini", "Refused", "train", "project: mini", "trigger: drift", "5 Task runs"} <= {
        words
        for words in ("mini", "Refused", "train", "project: mini", "trigger: drift", "5 Task runs")
        if words in page
    }
    for line in ("Cached('unchanged since dvc.lock was written'", "Completed('gate.at_least: 1.0 -&gt; 9.0')"):
        assert line in page, page
    assert "Task run failed with state" not in page, "a failure is told once"
    for words in ("Triggered by drift", "4 of 6 columns drifted", "mean at least 9.0: too low"):
        assert words in told, told
    for stage, state in (("ingest", "Cached"), ("gate", "Completed"), ("export", "Refused"), ("handoff", "Skipped")):
        assert f"{stage} {state}" in told, told
