"""The commit that a model rests on, in real git repositories."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.contracts import Commit
from pipelines.history import commit_of

FILES = ["code", "params.yaml", "lock"]


def _git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _commit(root: Path, **files: str) -> str:
    for name, text in files.items():
        (root / name.replace("__", "/")).write_text(text)
    _git(root, "add", "-A")
    _git(root, "commit", "-qm", "x")
    return _git(root, "rev-parse", "HEAD")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "code").mkdir(parents=True)
    _git(root, "init", "-q")
    (root / ".gitignore").write_text("*.secret\n__pycache__/\n")
    _commit(root, code__a="1", lock="1")
    (root / "params.yaml").write_text("1")
    _commit(root)
    return root


def test_it_is_the_newest_that_changed_one_of_the_files(root: Path) -> None:
    first = _git(root, "rev-parse", "HEAD")
    assert commit_of(root, FILES) == Commit(first, True)
    (root / "dvc.lock").write_text("new")
    assert commit_of(root, FILES) == Commit(first, True)
    _commit(root, README="new")
    assert commit_of(root, FILES) == Commit(first, True), "what the model does not rest on changes nothing"
    newer = _commit(root, code__b="new")
    assert commit_of(root, FILES) == Commit(newer, True)
    clone = root.parent / "clone"
    _git(root.parent, "clone", "-q", str(root), str(clone))
    assert commit_of(clone, FILES) == Commit(newer, True)


def test_files_that_differ_are_named(root: Path) -> None:
    head = _git(root, "rev-parse", "HEAD")
    (root / "code" / "a").write_text("2")
    (root / "code" / "new").write_text("")
    (root / "code" / "x.secret").write_text("")
    (root / "code" / "__pycache__").mkdir()
    (root / "code" / "__pycache__" / "a.pyc").write_text("")
    (root / "lock").unlink()
    assert commit_of(root, FILES) == Commit(head, False, ("code/a", "code/new", "code/x.secret", "lock"))
    _git(root, "add", "-A")
    assert commit_of(root, FILES).clean is False, "staged is not committed"


def test_a_project_below_the_repository_names_its_files_as_it_does(root: Path) -> None:
    (root / "inner" / "code").mkdir(parents=True)
    (root / "inner" / "code" / "a").write_text("1")
    head = _commit(root)
    (root / "inner" / "code" / "a").write_text("2")
    assert commit_of(root / "inner", ["code"]) == Commit(head, False, ("code/a",))


def test_what_git_cannot_tell_is_said(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit_of(root, ["nothing"]) == Commit(None, True, (), "no commit holds these files")
    bare = tmp_path / "no"
    bare.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert commit_of(bare, FILES) == Commit(note="the project does not lie in a git work tree")
    _git(bare, "init", "-q")
    assert commit_of(bare, FILES) == Commit(note="the project has no commit yet")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(root, FILES) == Commit(note="git is not installed here")


def test_the_border_of_a_shallow_clone_is_no_commit_of_these_files(root: Path) -> None:
    _commit(root, README="1")
    clone = root.parent / "shallow"
    _git(root.parent, "clone", "-q", "--depth", "1", root.as_uri(), str(clone))
    found = commit_of(clone, FILES)
    assert (found.commit, found.clean) == (None, True)
    assert "shallow" in found.note
    newer = _commit(clone, code__a="3")
    assert commit_of(clone, FILES) == Commit(newer, True)
