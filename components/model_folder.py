"""A folder of Hugging Face transformers or sentence-transformers: what is read of it, and what is refused.

Only JSON, tokenizers and tensors are read. Code that a folder brings is never run: a folder that needs it is
refused. Nothing of what is handed on names a place on this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from components.model_files import check_beside, leaves
from components.weights import (
    READ,
    Weights,
    WeightsError,
    checked_hashes,
    files_read,
    hub_file,
    hub_folder,
    read_state,
    weights_folder,
)

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""The names of weights, the better one first; an index lists the files of weights that are split."""
NO_EFFECT = (
    "transformers_version", "torch_dtype", "dtype", "attn_implementation", "name_or_path", "gradient_checkpointing",
    "output_attentions", "output_hidden_states", "return_dict", "use_cache", "torchscript", "fusion_config",
    "kernel_config", "distributed_config",
)  # fmt: skip
"""Keys of a configuration that describe how it was once run, or a place, and not the network."""
MEANS_NONE = 1_000_000
"""tokenizer_config.json says "no limit" with a very large number."""


@dataclass(frozen=True)
class ModelFolder:
    """An opened folder."""

    root: Path
    inner: str
    """Folder of the transformer inside it: "", or "0_Transformer"."""
    get: Callable[[Sequence[str]], Path]
    """The first of these files (relative to root) that there is; for a hub's folder, fetched now."""

    def read(self, name: str, inner: bool = True) -> dict[str, Any] | None:
        """The object in a JSON file, None if it is not there.

        Raises:
            WeightsError: it is not JSON, or no object.
        """
        found = self._json(Path(self.inner if inner else "") / name)
        if found is not None and not isinstance(found, dict):
            raise WeightsError(f"{self.told}: {name} is not a JSON object with names and values")
        return found

    def modules(self) -> list[dict[str, Any]] | None:
        """What modules.json of sentence-transformers lists, None if it is not there.

        Raises:
            WeightsError: it is not a list of objects.
        """
        found = self._json(Path("modules.json"))
        if found is not None and not (isinstance(found, list) and all(isinstance(m, dict) for m in found)):
            raise WeightsError(f"{self.told}: modules.json is not a list of modules")
        return found

    def _json(self, name: Path) -> Any:
        path = self.root / name
        try:
            found = json.loads(path.read_text("utf-8")) if path.is_file() else None
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(f"{self.told}: {name.as_posix()} cannot be read: {str(error)[:200]}") from None
        if found is None and path.is_file():
            raise WeightsError(f"{self.told}: {name.as_posix()} holds nothing but null")
        return found

    @property
    def told(self) -> str:
        """The folder for people, without the places above it."""
        parts = self.root.parts
        return parts[-3].replace("models--", "").replace("--", "/") if "snapshots" in parts[-2:-1] else self.root.name


def open_folder(weights: Weights, repository: str | None, revision: str | None) -> ModelFolder:
    """The folder that `weights` name, or that of a repository at a commit.

    Raises:
        WeightsError: it is not there, or holds no model of transformers.
        UnsafeFile: it needs code of its own, or a file of it lies elsewhere.
    """
    if weights.source == "hub":
        root = hub_folder(str(repository), revision, READ)
        get = partial(hub_file, str(repository), revision)
    else:
        root = weights_folder(weights)
        get = partial(_local, root)
    modules = ModelFolder(root, "", get).modules()
    folder = ModelFolder(root, inside(str(modules[0].get("path", ""))) if modules else "", get)
    check_beside(root, files_read(root, (), _places(folder)))
    return folder


def _places(folder: ModelFolder) -> set[str]:
    """The folders inside it of which something is read."""
    return {"", folder.inner, *(inside(str(module.get("path", ""))) for module in folder.modules() or [])}


def _local(root: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (root / name).is_file():
            return root / name
    raise WeightsError(f"the folder {root.name} holds none of: {', '.join(names)}")


def inside(path: str, named_by: str = "modules.json") -> str:
    """A path that a file of the folder names, which must lie in the folder."""
    if leaves(path):
        raise WeightsError(f"{named_by} names {path!r}, which does not lie in its folder")
    return "" if path in ("", ".") else PurePosixPath(path).as_posix()


def config(folder: ModelFolder) -> dict[str, Any]:
    """The network's configuration: what decides its shape, and nothing of a machine.

    Raises:
        WeightsError: there is none, or none that can be used.
    """
    found = folder.read("config.json")
    if found is None:
        raise WeightsError(f"{folder.told} has no config.json, so it is no folder that transformers has saved")
    if not isinstance(found.get("model_type"), str):
        raise WeightsError(f"{folder.told}: config.json names no model_type. Save it again with transformers.")
    if found.get("quantization_config"):
        raise WeightsError(
            f"{folder.told}: its weights are quantised, and those cannot be trained on. Take the others."
        )
    cleaned: dict[str, Any] = _clean(found)
    return cleaned


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not str(k).startswith("_") and k not in NO_EFFECT}
        return {k: _clean(v) for k, v in kept.items() if not _is_place(v)}
    return [_clean(v) for v in value] if isinstance(value, list) else value


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"[/\\~]|[A-Za-z]:[/\\]", value) is not None


def max_length(folder: ModelFolder) -> int | None:
    """The most tokens that the folder's makers give it, None where they name no limit."""
    found = [
        _sentence_settings(folder).get("max_seq_length"),
        (folder.read("tokenizer_config.json") or {}).get("model_max_length"),
    ]
    named = [int(n) for n in found if isinstance(n, int | float) and 0 < n < MEANS_NONE]
    return min(named, default=None)


def _sentence_settings(folder: ModelFolder) -> dict[str, Any]:
    """sentence_bert_config.json, whose name had the model's type in it once."""
    names = sorted(p.name for p in (folder.root / folder.inner).glob("sentence_*_config.json"))
    return (folder.read(names[0]) if names else None) or {}


def tokenizer(folder: ModelFolder) -> Tokenizer:
    """The folder's tokenizer, without truncation and padding.

    tokenizer.json is taken as it is; where there is none, transformers makes one of the vocabulary files.

    Raises:
        WeightsError: there is none that the tokenizers library can hold.
    """
    from tokenizers import Tokenizer, normalizers

    try:
        if (folder.root / folder.inner / "tokenizer.json").is_file():
            found = Tokenizer.from_file(str(folder.root / folder.inner / "tokenizer.json"))
        else:
            found = _converted(folder.root / folder.inner)
    except Exception as error:  # of both libraries, each with exceptions of its own
        told = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise WeightsError(f"{folder.told}: no tokenizer.json, nor one that could be made of it: {told}") from None
    found.no_truncation()
    found.no_padding()
    if _sentence_settings(folder).get("do_lower_case"):
        parts = [found.normalizer] if found.normalizer is not None else []
        found.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])
    return found


def _converted(place: Path) -> Tokenizer:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    with quietly():
        found = AutoTokenizer.from_pretrained(str(place), local_files_only=True, trust_remote_code=False)
    names = sorted({name for name in found.vocab_files_names.values() if name != "tokenizer_config.json"})
    if not any((place / name).is_file() for name in names):  # transformers would make one without words
        raise ValueError(f"the folder has none of {', '.join(names)}")
    backend = getattr(found, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"{type(found).__name__} is not one of the tokenizers library")
    copy: Tokenizer = Tokenizer.from_str(backend.to_str())
    return copy


def special_id(folder: ModelFolder, tokenizer: Tokenizer, name: str) -> int | None:
    """The id of a token that the tokenizer's settings name: pad_token, eos_token."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        token = (folder.read(file) or {}).get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and (found := tokenizer.token_to_id(text)) is not None:
            return int(found)
    return None


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """The token for what is not in the vocabulary; None where the tokenizer goes down to bytes."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    found = tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None
    return None if found is None else int(found)


def weights_files(folder: ModelFolder) -> list[Path]:
    """The files of the transformer's weights.

    Raises:
        WeightsError: there are none.
    """
    prefix = f"{folder.inner}/" if folder.inner else ""
    first = folder.get([f"{prefix}{name}" for name in WEIGHTS])
    if not first.name.endswith(".index.json"):
        return [first]
    listed = (folder.read(first.name) or {}).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise WeightsError(f"{folder.told}: {first.name} has no weight_map, which names the file of each tensor")
    names = sorted({inside(str(name), first.name) for name in listed.values()})
    return [folder.get([f"{prefix}{name}"]) for name in names]


def digest(weights: Weights, folder: ModelFolder, files: Iterable[Path]) -> str:
    """The hash of the folder, of which these files are the weights; it is the pinned one.

    Raises:
        WeightsError: it is not.
    """
    read = files_read(folder.root, files, _places(folder))
    check_beside(folder.root, read)
    return checked_hashes(weights, read, folder.root)


def state(files: Sequence[Path], weights: Weights) -> dict[str, torch.Tensor]:
    """The tensors of all the files."""
    return {name: tensor for file in files for name, tensor in read_state(file, weights).items()}


def licence(folder: ModelFolder) -> str:
    """What the owner states at the top of README.md."""
    path = folder.root / "README.md"
    text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    found = re.search(r"^license:\s*['\"]?([^\s'\"#]+)", head, flags=re.MULTILINE)
    return found[1] if found else "not stated by owner"


@contextmanager
def quietly() -> Iterator[None]:
    """transformers draws progress bars and prints what it finds; here that becomes an error or nothing."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
