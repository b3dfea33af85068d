"""A bundle's folder while it is filled: whole files, and no folder of this machine in what we write ourselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts import write_atomic, write_json
from components.handoff.private import without
from components.lineage import hash_file


@dataclass(frozen=True)
class Bundle:
    """`folder`, and the private paths with what stands for them."""

    folder: Path
    private: dict[str, str]

    def text(self, name: str, text: str) -> None:
        """Write a text without the private paths."""
        write_atomic(self.folder / name, without(self.private, text).encode())

    def record(self, name: str, value: Any) -> None:
        """Write JSON without the private paths."""
        write_json(self.folder / name, value)
        self.text(name, (self.folder / name).read_text("utf-8"))

    def hashes(self) -> dict[str, str]:
        """File -> sha256, of all that is there."""
        files = sorted(p for p in self.folder.rglob("*") if p.is_file())
        return {p.relative_to(self.folder).as_posix(): hash_file(p) for p in files}

    def settle(self) -> None:
        """The same modes whatever the umask is."""
        for path in self.folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        self.folder.chmod(0o755)

    def copy(self, source: Path, name: str) -> None:
        """The same bytes."""
        write_atomic(self.folder / name, source.read_bytes())
