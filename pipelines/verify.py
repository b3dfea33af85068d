"""`python -m pipelines verify`: what the stand-alone verify.py of a bundle checks, and the schemas of its files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from components.contracts import InputError
from pipelines import bundles


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
    if not verify_bundle.VERSION.fullmatch(at_least):
        raise InputError(f"--at-least: {at_least!r} is not a version such as 1.2.0")
    trusted = bundles.trusted_key(key, unsigned)
    told = bundles.must_hold(bundle, trusted, unsigned, at_least)
    with tempfile.TemporaryDirectory() as aside:
        folder = bundle
        if bundle.is_file():
            folder = bundles.unpacked(bundle, Path(aside))
            bundles.must_hold(folder, trusted, unsigned, at_least)
        what = "sha256" if unsigned else "sha256, mode, no link"
        return [told, f"every file: {what}, nothing more and nothing less", *_schemas(bundle, folder, completeness)]


def _schemas(bundle: Path, folder: Path, completeness: bool) -> list[str]:
    from components.handoff import bom, provenance, schemas
    from components.handoff import completeness as fields

    problems = schemas.problems(folder)
    if problems:
        raise bundles.refused(bundle.name, problems)
    bill = json.loads((folder / bom.FILE).read_text("utf-8"))
    origin = provenance.read(folder)
    found = fields.fields(bill)
    told = [
        f"{bom.FILE}: CycloneDX {' and '.join(schemas.BOM_VERSIONS)} (strict), {len(bill['components'])} components, "
        f"completeness {fields.score(found)} of 100, of what applies {fields.score(found, applying=True)}",
        f"{provenance.FILE}: in-toto statement with SLSA provenance v1 (claims Build L1), {len(origin.code)} code "
        f"files, commit {origin.commit or 'not known'}{'' if origin.clean else ', not clean'}",
        "model.onnx: one file, known operators, no external data; signature.json names its inputs and outputs",
    ]
    return [*told, *(fields.told(bill) if completeness else [])]
