"""Why a model file is refused: stable reasons, what each means, and what to do; and how foreign files begin."""

from __future__ import annotations

from pathlib import Path

from components.contracts import InputError

AS_SAFETENSORS = "Save the tensors as safetensors (safetensors.torch.save_file) where you trust the file"
_WHOLE = "Get the file again from where it was made; it is damaged, or made to mislead"
_OWN = "Take a model whose architecture the libraries have themselves"
_ONE_FILE = "Write the model as one ONNX file with its weights inside"

REASONS: dict[str, tuple[str, str]] = {
    "not_a_file": ("it is no ordinary file", "Name a file"),
    "leaves_folder": ("it is a link to a place outside its folder", "Put the file itself where the link is"),
    "unknown_format": ("it is none of the kinds that are read: safetensors, ONNX", AS_SAFETENSORS),
    "wrong_kind": ("it is another kind of model than is wanted here", "Name the right file"),
    "pickle": ("it is a bare pickle, which executes code when it is read", AS_SAFETENSORS),
    "pickle_not_pinned": ("it holds a pickle, and its SHA-256 is not pinned", AS_SAFETENSORS),
    "pickle_opcode": ("its pickle does what no table of tensors needs", AS_SAFETENSORS),
    "pickle_global": ("its pickle asks for code that no table of tensors needs", AS_SAFETENSORS),
    "pickle_damaged": ("its pickle does not hold together", _WHOLE),
    "bad_storage": ("a tensor of it lies outside its own data", _WHOLE),
    "archive_member": ("its archive has a member that torch.save does not write", AS_SAFETENSORS),
    "archive_lies": ("its archive does not hold together", _WHOLE),
    "torchscript": ("it is TorchScript: code, not tensors", AS_SAFETENSORS),
    "archive": ("it is an archive", "Unpack it, and name the file in it"),
    "numpy": ("it is a numpy array, which may hold a pickle", AS_SAFETENSORS),
    "hdf5": ("it is HDF5 (Keras), which may hold code", AS_SAFETENSORS),
    "gguf": ("it is GGUF, whose weights are quantised and cannot be trained on", "Take the weights in safetensors"),
    "executable": ("it is a program", _WHOLE),
    "header_too_large": ("its header is longer than any model needs", _WHOLE),
    "header_beyond_file": ("its header is longer than the file", _WHOLE),
    "header_not_json": ("its header is not the JSON that safetensors writes", _WHOLE),
    "duplicate_key": ("its header names something twice", _WHOLE),
    "bad_metadata": ("its metadata is not a table of texts", _WHOLE),
    "unknown_dtype": ("a tensor of it has a type that is not known", _WHOLE),
    "bad_shape": ("the shape of a tensor does not fit its bytes", _WHOLE),
    "bad_offsets": ("a tensor overlaps another one, leaves a hole or lies outside the file", _WHOLE),
    "onnx_damaged": ("it is not a whole ONNX model", _WHOLE),
    "external_data": ("its weights lie in other files, which it names itself", _ONE_FILE),
    "onnx_function": ("it brings functions of its own", _ONE_FILE + ", without local functions"),
    "custom_operator": ("it asks for an operator that is not of ONNX or ONNX Runtime", _OWN),
    "remote_code": ("it asks for code of its own, and code that comes with weights is never run", _OWN),
    "path_outside": ("it names a file outside its folder", _WHOLE),
}
"""Reason -> (what is wrong, what to do)."""

FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "archive"),
    (0, b"PK\x05\x06", "archive"),
    (0, b"\x1f\x8b", "archive"),
    (0, b"BZh", "archive"),
    (0, b"\xfd7zXZ\x00", "archive"),
    (0, b"\x28\xb5\x2f\xfd", "archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "archive"),
    (0, b"Rar!\x1a\x07", "archive"),
    (0, b"\x04\x22\x4d\x18", "archive"),
    (257, b"ustar", "archive"),
    (0, b"\x93NUMPY", "numpy"),
    *((at, b"\x89HDF\r\n\x1a\n", "hdf5") for at in (0, 512, 1024, 2048)),
    (0, b"GGUF", "gguf"),
    (0, b"\x7fELF", "executable"),
    (0, b"MZ", "executable"),
    (0, b"#!", "executable"),
    *((0, b"\x80" + bytes([protocol]), "pickle") for protocol in range(1, 6)),
)
"""Where, what stands there, reason."""
_TEXT_PICKLE = (b"(lp", b"(dp", b"(d", b"(l", b"(i", b"(c", b"c", b"]", b"}", b"(", b"I", b"S'", b"V", b"N.")
HEAD = 2060
"""Bytes that `foreign` looks at."""


class UnsafeFile(InputError):
    """A model file that was not read: `reason` is one of REASONS, `key` the one of params.yaml that names the file."""

    def __init__(self, path: Path, reason: str, detail: str = "", key: str = "weights", todo: str = "") -> None:
        what, usual = REASONS[reason]
        self.path, self.reason, self.detail, self.key, self.todo = path, reason, detail, key, todo
        told = f"{what} ({detail})" if detail else what
        super().__init__(
            f"{key}: {path.name} is refused [{reason}]: {told}. Nothing in it was executed. {todo or usual}."
        )


def foreign(head: bytes) -> str | None:
    """The reason for which a file that begins so is refused; None where it may be a kind that is read."""
    for at, magic, reason in FOREIGN:
        if head[at : at + len(magic)] == magic:
            return reason
    if head.startswith(_TEXT_PICKLE) and _ends_as_pickle(head):
        return "pickle"
    return None


def _ends_as_pickle(head: bytes) -> bool:
    """Whether protocol 0 or 1 is what stands there, as far as the head goes."""
    import pickletools

    number = 0
    try:
        for number, (_, _, _) in enumerate(pickletools.genops(head), 1):  # noqa: B007
            pass
    except ValueError as error:
        return number > 8 and "opcode" not in str(error)  # cut off by the head, not by something unknown
    return True
