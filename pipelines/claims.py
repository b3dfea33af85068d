"""What a bundle says of itself, judged before any of it is used: its files, and what its provenance claims.

A bundle comes from anywhere. Nothing that it names is opened, loaded or run until it has passed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from components import lineage
from components.contracts import InputError
from components.handoff.provenance import FILE as PROVENANCE

if TYPE_CHECKING:
    from components.handoff.provenance import Provenance

MODEL = "model.onnx"
APART = frozenset({PROVENANCE, "SHA256SUMS", "attestation.dsse.json"})
"""Files that no provenance lists: itself, the sums that hold it too, the signature that a release adds."""
MAX_DEPTH = 40


class ClaimError(InputError):
    """What the bundle says of its making cannot be."""


def held(bundle: Path, key: str | None) -> str:
    """A line on what was checked: every file against SHA256SUMS and, of a released bundle, the signature by the key
    that was named, else by this user's own.

    Raises:
        InputError: it is signed, and there is no key.
        Refused: something does not hold.
    """
    from components.handoff import verify_bundle
    from pipelines import bundles

    released = key is not None or (bundle / verify_bundle.ENVELOPE).exists()
    told = bundles.must_hold(bundle, bundles.trusted_key(key, unsigned=not released), unsigned=not released)
    return told if released else f"{told}, so its files are checked against each other alone"


def files(folder: Path) -> dict[str, str]:
    """File -> sha256, of all that a provenance lists."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    names = {p.relative_to(folder).as_posix(): p for p in found}
    return {name: lineage.hash_file(path) for name, path in names.items() if name not in APART}


def altered(bundle: Path, told: Provenance) -> list[str]:
    """What of the bundle is not as its provenance says, both ways."""
    here = files(bundle)
    found = [] if MODEL in told.subjects else [f"{MODEL} is not listed"]
    for name in sorted(here.keys() | told.subjects.keys()):
        if name not in told.subjects:
            found.append(f"{name} is not listed")
        elif name not in here:
            found.append(f"{name} is gone")
        elif here[name] != told.subjects[name]:
            found.append(f"{name} differs")
    return list(dict.fromkeys(found))


def judged(told: Provenance) -> None:
    """Whether what is compared and looked up has the types that it must have, and stays where it must.

    Raises:
        ClaimError: with the first thing that does not.
    """
    problem = next(_problems(told), "")
    if problem:
        raise ClaimError(f"the bundle's {PROVENANCE} cannot be right: {problem}")


def _problems(told: Provenance) -> Iterator[str]:
    if not told.stages:
        yield "it names no stage that made it"
    if _depth(told.params) > MAX_DEPTH:
        yield "params are nested too deeply"
    yield from (f"params.{name} is no section" for name, one in told.params.items() if not isinstance(one, dict))
    yield from _of_environment("environment", told.environment)
    for stage, one in told.environments_that_differ.items():
        yield from _of_environment(f"environments_that_differ.{stage}", one)
    yield from _texts("code", told.code)
    yield from (f"code: {path!r} does not lie in the project" for path in told.code if not stays(path))
    for stage, one in told.stages.items():
        for key in ("inputs", "outputs", "parents"):
            yield from _texts(f"{stage}.{key}", one.get(key))
        yield from (f"{stage}.inputs: {p!r} does not lie in the project" for p in one["inputs"] if not stays(p))
        code = one.get("code")
        if not isinstance(code, list) or not all(isinstance(path, str) for path in code):
            yield f"{stage}.code is no list of paths"
        own = f"artifacts/{stage}/"
        yield from (f"{stage}.outputs: {p!r} is none of it" for p in one["outputs"] if not _is_below(p, own))
        if not one["outputs"]:
            yield f"the stage {stage} has no outputs"


def _of_environment(where: str, one: Any) -> Iterator[str]:
    if not isinstance(one, dict):
        yield f"{where} is no mapping"
        return
    for key in ("packages", "pins"):
        yield from _texts(f"{where}.{key}", one.get(key, {}))
    for key in ("python", "machine", "system", "processor", "accelerator"):
        if not isinstance(one.get(key, ""), str | None):
            yield f"{where}.{key} is no text"


def _texts(where: str, value: Any) -> Iterator[str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        yield f"{where} does not map names to texts"


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        inner = [list(v.values()) if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level, depth = [one for many in inner for one in many], depth + 1
    return depth


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder) and stays(path)


def stays(path: str) -> bool:
    """Whether a recorded path is relative and does not lead out of the project."""
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and "\0" not in path and len(path) < 4000


def is_commit(text: str) -> bool:
    """Whether it is the full name of a commit, and no expression that git would evaluate."""
    return re.fullmatch("[0-9a-f]{40}", text) is not None
