"""What is live: read the pointer, and see whether the bundle that it names still is the one that went live."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contracts import InputError, Refused
from pipelines import bundles, pointer
from pipelines.pointer import Entry

SETTINGS = "infra/operations.yaml"

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass(frozen=True)
class Live:
    """What is live in an environment."""

    environment: str
    name: str
    version: str
    folder: Path
    """The bundle, below releases/; never the link, which may be swapped while it is read."""
    digest: str
    """sha256 of its attestation."""
    since: str
    previous: Entry | None
    """What a rollback makes live."""
    by: str = ""
    because: str = ""


def live(root: Path, environment: str | None = None, full: bool = False, key: Path | None = None) -> Live | None:
    """What is live; None: nothing was promoted there. Puts right a link that a crash left behind.

    Asked quickly, it looks whether the bundle's attestation is the one that went live; `full`, whether every file is
    the one that it lists too, and the signature, by the key that is given or else this user's own (without any: by the
    attestation that was verified when it went live). Act only on what was asked in full.

    Raises:
        InputError: the pointer cannot be read.
        Refused: the bundle is not what went live.
    """
    now = pointer.read(root, environment_of(root, environment))
    if now is None:
        return None
    pointer.mend(root, now.environment)
    one = now.live
    problems = holds(root, one, _key_if_any(key)) if full else _quick(root, one)
    if problems:
        raise Refused(listed(f"what is live in {now.environment}, {one.title}, is not what went live", problems))
    return Live(
        now.environment,
        one.name,
        one.version,
        root / one.bundle,
        one.sha256,
        one.since,
        now.previous,
        one.by,
        one.because,
    )


def deployed(root: Path, as_json: bool) -> list[str]:
    """A line on each environment, under a heading; as JSON, all that the pointers hold."""
    told = [_row(root, environment) for environment in pointer.environments(root)]
    if as_json:
        return [json.dumps(told, indent=1, ensure_ascii=False)]
    if not told:
        return ["Nothing is live yet. `python -m pipelines promote` makes a release live."]
    titles = ("environment", "live", "since", "by", "because", "before", "holds")
    rows = [titles, *(tuple(str(one.get(title) or "") for title in titles) for one in told)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(titles))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _row(root: Path, environment: str) -> dict[str, Any]:
    try:
        now = pointer.read(root, environment)
    except InputError as error:
        return {"environment": environment, "holds": f"no: {error}"}
    if now is None:
        return {"environment": environment, "holds": "no: the pointer went away"}
    pointer.mend(root, environment)
    one = now.live
    problems = holds(root, one, _key_if_any(None))
    told = {"environment": environment, "live": one.title, "since": one.since, "by": one.by, "because": one.because}
    told |= {"before": now.previous.title if now.previous else "", "holds": f"no: {problems[0]}" if problems else "yes"}
    more = {"bundle": one.bundle, "sha256": one.sha256, "run": one.run, "problems": problems}
    return {**told, **more, "older": [o.version for o in now.older], "history": list(now.history)}


# --- whether a bundle is what it was ---


def holds(root: Path, one: Entry, key: Ed25519PublicKey | None) -> list[str]:
    """Every way in which a bundle is not what went live. Without a key, by the attestation that went live."""
    from components.handoff import verify_bundle

    problems = _quick(root, one)
    if problems:
        return problems
    folder = root / one.bundle
    if key is not None:
        return verify_bundle.check(folder, key)[0]
    try:
        contents = verify_bundle.Contents(folder, strict=True)
        envelope = contents.kept[verify_bundle.ENVELOPE]
        if hashlib.sha256(envelope).hexdigest() != one.sha256:
            return [f"{verify_bundle.ENVELOPE}: it is not the one that went live"]
        listed = _signed(envelope)
    except (OSError, ValueError, LookupError, TypeError) as error:
        return [f"{one.bundle}: {error or type(error).__name__}"]
    told = verify_bundle.compared(contents, listed, "what was signed", {verify_bundle.ENVELOPE})
    return [bundles.printable(line) for line in contents.problems + told]


def _signed(envelope: bytes) -> dict[str, Any]:
    """File -> sha256, of an attestation that was verified when it went live."""
    import base64

    payload = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    return {one["name"]: one["digest"]["sha256"] for one in payload["subject"]}


def _quick(root: Path, one: Entry) -> list[str]:
    folder = root / one.bundle
    if folder.is_symlink():
        return [f"{one.bundle} is a link"]
    if not folder.is_dir():
        return [f"{one.bundle} is not there"]
    try:
        return [] if digest(folder) == one.sha256 else [f"{one.bundle}: its attestation is not the one that went live"]
    except OSError as error:
        return [f"{one.bundle}: its attestation cannot be read ({error.strerror})"]


def digest(folder: Path) -> str:
    """sha256 of a bundle's attestation."""
    from components.handoff.verify_bundle import ENVELOPE

    return hashlib.sha256((folder / ENVELOPE).read_bytes()).hexdigest()


def environment_of(root: Path, asked: str | None) -> str:
    """The one that was asked for, or promote.environment: no other key is looked at, as going back is for emergencies.

    Raises:
        InputError: none was asked for, and the settings do not tell it.
    """
    if asked:
        return pointer.checked(asked)
    from components.params import load_yaml

    try:
        told = load_yaml(root / SETTINGS).get("promote")
        return pointer.checked(str(told["environment"] if isinstance(told, dict) else None))
    except (InputError, KeyError) as error:
        why = error if isinstance(error, InputError) else "it has no promote.environment"
        known = ", ".join(pointer.environments(root)) or "none yet"
        raise InputError(
            f"{SETTINGS} does not tell which environment ({why}). "
            f"Name it: --environment NAME. These have a live bundle: {known}"
        ) from None


def _key_if_any(key: Path | None) -> Ed25519PublicKey | None:
    if key is None and not (bundles.own_keys() / "release.pub.pem").is_file():
        return None
    return bundles.public_key(key)


def listed(title: str, problems: Iterable[str]) -> str:
    """A title, and the first twenty problems, one a line."""
    lines = [f"  - {line}" for line in problems]
    more = [f"  and {len(lines) - 20} more"] if len(lines) > 20 else []
    return "\n".join([f"{title}:", *lines[:20], *more])
