"""Reads a finished bundle again, as a stranger would, before anybody gets it."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

from components.handoff import schemas, verify_bundle
from components.handoff.private import holds

SHIPPED = ("preprocessing", "predict")
"""Modules of a bundle; the second one imports the first."""


class BundleError(Exception):
    """What was written does not hold: a fault of ours (exit code 1)."""


def write_checksums(folder: Path) -> int:
    """SHA256SUMS over every other file, in the form that `sha256sum -c` reads. Returns how many."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    names = sorted(p.relative_to(folder).as_posix() for p in files)
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (folder / "SHA256SUMS").write_text("".join(lines), "utf-8")
    return len(names)


def verify(folder: Path, private: dict[str, str], threads: int, golden: Path, verbatim: Collection[str] = ()) -> None:
    """Checksums, the golden examples below `golden` through the shipped predict.py, and no private path in any
    file. The files in `verbatim` are others' own (samples, a vocabulary): a path in them is not ours.

    Raises:
        BundleError: with everything that does not hold.
    """
    predict = _shipped(folder)
    problems: list[str] = [*verify_bundle.check(folder)[0], *schemas.problems(folder)]
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    for name in sorted(files.keys() - set(verbatim)):
        content = files[name].read_bytes()
        problems += [f"{name}: it holds the path {p}" for p in private if holds(content, p)]
    if not problems:
        problems = predict.check_examples(predict.Predictor(folder, threads), golden)
    if problems:
        raise BundleError("the bundle does not hold what it promises:\n" + "\n".join(f"  - {p}" for p in problems))


def _shipped(folder: Path) -> Any:
    """The bundle's own predict.py, with the bundle's own preprocessing.py beside it."""
    before = {name: sys.modules[name] for name in SHIPPED if name in sys.modules}
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # no __pycache__ in the bundle
    try:
        return [_load(name, folder) for name in SHIPPED][-1]
    finally:
        sys.dont_write_bytecode = writes
        for name in SHIPPED:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _load(name: str, folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
