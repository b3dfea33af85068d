"""Pretrained text networks of Hugging Face transformers, and of sentence-transformers.

What: any encoder or decoder of transformers (of an encoder-decoder the encoder) as a feature extractor [N, D] with
its own tokenizer: BERT, RoBERTa, DistilBERT, DeBERTa-v2, ModernBERT, GPT-2, T5 and their kin. Weights from the hub at
a pinned commit, from a local folder, or from an installed package. Only tensors and JSON are read, never code; a file
that does not fit is refused with the names that differ.
When: texts. The packaged all-MiniLM-L6-v2 needs no network.
Not when: the model brings code of its own, or needs a prompt before each text (E5): prompts are not added.
Settings: model, revision, weights, max_tokens, pooling.
Cost: import 2 s; memory and time are the model's own and measured in `select`. MiniLM, 128 tokens: 22.6 million
parameters, 1.43 GMACs; 16 texts take 0.60 CPU s forward and 1.75 with backward, at 256 tokens more than twice that.
Evidence here: eight families give what plain transformers gives, padded or not, to 1e-5 (tests/components/backbones/
test_transformers.py), and so do their ONNX models with free batch and length (tests/components/export/
test_text_export.py). Fused attention is no faster up to 128 tokens (0.59 and 1.78 CPU s) and 14 % faster with backward
at 256 (3.61 against 4.22 s), but T5 cannot be exported with it (tests/golden/measure_encoders.py, 2026-11-21).
Source: Wolf et al., Transformers, EMNLP 2020, section 3; Reimers and Gurevych, Sentence-BERT, EMNLP 2019, section 3;
pooling by the last token: Radford et al., GPT, 2018, section 3.3.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from components import model_folder, params, sentence_modules
from components.model_folder import ModelFolder
from components.weights import FolderWeights, WeightsError

if TYPE_CHECKING:
    from torch import nn

TASKS = ("text_classification",)
SCRATCH_LEARNING_RATE = 3e-4
"""Of the run from random weights. Spam, MiniLM's architecture, 64 tokens, 2 epochs, one trial each, validation log
loss: 0.38 at 3e-3, 0.13 at 1e-3, 0.12 at 3e-4."""
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
MAX_TOKENS = 128
"""Twice the tokens cost twice the time and more; MiniLM itself was trained on 128. `select` says how many texts are
cut (truncated_share)."""


class Params(params.Params):
    """A candidate."""

    model: str | None = None
    """Id of a repository on the hub, needed for its weights: sentence-transformers/all-MiniLM-L6-v2. With other
    weights a name for tables."""
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    """Commit of the hub repository (40 digits; a branch moves); needed for hub weights, and only for them."""
    weights: FolderWeights = FolderWeights()
    """Where the folder comes from: source hub, file or package; `sha256` pins every file of it that is read."""
    max_tokens: int | None = Field(default=None, ge=4, le=100_000)
    """The end of a longer text is cut; special tokens count. By default 128, or the model's own limit if less."""
    pooling: Literal["auto", "mean", "cls", "last", "max"] = "auto"
    """auto: as the folder says (modules.json of sentence-transformers); else the mean, of a decoder the last token.
    Anything else: the transformer alone, pooled so."""

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        source = self.weights.source
        if source == "random":
            raise ValueError("random weights have neither architecture nor tokenizer; give source hub, file or package")
        if self.model is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", self.model):
            raise ValueError(f"model {self.model!r} is not a name like sentence-transformers/all-MiniLM-L6-v2")
        if source == "hub" and not self.model:
            raise ValueError("hub weights need `model`, like sentence-transformers/all-MiniLM-L6-v2")
        if source == "hub" and not self.revision:
            raise ValueError(f"hub weights of {self.model} need `revision`, a commit of huggingface.co/{self.model}")
        if source != "hub" and self.revision:
            raise ValueError(f"`revision` has no effect with {source} weights; take it out")
        return self


def title(options: Params) -> str:
    """A short name for tables and folders."""
    folder = Path(options.weights.path or "").name
    name = options.model.rsplit("/", 1)[-1] if options.model else folder
    return f"{name}-{folder}" if options.model and options.weights.source == "file" else name


def preprocessing(options: Params) -> dict[str, Any]:
    """Tokenizer and configuration, whole, so that nothing else is needed to build the network.

    Raises:
        WeightsError: the folder is not there or cannot be used.
    """
    folder = _open(options)
    found, limit, size = _network(folder, options)
    tokenizer = model_folder.tokenizer(folder)
    if (known := max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1) > size or not known:
        raise WeightsError(
            f"{folder.told}: its tokenizer has {known} tokens and its network {size}: they are not of one model"
        )
    own = model_folder.max_length(folder)
    if options.max_tokens and limit and options.max_tokens > limit:
        raise WeightsError(f"max_tokens {options.max_tokens} is too much: {folder.told} has {limit} positions")
    config = json.loads(found["files"][CONFIG])
    pads = [
        model_folder.special_id(folder, tokenizer, "pad_token"),
        config.get("pad_token_id"),
        model_folder.special_id(folder, tokenizer, "eos_token"),  # GPT-2 has no padding token; the mask hides it
    ]
    return {
        **found,
        "files": {**found["files"], TOKENIZER: tokenizer.to_str()},
        "max_tokens": options.max_tokens or min(n for n in (limit, own, MAX_TOKENS) if n),
        "pad_id": next((int(i) for i in pads if isinstance(i, int) and 0 <= i < size), 0),
        "unknown_id": model_folder.unknown_id(tokenizer),
    }


def build(options: Params, *, pretrained: bool = True, preprocessing: dict[str, Any] | None = None) -> nn.Module:
    """The network without a head: inputs int64 [N, L] each -> features [N, D]; `num_features` is D.

    `pretrained=False` gives the same architecture from random weights (torch's generator decides them); with
    `preprocessing` it needs neither the folder nor the hub. `provenance` says where the weights came from.

    Raises:
        WeightsError: see the message for the file, the names that differ, or the pinned hash.
    """
    from components import text_encoder

    folder = _open(options) if pretrained or preprocessing is None else None
    how = preprocessing if preprocessing or folder is None else _network(folder, options)[0]
    assert how is not None, "there is a folder where no preprocessing was given"
    config = text_encoder.read_config(json.loads(how["files"][CONFIG]))
    provenance: dict[str, Any] = {"source": "random", "licence": "no weights of others"}
    own: list[Path] = []
    dense: list[Path] = []
    if pretrained and folder is not None:
        own = model_folder.weights_files(folder)
        dense = [
            sentence_modules.dense_file(folder, layer["path"]) for layer in how["layers"] if layer["kind"] == "dense"
        ]
        provenance = _provenance(folder, options, [*own, *dense])
        network = text_encoder.pretrained(config, model_folder.state(own, options.weights), own[0].name, title(options))
    else:
        network = text_encoder.blank(config)
    encoder = text_encoder.TextEncoder(
        text_encoder.encoder_of(network, config), tuple(how["inputs"]), tuple(how["pooling"]), how["layers"]
    )
    for layer, file in zip((m for m in encoder.layers if any(True for _ in m.parameters())), dense):
        text_encoder.fill(layer, model_folder.state([file], options.weights), file.name)
    encoder.num_features = text_encoder.num_features(encoder)  # type: ignore[assignment]
    encoder.provenance = provenance  # type: ignore[assignment]
    return encoder.train()


def _open(options: Params) -> ModelFolder:
    return model_folder.open_folder(options.weights, options.model, options.revision)


def _network(folder: ModelFolder, options: Params) -> tuple[dict[str, Any], int | None, int]:
    """What of a preprocessing makes the network; its largest number of tokens; and the size of its vocabulary."""
    import torch

    from components import text_encoder

    raw = model_folder.config(folder)
    config = text_encoder.read_config(raw)
    with torch.device("meta"):  # its shape alone
        network = text_encoder.encoder_of(text_encoder.blank(config), config)
    modules = sentence_modules.read(folder) if options.pooling == "auto" else None
    pooling = (
        (options.pooling,) if options.pooling != "auto" else ("last" if text_encoder.is_decoder(config) else "mean",)
    )
    found = {
        "inputs": ["input_ids", "attention_mask", *["token_type_ids"] * text_encoder.has_token_types(network, config)],
        "pooling": list(modules.pooling if modules else pooling),
        "layers": list(modules.layers) if modules else [],
        "files": {CONFIG: json.dumps(raw, indent=1, sort_keys=True) + "\n"},
    }
    return found, text_encoder.max_positions(network, config), int(getattr(config, "vocab_size", 0) or 0)


def _provenance(folder: ModelFolder, options: Params, files: list[Path]) -> dict[str, Any]:
    """Where the folder came from; the pinned hash holds."""
    digest = model_folder.digest(options.weights, folder, files)
    found: dict[str, Any] = {"source": options.weights.source, "file": files[0].name, "sha256": digest}
    if options.weights.source == "hub":
        found |= {"repository": options.model, "revision": options.revision}
    elif options.weights.source == "package":
        found |= {"package": options.weights.package}
    return {**found, "licence": model_folder.licence(folder)}
