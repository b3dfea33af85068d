"""One tiny network of each family of text encoders, with random weights, saved as transformers saves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tiny_language_models import LINES, pinned

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
SPARE = 128
"""Rows of embeddings that no token has, as in the real ones: there is room for what a tokenizer adds."""
TEXTS = (
    "a good film",
    "the quick brown fox jumps over the lazy dog near a quiet river bank and then some more of it all",
    "Please find the report attached!",
    "x",
    "emoji \U0001f600, עברית, naïve, Ünïcödé",
    "buy one get two free " * 30,
    "we will meet again tomorrow",
)
"""Short and long ones, one over every limit, and what a vocabulary does not know."""


def word_piece() -> Any:
    """[CLS] a text [SEP], and of a pair the second with type 1."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    inner.train_from_iterator(LINES * 4, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return _wrapped(inner, mask_token="[MASK]", **names)


def byte_pairs(special: list[str], frame: bool, **names: str) -> Any:
    """Goes down to bytes, so nothing is unknown."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    inner.train_from_iterator(LINES * 4, trainer)
    if frame:
        inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return _wrapped(inner, **names)


def unigram(special: list[str], around: str, **names: str) -> Any:
    """As SentencePiece does it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=special, unk_token=names["unk_token"], show_progress=False
    )
    inner.train_from_iterator(LINES * 4, trainer)
    frame = [(t, inner.token_to_id(t)) for t in around.split() if t != "$A"]
    inner.post_processor = processors.TemplateProcessing(single=around, special_tokens=frame)
    return _wrapped(inner, **names)


def _wrapped(inner: Any, **names: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=64, **names)


ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>"}
DEBERTA = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def bert() -> tuple[Any, Any]:
    from transformers import BertConfig, BertModel

    tokens = word_piece()
    return BertModel(BertConfig(vocab_size=len(tokens) + SPARE, **SHAPE)), tokens


def roberta() -> tuple[Any, Any]:
    """Its 66 rows of positions are for 64 tokens."""
    from transformers import RobertaConfig, RobertaModel

    tokens = byte_pairs(["<s>", "<pad>", "</s>", "<unk>"], True, **ROBERTA)
    shape = {**SHAPE, "max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1}
    return RobertaModel(RobertaConfig(vocab_size=len(tokens) + SPARE, **shape)), tokens


def distilbert() -> tuple[Any, Any]:
    from transformers import DistilBertConfig, DistilBertModel

    tokens = word_piece()
    config = DistilBertConfig(
        vocab_size=len(tokens) + SPARE, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64
    )
    return DistilBertModel(config), tokens


def deberta_v2() -> tuple[Any, Any]:
    from transformers import DebertaV2Config, DebertaV2Model

    tokens = unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]"], "[CLS] $A [SEP]", **DEBERTA)
    config = DebertaV2Config(
        vocab_size=len(tokens) + SPARE, relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False, type_vocab_size=0, **SHAPE,
    )  # fmt: skip
    return DebertaV2Model(config), tokens


def modernbert() -> tuple[Any, Any]:
    """Local attention over 8 tokens in every layer but the first: a padding token may see no real one."""
    from transformers import ModernBertConfig, ModernBertModel

    names = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
    tokens = byte_pairs(["<s>", "<pad>", "</s>", "<unk>"], True, **names)
    ids = {"pad_token_id": 1, "bos_token_id": 0, "cls_token_id": 0, "eos_token_id": 2, "sep_token_id": 2}
    return ModernBertModel(ModernBertConfig(vocab_size=len(tokens) + SPARE, local_attention=8, **SHAPE, **ids)), tokens


def gpt2() -> tuple[Any, Any]:
    """A decoder, without a padding token."""
    from transformers import GPT2Config, GPT2Model

    tokens = byte_pairs(["<|endoftext|>"], False, eos_token="<|endoftext|>", unk_token="<|endoftext|>")
    config = GPT2Config(
        vocab_size=len(tokens) + SPARE, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    return GPT2Model(config), tokens


def t5() -> tuple[Any, Any]:
    """Encoder and decoder, of which the first is used."""
    from transformers import T5Config, T5ForConditionalGeneration

    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokens = unigram(["<pad>", "</s>", "<unk>"], "$A </s>", **names)
    config = T5Config(vocab_size=len(tokens) + SPARE, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    return T5ForConditionalGeneration(config), tokens


def bart() -> tuple[Any, Any]:
    """Encoder and decoder with a table of positions."""
    from transformers import BartConfig, BartModel

    tokens = byte_pairs(["<s>", "<pad>", "</s>", "<unk>"], True, **ROBERTA)
    sides = {
        f"{side}_{k}": v for side in ("encoder", "decoder") for k, v in
        {"layers": 1, "attention_heads": 2, "ffn_dim": 64}.items()
    }  # fmt: skip
    return BartModel(
        BartConfig(vocab_size=len(tokens) + SPARE, d_model=32, max_position_embeddings=64, **sides)
    ), tokens


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "bert": bert,
    "roberta": roberta,
    "distilbert": distilbert,
    "deberta-v2": deberta_v2,
    "modernbert": modernbert,
    "gpt2": gpt2,
    "t5": t5,
    "bart": bart,
}


def saved(family: str, folder: Path, seed: int = 0) -> Path:
    """Network and tokenizer of a family, in a folder; large weights, so that texts differ in their features."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    model, tokens = FAMILIES[family]()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            scale = 1.0 if parameter.ndim == 1 and bool((parameter == 1).all()) else 0.0  # a norm's
            parameter.copy_(scale + draw(tuple(parameter.shape), seed * 1000 + number))
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def options(folder: Path, **given: Any) -> dict[str, Any]:
    """How params.yaml names such a folder."""
    return {**pinned(folder), **given}


def draw(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Random weights that do not depend on a library's way to begin."""
    import torch

    return torch.from_numpy(np.random.default_rng(seed).normal(0, 0.4, shape).astype(np.float32))
