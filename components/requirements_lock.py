"""requirements.lock as uv and pip write it: which libraries, in which versions, with which files."""

from __future__ import annotations

import re


def canonical(name: str) -> str:
    """As package indexes compare names (PEP 503); without dots, which DVC would read as a path of keys."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, tuple[str, list[str]]]:
    """Library -> its version and the sha256 of each of its files, sorted."""
    found = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        named = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", entry)
        if named:
            digests = sorted(set(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)))
            found[canonical(named[1])] = (named[2], digests)
    return found
