"""Whether the files of a bundle are what they call themselves, by the published schemas. Offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components import onnx_files
from components.contracts import InputError
from components.handoff import bom, provenance
from components.lineage import hash_file
from components.unsafe_file import UnsafeFile

BOM_VERSIONS = ("1.6", "1.7")
TOKENIZERS = (
    "BertTokenizer", "CLIPTokenizer", "GPT2Tokenizer", "HfBertTokenizer", "HfJsonTokenizer", "RobertaTokenizer",
    "SentencepieceTokenizer",
)  # fmt: skip
"""Operators of onnxruntime-extensions that tokenizer.onnx may have."""


def problems(folder: Path) -> list[str]:
    """One line for each thing that is not as its schema says; none if all hold."""
    return [*_bom(folder), *_provenance(folder), *_models(folder)]


def _read(folder: Path, name: str) -> tuple[Any, list[str]]:
    try:
        return json.loads((folder / name).read_text("utf-8")), []
    except OSError as error:
        return None, [f"{name}: {error.strerror}"]
    except (ValueError, RecursionError):
        return None, [f"{name}: not JSON"]


def _bom(folder: Path) -> list[str]:
    told, wrong = _read(folder, bom.FILE)
    if wrong:
        return wrong
    if not isinstance(told, dict):
        return [f"{bom.FILE}: not a JSON object"]
    try:
        found = [f"{bom.FILE}: {line}" for version in BOM_VERSIONS for line in bom_errors(told, version)]
    except (UnicodeError, RecursionError) as error:
        return [f"{bom.FILE}: no schema can be held against it ({type(error).__name__})"]
    model = folder / "model.onnx"
    if not found and (not model.is_file() or hash_file(model) not in _of_model(told)):
        found.append(f"{bom.FILE}: the model that it names is not model.onnx")
    return found


def _of_model(told: dict[str, Any]) -> list[Any]:
    """The hashes that a BOM, valid by its schema, gives for the model; the schemas let lists be left out."""
    parts = [one for one in told.get("components") or () if one.get("bom-ref") == "model"]
    return [h.get("content") for one in parts for h in one.get("hashes") or () if h.get("alg") == "SHA-256"]


def bom_errors(told: dict[str, Any], version: str) -> list[str]:
    """What the strict schema of that version says against a BOM."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion[f"V{version.replace('.', '_')}"])
    errors = validator.validate_str(json.dumps({**told, "specVersion": version}), all_errors=True)
    return [f"not CycloneDX {version}: {_in_short(error.data)}" for error in errors or ()]


def _in_short(error: Any) -> str:
    where = "/".join(map(str, getattr(error, "absolute_path", ())))
    return f"{where}: {str(getattr(error, 'message', error)).splitlines()[0][:160]}"


def _provenance(folder: Path) -> list[str]:
    try:
        told = provenance.read(folder)
    except InputError as error:
        return [str(error).replace(f"{folder}/", "")]
    found = []
    for name, digest in sorted(told.subjects.items()):
        path = folder / name
        if not path.is_file() or hash_file(path) != digest:
            found.append(f"{provenance.FILE}: {name}, of which it tells, is another file here")
    return found if "model.onnx" in told.subjects else [*found, f"{provenance.FILE}: it does not tell of model.onnx"]


def _models(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.rglob("*.onnx")):
        name = path.relative_to(folder).as_posix()
        try:
            onnx_files.check(path, TOKENIZERS if name == "tokenizer.onnx" else ())
        except UnsafeFile as error:
            found.append(f"{name}: {str(error).replace(f'{folder}/', '')}")
    if not found and (folder / "model.onnx").is_file():
        found += _signature(folder)
    return found


def _signature(folder: Path) -> list[str]:
    """Inputs and outputs as they are told against those of the model."""
    import onnxruntime

    told, wrong = _read(folder, "signature.json")
    if wrong:
        return wrong
    try:
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    except Exception as error:
        return [f"model.onnx: ONNX Runtime does not load it ({type(error).__name__})"]
    found = []
    for key, nodes in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        try:
            names = [(one["name"], len(one["shape"]), bool(one["dtype"])) for one in told[key]]
        except (LookupError, TypeError):
            found.append(f"signature.json: {key} must be a list of name, shape and dtype")
            continue
        if names != [(node.name, len(node.shape), True) for node in nodes]:
            found.append(f"signature.json: its {key} are not those of model.onnx")
    return found
