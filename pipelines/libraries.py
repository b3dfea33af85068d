"""Libraries as precise cache keys: infra/libraries.yaml says of each locked library its version and a short hash.

The hash is over the locked versions of the library and of all that it needs, so a stage that names `torch` in
dvc.yaml runs again when anything below torch is bumped, and not when something else is. `python -m
pipelines.libraries` writes the file (`make lock` calls it). What is installed by hand is told, with both versions.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from components import requirements_lock
from components.contracts import write_atomic
from components.requirements_lock import canonical
from pipelines import dag

FILE, LOCK = dag.LIBRARIES, "requirements.lock"
HEADER = (
    "# Written by `make lock` from requirements.lock: library -> its version, and a hash over the locked versions of\n"
    "# it and of all that it needs. A stage of dvc.yaml names those that it imports.\n"
)

UNDECLARED: Mapping[str, tuple[str, ...]] = {
    "pandas": ("pyarrow",),  # reads and writes parquet with it
    "torch": ("numpy",),
    "transformers": ("protobuf", "sentencepiece", "torch"),  # tokenizers that come as sentencepiece models
}
"""What a library loads by itself, counts with, and does not name as a need of its own. Found by looking at what the
stages of a whole line had loaded at their end; not here are those that only dress up or speed up (colorama, h2)."""

# A lock is made for one platform; its markers are judged for that one, so that the file is the same everywhere.
_MARKERS = {
    "implementation_name": "cpython", "implementation_version": "3.11.0", "os_name": "posix",
    "platform_machine": "x86_64", "platform_python_implementation": "CPython", "platform_release": "",
    "platform_system": "Linux", "platform_version": "", "python_full_version": "3.11.0", "python_version": "3.11",
    "sys_platform": "linux",
}  # fmt: skip


def locked(root: Path) -> dict[str, str]:
    """Library -> version, of requirements.lock; empty where a project has none."""
    path = root / LOCK
    text = path.read_text("utf-8") if path.exists() else ""
    return {name: version for name, (version, _) in requirements_lock.locked(text).items()}


@cache
def _needs(name: str, extra: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What an installed library needs: (library, extras of it)."""
    from packaging.requirements import Requirement

    try:
        listed = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return ()
    found = []
    for one in map(Requirement, listed):
        if one.marker is None or one.marker.evaluate({**_MARKERS, "extra": extra}):
            found.append((canonical(one.name), tuple(sorted(one.extras))))
    if not extra:
        found += [(other, ()) for other in UNDECLARED.get(name, ())]
    return tuple(found)


def closure(names: Iterable[str]) -> tuple[str, ...]:
    """These libraries and all that they need, sorted."""
    seen: set[tuple[str, str]] = set()
    waiting = [(canonical(name), "") for name in names]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += [(other, e) for other, extras in _needs(*one) for e in ("", *extras)]
    return tuple(sorted({name for name, _ in seen}))


def table(root: Path) -> dict[str, str]:
    """What infra/libraries.yaml must hold."""
    versions = locked(root)
    made = {}
    for name, version in sorted(versions.items()):
        text = "".join(f"{other}=={versions[other]}\n" for other in closure([name]) if other in versions)
        made[name] = f"{version} {hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return made


def written(root: Path) -> dict[str, str]:
    """What infra/libraries.yaml holds; empty where a project has none."""
    path = root / FILE
    return dict(re.findall(r"^([\w-]+): (.+)$", path.read_text("utf-8"), re.M)) if path.exists() else {}


def rendered(root: Path) -> str:
    """The file as it must be."""
    return HEADER + "".join(f"{name}: {told}\n" for name, told in table(root).items())


def installed(names: Iterable[str]) -> dict[str, str]:
    """These libraries and all that they need -> the versions that are really installed."""
    found = {}
    for name in closure(names):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # needed on another platform, or under a condition that does not hold here
    return found


def _versions() -> dict[str, str]:
    """Library -> the version that is installed. From the names of folders: reading two hundred files takes longer than
    all the rest of a run that finds nothing to do."""
    found: dict[str, str] = {}
    for place in map(Path, sys.path):
        names = [one.name for one in place.glob("*.dist-info")] if place.is_dir() else []
        for name, _, version in (one.removesuffix(".dist-info").partition("-") for one in names):
            found.setdefault(canonical(name), version)
    return found


def strays(root: Path) -> list[str]:
    """A line for every library of the lock that is here in another version, or not at all."""
    told, here_by_name = [], _versions()
    for name, version in locked(root).items():
        here = here_by_name.get(name, "")
        if here != version:
            told.append(f"{name} is {here or 'not'} installed, and {LOCK} says {version}; `make setup` mends it")
    return told


def main() -> int:
    """Write infra/libraries.yaml of the project in the current folder."""
    root = Path.cwd()
    lacking = strays(root)
    if not locked(root) or lacking:
        print("\n".join([f"{LOCK} does not fit what is installed; `make setup` first", *lacking]), file=sys.stderr)
        return 2
    write_atomic(root / FILE, rendered(root).encode())
    print(f"{FILE}: {len(locked(root))} libraries")
    return 0


if __name__ == "__main__":
    sys.exit(main())
