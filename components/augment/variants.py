"""Variants of texts that are dear to make: made once, kept, and drawn from in every epoch after.

The key of a text's variants holds the text and all that decides them (network, options, code, arithmetic), so a
stale one is never served, and a run that was killed goes on with what is there.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from components.contracts import write_json


class Variants:
    """`draw` may be called from several threads: each text is made by one of them while the others wait."""

    def __init__(self, make: Callable[[str], list[str]], folder: Path | None, *decided_by: Any) -> None:
        self.make, self.folder = make, folder
        self.key = json.dumps(decided_by, sort_keys=True, default=str)
        self.known: dict[str, list[str]] = {}
        self.lock = threading.Lock()
        self.num_made = 0
        """Texts whose variants were not found and had to be made."""

    def draw(self, text: str, rng: np.random.Generator) -> str:
        """One of the text's variants, evenly; the text itself where it has none."""
        found = self.of(text)
        return found[int(rng.integers(len(found)))] if found else text

    def of(self, text: str) -> list[str]:
        """All variants of a text."""
        digest = hashlib.sha256(f"{self.key}\0{text}".encode()).hexdigest()
        if digest not in self.known:
            with self.lock:  # a network is not safe beside threads, and takes all of them itself
                if digest not in self.known:
                    self.known[digest] = self._kept(digest, text)
        return self.known[digest]

    def _kept(self, digest: str, text: str) -> list[str]:
        place = self.folder / digest[:2] / f"{digest[2:40]}.json" if self.folder is not None else None
        if place is not None and (kept := _read(place)) is not None:
            return kept
        made = self.make(text)
        self.num_made += 1
        if place is not None:
            write_json(place, made)
        return made


def code(*files: str) -> str:
    """A key for the code in these files."""
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()


def _read(place: Path) -> list[str] | None:
    """None where nothing is kept, or a full disk or another hand left something else there."""
    try:
        kept = json.loads(place.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, list) and all(isinstance(v, str) for v in kept) else None
