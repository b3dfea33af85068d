"""Where the files that a model rests on lie in the project's git history."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from components.contracts import Commit, InputError
from pipelines import processes

CACHES = ("__pycache__/", ".pyc")


class GitError(InputError):
    """Git could not do it; the message is git's own."""


def commit_of(root: Path, files: Iterable[str]) -> Commit:
    """The newest commit that changed one of the files (or what lies in one of the folders), and which of them
    differ from the last commit. So a commit of something else, dvc.lock for one, changes nothing of it.

    Paths outside the project are nobody's history. What git cannot tell is None, and `note` says why, in words
    that hold on every machine.
    """
    inside = sorted({f for f in files if not Path(f).is_absolute() and not f.startswith(("..", "outside/"))})
    try:
        if git(root, "rev-parse", "--is-inside-work-tree") != ["true"]:
            return Commit(note="the project does not lie in a git work tree")
        if not git(root, "rev-parse", "--verify", "--quiet", "HEAD"):
            return Commit(note="the project has no commit yet")
        found = git(root, "log", "-1", "--format=%H", "--", *inside)
        differing = git(root, "diff", "--name-only", "--relative", "-z", "HEAD", "--", *inside)
        unheld = git(root, "ls-files", "--others", "-z", "--", *inside)
        cut = git(root, "rev-parse", "--is-shallow-repository") == ["true"] and _is_border(root, found)
    except processes.NotInstalled:
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
    parents = git(root, "rev-list", "--parents", "--max-count=1", *found) if found else []
    raw = git(root, "cat-file", "commit", *found) if found else []
    return bool(parents) and parents[0].count(" ") == 0 and any(line.startswith("parent ") for line in raw)


def git(root: Path, *arguments: str) -> list[str]:
    """What git prints, by lines (by NUL with -z), without empty ones; nothing where it refuses.

    Raises:
        NotInstalled: git is not there.
    """
    code, out, _ = processes.quietly(
        ["git", "--no-optional-locks", "--literal-pathspecs", "-c", "log.showSignature=false", *arguments], root
    )
    text = out.decode("utf-8", "surrogateescape") if code == 0 else ""
    return [line for line in text.split("\0" if "-z" in arguments else "\n") if line]


def has_uncommitted(root: Path) -> bool:
    """Whether files of the project differ from its last commit."""
    code, changes, _ = processes.quietly(["git", "status", "--porcelain"], root)
    return code == 0 and bool(changes.strip())


def is_kept(root: Path, commit: str) -> bool:
    """Whether a branch, a remote's branch or a tag of this repository leads to that commit (40 hex digits).

    What merely lies among the repository's objects (of a pull request, thrown away) is nobody's choice of code.
    """
    if not re.fullmatch("[0-9a-f]{40}", commit):
        return False
    places = ("refs/heads", "refs/remotes", "refs/tags")
    return bool(git(root, "for-each-ref", "--count=1", "--format=%(refname)", f"--contains={commit}", *places))


def project_files(root: Path) -> list[str]:
    """The files that git holds, or would hold if all were added; not what it is told to ignore."""
    names = git(root, "ls-files", "-z", "-co", "--exclude-standard")
    return [name for name in names if (root / name).is_file()]


def clone_project(root: Path, target: Path) -> None:
    """A git clone of the project, sharing its DVC cache and its environment.

    Raises:
        GitError: git refused.
    """
    _must(root, "clone", "--quiet", "--local", str(root.resolve()), str(target.resolve()))
    cache = (root / ".dvc" / "cache").resolve()
    (target / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n", "utf-8")
    from pipelines import clones

    clones.note(target)
    environment = root / ".venv"
    if environment.exists():
        (target / ".venv").symlink_to(environment.resolve())


def clone_at(root: Path, target: Path, commit: str | None) -> None:
    """A git clone of the project at a commit (None: at its last), with a DVC cache of its own. It shares no file
    with the project, not even by hard links.

    Raises:
        GitError: git refused.
    """
    _must(root, "clone", "--quiet", "--no-hardlinks", "--no-checkout", str(root.resolve()), str(target))
    _must(target, "checkout", "--quiet", "--detach", commit or "HEAD")
    (target / ".dvc" / "config.local").write_text("[cache]\n    dir = cache\n", "utf-8")


def _must(folder: Path, *arguments: str) -> None:
    code, _, complaint = processes.quietly(["git", *arguments], folder)
    if code:
        raise GitError(f"git {arguments[0]}: {complaint}")
