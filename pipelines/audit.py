"""What an auditor asks of a model, answered from its own files, the project's artifacts, git's history and DVC's cache.

Which data, code and weights made it; why it was blessed; what changed since the one before; what was set aside. And the
other way round: which models used a file, or rest on some weights. What a run's files are not there to tell is said so.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts import InputError
from components.handoff.provenance import FILE
from components.lineage import hash_file
from pipelines import bundles, claims, diff, versions
from pipelines.bundles import BUNDLE
from pipelines.versions import Version, Versions

MANIFESTS = {
    "artifacts/validate/accepted.parquet": "used",
    "artifacts/ingest/manifest.parquet": "read, not used",
}
"""Tables that name samples by hash -> what a sample in it was; the first that holds it counts."""
QUARANTINE = "artifacts/ingest/quarantine.parquet"
MOST_NAMED = 20
MIN_DIGITS, MAX_TEXT = 8, 1_000_000


def audit(root: Path, bundle: str | None, file: str | None, weights: str | None, as_json: bool) -> int:
    """Print the answers; 0.

    Raises:
        InputError: nothing goes by that name.
        Refused: the bundle is not what its own provenance says.
    """
    from pipelines import audit_tables

    known = versions.gather(root)
    for line in known.left_out:
        print(line, file=sys.stderr)
    if file is not None or weights is not None:
        asked = _of_file(root, file) if file is not None else _of_weights(weights or "")
        told: dict[str, Any] = uses(known if bundle is None else _only(known, root, bundle), asked)
        show: Any = audit_tables.show_uses
    else:
        told, show = answers(known, root, bundle), audit_tables.show_answers
    if as_json:
        print(json.dumps(diff.as_plain(told), indent=1, ensure_ascii=False))
        return 0
    from rich.console import Console

    show(told, Console())
    return 0


# --- what rests on a file, or on weights ---


@dataclass(frozen=True)
class Asked:
    """What is looked for: any of these hashes."""

    title: str
    hashes: tuple[str, ...]
    """sha256; whole, or its first digits."""


def _of_file(root: Path, path: str) -> Asked:
    """A sample's file, a table, a file of weights, or any other; a text also as ingest hashes a sample of it.

    Raises:
        InputError: it is not there, and is no hash either; it is no file.
    """
    if not path:
        raise InputError("--file: name a file, or its sha256")
    place = root / os.path.expanduser(path)
    if not place.exists():
        if _is_digest(path):
            return Asked(f"sha256 {path}", (path.lower(),))
        raise InputError(f"--file: {path} is not there. A file that is gone can be named by its sha256")
    if not place.is_file():
        raise InputError(f"--file: {path} is no file but a folder or a device. Name one file, or a sha256")
    found = [hash_file(place)]
    if place.stat().st_size <= MAX_TEXT:
        found += _as_text(place)
    return Asked(path, tuple(dict.fromkeys(found)))


def _as_text(place: Path) -> list[str]:
    from components.preprocessing import text_classification as texts

    try:
        text = texts.checked(place.read_bytes().decode("utf-8")).text
    except (UnicodeDecodeError, texts.Unreadable):
        return []
    return [hashlib.sha256(text.encode()).hexdigest()]


def _is_digest(text: str) -> bool:
    return MIN_DIGITS <= len(text) <= 64 and all(c in "0123456789abcdef" for c in text.lower())


def _of_weights(sha256: str) -> Asked:
    if not _is_digest(sha256):
        raise InputError(f"--weights: {sha256!r} is no sha256; give at least {MIN_DIGITS} of its hexadecimal digits")
    return Asked(f"weights {sha256}", (sha256.lower(),))


def _only(known: Versions, root: Path, bundle: str) -> Versions:
    with bundles.opened(root, bundle) as folder:
        return Versions(root, (_found(known, folder, bundle)[0],))


def uses(known: Versions, asked: Asked) -> dict[str, Any]:
    """Which versions rest on what is asked for, which do not, and which cannot be told."""
    seen: dict[str, dict[str, Any]] = {}
    rows = []
    for one in known.found:
        found = [] if one.broken else [*_as_input(one, asked), *_as_sample(one, asked, seen)]
        unknown = _not_held(one)
        answer = "yes" if found else "not known" if unknown or one.broken else "no"
        rows.append(
            {"version": one.title, "commit": one.commit, "date": one.date, "model_sha256": one.model_sha256,
             "answer": answer, "as": found, "not_held": unknown, "does_not_hold": one.broken}
        )  # fmt: skip
    return {"asked": asked.title, "hashes": list(asked.hashes), "versions": rows}


def _is_one(digest: Any, asked: Asked) -> bool:
    return isinstance(digest, str) and any(digest.startswith(h) for h in asked.hashes)


def _as_input(one: Version, asked: Asked) -> Iterator[str]:
    """As data or code of a stage, or as weights."""
    origin = one.origin
    if origin is None:
        return
    for stage, record in origin.stages.items():
        yield from (f"input of {stage}: {p}" for p, h in record["inputs"].items() if _is_one(h, asked))
        yield from (f"output of {stage}: {p}" for p, h in record["outputs"].items() if _is_one(h, asked))
    yield from (f"code: {path}" for path, digest in origin.code.items() if _is_one(digest, asked))
    if _is_one(origin.base_weights.get("sha256"), asked):
        yield "base weights"
    if _is_one(origin.weights_sha256, asked):
        yield "trained weights"
    yield from (f"file of the bundle: {name}" for name, h in origin.subjects.items() if _is_one(h, asked))


def _as_sample(one: Version, asked: Asked, seen: dict[str, dict[str, Any]]) -> Iterator[str]:
    """By the hashes in its manifests; a manifest that several versions share is read once."""
    for path, word in MANIFESTS.items():
        place = one.where(path)
        if place is None:
            continue
        key = str(place)  # of DVC's cache: the same for the same content
        if key not in seen:
            seen[key] = _rows(place, asked)
        for digest, row in seen[key].items():
            split = f" in the split {row['split']}" if row.get("split") else ""
            yield f"sample {word}{split}: {row['id']}, label {row['label']} (sha256 {digest[:12]})"
        if seen[key]:
            return


def _table(place: Path, *columns: str) -> Any:
    """Those of the columns that a table has.

    Raises:
        InputError: it is no such table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(place).names
        return pq.read_table(place, columns=[c for c in columns if c in names])
    except pa.ArrowException as error:
        raise InputError(f"{place} is not the table that a run wrote ({error})") from None


def _rows(place: Path, asked: Asked) -> dict[str, dict[str, Any]]:
    table = _table(place, "sha256", "id", "label", "split")
    digests = table.column("sha256").to_pylist()
    hits = [i for i, digest in enumerate(digests) if _is_one(digest, asked)]
    return {digests[i]: table.slice(i, 1).to_pylist()[0] for i in hits[:MOST_NAMED]}


def _not_held(one: Version) -> list[str]:
    """What would have to be looked at, and is not there."""
    lacking = [path for path in (*MANIFESTS, f"{BUNDLE}/{FILE}") if one.where(path) is None]
    return lacking if one.origin or f"{BUNDLE}/{FILE}" in lacking else [*lacking, f"{BUNDLE}/{FILE} (not readable)"]


# --- what a model rests on ---


def answers(known: Versions, root: Path, bundle: str | None) -> dict[str, Any]:
    """Of one model: by default the newest.

    Raises:
        InputError: there is none, or no bundle of that name.
        Refused: it is not what its own provenance says.
    """
    with ExitStack() as stack:
        if bundle is not None:
            folder = stack.enter_context(bundles.opened(root, bundle))
            version, known_here = _found(known, folder, bundle)
        elif known.found:
            version, known_here = next((one for one in known.found if one.root), known.found[0]), True
            folder = stack.enter_context(version.opened())
        else:
            raise InputError(f"{root.resolve().name} has made no model yet: no bundle in artifacts/, releases/ or git")
        side = diff.Side(folder, version.title)
        if altered := claims.altered(folder, side.origin):
            raise bundles.refused(version.title, [f"{line!a}, against its own {FILE}" for line in altered])
        previous = known.before(version)
        return {
            "model": {
                "title": version.title, "commit": version.commit, "date": version.date, "known_here": known_here,
                "model_sha256": side.files.get(diff.MODEL),
            },
            "made_from": _made_from(side),
            "blessed": _blessed(side, version),
            "since": _since(side, previous, stack),
            "set_aside": _set_aside(side, version),
        }  # fmt: skip


def _found(known: Versions, folder: Path, name: str) -> tuple[Version, bool]:
    """The project's own version of that bundle, where it has one."""
    given = Version({}, Path(), names=(name,), folder=folder)
    own = None if given.broken else known.same(given)
    return (own, True) if own else (given, False)


def _made_from(side: diff.Side) -> dict[str, Any]:
    origin, data = side.origin, side.evaluation.get("data") or {}
    return {
        "data": {**origin.data, **{k: v for k, v in data.items() if k not in ("reasons", "findings")}},
        "code": {
            "commit": origin.commit, "clean": origin.clean, "differing": list(origin.differing),
            "num_files": len(origin.code), "note": origin.commit_note,
        },
        "base_weights": origin.base_weights,
        "trained_weights_sha256": origin.weights_sha256,
        "lock_sha256": origin.lock_sha256,
        "environment": {k: v for k, v in origin.environment.items() if k != "packages"},
        "params": origin.params,
    }  # fmt: skip


def _blessed(side: diff.Side, version: Version) -> list[dict[str, Any]]:
    """Every verdict with its rules: of the bundle, else of the run's files, else of its rules and metrics."""
    if verdicts := side.evaluation.get("verdicts"):
        return [{**one, "from": "evaluation.json of the bundle"} for one in verdicts]
    found = []
    for stage in ("validate", "gate", "export"):
        told = version.json(f"artifacts/{stage}/verdict.json")
        if told:
            found.append({**told, "from": f"artifacts/{stage}/verdict.json"})
    return found


def _since(side: diff.Side, previous: Version | None, stack: ExitStack) -> dict[str, Any]:
    if previous is None:
        return {"previous": None, "note": "no earlier model of this project is known here"}
    try:
        before = diff.Side(stack.enter_context(previous.opened()), previous.title)
        if altered := claims.altered(before.folder, before.origin):
            raise InputError(f"{previous.title} is not what its own {FILE} says: {altered[0]!a}")
        return {"previous": previous.title, "difference": diff.compare(before, side)}
    except InputError as error:  # of that one; this one was read already
        return {"previous": previous.title, "note": str(error)}


def _set_aside(side: diff.Side, version: Version) -> dict[str, Any]:
    """Counts from the bundle; the rows from the run's own table, which does not leave the house."""
    data = side.evaluation.get("data") or version.json("artifacts/ingest/summary.json")
    told: dict[str, Any] = {"num": data.get("num_quarantined"), "reasons": data.get("reasons") or {}, "rows": []}
    findings = data.get("findings") or ()
    told["findings"] = [dict(one) for one in findings]
    place = version.where(QUARANTINE)
    if told["num"] and place is None:
        told["note"] = f"{QUARANTINE} of that run is not here, so the rows cannot be named"
    if place is not None and told["num"] != 0:
        told["rows"] = list(_quarantined(place))
    return told


def _quarantined(place: Path) -> Iterable[dict[str, Any]]:
    return list(_table(place, "id", "reason", "detail").slice(0, MOST_NAMED).to_pylist())
