"""Posts a comment to a pull request, or opens one; its own comment with the same first line is replaced.

Needs Python alone, so that the job with the right to write runs nothing else. GitHub: GITHUB_TOKEN, GITHUB_REPOSITORY,
GITHUB_API_URL, and PULL_REQUEST (its number). GitLab: GITLAB_TOKEN, CI_API_V4_URL, CI_PROJECT_ID and
CI_MERGE_REQUEST_IID. The token is read from the environment and sent to that address alone; it is never printed.

    python infra/ci/post.py comment FILE
    python infra/ci/post.py propose BRANCH INTO TITLE FILE
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MARK = "<!-- graftline:"
PAGE = 100
MOST_PAGES = 50


class Unable(Exception):
    """The message says why."""


class Host:
    """What both have in common."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        if not url.startswith("https://") and urllib.parse.urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
            raise Unable(f"{url}: a token is sent over https only")
        self.url, self.headers = url.rstrip("/"), headers

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What the host answers."""
        data = None if body is None else json.dumps(body).encode()
        headers = {**self.headers, "Content-Type": "application/json", "User-Agent": "graftline"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with _OPENER.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Unable(f"{method} {path}: {error.code} {error.reason}") from None
        except (OSError, ValueError) as error:
            raise Unable(f"{method} {path}: {error}") from None

    def listed(self, path: str) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: list[dict[str, Any]] = []
        sign = "&" if "?" in path else "?"
        for page in range(1, MOST_PAGES + 1):
            some = self.call("GET", f"{path}{sign}per_page={PAGE}&page={page}")
            found += some
            if len(some) < PAGE:
                break
        return found


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def host(environment: Mapping[str, str]) -> tuple[Host, str, str]:
    """The host, the path of the project, and where the comments of its pull request lie (empty: no number given)."""
    if environment.get("CI_API_V4_URL"):
        project = f"/projects/{_number(environment, 'CI_PROJECT_ID')}"
        one = Host(environment["CI_API_V4_URL"], {"PRIVATE-TOKEN": _given(environment, "GITLAB_TOKEN")})
        number = environment.get("CI_MERGE_REQUEST_IID") and _number(environment, "CI_MERGE_REQUEST_IID")
        return one, project, f"{project}/merge_requests/{number}/notes" if number else ""
    repository = _given(environment, "GITHUB_REPOSITORY")
    token = f"Bearer {_given(environment, 'GITHUB_TOKEN')}"
    headers = {"Authorization": token, "Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
    one = Host(environment.get("GITHUB_API_URL", "https://api.github.com"), headers)
    project = f"/repos/{urllib.parse.quote(repository)}"
    number = environment.get("PULL_REQUEST") and _number(environment, "PULL_REQUEST")
    return one, project, f"{project}/issues/{number}/comments" if number else ""


def comment(file: Path, environment: Mapping[str, str]) -> str:
    """Post the file, or put it in the place of the comment with its first line."""
    text = file.read_text("utf-8")
    mark = text.partition("\n")[0]
    if not mark.startswith(MARK):
        raise Unable(f"{file} does not begin with {MARK}: it is no comment of `python -m pipelines comment`")
    one, project, place = host(environment)
    if not place:
        raise Unable("PULL_REQUEST or CI_MERGE_REQUEST_IID must say which pull request")
    gitlab = place.endswith("/notes")
    mine = author(one, gitlab)
    there = [c for c in one.listed(place) if str(c.get("body", "")).startswith(mark) and mine(c)]
    if not there:
        one.call("POST", place, {"body": text})
        return "posted"
    where = f"{place}/{there[0]['id']}" if gitlab else f"{project}/issues/comments/{there[0]['id']}"
    one.call("PUT" if gitlab else "PATCH", where, {"body": text})
    return "replaced"


def author(one: Host, gitlab: bool) -> Callable[[dict[str, Any]], bool]:
    """Whether a comment is the token's own. Anybody can write one with our first line, and it is theirs."""
    if gitlab:
        own = one.call("GET", "/user").get("id")
        return lambda c: own is not None and (c.get("author") or {}).get("id") == own
    try:
        own = one.call("GET", "/user").get("id")
    except Unable:  # a workflow's own token is no user; what it posts is of the bot below, which nobody can be
        return lambda c: (c.get("user") or {}).get("type") == "Bot" and c["user"].get("login") == "github-actions[bot]"
    return lambda c: own is not None and (c.get("user") or {}).get("id") == own


def propose(branch: str, into: str, title: str, file: Path, environment: Mapping[str, str]) -> str:
    """Open a pull request from a branch, unless there is one."""
    one, project, _ = host(environment)
    body = file.read_text("utf-8")
    if environment.get("CI_API_V4_URL"):
        ask = urllib.parse.urlencode({"source_branch": branch, "state": "opened"})
        if one.call("GET", f"{project}/merge_requests?{ask}"):
            return "there already"
        told = {"source_branch": branch, "target_branch": into, "title": title, "description": body}
        return f"opened: {one.call('POST', f'{project}/merge_requests', told).get('web_url', '')}"
    owner = environment["GITHUB_REPOSITORY"].partition("/")[0]
    ask = urllib.parse.urlencode({"head": f"{owner}:{branch}", "state": "open"})
    if one.call("GET", f"{project}/pulls?{ask}"):
        return "there already"
    opened = one.call("POST", f"{project}/pulls", {"head": branch, "base": into, "title": title, "body": body})
    return f"opened: {opened.get('html_url', '')}"


def _given(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise Unable(f"{name} is not set")
    return environment[name]


def _number(environment: Mapping[str, str], name: str) -> int:
    text = _given(environment, name)
    if not text.isdecimal():
        raise Unable(f"{name} is {text!r}, which is no number")
    return int(text)


def main(arguments: list[str]) -> int:
    """0, or 1 with a line that says why."""
    try:
        match arguments:
            case ["comment", file]:
                print(comment(Path(file), os.environ))
            case ["propose", branch, into, title, file]:
                print(propose(branch, into, title, Path(file), os.environ))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except (Unable, OSError) as error:
        print(f"not posted: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
