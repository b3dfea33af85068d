"""Sign a bundle: a DSSE envelope over an in-toto statement of every file, and a tar, both the same each time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from components.contracts import InputError
from components.handoff import verify_bundle as verify
from components.lineage import hash_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


MAX_IN_TAR = 8**11 - 1
"""Bytes: eleven octal digits in the header (ustar)."""


class UnusableKey(InputError):
    """A file is not a private key that may be used."""


def read_key(path: Path) -> Ed25519PrivateKey:
    """A private key that nobody else can read.

    Raises:
        UnusableKey: it is not there, not Ed25519, or its mode lets others read it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        mode, content = path.stat().st_mode & 0o777, path.read_bytes()
        key = load_pem_private_key(content, password=None)
    except FileNotFoundError:
        raise UnusableKey(f"{path} is not there. Make a key with `python -m pipelines keygen`, or name one") from None
    except OSError as error:
        raise UnusableKey(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError):
        raise UnusableKey(f"{path} is not a private key in PEM form without a password") from None
    if mode & 0o077:
        raise UnusableKey(f"{path} has mode {mode:04o}, so others can read the key. Run: chmod 600 {path}")
    if not isinstance(key, Ed25519PrivateKey):
        raise UnusableKey(f"{path} is not an Ed25519 key. Make one with `python -m pipelines keygen`")
    return key


def statement(hashes: dict[str, str], name: str, version: str) -> bytes:
    """What is signed: every file with its sha256, and which release it is."""
    told = {
        "_type": verify.TYPES[0], "predicateType": verify.TYPES[1], "predicate": {"name": name, "version": version},
        "subject": [{"name": file, "digest": {"sha256": digest}} for file, digest in sorted(hashes.items())],
    }  # fmt: skip
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def envelope(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """The DSSE envelope, byte by byte as verify.py awaits it. Ed25519 signs the same bytes with the same signature."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner, SSlibKey

    public = SSlibKey.from_crypto(key.public_key(), keyid=verify.fingerprint(key.public_key()))
    made = Envelope(payload, verify.PAYLOAD_TYPE, {})
    signature = made.sign(CryptoSigner(key, public))
    content = verify.canonical(payload, bytes.fromhex(signature.signature), public.keyid)
    assert json.loads(content) == made.to_dict()
    return content


def seal(source: Path, target: Path, key: Ed25519PrivateKey, name: str, version: str) -> None:
    """Copy a bundle to `target`, with fixed modes, and sign it there."""
    for path in (source, *sorted(source.rglob("*"))):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
            place.chmod(0o755)
        else:
            shutil.copyfile(path, place)
            place.chmod(0o644)
    files = sorted(p for p in target.rglob("*") if p.is_file())
    hashes = {p.relative_to(target).as_posix(): hash_file(p) for p in files}
    signed = target / verify.ENVELOPE
    signed.write_bytes(envelope(statement(hashes, name, version), key))
    signed.chmod(0o644)


def write_tar(folder: Path, top: str, tar: Path) -> None:
    """A plain tar of the folder below the name `top`: sorted, without owner, time and anything else of this machine.

    Raises:
        InputError: a file is too large, or a name too long for the form that every tar can read.
    """
    with tar.open("wb") as out:
        for path in (folder, *sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix())):
            size = 0 if path.is_dir() else path.stat().st_size
            name = "/".join((top, *path.relative_to(folder).parts))
            if size > MAX_IN_TAR:
                raise InputError(
                    f"{name} has {size} bytes, and a file of a tar has at most {MAX_IN_TAR}. To release it, make the "
                    "model smaller: another backbone, or another export.variant"
                )
            try:
                out.write(verify.header(name, size, path.is_dir()))
            except ValueError as error:
                raise InputError(f"{name} does not fit into a tar ({error}); give run.name a shorter name") from None
            if size:
                with path.open("rb") as content:
                    shutil.copyfileobj(content, out, 1 << 20)
                out.write(bytes(-size % 512))
        out.write(bytes(-(out.tell() + 1024) % 10240 + 1024))
    tar.chmod(0o644)
