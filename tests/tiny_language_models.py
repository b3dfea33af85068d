"""Tiny language models with random weights, saved as transformers does: they know nothing, but everything about them
is real. Weights are drawn by numpy, so they do not depend on a library's way to begin."""

from __future__ import annotations

import hashlib
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


def tokenizer(around: str, **special: str) -> Any:
    """WordPiece over the words above and single letters, in small letters; `around` is how a text is framed."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [*SPECIAL, *letters, *(f"##{c}" for c in letters), *".,!?:;'\"()-0123456789", *(w for w in WORDS if w[1:])]
    inner = Tokenizer(models.WordPiece({p: i for i, p in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    frame = [(token, inner.token_to_id(token)) for token in around.split() if token != "$A"]
    inner.post_processor = processors.TemplateProcessing(single=around, special_tokens=frame)
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

    tokens = tokenizer("[CLS] $A [SEP]", pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
                       mask_token="[MASK]")  # fmt: skip
    config = BertConfig(vocab_size=len(tokens), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=64, pad_token_id=0)  # fmt: skip
    return save(folder, BertForMaskedLM(config), tokens, seed)


def translator(folder: Path, seed: int = 0) -> Path:
    """A T5 that puts one line for another."""
    from transformers import T5Config, T5ForConditionalGeneration

    tokens = tokenizer("$A </s>", pad_token="[PAD]", unk_token="[UNK]", eos_token="</s>")
    config = T5Config(vocab_size=len(tokens), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, pad_token_id=0,
                      eos_token_id=5, decoder_start_token_id=0)  # fmt: skip
    return save(folder, T5ForConditionalGeneration(config), tokens, seed)


def pinned(folder: Path) -> dict[str, Any]:
    """How params.yaml names such a folder."""
    return {"weights": {"source": "file", "path": str(folder), "sha256": pin(folder)}}


def pin(folder: Path, *unread: str) -> str:
    """As a user finds the hash of a folder: that of what sha256sum prints for its files, by name."""
    ends = {".json", ".txt", ".model", ".spm", ".safetensors", ".bin"}
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in ends or p.name == "README.md"}
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in sorted(names - {*unread})]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def marian(folder: Path) -> Path:
    """A MarianMT with its own two SentencePiece vocabularies."""
    import json
    import warnings

    import sentencepiece
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder.mkdir(parents=True)
    (folder / "lines.txt").write_text("\n".join(LINES * 3))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines.txt"), model_prefix=str(folder / "own"), vocab_size=80, minloglevel=5
    )
    own = sentencepiece.SentencePieceProcessor(model_file=str(folder / "own.model"))
    pieces = ["</s>", "<unk>", *(own.id_to_piece(i) for i in range(own.get_piece_size())), "<pad>"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    (folder / "own.json").write_text(json.dumps(vocabulary))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        tokens = MarianTokenizer(str(folder / "own.model"), str(folder / "own.model"), str(folder / "own.json"))
    config = MarianConfig(vocab_size=len(vocabulary), d_model=32, encoder_layers=1, decoder_layers=1,
                          encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
                          max_position_embeddings=64, pad_token_id=vocabulary["<pad>"], eos_token_id=0,
                          decoder_start_token_id=vocabulary["<pad>"], forced_eos_token_id=0)  # fmt: skip
    return save(folder / "saved", MarianMTModel(config), tokens)


def byte_level(folder: Path) -> Path:
    """A RoBERTa that fills masks, with a byte-level vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(LINES * 20, trainer)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokens = PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=64, bos_token="<s>", eos_token="</s>",
                                     pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")  # fmt: skip
    config = RobertaConfig(vocab_size=len(tokens), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                           intermediate_size=64, max_position_embeddings=66, pad_token_id=1)  # fmt: skip
    return save(folder, RobertaForMaskedLM(config), tokens)
