"""Files of torch.save: judged without torch and without unpickling, so that only tables of tensors go on to torch.

Both layouts are read: the zip archive of torch 1.6 and later, and the five pickles in a row of the versions before.
Their pickles are followed by components/tensor_pickles.py.
Not judged: whether the numbers are good weights.
Source: PyTorch 2.13, torch/serialization.py; PKWARE APPNOTE 6.3.10, 4.3.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from components.tensor_pickles import MAX_PICKLE, SIZES, Machine, Tensor
from components.unsafe_file import UnsafeFile

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MEMBERS = re.compile(
    r"(data\.pkl|version|byteorder|data/\d{1,9}|\.data/serialization_id|\.format_version|\.storage_alignment)"
)
"""What torch.save puts below the one folder of its archive."""
_LOCAL = struct.Struct("<4s2B4HL2L2H")
"""What stands before a member: APPNOTE 4.3.7."""


def check(path: Path) -> None:
    """The file is a table of tensors as torch.save writes it, in one of its two layouts.

    Raises:
        UnsafeFile: it is not.
    """
    with path.open("rb") as stream:
        if stream.read(4) == b"PK\x03\x04":
            _check_archive(path, stream)
        else:
            stream.seek(0)
            _check_legacy(path, stream, path.stat().st_size)


def _check_archive(path: Path, stream: BinaryIO) -> None:
    members = _members(path, stream)
    top = next(iter(members)).split("/", 1)[0]
    sizes: dict[str, int] = {}
    for name, member in members.items():
        folder, _, inner = name.partition("/")
        if inner.startswith("code/") or inner == "constants.pkl" or inner.endswith(".py"):
            raise UnsafeFile(path, "torchscript", name[:80])
        if folder != top or not MEMBERS.fullmatch(inner):
            raise UnsafeFile(path, "archive_member", name[:80])
        sizes[inner] = member.file_size
    if "data.pkl" not in sizes:
        raise UnsafeFile(path, "archive_member", "no data.pkl")
    if sizes["data.pkl"] > MAX_PICKLE or sizes.get("byteorder", 0) > 6:
        raise UnsafeFile(path, "header_too_large", f"{sizes['data.pkl']} bytes of pickle")
    machine, content = Machine(path), io.BytesIO(_content(path, stream, members[f"{top}/data.pkl"]))
    _expect_table(path, machine.run(content))
    if content.read(1):
        raise UnsafeFile(path, "pickle_damaged", "more follows after its end")
    order = members.get(f"{top}/byteorder")
    if order is not None and _content(path, stream, order) != b"little":
        raise UnsafeFile(path, "archive_member", "its numbers are not little-endian")
    for storage in machine.storages.values():
        if sizes.get(f"data/{storage.key}") != storage.numel * SIZES[storage.kind]:
            raise UnsafeFile(path, "bad_storage", f"data/{storage.key} is not {storage.numel} of {storage.kind}")


def _members(path: Path, stream: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    """Every member once, stored as it is, one behind the other from the first byte on to the list at the end."""
    try:
        archive = zipfile.ZipFile(stream)
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError, RuntimeError) as error:
        raise UnsafeFile(path, "archive_lies", str(error)[:120]) from None
    stream.seek(-22, io.SEEK_END)
    if stream.read(4) != b"PK\x05\x06" or archive.comment or not infos or infos[0].header_offset:
        raise UnsafeFile(path, "archive_lies", "something stands before, behind or beside its members")
    members: dict[str, zipfile.ZipInfo] = {}
    end = 0
    for info in infos:
        name = info.filename
        if name in members or info.orig_filename != name:
            raise UnsafeFile(path, "archive_lies", f"{name[:80]} is there twice")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise UnsafeFile(path, "archive_lies", f"{name[:80]} is packed, and torch.save packs nothing")
        if name.startswith(("/", "\\")) or "\\" in name or ".." in name.split("/") or info.is_dir():
            raise UnsafeFile(path, "archive_member", name[:80])
        begin = _local_begin(path, stream, info)
        if info.header_offset < end or begin + info.file_size > archive.start_dir:
            raise UnsafeFile(path, "archive_lies", f"{name[:80]} overlaps another member")
        end = begin + info.file_size
        members[name] = info
    if len({name.casefold() for name in members}) != len(infos):
        raise UnsafeFile(path, "archive_lies", "two members differ only in capital letters")
    return members


def _local_begin(path: Path, stream: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin; what stands before them says the same as the list at the end."""
    stream.seek(info.header_offset)
    head = stream.read(_LOCAL.size)
    if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
        raise UnsafeFile(path, "archive_lies", f"{info.filename[:80]} is not where the archive says")
    fields = _LOCAL.unpack(head)
    name = stream.read(fields[10])
    if name != info.filename.encode() or fields[4] != zipfile.ZIP_STORED:
        raise UnsafeFile(path, "archive_lies", f"{info.filename[:80]} has another name or packing inside")
    return info.header_offset + _LOCAL.size + fields[10] + fields[11]


def _content(path: Path, stream: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    stream.seek(_local_begin(path, stream, info))
    return stream.read(info.file_size)


def _check_legacy(path: Path, stream: BinaryIO, size: int) -> None:
    head = stream.read(MAX_PICKLE)
    bounded = io.BytesIO(head)
    machine = Machine(path)
    if machine.run(bounded) != MAGIC:
        raise UnsafeFile(path, "pickle")
    if machine.run(bounded) != PROTOCOL:
        raise UnsafeFile(path, "pickle_damaged", "another version of torch.save's format")
    system = machine.run(bounded)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UnsafeFile(path, "pickle_damaged", "its numbers are not little-endian")
    _expect_table(path, machine.run(bounded))
    keys = machine.run(bounded)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(machine.storages):
        raise UnsafeFile(path, "bad_storage", "its list of storages is not that of its tensors")
    place = bounded.tell()
    for key in keys:
        storage = machine.storages[key]
        stream.seek(place)
        number = int.from_bytes(stream.read(8), "little")
        if number != storage.numel:
            raise UnsafeFile(path, "bad_storage", f"storage {key} has {number} numbers and should have {storage.numel}")
        place += 8 + number * SIZES[storage.kind]
    if place != size:
        raise UnsafeFile(path, "bad_storage", f"its tensors end at byte {place}, and the file has {size}")


def _expect_table(path: Path, found: Any) -> None:
    if not isinstance(found, dict | list | tuple | Tensor):
        raise UnsafeFile(path, "pickle_damaged", "it holds no tensors")
