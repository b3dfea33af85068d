"""Where the files that a model rests on lie in the project's git history."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from components.contracts import Commit
from pipelines import processes

CACHES = ("__pycache__/", ".pyc")


def commit_of(root: Path, files: Iterable[str]) -> Commit:
    """The newest commit that changed one of the files (or what lies in one of the folders), and which of them
    differ from the last commit. So a commit of something else, dvc.lock for one, changes nothing of it.

    Paths outside the project are nobody's history. What git cannot tell is None, and `note` says why, in words
    that hold on every machine.
    """
    inside = sorted({f for f in files if not Path(f).is_absolute() and not f.startswith(("..", "outside/"))})
    try:
        if _git(root, "rev-parse", "--is-inside-work-tree") != ["true"]:
            return Commit(note="the project does not lie in a git work tree")
        if not _git(root, "rev-parse", "--verify", "--quiet", "HEAD"):
            return Commit(note="the project has no commit yet")
        found = _git(root, "log", "-1", "--format=%H", "--", *inside)
        differing = _git(root, "diff", "--name-only", "--relative", "-z", "HEAD", "--", *inside)
        unheld = _git(root, "ls-files", "--others", "-z", "--", *inside)
        cut = _git(root, "rev-parse", "--is-shallow-repository") == ["true"] and _is_border(root, found)
    except OSError:
        return Commit(note="git is not installed here")
    differing += [f for f in unheld if not any(c in f for c in CACHES)]
    clean, named = not differing, tuple(sorted(set(differing)))
    if cut:
        return Commit(None, clean, named, "the clone is shallow, its history begins later; `git fetch --unshallow`")
    if not found:
        return Commit(None, clean, named, "no commit holds these files")
    return Commit(found[0], clean, named)


def _is_border(root: Path, found: list[str]) -> bool:
    """Whether a shallow history ends at that commit, so that it seems to have made all files."""
    parents = _git(root, "rev-list", "--parents", "--max-count=1", *found) if found else []
    raw = _git(root, "cat-file", "commit", *found) if found else []
    return bool(parents) and parents[0].count(" ") == 0 and any(line.startswith("parent ") for line in raw)


def _git(root: Path, *arguments: str) -> list[str]:
    """What git prints, by lines (by NUL with -z); nothing where it refuses."""
    code, out, _ = processes.quietly(
        ["git", "--no-optional-locks", "--literal-pathspecs", "-c", "log.showSignature=false", *arguments], root
    )
    text = out.decode("utf-8", "surrogateescape") if code == 0 else ""
    return [line for line in text.split("\0" if "-z" in arguments else "\n") if line]
