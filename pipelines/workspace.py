"""A clean workspace in which a recorded model is made again; it shares no file with the project.

Code comes from a commit, or from the files at hand; params are the recorded ones; data and files of weights are
copied (as reflinks where the file system has them), because code of another time runs on them; no earlier run's cache.
"""

from __future__ import annotations

import fcntl
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from components import lineage
from components.contracts import InputError, read_json, write_atomic, write_json
from components.params import load_yaml
from pipelines import base_weights, claims, dag, dvc_cli, history, libraries
from pipelines.comparison import Comparison
from pipelines.stage import DECISIONS

OWN = frozenset({
    "components", "pipelines", "tests", "infra", "artifacts", "reports", "releases", "dvc.yaml", "dvc.lock",
    "params.yaml", "pyproject.toml", libraries.LOCK, ".git", ".dvc", ".graftline", ".venv",
})  # fmt: skip
"""First parts of paths that are code, or the machinery's: never replaced, whatever a record calls data."""
_FICLONE = 0x40049409
_RUNNING = re.compile(r"Running stage '(\w+)'")


class WorkspaceError(InputError):
    """It cannot be made."""


@contextmanager
def opened(place: Path | None, keep: bool) -> Iterator[Path]:
    """Where the project is to be cloned; gone afterwards unless `keep`.

    Raises:
        WorkspaceError: `place` is not empty.
    """
    if place is not None:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise WorkspaceError(f"--in {place}: it is not empty, and nothing is overwritten")
        place.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="reproduce-", dir=place)).resolve()
    try:
        yield folder / "project"
    finally:
        if keep:
            print(f"The workspace: {folder / 'project'}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def prepare(comparison: Comparison, commit: str | None, folder: Path) -> None:
    """The code of a commit (None: the files at hand) and the recorded params; nothing is run.

    Raises:
        GitError: git refused.
    """
    root = comparison.root
    history.clone_at(root, folder, commit)
    if commit is None:
        for name in history.project_files(root):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    shutil.rmtree(folder / "artifacts", ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    path = folder / "params.yaml"
    for section, values in comparison.params.items():
        if not _agrees(load_yaml(path).get(section, {}), values):
            write_atomic(path, _with_section(path.read_text("utf-8"), section, values).encode())


def _agrees(written: Any, recorded: Any) -> bool:
    """Whether all that is written is as recorded; a record holds the defaults too."""
    if isinstance(written, dict) and isinstance(recorded, dict):
        return all(k in recorded and _agrees(v, recorded[k]) for k, v in written.items())
    if isinstance(written, str) and isinstance(recorded, dict):  # a plugin by its name alone
        return recorded.get("name") == written
    if isinstance(written, list) and isinstance(recorded, list):
        return len(written) == len(recorded) and all(map(_agrees, written, recorded))
    return bool(written == recorded)


def _with_section(text: str, section: str, values: Any) -> str:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    everything = yaml.load(text)
    everything[section] = values
    store = io.StringIO()
    yaml.dump(everything, store)
    return store.getvalue()


def fill(comparison: Comparison, bundle: Path, folder: Path) -> None:
    """Copies of the data and the files of weights, and what the bundle's stages had decided by measured times."""
    for path in sorted(_inputs(comparison, folder)):
        source, target = comparison.root / path, folder / path
        if not target.exists() or lineage.hash_path(target) != lineage.hash_path(source):
            _put(source, target, folder)
    decided = decision(bundle)
    if decided:
        write_json(folder / DECISIONS[1], decided)


def _inputs(comparison: Comparison, folder: Path) -> set[str]:
    """Files and folders of the project that are declared as inputs, in dvc.yaml or as the weights of a model, and no
    others: a param whose text is that of some path names no input."""
    recorded = {path for _, path, _ in comparison.inputs() if path not in comparison.outside}
    declared = {d.rstrip("/") for s in dag.load(folder) for d in s.deps}
    named = [spec for _, spec in base_weights.named_in(comparison.params)]
    files = {str(spec["path"]) for spec in named if spec["source"] == "file"}
    found = {p for p in {r for r in recorded if r.rstrip("/") in declared} | files if claims.stays(p)}
    return {p for p in found if PurePosixPath(p).parts[0] not in OWN and (comparison.root / p).exists()}


def _put(source: Path, target: Path, folder: Path) -> None:
    """A copy, in the place of what lies there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(folder):
        raise WorkspaceError(f"{target.relative_to(folder)} would lie outside the workspace: a link leads there")
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.is_dir():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_copy, ignore_dangling_symlinks=True)
    else:
        _copy(source, target)


def _copy(source: Path | str, target: Path | str) -> None:
    """No hard link: what is then written to the one would be written to the other."""
    with open(source, "rb") as given, open(target, "xb") as made:
        try:
            fcntl.ioctl(made, _FICLONE, given.fileno())
            return
        except OSError:
            pass  # a file system without reflinks, or another one
    shutil.copyfile(source, target)


def decision(bundle: Path) -> dict[str, Any]:
    """What was decided by measured times when the bundle was made: stage -> its record.

    Raises:
        WorkspaceError: the bundle's ladder.json is no such record.
    """
    path = bundle / "ladder.json"
    if not path.exists():
        return {}
    from components.export.decision import not_a_record

    try:
        told = read_json(path)
        problem = not_a_record(told)
    except (OSError, ValueError, RecursionError) as error:
        problem = f"it cannot be read ({type(error).__name__})"
    if problem:
        raise WorkspaceError(f"the bundle's ladder.json is no record of a decision: {problem}")
    return {"export": told} if told["decided"] == "measured" else {}


def run(folder: Path) -> dvc_cli.Outcome:
    """The whole line, telling which of the stages runs."""
    names = [one.name for one in dag.load(folder)]

    def tell(line: str) -> None:
        if (found := _RUNNING.match(line)) and found[1] in names:
            dvc_cli.say(f"[{names.index(found[1]) + 1} of {len(names)}] {found[1]}")

    given = folder / DECISIONS[1]
    return dvc_cli.repro(folder, on_line=tell, besides={DECISIONS[0]: str(given)} if given.exists() else None)
