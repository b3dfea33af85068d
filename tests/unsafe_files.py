"""Model files that must not be read, made in code: pickles in every disguise, headers that lie, graphs that reach out.

Each case is a name -> (file name, content, reason of components/unsafe_file.py). Every pickle that can run creates the
file CANARY in the current folder.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

CANARY = "it_ran"
COMMAND = f"touch {CANARY}"
Case = tuple[str, bytes, str]


class Bomb:
    """Creates CANARY when it is unpickled."""

    def __reduce__(self) -> Any:
        import os

        return os.system, (COMMAND,)


def _text(value: str) -> bytes:
    """BINUNICODE."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


PROTO2 = b"\x80\x02"
HAND_MADE = {
    "GLOBAL": f"cos\nsystem\n(S'{COMMAND}'\ntR.".encode(),
    "INST": f"(S'{COMMAND}'\nios\nsystem\n.".encode(),
    "OBJ": f"(cos\nsystem\nS'{COMMAND}'\no.".encode(),
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + _text(COMMAND) + b"\x85R.",
    "exec": b"\x80\x02cbuiltins\nexec\n" + _text(f"open({CANARY!r}, 'w').close()") + b"\x85R.",
    "NEWOBJ": b"\x80\x02cpathlib\nPath\n" + _text(CANARY) + b"\x85\x81.",
    "memo": b"\x80\x02cos\nsystem\nq\x010h\x01" + _text(COMMAND) + b"\x85R.",
}
"""Pickles written opcode by opcode; all but NEWOBJ fire."""


def fires() -> dict[str, bytes]:
    """Pickles that create CANARY when they are loaded: the test of the test."""
    made = {f"protocol {p}": pickle.dumps({"weight": Bomb()}, protocol=p) for p in range(6)}
    return made | {k: v for k, v in HAND_MADE.items() if k != "NEWOBJ"}


def bare() -> dict[str, Case]:
    """Pickles by themselves, under every name, and behind what may mislead."""
    two = pickle.dumps({"weight": Bomb()}, protocol=2)
    cases: dict[str, Case] = {
        f"protocol {p}": ("m.pkl", pickle.dumps({"weight": Bomb()}, protocol=p), "pickle") for p in range(6)
    }
    for end in ("pt", "pth", "bin", "safetensors", "npy", "joblib", "onnx", "gguf", "h5", "ckpt", "json", "keras"):
        cases[f"pickle as .{end}"] = (f"model.{end}", two, "pickle")
    for name, content in HAND_MADE.items():
        cases[f"bare {name}"] = ("m.pt", content, "pickle")
    for name, code in {"EXT1": b"\x82\x01", "EXT2": b"\x83\x01\x01", "EXT4": b"\x84\x01\x01\0\0"}.items():
        cases[f"bare {name}"] = ("m.bin", PROTO2 + code + b")R.", "pickle")
    disguised = {
        "NUL before": b"\0" * 8 + two, "blank before": b"\n" + two, "BOM before": b"\xef\xbb\xbf" + two,
        "JPEG before": b"\xff\xd8\xff\xe0" + two, "zlib": zlib.compress(two), "protocol 255": b"\x80\xff" + two[2:],
        "empty": b"", "text": b"hello", "json": b'{"weights": "elsewhere"}', "ORT format": b"\x18\0\0\0ORTM" + two,
    }  # fmt: skip
    cases |= {name: ("m.pt", content, "unknown_format") for name, content in disguised.items()}
    packed = {
        "gzip": gzip.compress(two), "bzip2": bz2.compress(two), "xz": lzma.compress(two), "tar": _tar(two),
        "zstd": b"\x28\xb5\x2f\xfd" + two, "7z": b"7z\xbc\xaf\x27\x1c" + two, "lz4": b"\x04\x22\x4d\x18" + two,
    }  # fmt: skip
    cases |= {f"packed by {name}": ("m.joblib", content, "archive") for name, content in packed.items()}
    store = io.BytesIO()
    np.save(store, np.array([Bomb()], dtype=object), allow_pickle=True)
    cases["npy of objects"] = ("m.npy", store.getvalue(), "numpy")
    hdf5 = b"\x89HDF\r\n\x1a\n"
    cases |= {
        "npy of numbers": ("m.safetensors", _npy(np.ones(3)), "numpy"),
        "HDF5": ("m.h5", hdf5 + bytes(600), "hdf5"),
        "HDF5 behind a block": ("m.keras", bytes(512) + hdf5 + two, "hdf5"),
        "GGUF": ("m.gguf", b"GGUF\x03\0\0\0" + bytes(40), "gguf"),
        "ELF": ("m.pt", b"\x7fELF" + bytes(40), "executable"),
        "script": ("m.bin", b"#!/bin/sh\ntouch it_ran\n", "executable"),
    }
    return cases


def _npy(array: Any) -> bytes:
    store = io.BytesIO()
    np.save(store, array)
    return store.getvalue()


def _tar(content: bytes) -> bytes:
    store = io.BytesIO()
    with tarfile.open(fileobj=store, mode="w") as archive:
        info = tarfile.TarInfo("storages")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return store.getvalue()


# --- archives of torch.save

STORAGE = (
    b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu") + b"K\x04tQ"
)  # four numbers: data/0 has 16 bytes
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\0K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
STATE = PROTO2 + b"}" + _text("weight") + TENSOR + b"s."


def torch_zip(data: bytes = STATE, more: dict[str, bytes] | None = None, **packing: Any) -> bytes:
    """An archive as torch.save lays it out."""
    store = io.BytesIO()
    with zipfile.ZipFile(store, "w", **packing) as archive:
        members = {"archive/data.pkl": data, "archive/version": b"3\n", "archive/data/0": bytes(16), **(more or {})}
        for name, content in members.items():
            archive.writestr(name, content)
    return store.getvalue()


GLOBALS = (
    "os system", "posix system", "subprocess Popen", "builtins eval", "builtins exec", "builtins getattr",
    "builtins __import__", "__builtin__ eval", "runpy run_path", "functools partial", "operator attrgetter",
    "torch load", "torch.hub load", "torch.storage _load_from_bytes", "torch.serialization load",
    "torch.jit load", "torch._utils _rebuild_device_tensor_from_numpy", "torch._tensor _rebuild_from_type_v2",
    "numpy.core.multiarray _reconstruct", "numpy load", "joblib load", "dill loads", "_codecs encode",
    "collections Counter", "collections OrderedDict.fromkeys", "torch.nn.modules.linear Linear", "builtins bytearray",
    "torch UntypedStorage", "torch QInt8Storage", "torch FloatStorage.from_file", "pip main", "idlelib.pyshell main",
    "timeit timeit", "cProfile run", "pydoc pipepager", "_io FileIO", "webbrowser open", "types CodeType",
)  # fmt: skip
"""What a pickle may ask for; gadgets of published bypasses among them, and what weights_only lets through."""


def archives() -> dict[str, Case]:
    """Of which the pickle or the archive around it is not what torch.save writes for tensors."""
    cases = {f"global {g}": _zipped(_call(g), "pickle_global") for g in GLOBALS}
    opcode, damaged, storage = "pickle_opcode", "pickle_damaged", "bad_storage"
    bombs = {
        "protocol 4": (HAND_MADE["STACK_GLOBAL"], opcode),
        "STACK_GLOBAL": (PROTO2 + _text("os") + _text("system") + b"\x93" + _text(COMMAND) + b"\x85R.", opcode),
        "no protocol": (HAND_MADE["GLOBAL"], opcode),
        "INST": (PROTO2 + HAND_MADE["INST"], opcode),
        "OBJ": (PROTO2 + b"(ctorch\nFloatStorage\no.", opcode),
        "EXT1": (PROTO2 + b"\x82\x01)R.", opcode),
        "PERSID": (PROTO2 + b"Pevil\n.", opcode),
        "NEWOBJ": (PROTO2 + b"ccollections\nOrderedDict\n)\x81.", opcode),
        "nested pickle": (PROTO2 + b"}" + _text("w") + b"C\x04" + b"cos\n" + b"s.", opcode),
        "a module as reference": (
            PROTO2 + b"(" + _text("module") + b"ctorch\nFloatStorage\n" + _text("a.py") + _text("code") + b"tQ.", opcode
        ),
        "BUILD of attributes": (PROTO2 + b"ccollections\nOrderedDict\n)R}" + _text("__class__") + b"K\x01sb.", opcode),
        "BUILD of a call": (PROTO2 + b"ctorch\nFloatStorage\n}b.", opcode),
        "a call of a storage": (PROTO2 + b"ctorch\nFloatStorage\n)R.", opcode),
        "a call of a text": (PROTO2 + _text("os.system") + b")R.", opcode),
        "POP": (PROTO2 + b"}}0.", opcode),
        "second protocol": (PROTO2 + b"}" + PROTO2 + b".", opcode),
        "second pickle": (STATE + HAND_MADE["GLOBAL"], damaged),
        "cut": (STATE[:-1], damaged),
        "unknown opcode": (PROTO2 + b"\xfa.", damaged),
        "no stack": (PROTO2 + b"s.", damaged),
        "across a mark": (PROTO2 + b"}((s.", damaged),
        "mark in the memo": (PROTO2 + b"}(q\x01h\x01.", damaged),
        "unset memo": (PROTO2 + b"h\x05.", damaged),
        "a text": (PROTO2 + _text("weights") + b".", damaged),
        "larger than its storage": (STATE.replace(b"K\x04\x85K\x01\x85", b"K\x05\x85K\x01\x85"), storage),
        "strides beyond": (STATE.replace(b"K\x04\x85K\x01\x85", b"K\x04\x85K\x02\x85"), storage),
        "offset beyond": (STATE.replace(b"tQK\0K", b"tQK\x01K"), storage),
        "negative offset": (STATE.replace(b"tQK\0K", b"tQJ\xff\xff\xff\xffK"), storage),
        "negative size": (STATE.replace(b"K\x04\x85K\x01\x85", b"J\xff\xff\xff\xff\x85K\x01\x85"), "bad_shape"),
        "negative stride": (STATE.replace(b"K\x04\x85K\x01\x85", b"K\x04\x85J\xff\xff\xff\xff\x85"), "bad_shape"),
        "storage larger than its bytes": (STATE.replace(b"K\x04tQ", b"J\xff\xff\xff\x7ftQ"), storage),
        "other type": (STATE.replace(b"FloatStorage", b"DoubleStorage"), storage),
        "no such storage": (STATE.replace(_text("0"), _text("7")), storage),
        "storage by a path": (STATE.replace(_text("0"), _text("../0")), storage),
        "a storage twice": (
            PROTO2 + b"}(" + _text("a") + TENSOR + _text("b") + TENSOR.replace(b"K\x04tQ", b"K\x03tQ") + b"u.", storage
        ),
        "hooks": (STATE.replace(b"OrderedDict\n)RtR", b"OrderedDict\n)R" + _text("a") + b"K\x01stR"), storage),
    }  # fmt: skip
    cases |= {name: _zipped(content, reason) for name, (content, reason) in bombs.items()}
    return {f"archive: {name}": case for name, case in (cases | _broken_archives()).items()}


def _zipped(content: bytes, reason: str) -> Case:
    return "m.pth", torch_zip(content), reason


def _call(name: str) -> bytes:
    module, _, function = name.partition(" ")
    return PROTO2 + b"}" + _text("w") + f"c{module}\n{function}\n".encode() + _text(COMMAND) + b"\x85Rs."


def _broken_archives() -> dict[str, Case]:
    bomb, good = pickle.dumps(Bomb(), protocol=2), torch_zip()
    member, lies = "archive_member", "archive_lies"
    more = {
        "TorchScript": ("archive/code/__torch__.py", "torchscript"),
        "TorchScript's constants": ("archive/constants.pkl", "torchscript"),
        "second pickle": ("archive/more.pkl", member),
        "pickle in a folder": ("archive/data/x.pkl", member),
        "pickle outside": ("other/data.pkl", member),
        "traversal": ("archive/../../data.pkl", member),
        "absolute": ("/etc/cron.d/x", member),
        "backslash": ("archive\\data.pkl", member),
        "a zip in it": ("archive/inner.zip", member),
        "a folder": ("archive/data/", member),
        "capital letters": ("archive/DATA.PKL", lies),
    }
    cases: dict[str, Case] = {n: ("m.pt", torch_zip(more={k: bomb}), r) for n, (k, r) in more.items()}
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's own, of the name that is there twice
        for content in (STATE, bomb):
            archive.writestr("archive/data.pkl", content)
    commented = io.BytesIO(good)
    with zipfile.ZipFile(commented, "a") as archive:
        archive.comment = b"comment"
    npz = io.BytesIO()
    np.savez(npz, a=np.array([Bomb()], dtype=object))
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("model.pt", torch_zip(bomb))
    at = good.rindex(b"PK\x01\x02")
    keras = io.BytesIO()
    with zipfile.ZipFile(keras, "w") as archive:
        archive.writestr("config.json", "{}")
    files = {
        "packed": (torch_zip(STATE, compression=zipfile.ZIP_DEFLATED), lies),
        "zip bomb": (torch_zip(more={"archive/data/1": bytes(1 << 22)}, compression=zipfile.ZIP_DEFLATED), lies),
        "duplicate member": (stored.getvalue(), lies),
        "comment": (commented.getvalue(), lies),
        "more behind": (good + b"more", lies),
        "pickle behind": (good + bomb, lies),
        "pickle before": (bomb + good, "pickle"),
        "script before": (b"#!/bin/sh\n" + good, "executable"),
        "cut": (good[:-30], lies),
        "another name inside": (good.replace(b"archive/version", b"archive/VERSION", 1), lies),
        "overlap": (good[:at + 42] + bytes(4) + good[at + 46 :], lies),
        "encrypted": (good[: at + 8] + b"\1\0" + good[at + 10 :], lies),
        "size beyond": (good[: at + 20] + b"\xff\xff\xff\x00" * 2 + good[at + 28 :], lies),
        "npz of objects": (npz.getvalue(), member),
        "zip in a zip": (inner.getvalue(), member),
        "keras": (keras.getvalue(), member),
        "no members": (b"PK\x05\x06" + bytes(18), "archive"),
    }  # fmt: skip
    return cases | {name: ("m.bin", content, reason) for name, (content, reason) in files.items()}


def legacy(*pickles: bytes, storages: bytes = struct.pack("<q", 4) + bytes(16)) -> bytes:
    """The five pickles that torch wrote before 1.6; those that are given replace the last ones."""
    magic = PROTO2 + b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    state = STATE.replace(b"K\x04tQ", b"K\x04NtQ")
    parts = [magic, PROTO2 + b"M\xe9\x03.", PROTO2 + b"}" + _text("little_endian") + b"\x88s.", state]
    parts.append(PROTO2 + b"]" + _text("0") + b"a.")
    return b"".join(parts[: 5 - len(pickles)]) + b"".join(pickles) + storages


def legacies() -> dict[str, Case]:
    """The older layout."""
    bomb = pickle.dumps(Bomb(), protocol=2)
    keys = PROTO2 + b"]" + _text("0") + b"a."
    magic = legacy()[: legacy().index(b".") + 1]
    made = {
        "bomb as the table": (legacy(bomb, keys), "pickle_global"),
        "bomb as the keys": (legacy(bomb), "pickle_global"),
        "bomb as the system": (legacy(bomb, STATE, keys), "pickle_global"),
        "bomb as the version": (legacy(bomb, bomb, STATE, keys), "pickle_global"),
        "bomb after the magic number": (magic + bomb, "pickle_global"),
        "view beyond": (legacy(PROTO2 + b"}.", keys), "bad_storage"),
        "cut": (legacy()[:-1], "bad_storage"),
        "more behind": (legacy() + bomb, "bad_storage"),
        "other count": (legacy(storages=struct.pack("<q", 5) + bytes(20)), "bad_storage"),
        "negative count": (legacy(storages=struct.pack("<q", -1) + bytes(16)), "bad_storage"),
        "no storages": (legacy(storages=b""), "bad_storage"),
        "big-endian": (legacy(PROTO2 + b"}.", STATE, keys), "pickle_damaged"),
    }
    return {f"legacy: {name}": ("m.pth", content, reason) for name, (content, reason) in made.items()}


# --- safetensors


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def told(begin: int = 0, end: int = 16, shape: Any = (4,), dtype: Any = "F32") -> dict[str, Any]:
    """One tensor, true as it stands."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def lying_headers() -> dict[str, Case]:
    """safetensors whose header does not fit the file."""
    four = bytes(16)
    a = json.dumps(told()).encode()
    made = {
        "longer than the file": (safetensors({"a": told()}, four, length=1 << 30), "header_beyond_file"),
        "length of 2^39": (safetensors({"a": told()}, four, length=1 << 39), "header_beyond_file"),
        "no JSON": (safetensors(b"{not json}", four), "header_not_json"),
        "a pickle for a header": (safetensors(b"{" + pickle.dumps(Bomb(), protocol=2)), "header_not_json"),
        "not UTF-8": (safetensors(b'{"\xff": 1}'), "header_not_json"),
        "NaN": (safetensors(b'{"a": NaN}'), "header_not_json"),
        "nested deep": (safetensors(b'{"a": ' + b"[" * 100_000), "header_not_json"),
        "huge number": (safetensors(b'{"a": ' + b"9" * 6000 + b"}"), "header_not_json"),
        "more behind the JSON": (safetensors(b"{} {}"), "header_not_json"),
        "a tensor that is a number": (safetensors({"a": 1}), "header_not_json"),
        "a tensor with more keys": (safetensors({"a": {**told(), "code": "x"}}, four), "header_not_json"),
        "a tensor without offsets": (safetensors({"a": {"dtype": "F32", "shape": [4]}}, four), "header_not_json"),
        "the same tensor twice": (safetensors(b'{"a": ' + a + b', "a": ' + a + b"}", four), "duplicate_key"),
        "a key twice": (safetensors(b'{"a": ' + a[:-1] + b', "dtype": "I8"}}', four), "duplicate_key"),
        "metadata twice": (safetensors(b'{"__metadata__": {}, "__metadata__": {}}'), "duplicate_key"),
        "metadata of numbers": (safetensors({"__metadata__": {"a": 1}}), "bad_metadata"),
        "metadata as a list": (safetensors({"__metadata__": ["a"]}), "bad_metadata"),
        "unknown type": (safetensors({"a": told(dtype="OBJECT")}, four), "unknown_dtype"),
        "a type that is a list": (safetensors({"a": told(dtype=["F32"])}, four), "unknown_dtype"),
        "wrong shape": (safetensors({"a": told(shape=(5,))}, four), "bad_shape"),
        "wrong type": (safetensors({"a": told(dtype="F64")}, four), "bad_shape"),
        "half a byte": (safetensors({"a": told(0, 1, (3,), "F4")}, b"1"), "bad_shape"),
        "negative shape": (safetensors({"a": told(shape=(-2, -2))}, four), "bad_shape"),
        "shape of text": (safetensors({"a": told(shape=("4",))}, four), "bad_shape"),
        "shape of fractions": (safetensors({"a": told(shape=(4.0,))}, four), "bad_shape"),
        "shape of booleans": (safetensors({"a": told(0, 4, (True,))}, four[:4]), "bad_shape"),
        "shape that overflows": (safetensors({"a": told(shape=(1 << 61, 1 << 61))}, four), "bad_shape"),
        "shape that wraps to 4": (safetensors({"a": told(shape=((1 << 62) + 4, 1))}, four), "bad_shape"),
        "too many dimensions": (safetensors({"a": told(shape=(1,) * 65 + (4,))}, four), "bad_shape"),
        "overlap": (safetensors({"a": told(), "b": told()}, four), "bad_offsets"),
        "overlap in part": (safetensors({"a": told(), "b": told(8, 24)}, bytes(24)), "bad_offsets"),
        "hole": (safetensors({"a": told(), "b": told(24, 40)}, bytes(40)), "bad_offsets"),
        "hole before": (safetensors({"a": told(8, 24)}, bytes(24)), "bad_offsets"),
        "bytes behind": (safetensors({"a": told()}, bytes(17)), "bad_offsets"),
        "a pickle behind": (safetensors({"a": told()}, four + pickle.dumps(Bomb())), "bad_offsets"),
        "an archive behind": (safetensors({"a": told()}, four + torch_zip()), "bad_offsets"),
        "beyond the end": (safetensors({"a": told()}, bytes(15)), "bad_offsets"),
        "negative offset": (safetensors({"a": told(-16, 0)}, four), "bad_offsets"),
        "end before begin": (safetensors({"a": told(16, 0)}, four), "bad_offsets"),
        "three offsets": (safetensors({"a": {**told(), "data_offsets": [0, 8, 16]}}, four), "bad_offsets"),
        "offsets of 2^63": (safetensors({"a": told(1 << 63, (1 << 63) + 16)}, four), "bad_offsets"),
    }  # fmt: skip
    return {f"safetensors: {n}": ("model.safetensors", c, r) for n, (c, r) in made.items()}


def hundred_megabyte_header(path: Path) -> Path:
    """Sparse: it takes no room."""
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", 100 << 20) + b'{"a": [')
        stream.truncate((100 << 20) + 64)
    return path
