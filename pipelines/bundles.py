"""A bundle by any of its names: a folder, the .tar of a release, a project, or a commit or tag of this one."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from components.contracts import InputError, Refused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MARK = "provenance.json"


@contextmanager
def opened(root: Path, name: str) -> Iterator[Path]:
    """Its folder, which is not to be written to. `root` is the project whose commits and tags may be named.

    Raises:
        InputError: no bundle goes by that name; a tar that is none of a release.
        NotHeld: of a commit, where DVC's cache does not hold the files.
    """
    place = root / name  # an absolute path stays what it is
    if place.is_dir():
        yield _folder(place)
    elif place.is_file():
        with TemporaryDirectory() as aside:
            yield _unpacked(place, Path(aside))
    else:
        from pipelines import versions

        found = versions.at(root, name)
        if found is None:
            raise InputError(f"{name} is neither a folder, nor a .tar, nor a commit or tag of {root.resolve().name}")
        with found.opened() as folder:
            yield folder


def _folder(place: Path) -> Path:
    for inner in (place, place / "artifacts" / "handoff" / "bundle"):
        if (inner / MARK).is_file():
            return inner
    raise InputError(f"{place} is no bundle: it holds no {MARK}, and no artifacts/handoff/bundle")


def _unpacked(place: Path, aside: Path) -> Path:
    """The tar of a release; anything but plain files and folders in it is refused."""
    try:
        with tarfile.open(place, "r:") as tar:
            odd = [one.name for one in tar.getmembers() if not (one.isfile() or one.isdir())]
            if odd:
                raise InputError(f"{place.name} is not the tar of a release: it holds {odd[0]}, a link or device")
            tar.extractall(aside, filter="data")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InputError(f"{place.name} is neither a bundle's folder nor the tar of a release ({error})") from None
    inside = [p for p in aside.iterdir() if p.is_dir()]
    return _folder(inside[0] if len(inside) == 1 else aside)


def read_key(path: str | None) -> Ed25519PublicKey | None:
    """A public key from its PEM file.

    Raises:
        InputError: it is none.
    """
    import argparse

    from components.handoff import verify_bundle

    try:
        return verify_bundle.read_key(path) if path else None
    except argparse.ArgumentTypeError as error:
        raise InputError(f"--key {error}") from None


def must_hold(place: Path, key: Ed25519PublicKey | None, unsigned: bool) -> str:
    """A line on what was checked: every hash, and the signature unless `unsigned`.

    Raises:
        InputError: neither a key nor `unsigned`.
        Refused: something does not hold.
    """
    from components.handoff import verify_bundle

    if bool(key) == unsigned:
        raise InputError("give --key PUBLIC.pem of whom you trust, or --unsigned for a bundle that is not released")
    problems, told = verify_bundle.check(place, key)
    if problems:
        shown = "\n".join(f"  - {line}" for line in problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise Refused(f"{place.name} does not hold what it promises, so it is not run:\n{shown}{more}")
    return told
