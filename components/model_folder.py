"""A folder of Hugging Face transformers or sentence-transformers: what is read of it, and what is refused.

Only JSON, tokenizers and tensors are read. Code that a folder brings is never run: a folder that needs it is
refused. Nothing of what is handed on names a place on this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from components.weights import Weights, WeightsError, hub_file, hub_folder, read_state, weights_folder

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

PATTERNS = ("*.json", "*.txt", "*.model", "README.md")
"""What is fetched of a repository beside its weights: configurations, tokenizers, the licence."""
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

    def read(self, name: str, inner: bool = True) -> Any:
        """The value of a JSON file, None if it is not there.

        Raises:
            WeightsError: it is not JSON.
        """
        path = self.root / (self.inner if inner else "") / name
        try:
            return json.loads(path.read_text("utf-8")) if path.is_file() else None
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(f"{self.told}: {name} cannot be read: {str(error)[:200]}") from None

    @property
    def told(self) -> str:
        """The folder for people, without the places above it."""
        parts = self.root.parts
        return parts[-3].replace("models--", "").replace("--", "/") if "snapshots" in parts[-2:-1] else self.root.name


def open_folder(weights: Weights, repository: str | None, revision: str | None) -> ModelFolder:
    """The folder that `weights` name, or that of a repository at a commit.

    Raises:
        WeightsError: it is not there, holds no model of transformers, or needs code of its own.
    """
    if weights.source == "hub":
        root = hub_folder(str(repository), revision, PATTERNS)
        get = partial(hub_file, str(repository), revision)
    else:
        root = weights_folder(weights)
        get = partial(_local, root)
    outer = ModelFolder(root, "", get)
    modules = outer.read("modules.json")
    first = modules[0] if isinstance(modules, list) and modules else None
    inner = first.get("path", "") if isinstance(first, dict) else ""
    folder = ModelFolder(root, inside(str(inner)), get)
    _refuse_code(folder)
    return folder


def _local(root: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (root / name).is_file():
            return root / name
    raise WeightsError(f"the folder {root.name} holds none of: {', '.join(names)}")


def inside(path: str) -> str:
    """A path that a file of the folder names, which must lie in the folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path:
        raise WeightsError(f"modules.json names {path!r}, which does not lie in its folder")
    return "" if path in ("", ".") else pure.as_posix()


def _refuse_code(folder: ModelFolder) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        found = folder.read(name)
        if isinstance(found, dict) and found.get("auto_map"):
            raise WeightsError(
                f"{folder.told}: {name} asks for code of its own (auto_map), and code that comes with weights is "
                "never run. Take a model whose architecture transformers has itself."
            )


def config(folder: ModelFolder) -> dict[str, Any]:
    """The network's configuration: what decides its shape, and nothing of a machine.

    Raises:
        WeightsError: there is none, or none that can be used.
    """
    found = folder.read("config.json")
    if not isinstance(found, dict):
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
    found: dict[str, Any] = (folder.read(names[0]) if names else None) or {}
    return found


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
    listed = folder.read(first.name) or json.loads(first.read_text("utf-8"))
    names = sorted({inside(str(name)) for name in listed["weight_map"].values()})
    return [folder.get([f"{prefix}{name}"]) for name in names]


def state(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The tensors of all the files."""
    return {name: tensor for file in files for name, tensor in read_state(file).items()}


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
