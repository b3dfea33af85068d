"""Where a bundle comes from: the lineages of all stages as one record, without this machine's folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from components.contracts import InputError

Lineages = dict[str, dict[str, Any]]


class MixedLineError(InputError):
    """The folders under artifacts/ come from different runs of the line."""


def merge(lineages: Lineages) -> dict[str, Any]:
    """One record of all stages: code, params and environment once, inputs and outputs by stage.

    Raises:
        MixedLineError: a stage read something else than what is there now, or ran with other code.
    """
    code: dict[str, str] = {}
    params: dict[str, Any] = {}
    for stage, lineage in lineages.items():
        _check_inputs(stage, lineage, lineages)
        for path, digest in lineage["code"].items():
            if code.setdefault(path, digest) != digest:
                raise MixedLineError(f"{path} was another file when {stage} ran. Run `dvc repro`, which mends it.")
        params |= lineage["params"]
    environments = {stage: lineage["environment"] for stage, lineage in lineages.items()}
    usual = environments["export"]
    return {
        "lock_sha256": lineages["export"]["inputs"].get("requirements.lock"),
        "code": dict(sorted(code.items())),
        "params": params,
        "environment": usual,
        "environments_that_differ": {s: e for s, e in environments.items() if e != usual},
        "stages": {s: {k: lin[k] for k in ("inputs", "outputs", "parents")} for s, lin in lineages.items()},
    }


def _check_inputs(stage: str, lineage: dict[str, Any], lineages: Lineages) -> None:
    """What a stage read must be what the stage before it made, by hash."""
    for path, digest in lineage["inputs"].items():
        parts = path.split("/")
        maker = lineages.get(parts[1]) if parts[0] == "artifacts" and len(parts) > 2 else None
        made = maker["outputs"].get(path, digest) if maker else digest
        if made != digest:
            raise MixedLineError(
                f"{stage} was made from another {path} than is there now. Run `dvc repro`, which mends it."
            )


def private_paths(root: Path, *records: Any) -> dict[str, str]:
    """Absolute paths of this machine -> what stands for them in the bundle, the longest first.

    They are the project's folder, the user's, and every absolute path that the records (params) hold.
    """
    found = {str(p): "outside/" + PurePosixPath(p).name for p in map(str, _strings(records)) if os.path.isabs(p)}
    found |= {str(place): "." for place in (root, root.resolve())}
    found |= {os.path.expanduser("~"): "~"}
    return {p: found[p] for p in sorted(found, key=lambda p: (-len(p), p)) if len(p) > 3}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def without(private: dict[str, str], text: str) -> str:
    """A text without the private paths."""
    for path, instead in private.items():
        text = _whole(path).sub(lambda _, told=instead: told.encode(), text.encode()).decode()  # type: ignore[misc]
    return text


def holds(content: bytes, path: str) -> bool:
    """Whether a file's bytes name that path: as a path of its own, not as a part of another (`plants/roots`)."""
    return path.encode() in content and _whole(path).search(content) is not None  # the first is fast


def _whole(path: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![\w.-])" + re.escape(path.encode()) + rb"(?![\w-]|\.\w)")
