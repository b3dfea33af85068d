"""Tiny language models with random weights, saved as transformers does: they know nothing, but everything about them
is real. Weights are drawn by numpy, so they do not depend on a library's way to begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

LINES = (
    "the quick brown fox jumps over the lazy dog near a quiet river bank",
    "a good film with a great story and a bad ending that nobody liked much",
    "dear friend this is a special offer for you only today buy one get two free",
    "please find the report of the meeting attached and send your comments before Friday",
    "we will meet again tomorrow morning at the station. bring the tickets and some water!",
)
WORDS = sorted({w.strip(".!") for line in LINES for w in line.split()})
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "</s>")


def tokenizer(**special: str) -> Any:
    """WordPiece over the words above and single letters, in small letters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [*SPECIAL, *letters, *(f"##{c}" for c in letters), *".,!?:;'\"()-0123456789", *(w for w in WORDS if w[1:])]
    inner = Tokenizer(models.WordPiece({p: i for i, p in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=64, **special)


def save(folder: Path, model: Any, tokens: Any, seed: int = 0) -> Path:
    """The folder, with new random weights."""
    import torch

    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(0, 0.4, tuple(parameter.shape)).astype(np.float32)))
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def masked(folder: Path, seed: int = 0) -> Path:
    """A BERT that fills masks."""
    from transformers import BertConfig, BertForMaskedLM

    tokens = tokenizer(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    config = BertConfig(vocab_size=len(tokens), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=64, pad_token_id=0)  # fmt: skip
    return save(folder, BertForMaskedLM(config), tokens, seed)


def translator(folder: Path, seed: int = 0) -> Path:
    """A T5 that puts one line for another."""
    from transformers import T5Config, T5ForConditionalGeneration

    tokens = tokenizer(pad_token="[PAD]", unk_token="[UNK]", eos_token="</s>")
    config = T5Config(vocab_size=len(tokens), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, pad_token_id=0,
                      eos_token_id=5, decoder_start_token_id=0)  # fmt: skip
    return save(folder, T5ForConditionalGeneration(config), tokens, seed)


def pinned(folder: Path) -> dict[str, Any]:
    """How params.yaml names such a folder."""
    import hashlib

    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return {"weights": {"source": "file", "path": str(folder), "sha256": digest}}
