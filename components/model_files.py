"""Which model files are read at all: judged by their first bytes and their structure, never by their name.

`check` is asked before any library gets a file, and reads nothing but headers. safetensors and single-file ONNX models
pass once their structure holds; a file of torch.save only with a pinned SHA-256, and if its pickle makes tensors alone
(components/torch_files.py); everything else is refused with a reason of components/unsafe_file.py. Of a folder, no
configuration may ask for code, no file may be a link to a place outside, and no Python file is ever read.
Not judged: whether a file changes between this look and the reading; pins are checked on the same files.
Source: safetensors 0.8, "Format"; CVE-2025-32434, CVE-2026-24747 (weights_only), CVE-2022-25882, CVE-2024-27318
(external data).
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from components import onnx_files, torch_files
from components.unsafe_file import HEAD, UnsafeFile, foreign

Kind = Literal["safetensors", "torch", "onnx"]
TENSORS: tuple[Kind, ...] = ("safetensors",)
PINNED: tuple[Kind, ...] = ("safetensors", "torch")
"""What is read of weights: PINNED where their SHA-256 was compared."""
MODEL: tuple[Kind, ...] = ("onnx",)
SAFE: tuple[Kind, ...] = ("safetensors", "onnx")
MAX_HEADER = 32 << 20
"""Bytes of a safetensors header; 100,000 tensors need about 10 million."""
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Types of tensors, and the bits of a number."""
ASKS_FOR_CODE = ("auto_map", "custom_pipelines", "custom_generate", "trust_remote_code", "custom_code")
"""Keys of a configuration that, if they say anything, name code."""


def check(
    path: Path, kinds: Collection[Kind] = SAFE, *, key: str = "weights", pin: str = "", operators: Collection[str] = ()
) -> Kind:
    """What kind of model file this is, of those that are wanted; nothing of it was deserialised.

    `torch` among the kinds means that its SHA-256 is pinned and was compared; without that kind a file of torch.save is
    refused, and `pin` then says how it can be pinned. `key` is the key of params.yaml that names the file. `operators`
    are those of onnxruntime-extensions that an ONNX model may have; without them it may have none.

    Raises:
        UnsafeFile: it is of no such kind, or its structure does not hold.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnsafeFile(path, "not_a_file")
        return _judged(path, kinds, pin, operators)
    except UnsafeFile as error:
        raise UnsafeFile(path, error.reason, error.detail, key, error.todo) from None
    except OSError as error:
        raise UnsafeFile(path, "not_a_file", error.strerror or "", key) from None


def _judged(path: Path, kinds: Collection[Kind], pin: str, operators: Collection[str]) -> Kind:
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    kind = _kind(head)
    if kind is None:
        todo = "" if "safetensors" in kinds else "Name an ONNX model"
        raise UnsafeFile(path, foreign(head) or "unknown_format", "" if head else "it is empty", todo=todo)
    if kind == "torch" and "torch" not in kinds:
        raise UnsafeFile(path, "pickle_not_pinned" if "safetensors" in kinds else "wrong_kind", todo=pin)
    if kind not in kinds:
        raise UnsafeFile(path, "wrong_kind", f"{kind}, where {' or '.join(kinds)} is read")
    if kind == "safetensors":
        check_safetensors(path)
    elif kind == "torch":
        torch_files.check(path)
    else:
        onnx_files.check(path, operators)
    return kind


def _kind(head: bytes) -> Kind | None:
    """safetensors first: its length may begin like a pickle, and then is followed by zeros, which no pickle is."""
    if len(head) > 8 and head[8:9] == b"{" and head[5:8] == bytes(3):
        return "safetensors"
    if head.startswith((b"PK\x03\x04", b"\x80\x02\x8a\x0a" + torch_files.MAGIC.to_bytes(10, "little"))):
        return "torch"
    return "onnx" if onnx_files.looks_like(head) else None


def check_safetensors(path: Path) -> None:
    """Every byte of the file belongs to the header or to exactly one tensor.

    Raises:
        UnsafeFile: it does not; the reason says what lies.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > size - 8:
            raise UnsafeFile(path, "header_beyond_file", f"{length} bytes in a file of {size}")
        if length > MAX_HEADER:
            raise UnsafeFile(path, "header_too_large", f"{length} bytes, and {MAX_HEADER} are read")
        header = _json(path, stream.read(length))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UnsafeFile(path, "bad_metadata")
    end = 0
    for begin, after in sorted(_span(path, name, told) for name, told in header.items()):
        if begin != end:
            raise UnsafeFile(path, "bad_offsets", f"one ends at byte {end}, the next begins at {begin}")
        end = after
    if 8 + length + end != size:
        raise UnsafeFile(path, "bad_offsets", f"they end at byte {8 + length + end}, and the file has {size}")


def _json(path: Path, content: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            raise UnsafeFile(path, "duplicate_key", ascii(next(n for n in names if names.count(n) > 1))[:80])
        return found

    try:
        found = json.loads(content.decode("utf-8"), object_pairs_hook=once, parse_constant=_no_number)
    except UnsafeFile:
        raise
    except (ValueError, RecursionError) as error:
        raise UnsafeFile(path, "header_not_json", str(error)[:80]) from None
    if not isinstance(found, dict):
        raise UnsafeFile(path, "header_not_json", "no table of tensors")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _span(path: Path, name: str, told: Any) -> tuple[int, int]:
    """Where the bytes of one tensor lie, which are as many as its type and shape say."""
    if not isinstance(told, dict) or set(told) != {"dtype", "shape", "data_offsets"}:
        raise UnsafeFile(path, "header_not_json", f"{name[:80]!r} is not described by dtype, shape and data_offsets")
    bits = BITS.get(told["dtype"]) if isinstance(told["dtype"], str) else None
    if bits is None:
        raise UnsafeFile(path, "unknown_dtype", f"{name[:80]!r}: {ascii(told['dtype'])[:40]}")
    shape, offsets = told["shape"], told["data_offsets"]
    if not _counts(shape):
        raise UnsafeFile(path, "bad_shape", f"{name[:80]!r}: {str(shape)[:80]}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise UnsafeFile(path, "bad_offsets", f"{name[:80]!r}: {str(offsets)[:80]}")
    begin, after = offsets
    if math.prod(shape) * bits != 8 * (after - begin):
        raise UnsafeFile(path, "bad_shape", f"{name[:80]!r}: {str(shape)[:80]} in {after - begin} bytes")
    return begin, after


def _counts(values: Any) -> bool:
    """Whole numbers from 0 on, few and small enough to be multiplied."""
    return isinstance(values, list) and len(values) <= 64 and all(type(v) is int and 0 <= v < 1 << 62 for v in values)


def check_beside(root: Path, files: Iterable[Path]) -> None:
    """The files that are read beside a folder's weights: they lie in it, are ordinary files, and JSON asks for no code.

    A snapshot of the hub's cache consists of links into the blobs of its repository; those are inside.

    Raises:
        UnsafeFile: one is not so.
    """
    places = [root.resolve()]
    if root.parent.name == "snapshots":
        places.append(root.parent.parent.resolve() / "blobs")
    for file in files:
        real = file.resolve()
        if not any(real.is_relative_to(place) for place in places):
            raise UnsafeFile(file, "leaves_folder", ascii(real.name))
        if not real.is_file():
            raise UnsafeFile(file, "not_a_file")
        if file.suffix == ".json":
            check_config(file)
        else:
            with real.open("rb") as stream:
                head = stream.read(HEAD)
            if file.suffix in (".model", ".spm", ".txt") and (reason := foreign(head)) not in (None, "executable"):
                raise UnsafeFile(file, str(reason))


def check_config(file: Path) -> None:
    """A configuration names no code and no file outside its folder. What is no JSON is for its reader to refuse.

    Raises:
        UnsafeFile: it does.
    """
    if file.stat().st_size > MAX_HEADER and "config" not in file.name:
        return  # a vocabulary
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    if "config" not in file.name and file.name not in ("modules.json", "special_tokens_map.json"):
        return
    remaining = [found]
    while remaining:
        value = remaining.pop()
        if isinstance(value, dict):
            for name in ASKS_FOR_CODE:
                if value.get(name):
                    raise UnsafeFile(file, "remote_code", _code_beside(file, name))
            for name, inner in value.items():
                if str(name).endswith("_file") and isinstance(inner, str) and leaves(inner):
                    raise UnsafeFile(file, "path_outside", f"{name!a}: {inner[:80]!a}")
            remaining += value.values()
        elif isinstance(value, list):
            remaining += value


def _code_beside(file: Path, name: str) -> str:
    scripts = sorted(p.name for p in file.parent.glob("*.py"))
    return f"{name}; beside it lie, unread, {', '.join(scripts[:4])!a}" if scripts else name


def leaves(path: str) -> bool:
    """Whether a path that a file of a folder names may lie outside of it."""
    pure = PurePosixPath(path)
    return pure.is_absolute() or ".." in pure.parts or "\\" in path or (len(path) > 1 and path[1] == ":")
