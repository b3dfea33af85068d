"""Check a bundle: is every file the one that was released, by the holder of the key that you trust?

    python verify.py --key PUBLIC.pem [--at-least 1.2.0] [BUNDLE]     (or --unsigned for one not released yet)

BUNDLE is the folder <name>-<version> or the .tar of that name; by default the folder of this file. Take the public
key from whom you trust, not from where the bundle came from; better run a copy of this file that you have read. Needs
`cryptography` beside Python's own library, no network. Refused: a file more or less than was signed, or other bytes;
links, devices, empty folders, names that differ in case alone; modes but 0644 and, for folders, 0755; another name or
version than was signed, so that an older bundle cannot pass for a newer one; a tar with anything else in it. Not
checked: what the files say; with --unsigned, modes, and links to files, as of a cache.
Exit codes: 0 all holds; 1 it does not, one line a problem, names in ASCII with escapes; 2 wrong arguments.
"""

import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", sys.flags.isolated):
    del sys.path[0]  # the folder of this file: what lies in a bundle is not imported before it was checked

import argparse
import base64
import hashlib
import json
import os
import re
import stat
import tarfile
import unicodedata
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

SUMS, ENVELOPE = "SHA256SUMS", "attestation.dsse.json"
TYPES = ("https://in-toto.io/Statement/v1", "urn:graftline:release:v1")  # of a statement and of its predicate
PAYLOAD_TYPE = "application/vnd.in-toto+json"
VERSION = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})", re.ASCII)


class Contents:
    """What lies in a bundle: sha256 by name, and everything that must not be there."""

    def __init__(self, place: Path, strict: bool) -> None:
        self.hashes, self.kept, self.num_bytes = dict[str, str](), {SUMS: b"", ENVELOPE: b""}, 0
        self.name, self.problems = place.stem if place.is_file() and place.suffix == ".tar" else place.name, list[str]()
        folders, seen = {""}, set[str]()
        for name, mode, links, handle, size in from_tar(place) if place.is_file() else _from_folder(place, strict):
            folded, folder = unicodedata.normalize("NFC", name).casefold(), stat.S_ISDIR(mode)
            if folded in seen or not name.isprintable() or re.search(r"\\|^/|//|/$|(^|/)\.\.?(/|$)", name):
                self.problems.append(f"{name}: differs from another in case alone, leaves the folder, or is no name")
            seen.add(folded)
            folders.update([name] * folder)
            if handle:
                self._read(name, handle, size)
            elif not folder:
                self.problems.append(f"{name}: a link or a device")
            if strict and os.name == "posix" and (stat.S_IMODE(mode), links) != (0o755 if folder else 0o644, 1):
                self.problems.append(f"{name or 'the folder'}: mode {stat.S_IMODE(mode):04o}, or hard links to it")
        filled = {"/".join(p.parts) for name in self.hashes for p in PurePosixPath(name).parents}
        odd = folders - filled | filled & self.hashes.keys()
        self.problems += [f"{name or 'the bundle'}: an empty folder, or a file and a folder" for name in sorted(odd)]

    def _read(self, name: str, handle: BinaryIO, left: int) -> None:
        digest, block = hashlib.sha256(), memoryview(bytearray(min(left, 1 << 20) or 1))
        while num := handle.readinto(block[: min(left, len(block))]):  # type: ignore[attr-defined]
            digest.update(block[:num])
            left, self.num_bytes = left - num, self.num_bytes + num
            if name in self.kept and len(self.kept[name]) < 16_000_000:
                self.kept[name] += bytes(block[:num])
        self.hashes[name] = digest.hexdigest() if not left else "cut off"


def _from_folder(top: Path, strict: bool) -> Iterator[tuple[str, int, int, BinaryIO | None, int]]:
    waiting = [top]
    for path in waiting:
        st = path.lstat() if strict or not path.is_file() else path.stat()
        with path.open("rb", buffering=0) if stat.S_ISREG(st.st_mode) else nullcontext() as handle:
            yield "/".join(path.relative_to(top).parts), st.st_mode, st.st_nlink if handle else 1, handle, st.st_size
        waiting += sorted(path.iterdir()) if stat.S_ISDIR(st.st_mode) else []


def header(name: str, size: int, folder: bool) -> bytes:
    """How an entry stands in the tar: nothing of who made it, where and when."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.type = size, *((0o755, tarfile.DIRTYPE) if folder else (0o644, tarfile.REGTYPE))
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


def from_tar(path: Path) -> Iterator[tuple[str, int, int, BinaryIO | None, int]]:  # name, mode, links, bytes, size
    with path.open("rb", buffering=0) as raw:
        while any(block := raw.read(512)):
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
            (top, _, name), folder = info.name.partition("/"), info.isdir()
            if block != header(info.name, info.size, folder) or top != path.stem or (folder and info.size):
                raise ValueError(f"{info.name} stands in the tar otherwise than a release writes it")
            end = raw.tell() + info.size
            yield name, info.mode | (stat.S_IFDIR if folder else stat.S_IFREG), 1, None if folder else raw, info.size
            if raw.tell() != end or any(raw.read(-info.size % 512)):
                raise ValueError(f"{info.name} is followed by something else than a release writes")
        size = -(-(raw.tell() + 512) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
        if path.stat().st_size != size or any(raw.read()):
            raise ValueError("the tar is cut off, or goes on after its end")


def compared(contents: Contents, listed: dict[str, Any], where: str, but: set[str]) -> list[str]:
    """What is there against a list of hashes by name, both ways; some names are not in such a list."""
    present = {name: digest for name, digest in contents.hashes.items() if name not in but}
    told = [f"{name}: not in {where}" for name in sorted(present.keys() - listed.keys())]
    told += [f"{name}: in {where}, but not there" for name in sorted(listed.keys() - present.keys())]
    return told + [f"{n}: other bytes than {where} says" for n, h in sorted(present.items()) if listed.get(n, h) != h]


def check_sums(contents: Contents) -> list[str]:
    """SHA256SUMS against every file."""
    text = contents.kept[SUMS].decode("utf-8", "replace")
    lines = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in text.split("\n")[:-1]]
    listed = {line[2]: line[1] for line in lines if line}
    if len(listed) != len(lines) or not text.endswith("\n"):
        return [f"{SUMS}: not whole lines of a hash and a name, each name once"]
    return compared(contents, listed, SUMS, {SUMS, ENVELOPE})


def canonical(payload: bytes, signed: bytes, keyid: str) -> bytes:
    """A DSSE envelope, in one way only."""
    texts = [base64.b64encode(one).decode() for one in (payload, signed)]
    value = {"payload": texts[0], "payloadType": PAYLOAD_TYPE, "signatures": [{"keyid": keyid, "sig": texts[1]}]}
    return (json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n").encode()


def fingerprint(key: Ed25519PublicKey) -> str:  # SHA-256 of DER SubjectPublicKeyInfo, as `openssl pkey` writes it
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def check_signed(contents: Contents, key: Ed25519PublicKey, at_least: str) -> list[str]:
    """The signature, and what was signed (files, name and version) against what is there."""
    try:
        sent = json.loads(contents.kept[ENVELOPE])
        payload, signed = (base64.b64decode(x, validate=True) for x in (sent["payload"], sent["signatures"][0]["sig"]))
        if canonical(payload, signed, fingerprint(key)) != contents.kept[ENVELOPE]:
            return [f"{ENVELOPE}: signed by another key, or edited"]
        key.verify(signed, b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload))
        told = json.loads(payload)
        listed = {one["name"]: one["digest"]["sha256"] for one in told["subject"]}
        problems = compared(contents, listed, "what was signed", {ENVELOPE})
        name, version = told["predicate"]["name"], told["predicate"]["version"]
        if (told["_type"], told["predicateType"], contents.name) != (*TYPES, f"{name}-{version}"):
            problems.append(f"{contents.name}: what was signed is {name}-{version} ({told['predicateType']})")
        older = [int(n) for n in version.split(".")] < [int(n) for n in at_least.split(".")]
        return problems + [f"{contents.name}: older than {at_least}"] * older
    except Exception as error:
        return [f"{ENVELOPE}: the signature does not hold ({type(error).__name__})"]


def check(place: Path, key: Ed25519PublicKey | None = None, at_least: str = "0.0.0") -> tuple[list[str], str]:
    """Everything that does not hold, and a line on what was checked. Without a key the bundle must be unsigned."""
    try:
        contents = Contents(place.resolve(strict=True), strict=bool(key))
    except (OSError, ValueError, tarfile.TarError) as error:
        return [ascii(f"{place.name}: {error}")[1:-1]], ""
    problems, signed = contents.problems + check_sums(contents), ENVELOPE in contents.hashes
    if signed and key:
        problems += check_signed(contents, key, at_least)
    elif signed or key:
        problems.append(f"{ENVELOPE}: the bundle is {'signed: give the key' if signed else 'not signed'}")
    by = f"signed by the key {fingerprint(key)}" if key else "not signed"
    told = f"{contents.name}: {len(contents.hashes)} files, {contents.num_bytes} bytes, {by}"
    return [ascii(line)[1:-1] for line in problems], ascii(told)[1:-1]  # no name writes to a terminal what we would


def read_key(path: str) -> Ed25519PublicKey:
    """From its PEM file. Raises argparse.ArgumentTypeError: it is none."""
    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except Exception as error:
        raise argparse.ArgumentTypeError(f"{path}: not a public key in PEM form ({type(error).__name__})") from None
    if not isinstance(key, Ed25519PublicKey):
        raise argparse.ArgumentTypeError(f"{path}: not an Ed25519 key")
    return key


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--key", type=read_key, metavar="PUBLIC.pem")
    parser.add_argument("--at-least", default="0.0.0", metavar="VERSION", help="refuse an older one")
    parser.add_argument("--unsigned", action="store_true", help="take a bundle that is not released yet")
    given = parser.parse_args()
    if given.unsigned == bool(given.key) or not VERSION.fullmatch(given.at_least):
        parser.error("give --key PUBLIC.pem or --unsigned; --at-least takes a version such as 1.2.0")
    problems, told = check(given.bundle, given.key, given.at_least)
    print(*(f"- {p}" for p in problems), f"REFUSED: {len(problems)} problems" if problems else f"OK: {told}", sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
