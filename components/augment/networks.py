"""Language models that vary texts: named in params, pinned, and read from safetensors without any code of theirs."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from components import model_files, params
from components.weights import (
    READ,
    FolderWeights,
    WeightsError,
    checked_hashes,
    files_read,
    hub_folder,
    misfit,
    weights_folder,
)

if TYPE_CHECKING:
    import torch

_SHIFTED = ("roberta", "xlm-roberta", "camembert")  # their positions begin behind the padding's
Kind = Literal["AutoModelForMaskedLM", "AutoModelForSeq2SeqLM"]


class Network(params.Params):
    """A network of the transformers library with its tokenizer."""

    model: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$")
    """Repository on huggingface.co, with hub weights."""
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    """Its commit (40 digits; a branch moves), with hub weights."""
    weights: FolderWeights = FolderWeights()
    """The hub, or the folder that holds config, tokenizer and model.safetensors; `sha256` pins all of them."""

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        hub = self.weights.source == "hub"
        if self.weights.source == "random":
            raise ValueError("random weights have learned nothing that a text could be varied by; name a network")
        if hub and not (self.model and self.revision):
            raise ValueError("hub weights need `model` (the repository) and `revision` (its commit, 40 digits)")
        if not hub and (self.model or self.revision):
            raise ValueError(f"`model` and `revision` have no effect with {self.weights.source} weights; take them out")
        return self


@dataclass(frozen=True)
class Loaded:
    """A network in eval mode on its device."""

    tokenizer: Any
    model: Any
    device: torch.device
    sha256: str
    """Of every file that was read."""
    max_tokens: int
    """The longest input that it takes."""


def load(network: Network, kind: Kind, device: str) -> Loaded:
    """The network. Called before threads start: making one draws from torch's own generator.

    Raises:
        WeightsError: it is not there, not the pinned one, no network of this kind, or has no safetensors.
        UnsafeFile: it asks for code of its own, or a file of it is not what it seems.
    """
    if network.weights.source == "hub":
        folder = hub_folder(str(network.model), network.revision, (*READ, "*.safetensors"))
    else:
        folder = weights_folder(network.weights)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(
            f"{network.model or folder.name} holds no .safetensors file. Pickled weights can run code and are not "
            "read: save it with save_pretrained, or pin the commit that converts it, where the hub has one."
        )
    read = files_read(folder, files)
    model_files.check_beside(folder, read)
    digest = checked_hashes(network.weights, read, folder)
    for file in files:
        model_files.check(file, model_files.TENSORS)
    return _load(folder, network.model or folder.name, kind, device, digest)


@functools.lru_cache(maxsize=2)  # every run and phase of training builds its policy anew
def _load(folder: Path, title: str, kind: Kind, device: str, sha256: str) -> Loaded:
    import torch
    import transformers

    wanted = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():  # Marian's does without sacremoses: quotation marks are then not made alike
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        model, told = getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # a folder can be wrong in many ways
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{title} cannot be read as {kind}: {first[:300]}") from None
    if told["missing_keys"] or told["mismatched_keys"]:  # else they would be random, without a word
        wrong = [str(k[0] if isinstance(k, tuple) else k) for k in told["mismatched_keys"]]
        raise misfit(title, kind, sorted(told["missing_keys"]), [], wrong)
    longest = min(int(getattr(model.config, "max_position_embeddings", 512)), int(tokenizer.model_max_length))
    longest -= 2 if model.config.model_type in _SHIFTED else 0
    return Loaded(tokenizer, model.to(wanted).eval(), wanted, sha256, longest)


def arithmetic(device: torch.device) -> str:
    """What can change the last bits, and with them a choice between near equals."""
    import torch
    import transformers

    threads, capability = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    return f"{transformers.__version__}/{torch.__version__}/{threads}/{capability}/{device.type}"
