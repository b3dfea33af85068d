"""ONNX models, judged by their bytes before a session is made: one file, and operators of ONNX and ONNX Runtime alone.

The file is walked as what it is, a protocol buffer: every message by its own table of fields, and nothing is built of
it. Refused are weights in other files (any `external_data`: paths, links and sizes in it are never looked at), local
functions, operators of unknown domains, and bytes that belong to no known field. This module imports nothing but the
standard library and the refusal.
Not judged: whether the graph computes something sensible; ONNX Runtime checks types and shapes itself.
Source: onnx 1.23, onnx/onnx.proto; Protocol Buffers, Encoding; ONNX Runtime 1.31, operators of com.microsoft.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from pathlib import Path

from components.unsafe_file import UnsafeFile

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Of operators: those that ONNX Runtime itself brings."""
IMPORTED = (
    *DOMAINS, "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft.experimental", "com.microsoft.nchwc",
    "com.ms.internal.nhwc", "org.pytorch.aten",
)  # fmt: skip
"""Of opset_import: ONNX Runtime's own tools name these too, without a node of them."""
EXTENSIONS = "ai.onnx.contrib"
"""Domain of onnxruntime-extensions, which also has operators that run Python: only those named by the caller."""
NEVER = ("EPContext", "PyOp", "PythonOp", "PythonOpGrad", "TritonOp", "Snpe")
"""They run code, or read a compiled program from a path that stands in the node."""
MAX_DEPTH = 32
MAX_IR = 14

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_Schema = dict[int, tuple[str, str]]
# Field number -> (what may be there: v varint, s bytes or text, p packed or single number, m message; its name).
SCHEMAS: dict[str, _Schema] = {
    "model": {
        1: ("v", "ir_version"), 2: ("s", ""), 3: ("s", ""), 4: ("s", ""), 5: ("v", ""), 6: ("s", ""), 7: ("m", "graph"),
        8: ("m", "opset"), 14: ("s", ""), 20: ("s", "training"), 25: ("s", "function"), 26: ("s", ""),
    },
    "opset": {1: ("s", "domain"), 2: ("v", "")},
    "graph": {
        1: ("m", "node"), 2: ("s", ""), 5: ("m", "tensor"), 10: ("s", ""), 11: ("s", ""), 12: ("s", ""), 13: ("s", ""),
        14: ("s", ""), 15: ("m", "sparse"), 16: ("s", ""),
    },
    "node": {
        1: ("s", ""), 2: ("s", ""), 3: ("s", ""), 4: ("s", "operator"), 5: ("m", "attribute"), 6: ("s", ""),
        7: ("s", "domain"), 8: ("s", ""), 9: ("s", ""), 10: ("s", ""),
    },
    "attribute": {
        1: ("s", ""), 2: ("p", ""), 3: ("v", ""), 4: ("s", ""), 5: ("m", "tensor"), 6: ("m", "graph"), 7: ("p", ""),
        8: ("p", ""), 9: ("s", ""), 10: ("m", "tensor"), 11: ("m", "graph"), 13: ("s", ""), 14: ("s", ""),
        15: ("s", ""), 20: ("v", ""), 21: ("s", ""), 22: ("m", "sparse"), 23: ("m", "sparse"),
    },
    "tensor": {
        1: ("p", ""), 2: ("v", ""), 3: ("s", ""), 4: ("p", ""), 5: ("p", ""), 6: ("s", ""), 7: ("p", ""), 8: ("s", ""),
        9: ("s", ""), 10: ("p", ""), 11: ("p", ""), 12: ("s", ""), 13: ("s", "external"), 14: ("v", "location"),
        16: ("s", ""),
    },
    "sparse": {1: ("m", "tensor"), 2: ("m", "tensor"), 3: ("p", "")},
}  # fmt: skip
_WIRES = {"v": (VARINT,), "s": (BYTES,), "m": (BYTES,), "p": (VARINT, FIXED64, BYTES, FIXED32)}


def check(path: Path, extensions: Collection[str] = ()) -> None:
    """The file is one whole ONNX model of known operators. `extensions` are operators of EXTENSIONS that it may have.

    Raises:
        UnsafeFile: it is not.
    """
    if path.stat().st_size == 0:
        raise UnsafeFile(path, "onnx_damaged", "it is empty")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        walk = _Walk(path, content, frozenset(extensions))
        walk.message("model", 0, len(content), 0)
        if not 3 <= walk.version <= MAX_IR or walk.num_graphs != 1 or not walk.num_opsets:
            raise UnsafeFile(path, "onnx_damaged", "it states no version of ONNX that is known, or not one graph")


def looks_like(head: bytes) -> bool:
    """Whether a file may be an ONNX model: `ir_version` is written first, and then a text or the graph."""
    return (
        len(head) > 2 and head[0] == 0x08 and 3 <= head[1] <= MAX_IR and head[2] in (0x12, 0x1A, 0x22, 0x32, 0x3A, 0x42)
    )


class _Walk:
    def __init__(self, path: Path, content: mmap.mmap, extensions: frozenset[str]) -> None:
        self.path, self.content, self.extensions = path, content, extensions
        self.version = self.num_graphs = self.num_opsets = 0

    def refuse(self, reason: str, detail: str) -> UnsafeFile:
        return UnsafeFile(self.path, reason, detail[:120])

    def message(self, kind: str, at: int, end: int, depth: int) -> None:
        """Go through a message of this kind, which lies between two places of the file."""
        if depth > MAX_DEPTH:
            raise self.refuse("onnx_damaged", f"graphs nested deeper than {MAX_DEPTH}")
        schema, texts = SCHEMAS[kind], {"domain": "", "operator": ""}
        for number, wire, begin, after, value in self._fields(at, end):
            form, name = schema.get(number, ("", ""))
            if wire not in _WIRES.get(form, ()):
                raise self.refuse("onnx_damaged", f"field {number} of a {kind}, which ONNX does not have so")
            if form == "m":
                self._found(name, depth)
                self.message(name, begin, after, depth + 1)
            elif name in texts:
                texts[name] = self.content[begin:after].decode("utf-8", "replace")
            elif name:
                self._judge(name, value, begin, after)
        if kind == "node":
            self._operator(texts["domain"], texts["operator"])
        elif kind == "opset" and texts["domain"] not in IMPORTED and not (
            self.extensions and texts["domain"] == EXTENSIONS
        ):  # fmt: skip
            raise self.refuse("custom_operator", f"domain {texts['domain']!r}")

    def _found(self, name: str, depth: int) -> None:
        self.num_graphs += name == "graph" and depth == 0
        self.num_opsets += name == "opset"

    def _judge(self, name: str, value: int, begin: int, after: int) -> None:
        if name == "external" or (name == "location" and value != 0):
            raise self.refuse("external_data", self._place(begin, after) if name == "external" else "data_location")
        if name in ("function", "training"):
            raise self.refuse("onnx_function", f"a {name} of its own")
        if name == "ir_version":
            self.version = value

    def _place(self, begin: int, after: int) -> str:
        """An entry of external_data, as far as it can be shown."""
        text = self.content[begin:after].decode("ascii", "replace")
        return "".join(c if c.isprintable() else " " for c in text).strip()[:80]

    def _operator(self, domain: str, operator: str) -> None:
        known = domain in DOMAINS or (domain == EXTENSIONS and operator in self.extensions)
        if not known or operator in NEVER:
            raise self.refuse("custom_operator", f"{domain or 'ai.onnx'}.{operator}")

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Number, wire type, where its content begins and ends, and its value if it is a varint."""
        while at < end:
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            value, begin = 0, at
            if wire == VARINT:
                value, at = self._varint(at, end)
            elif wire == BYTES:
                size, begin = self._varint(at, end)
                at = begin + size
            elif wire in (FIXED32, FIXED64):
                at += 4 if wire == FIXED32 else 8
            else:
                raise self.refuse("onnx_damaged", f"wire type {wire}")
            if at > end:
                raise self.refuse("onnx_damaged", f"field {number} ends behind the message that it is in")
            yield number, wire, begin, at, value

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 64:
            byte = self.content[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at
        raise self.refuse("onnx_damaged", "a number that does not end")
