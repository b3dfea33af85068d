"""A bundle's folder while it is filled: whole files, and no folder of this machine in what we write ourselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts import write_atomic, write_json
from components.handoff import provenance


@dataclass(frozen=True)
class Bundle:
    """`folder`, and the private paths with what stands for them."""

    folder: Path
    private: dict[str, str]

    def text(self, name: str, text: str) -> None:
        """Write a text without the private paths."""
        write_atomic(self.folder / name, provenance.without(self.private, text).encode())

    def record(self, name: str, value: Any) -> None:
        """Write JSON without the private paths."""
        write_json(self.folder / name, value)
        self.text(name, (self.folder / name).read_text("utf-8"))

    def copy(self, source: Path, name: str) -> None:
        """The same bytes."""
        write_atomic(self.folder / name, source.read_bytes())
