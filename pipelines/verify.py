"""`python -m pipelines verify`: what the stand-alone verify.py of a bundle checks, and the schemas of its files."""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from components.contracts import InputError, Refused


def own_keys() -> Path:
    """The folder of this user's keys."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "graftline"


def public_key(path: Path | None) -> Any:
    """The key that was named, or this user's own.

    Raises:
        InputError: it is not there, or is none.
    """
    from components.handoff import verify_bundle

    place = path or own_keys() / "release.pub.pem"
    if not place.is_file():
        hint = "name it with --key" if path is None else "name one that is"
        raise InputError(f"{place} is not there. A signed bundle is checked with the signer's public key: {hint}")
    try:
        return verify_bundle.read_key(str(place))
    except argparse.ArgumentTypeError as error:
        raise InputError(f"--key: {error}") from None


def verify(
    bundle: Path,
    key: Path | None = None,
    unsigned: bool = False,
    at_least: str = "0.0.0",
    completeness: bool = False,
) -> list[str]:
    """What was checked, by lines. Reads the bundle alone; no network, no project.

    Raises:
        InputError: there is no such bundle or key.
        Refused: something does not hold.
    """
    from components.handoff import verify_bundle

    if not bundle.exists():
        raise InputError(f"{bundle} is not there. Name a bundle: its folder, or its .tar")
    if unsigned and key:
        raise InputError("give --key or --unsigned, not both")
    if not verify_bundle.VERSION.fullmatch(at_least):
        raise InputError(f"--at-least: {at_least!r} is not a version such as 1.2.0")
    trusted = None if unsigned else public_key(key)
    problems, told = verify_bundle.check(bundle, trusted, at_least)
    if problems:
        raise Refused(_lines(bundle, problems))
    with tempfile.TemporaryDirectory() as aside:
        folder = bundle
        if bundle.is_file():
            with tarfile.open(bundle, "r:") as tar:  # it holds plain files and folders below one, as was checked
                tar.extractall(aside, filter="data")
            folder = Path(aside) / bundle.stem
        return [told, *_schemas(bundle, folder, completeness)]


def _lines(bundle: Path, problems: list[str]) -> str:
    num = "1 thing does" if len(problems) == 1 else f"{len(problems)} things do"
    return "\n".join([f"{bundle} is refused, {num} not hold:", *(f"  - {p}" for p in problems)])


def _schemas(bundle: Path, folder: Path, completeness: bool) -> list[str]:
    from components.handoff import bom, provenance, schemas
    from components.handoff import completeness as fields

    problems = schemas.problems(folder)
    if problems:
        raise Refused(_lines(bundle, problems))
    bill = json.loads((folder / bom.FILE).read_text("utf-8"))
    origin = provenance.read(folder)
    found = fields.fields(bill)
    told = [
        "every file: sha256, mode, no link, nothing more and nothing less",
        f"{bom.FILE}: CycloneDX {' and '.join(schemas.BOM_VERSIONS)} (strict), {len(bill['components'])} components, "
        f"completeness {fields.score(found)} of 100, of what applies {fields.score(found, applying=True)}",
        f"{provenance.FILE}: in-toto statement with SLSA provenance v1 (claims Build L1), {len(origin.code)} code "
        f"files, commit {origin.commit or 'not known'}{'' if origin.clean else ', not clean'}",
        "model.onnx: one file, known operators, no external data; signature.json names its inputs and outputs",
    ]
    return [*told, *(fields.told(bill) if completeness else [])]
