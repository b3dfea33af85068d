"""dvc.lock as it stood in the commits of a project: which outputs each run had, by md5."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines import history, processes

_OUTS = re.compile(r"^    outs:\n((?:    - .*\n|      .*\n)*)", re.M)
_OUT = re.compile(r"^    - path: (\S+)\n(?:      .*\n)*?      md5: (\S+)$", re.M)


def outs_of(text: str) -> dict[str, str]:
    """Output -> md5 of a dvc.lock, as DVC writes it. By its lines: parsing YAML takes 45 ms a lock."""
    return {path: md5 for block in _OUTS.findall(text) for path, md5 in _OUT.findall(block)}


def of_history(root: Path) -> list[tuple[str, str, str]]:
    """(commit, day, dvc.lock) of every commit that changed it, of branches and tags, the oldest first."""
    told = history.git(
        root, "log", "--branches", "--tags", "HEAD", "--date-order", "--reverse", "--format=%H %cs", "--", "dvc.lock"
    )
    days = dict(line.split(" ") for line in told)
    return [(commit, days[commit], text) for commit, text in of(root, days, days)]


def tags(root: Path) -> dict[str, str]:
    """Tag -> its commit."""
    told = history.git(
        root,
        "for-each-ref",
        "refs/tags",
        "--format=%(refname:short) %(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)",
    )
    return dict(line.rsplit(" ", 1) for line in told if " " in line)


def of(root: Path, commits: Iterable[str], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name, dvc.lock) of those commits that have one, in one call of git."""
    asked = list(commits)
    prefix = "".join(history.git(root, "rev-parse", "--show-prefix"))
    given = "".join(f"{commit}:{prefix}dvc.lock\n" for commit in asked).encode("utf-8", "surrogateescape")
    if not asked:
        return
    code, out, _ = processes.quietly(["git", "cat-file", "--batch"], root, given)
    at = 0
    for name in names if code == 0 else ():
        end = out.index(b"\n", at)
        head = out[at:end].split(b" ")
        at = end + 1
        if head[-1] == b"missing":
            continue
        size = int(head[-1])
        yield name, out[at : at + size].decode("utf-8", "replace")
        at += size + 1
