"""A workspace beside the project's own files, in which the line runs with other params: `sweep`'s and `backtest`'s.

It is a git clone with the files at hand; it shares the project's DVC cache and the caches that are keyed by content,
and data that git does not hold are read where they lie. Unlike that of workspace.py, it is not meant to be apart.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from components.contracts import InputError, write_atomic
from pipelines import dag, dvc_cli, history

SHARED = ("prepared", "features")
"""Caches below .graftline that are keyed by content, so that workspaces may share the project's."""


def at(values: Any, key: str) -> Any:
    """What stands at a key with dots; numbers lead into lists."""
    for done, part in enumerate(parts := key.split(".")):
        try:
            values = values[int(part)] if isinstance(values, list) else values[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise InputError(f"{key}: params.yaml has no {'.'.join(parts[: done + 1])}") from None
    return values


def changed(root: Path, changes: dict[str, Any]) -> str:
    """The project's params.yaml with these values; its comments stay.

    Raises:
        InputError: a key that leads nowhere.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    values = yaml.load((root / "params.yaml").read_text("utf-8"))
    for key, value in changes.items():
        way, _, last = str(key).rpartition(".")
        place = at(values, way) if way else values
        if isinstance(place, list):
            at(values, key)
            place[int(last)] = value
        elif isinstance(place, dict):
            place[last] = value
        else:
            raise InputError(f"{key}: params.yaml has no keys below {way}")
    store = io.StringIO()
    yaml.dump(values, store)
    return store.getvalue()


def prepare(project: Path, place: Path, changes: dict[str, Any]) -> None:
    """Make the workspace `place`, or take up the one that an interrupted run left there.

    Raises:
        InputError: a change of a key that leads nowhere, or git refuses.
    """
    names = set(history.project_files(project))
    if (place / ".dvc" / "config.local").exists():
        names.discard("dvc.lock")  # its own knows more
        for stray in set(history.project_files(place)) - names - {"dvc.lock"}:
            (place / stray).unlink()
    else:
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        history.clone_project(project, place)
    for file in names:
        target = place / file
        if not target.exists() or target.read_bytes() != (project / file).read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy2(project / file, target)
    write_atomic(place / "params.yaml", changed(project, changes).encode())
    inputs = [d.rstrip("/") for s in dag.load(place) for d in s.deps if not d.startswith(("artifacts/", "/"))]
    links = [*inputs, *(f".graftline/{kind}" for kind in SHARED)]
    (place / ".graftline").mkdir(exist_ok=True)
    for kind in SHARED:
        (project / ".graftline" / kind).mkdir(parents=True, exist_ok=True)
    for link in links:  # data that git does not hold are read where they lie
        if (project / link).exists() and not (place / link).exists():
            (place / link).parent.mkdir(parents=True, exist_ok=True)
            (place / link).symlink_to((project / link).resolve())


def through(place: Path, until: str | None, besides: Collection[str] = ()) -> tuple[dvc_cli.Outcome, list[str]]:
    """The whole line, or what `until` needs without `besides`: how it ended, and the stages whose outputs are this
    workspace's."""
    if until is None:
        outcome = dvc_cli.repro(place)
        return outcome, [*outcome.ran, *outcome.unchanged]
    parents = {s.name: s.parents for s in dag.load(place)}
    wanted = {until}
    for name in reversed(list(parents)):
        wanted |= set(parents[name]) if name in wanted else set()
    good: list[str] = []
    for name in (n for n in parents if n in wanted and n not in besides):
        outcome = dvc_cli.repro(place, name)
        if outcome.code:
            return outcome, good
        good.append(name)
    return outcome, good
