"""What DVC finds changed, asked in this process and told in plain words. No lock is taken and nothing is mended."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.contracts import InputError
from components.params import flat
from pipelines import dag


class DvcError(InputError):
    """DVC could not do it; the message is DVC's own."""


def changed(root: Path, stage: str | None = None) -> dict[str, list[Any]]:
    """Stage -> what DVC says that changed for it, as it says it; of the whole line, or of one stage.

    Raises:
        DvcError: DVC cannot tell.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo, _params_parsed_once():
            told = repo.status(targets=[f"{root / 'dvc.yaml'}:{stage}"] if stage else None)
    except DvcException as error:
        raise DvcError(f"DVC: {error}") from None
    except (OSError, ValueError, AssertionError) as error:  # DVC lets them through where data is odd
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES):
            raise
        raise DvcError(f"DVC cannot read what it watches: {type(error).__name__}: {error}") from None
    return {address.rsplit(":", 1)[-1]: entries for address, entries in told.items()}


@contextmanager
def _params_parsed_once() -> Iterator[None]:
    """DVC parses params.yaml anew for every stage, which is half of what `dvc status` takes on twelve stages."""
    from dvc.dependency import param

    plain, parsed = param.load_path, {}

    def once(path: str, *words: Any, **options: Any) -> Any:
        if path not in parsed:
            parsed[path] = plain(path, *words, **options)
        return parsed[path]

    param.load_path = once
    try:
        yield
    finally:
        param.load_path = plain


def reasons(root: Path, found: dict[str, list[Any]]) -> dict[str, list[str]]:
    """The same, each change in a few words."""
    lock = root / "dvc.lock"
    records = (locked_stages(lock.read_bytes()) if found and lock.exists() else None) or {}
    return {name: _reasons(root, entries, records.get(name)) for name, entries in found.items()}


@lru_cache(maxsize=2)
def locked_stages(content: bytes) -> dict[str, Any] | None:
    """Stage -> its record, from the bytes of a dvc.lock; None if DVC would refuse it. Not to be changed."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from voluptuous import Invalid

    try:
        value = COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(content))
    except (YAMLError, Invalid, ValueError):
        return None
    return value.get("stages", {})


_WORDS = {
    "modified": "changed",
    "deleted": "is not there",
    "new": "is new",
    "not in cache": "is not in DVC's cache",
}


def _reasons(root: Path, entries: list[Any], record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return ["it has no record in dvc.lock yet"]
    reasons: list[str] = []
    for entry in entries:
        if isinstance(entry, str):
            reasons.append(entry)
            continue
        for path, how in (pair for changes in entry.values() for pair in changes.items()):
            if isinstance(how, dict):
                reasons += _turned_knobs(root / path, how, record.get("params", {}).get(path, {}))
            else:
                reasons.append(f"{path} {_WORDS.get(how, how)}")
    return reasons


def _turned_knobs(path: Path, sections: dict[str, str], recorded: dict[str, Any]) -> list[str]:
    from components.params import load_yaml

    now = load_yaml(path)
    if path.as_posix().endswith(dag.LIBRARIES):
        return [_library(name, str(recorded.get(name, "")), str(now.get(name, ""))) for name in sections]
    found = []
    for section in sections:
        before, after = flat(section, recorded.get(section)), flat(section, now.get(section))
        keys = [k for k in {**before, **after} if before.get(k) != after.get(k)]
        found += [f"{k}: {before.get(k, 'not set')} -> {after.get(k, 'not set')}" for k in keys]
    return found


def _library(name: str, before: str, after: str) -> str:
    """`before` and `after` as infra/libraries.yaml has them: a version, and a hash of it with all that it needs."""
    versions = [told.partition(" ")[0] or "not named" for told in (before, after)]
    if versions[0] != versions[1]:
        return f"library {name}: {versions[0]} -> {versions[1]}"
    return f"library {name}: still {versions[0]}, with another version of something that it needs"
