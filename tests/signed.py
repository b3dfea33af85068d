"""Small bundles, signed and not, in milliseconds: their files are random, their layout is the real one."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from components.contracts import Commit
from components.handoff import provenance, signing

FILES = (
    "model.onnx", "labels.json", "preprocessing.json", "signature.json", "predict.py", "preprocessing.py", "verify.py",
    "requirements.txt", "metrics.json", "ladder.json", "card.md", "annex_iv.md", "bom.cdx.json", "provenance.json",
    "variants/fp32.onnx", "profile/profile.json", "serving/kserve.yaml", "serving/triton/net/config.pbtxt",
)  # fmt: skip


def private_key(seed: int = 0) -> Ed25519PrivateKey:
    """The same for the same seed."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"key {seed}".encode()).digest())


def unsigned(folder: Path, seed: int = 0, files: tuple[str, ...] = FILES) -> Path:
    """A bundle as the stage leaves it."""
    rng = random.Random(seed)
    for name in files:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(rng.randbytes(rng.randrange(1, 700)))
    sum_up(folder)
    return folder


def sum_up(folder: Path) -> None:
    """Writes SHA256SUMS."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    own = ("SHA256SUMS", "attestation.dsse.json")
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names if n not in own]
    (folder / "SHA256SUMS").write_text("".join(lines))


def release(folder: Path, seed: int = 0, name: str = "net", version: str = "1.2.3", key: int = 0) -> Path:
    """folder/<name>-<version>, and the .tar beside it."""
    source, target = unsigned(folder / f".source-{seed}-{name}-{version}", seed), folder / f"{name}-{version}"
    signing.seal(source, target, private_key(key), name, version)
    signing.write_tar(target, target.name, folder / f"{target.name}.tar")
    return target


def _lineage(stage: str, **outputs: str) -> dict[str, Any]:
    return {
        "stage": stage, "inputs": {}, "code": {f"components/{stage}": "ab" * 32, "components/job.py": "ab" * 32},
        "params": {stage: {"x": 1}}, "environment": {"python": "3.11", "packages": {"numpy": "2.4"}}, "parents": {},
        "outputs": {f"artifacts/{stage}/{name}.parquet": digest for name, digest in outputs.items()},
    }  # fmt: skip


def origin(where: Commit | None = None) -> provenance.Provenance:
    lineages = {
        "ingest": _lineage("ingest", manifest="1" * 64),
        "validate": _lineage("validate", accepted="2" * 64),
        "export": _lineage("export"),
    }
    """Of a small line: three stages, no times."""
    where = where or Commit("c" * 40, False, ("components/job.py",))
    made = provenance.gather("net", lineages, {"sha256": "ab" * 32, "licence": "mit"}, "3" * 64, where, "4" * 64)
    return replace(made, subjects={"model.onnx": "5" * 64, "card.md": "6" * 64})
