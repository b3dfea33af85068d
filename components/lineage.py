"""What a stage's outputs rest on: hashes of inputs, code, params, environment and parents.

Byte-stable: no times, and no path of a machine but those that params.yaml itself names.
Where and when it ran stands in reports/<stage>/status.json.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PINNED = ("OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "OPENBLAS_CORETYPE")
PACKAGES = (
    "torch", "torchvision", "timm", "lightning-fabric", "numpy", "scipy", "pandas", "pyarrow", "pillow", "scikit-learn",
    "transformers", "tokenizers", "sentencepiece", "gensim", "nltk", "datasketch", "great-expectations", "evidently",
    "onnx", "onnxscript", "onnxruntime", "safetensors",
)  # fmt: skip
"""Looked at where nobody says what a stage imports."""
_FEATURES = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
"""Of a processor, those that libraries choose other code for."""


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of the sorted (name, hash) list of a folder's files; caches of Python left out."""
    if path.is_file():
        return hash_file(path)
    digest = hashlib.sha256()
    for inner in sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(f"{inner.relative_to(path).as_posix()}\0{hash_file(inner)}\n".encode())
    return digest.hexdigest()


def hashes(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Path as written -> hash, for those that exist."""
    found = ((_name(p), root / p) for p in sorted(set(paths)))  # root / absolute is the absolute one
    return {name: hash_path(full) for name, full in found if full.exists()}


def _name(path: str) -> str:
    """Paths outside the project keep their last part alone: the rest is one machine's business."""
    return f"outside/{Path(path).name}" if os.path.isabs(path) else path


def environment(packages: Mapping[str, str] | None = None, device: str = "cpu") -> dict[str, Any]:
    """Python, the packages that can change a number, and what pins the arithmetic.

    `packages` are those that the stage imports, with all that these need, in their real versions: so a library that
    is bumped leaves the record of a stage that does not use it as it was. What the instruction set is stands here
    where it is not pinned, and so does the accelerator where there is one and `device` allows it.
    """
    versions = dict(packages) if packages is not None else {n: v for n in PACKAGES if (v := _version(n))}
    pins = {name: os.environ[name] for name in PINNED if name in os.environ}
    told: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "packages": versions,
        "pins": pins,
    }
    if "ATEN_CPU_CAPABILITY" not in pins:
        told["processor"] = processor()
    torch = sys.modules.get("torch")
    if torch is not None and device != "cpu" and torch.cuda.is_available():
        told["accelerator"] = torch.cuda.get_device_name()
    return told


def processor() -> str:
    """Maker and features of this machine's processor, as far as they choose the code that libraries run."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(told.get("flags", "").split())
    return " ".join([told.get("vendor_id", ""), *(f for f in _FEATURES if f in flags)]).strip()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def record(
    root: Path,
    stage: str,
    deps: Iterable[str],
    outs: Iterable[str],
    params: dict[str, Any],
    built: Path,
    packages: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The lineage of one finished stage. `deps` and `outs` as dvc.yaml declares them; outs lie below `built`.

    `packages`: see `environment`.
    """
    deps = list(deps)
    parents = sorted({d.split("/")[1] for d in deps if d.startswith("artifacts/") and d.count("/") >= 2})
    prefix = f"artifacts/{stage}/"
    return {
        "stage": stage,
        "inputs": hashes(root, (d for d in deps if not _is_code(d))),
        "code": hashes(root, (d for d in deps if _is_code(d))),
        "params": params,
        "environment": environment(packages, params.get("run", {}).get("device", "cpu")),
        "parents": {p: hash_file(f) for p in parents if (f := root / "artifacts" / p / "lineage.json").exists()},
        "outputs": {o: hash_path(built / o.removeprefix(prefix)) for o in sorted(outs)},
    }


def _is_code(path: str) -> bool:
    return path.startswith(("components/", "pipelines/"))
