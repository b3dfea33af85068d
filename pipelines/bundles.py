"""A bundle by any of its names: a folder, the .tar of a release, a project, or a commit or tag of this one; and by whom
it is vouched for: the public key that was named, or this user's own."""

from __future__ import annotations

import argparse
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from components.contracts import InputError, Refused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

BUNDLE = "artifacts/handoff/bundle"
"""Where the line of a project puts its own."""
RELEASES = "releases"
BLOCK = 1 << 20


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
            yield _folder(unpacked(place, Path(aside)))
    else:
        from pipelines import versions

        found = versions.at(root, name)
        if found is None:
            raise InputError(f"{name} is neither a folder, nor a .tar, nor a commit or tag of {root.resolve().name}")
        with found.opened() as folder:
            yield folder


@contextmanager
def trusted(root: Path, name: str, key: Ed25519PublicKey | None, unsigned: bool) -> Iterator[tuple[Path, str]]:
    """Its folder once all of it holds, and a line on what was checked. Of a tar nothing is written before that; where
    the folder has links (into DVC's cache), it is a copy, so that what was checked is what lies there.

    Raises:
        InputError: see `opened`.
        Refused: see `must_hold`.
    """
    place = root / name
    if place.is_file():
        must_hold(place, key, unsigned)
    with opened(root, name) as folder, TemporaryDirectory() as aside:
        told = must_hold(folder, key, unsigned)
        if any(path.is_symlink() for path in folder.rglob("*")):
            folder = Path(shutil.copytree(folder, Path(aside) / folder.name))
            must_hold(folder, key, unsigned)
        yield folder, told


def _folder(place: Path) -> Path:
    from components.handoff.provenance import FILE

    for inner in (place, place / BUNDLE):
        if (inner / FILE).is_file():
            return inner
    raise InputError(f"{place} is no bundle: it holds no {FILE}, and no {BUNDLE}")


def unpacked(tar: Path, aside: Path) -> Path:
    """The folder of a release's tar, made below `aside` (an empty folder of ours), with the bytes that were checked.

    The tar is read as verify.py reads it, so that nothing but plain files and folders below one comes out, and no
    more than the tar has bytes. Who signed it is not asked here.

    Raises:
        InputError: it is not the tar of a release, or its files are not those of its SHA256SUMS.
    """
    from components.handoff import verify_bundle as verify

    try:
        contents = verify.Contents(tar, strict=False)
        problems = contents.problems + verify.check_sums(contents)
        top = aside / contents.name
        if not problems:
            _write(tar, top)
            if verify.Contents(top, strict=True).hashes != contents.hashes:
                problems = ["it was changed while it was read"]
    except (tarfile.TarError, ValueError) as error:
        problems = [str(error) or type(error).__name__]
    if problems:
        raise InputError(
            f"{tar.name} is not the .tar of a release under its own name, nor a bundle's folder: {problems[0]!a}"
        )
    return top


def _write(tar: Path, top: Path) -> None:
    from components.handoff import verify_bundle as verify

    for name, _, _, handle, size in verify.from_tar(tar):
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{name} leads out of the folder")  # it was another tar when it was checked
        place = top / name
        (place.parent if handle else place).mkdir(parents=True, exist_ok=True)
        if handle:
            left = size
            with place.open("xb") as out:
                while block := handle.read(min(left, BLOCK)):
                    out.write(block)
                    left -= len(block)
    for path in (top, *top.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


# --- who vouches for it ---


def own_keys() -> Path:
    """The folder of this user's keys."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "graftline"


def public_key(path: Path | None) -> Ed25519PublicKey:
    """The key that was named, or this user's own.

    Raises:
        InputError: it is not there, or is none.
    """
    place = path or own_keys() / "release.pub.pem"
    if not place.is_file():
        hint = "name one that is" if path else "name it with --key PUBLIC.pem"
        raise InputError(
            f"{place} is not there. A signed bundle is checked with the signer's public key: {hint}. One that is not "
            f"released yet, such as {BUNDLE}, is checked with --unsigned"
        )
    return _read(place)


def _read(place: Path) -> Ed25519PublicKey:
    from components.handoff import verify_bundle

    try:
        return verify_bundle.read_key(str(place))
    except argparse.ArgumentTypeError as error:
        raise InputError(f"--key: {error}") from None


def read_key(path: str | None) -> Ed25519PublicKey | None:
    """A public key from its PEM file, where one was named.

    Raises:
        InputError: it is none.
    """
    return _read(Path(os.path.expanduser(path))) if path else None


def trusted_key(path: Path | str | None, unsigned: bool) -> Ed25519PublicKey | None:
    """The one rule of all commands: the key that was named, else this user's own; none for --unsigned.

    Raises:
        InputError: both were given, or there is no key.
    """
    if unsigned and path:
        raise InputError("give --key or --unsigned, not both")
    return None if unsigned else public_key(Path(os.path.expanduser(path)) if path else None)


def must_hold(place: Path, key: Ed25519PublicKey | None, unsigned: bool, at_least: str = "0.0.0") -> str:
    """A line on what was checked: every hash, and the signature unless `unsigned`.

    Raises:
        InputError: neither a key nor `unsigned`.
        Refused: something does not hold.
    """
    from components.handoff import verify_bundle

    if bool(key) == unsigned:
        raise InputError("give --key PUBLIC.pem of whom you trust, or --unsigned for a bundle that is not released")
    problems, told = verify_bundle.check(place, key, at_least)
    if problems:
        hint = ""
        if any(line.endswith("the bundle is not signed") for line in problems):
            hint = "\nA bundle that is not released yet is checked with --unsigned."
        raise Refused(str(refused(place.name, problems)) + hint)
    return told


def refused(name: str, problems: list[str]) -> Refused:
    """What is raised where the files of the bundle that goes by that name are not what they call themselves."""
    num = "1 thing" if len(problems) == 1 else f"{len(problems)} things"
    shown = "\n".join(f"  - {printable(line)}" for line in problems[:20])
    more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
    return Refused(f"{name} does not hold what it promises, so it is not run, nor read ({num}):\n{shown}{more}")


def printable(text: str) -> str:
    """With escapes for what is not to be sent to a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
