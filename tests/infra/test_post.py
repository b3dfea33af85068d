"""The comment is posted once and then replaced, against a real HTTP server; the token goes nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "infra" / "ci" / "post.py"
TOKEN = "planted-token-Lm2"
GITHUB = {"GITHUB_REPOSITORY": "someone/cats", "GITHUB_TOKEN": TOKEN, "PULL_REQUEST": "7"}
GITLAB = {"CI_PROJECT_ID": "12", "CI_MERGE_REQUEST_IID": "7", "GITLAB_TOKEN": TOKEN}


class Host(ThreadingHTTPServer):
    """Keeps comments as GitHub and GitLab do."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.comments: list[dict[str, Any]] = []
        self.opened: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.redirect = ""
        self.user: dict[str, Any] | None = {"id": 3, "login": "releaser"}
        """Of the token; None: a workflow's own, which is no user."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Host

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, value: Any, status: int = 200) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        if self.server.redirect:
            self.send_header("Location", self.server.redirect)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return found

    def do_GET(self) -> None:
        self.server.tokens.add(self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN") or "")
        if self.server.redirect:
            return self._answer({}, 302)
        if "/pulls?" in self.path or "/merge_requests?" in self.path:
            return self._answer(self.server.opened)
        if self.path == "/user":
            return self._answer(self.server.user or {}, 200 if self.server.user else 403)
        page = int(self.path.split("page=")[-1])
        return self._answer(self.server.comments[(page - 1) * 100 : page * 100])

    def do_POST(self) -> None:
        body = self._body()
        if "body" in body and "head" not in body and "source_branch" not in body:
            bot = {"id": 41898282, "login": "github-actions[bot]", "type": "Bot"}
            who = self.server.user or bot
            one = {"id": len(self.server.comments), "body": body["body"], "user": who, "author": who}
            self.server.comments.append(one)
        else:
            self.server.opened.append(body)
        self._answer({"html_url": "https://host/pull/8", "web_url": "https://host/pull/8"}, 201)

    def do_PATCH(self) -> None:
        self.server.comments[int(self.path.rpartition("/")[2])]["body"] = self._body()["body"]
        self._answer({})

    do_PUT = do_PATCH  # noqa: N815


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def post(*words: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], **settings}
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert TOKEN not in done.stdout + done.stderr
    return done


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "comment.md"
    path.write_text("<!-- graftline: cats -->\nfirst\n")
    return path


@pytest.mark.parametrize("settings", [GITHUB, GITLAB], ids=["github", "gitlab"])
def test_a_comment_is_posted_once_and_then_replaced(host: Host, file: Path, settings: dict[str, str]) -> None:
    settings = {
        **settings,
        ("GITHUB_API_URL" if settings is GITHUB or "PULL_REQUEST" in settings else "CI_API_V4_URL"): host.url,
    }
    host.comments += [{"id": i, "body": f"talk {i}"} for i in range(150)]  # two pages of other comments
    host.comments.append({"id": 150, "body": "<!-- graftline: dogs -->\nof another project"})
    assert post("comment", file, **settings).stdout == "posted\n"
    file.write_text("<!-- graftline: cats -->\nsecond\n")
    assert post("comment", file, **settings).stdout == "replaced\n"
    assert [c["body"] for c in host.comments[150:]] == [
        "<!-- graftline: dogs -->\nof another project", "<!-- graftline: cats -->\nsecond\n",
    ]  # fmt: skip
    assert host.tokens == {TOKEN if "GITLAB_TOKEN" in settings else f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("settings", "own"),
    [(GITHUB, None), (GITHUB, {"id": 3, "login": "releaser"}), (GITLAB, {"id": 3, "username": "bot"})],
    ids=["a workflow's token", "a person's token", "gitlab"],
)
def test_what_others_wrote_under_our_first_line_is_not_overwritten(
    host: Host, file: Path, settings: dict[str, str], own: dict[str, Any] | None
) -> None:
    host.user = own
    settings = {**settings, ("GITHUB_API_URL" if "PULL_REQUEST" in settings else "CI_API_V4_URL"): host.url}
    others: list[dict[str, Any] | None] = [
        {"id": 7, "login": "somebody", "type": "User"}, {"id": 8, "login": "renovate[bot]", "type": "Bot"}, None,
    ]  # fmt: skip
    theirs = [
        {"id": n, "body": "<!-- graftline: cats -->\ntheirs", "user": w, "author": w} for n, w in enumerate(others)
    ]
    host.comments += [dict(one) for one in theirs]
    assert post("comment", file, **settings).stdout == "posted\n"
    assert post("comment", file, **settings).stdout == "replaced\n"
    assert host.comments[:3] == theirs
    assert len(host.comments) == 4


@pytest.mark.parametrize("settings", [GITHUB, GITLAB], ids=["github", "gitlab"])
def test_a_pull_request_is_opened_once(host: Host, file: Path, settings: dict[str, str]) -> None:
    settings = {**settings, ("GITHUB_API_URL" if "PULL_REQUEST" in settings else "CI_API_V4_URL"): host.url}
    words = ("propose", "retrain/20260101-000000", "main", "Retrained: drift", file)
    assert post(*words, **settings).stdout == "opened: https://host/pull/8\n"
    assert post(*words, **settings).stdout == "there already\n"
    assert len(host.opened) == 1


def test_the_token_does_not_follow_a_redirect(host: Host, file: Path) -> None:
    with Host() as other:
        host.redirect = f"{other.url}/elsewhere"
        done = post("comment", file, **GITHUB, GITHUB_API_URL=host.url)
        assert done.returncode == 1
        assert "302" in done.stderr
        assert other.tokens == set()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({**GITHUB, "GITHUB_API_URL": "http://api.example"}, "https only"),
        ({**GITHUB, "GITHUB_TOKEN": ""}, "GITHUB_TOKEN is not set"),
        ({**GITHUB, "PULL_REQUEST": "7/../8"}, "which is no number"),
        ({k: v for k, v in GITHUB.items() if k != "PULL_REQUEST"}, "must say which pull request"),
    ],
)
def test_what_cannot_be_posted_is_told_in_a_line(file: Path, settings: dict[str, str], told: str) -> None:
    done = post("comment", file, **settings)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_only_a_comment_of_ours_is_posted(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "other.md"
    path.write_text("anything")
    done = post("comment", path, **GITHUB, GITHUB_API_URL=host.url)
    assert done.returncode == 1
    assert host.comments == []
