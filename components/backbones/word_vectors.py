"""Pretrained word vectors: Word2Vec, GloVe, FastText.

What: a text is the mean (mean_max: mean and maximum) of its words' vectors, or goes through a small convolutional
network over them (cnn). The file's words become a tokenizer.json, so the unknown-token rate is the share of words
outside the vocabulary, and the ONNX bundle carries the vocabulary. Words it lacks count as zero and not in the mean.
When: a first number within seconds, long texts, processors without acceleration, or files that you trained yourself.
Not when: word order or negation decides (mean, mean_max), or the language writes no blanks between words. With cnn not
for linear_probe nor to be ranked in `select`: its filters start random. Subwords of a FastText binary are used for the
words of its vocabulary and for `more_words`; at deployment any other word is unknown, as a tokenizer.json cannot hash.
Phrases (New_York) and numbers written as ### of GoogleNews are never met, because texts are split at punctuation.
Settings: weights (file or package), format, max_words, lowercase, max_tokens, encoder, trainable, more_words.
Cost: 100,000 words of 100 numbers: 3 s of processor time to read (gensim 9 s), 40 MB in memory and in the bundle. The
features of 2,500 mails take 2 s, MiniLM's 139 s.
Evidence here: 2,500 SpamAssassin mails, 128 tokens, five folds with mails that are alike in one, GloVe 100d of 100,000
words (`python tests/golden/measure_word_vectors.py FOLDER`, 2026-11-21). Accuracy of a logistic regression: mean 0.932,
mean_max 0.937, MiniLM 0.938; of cnn trained for 4 epochs, vectors frozen, 0.959. On hard ham 0.74, 0.74, 0.84, 0.74.
Of the tokens 0.119 are unknown. Of the ways to split whole mails BertPreTokenizer leaves fewest characters unknown:
0.115; Penn contractions 0.118, Whitespace 0.174, blanks alone 0.415.
Source: Pennington, GloVe, EMNLP 2014; Mikolov, Word2Vec, 2013; Bojanowski, FastText, TACL 2017, section 3.2; mean and
mean_max: Shen, Baseline needs more love, ACL 2018, section 3.1; cnn: Kim, EMNLP 2014, section 2.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from components import params, word_files
from components.contracts import InputError
from components.weights import Weights, WeightsError, checked_hash, weights_file
from components.word_files import WordVectors

if TYPE_CHECKING:
    from torch import nn

TASKS = ("text_classification",)
SCRATCH_LEARNING_RATE = 3e-3
"""Of the run from random weights (that of a small network; not measured)."""
PAD, UNKNOWN = 0, 1
"""Rows of the table before those of the words; both are zero."""
SPECIAL = ("[PAD]", "[UNK]")
CAPITALS = 0.01
"""Of a vocabulary with fewer words with a capital letter than this share, the texts are lowercased."""
WIDTHS, FILTERS, DROPOUT = (3, 4, 5), 100, 0.5
"""Of the convolutions: Kim 2014, section 3.1."""
UNSTATED = "not stated by owner"
RANGE = 0.25
"""Random vectors are uniform in -RANGE..RANGE: Kim 2014, section 3.1."""


class WordList(params.Params):
    """A file with one word a line, in UTF-8."""

    path: str
    """The file, relative to the project."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Refuse a file with another hash: DVC sees a changed file by it."""


class Params(params.Params):
    """A candidate."""

    weights: Weights
    """Where the file of word vectors comes from: source file or package."""
    format: Literal["auto", "word2vec_binary", "word2vec_text", "glove", "fasttext_text", "fasttext_binary"] = "auto"
    """auto: by content. Anything else: refuse a file that is not of this format."""
    max_words: int = Field(default=100_000, ge=1, le=5_000_000)
    """So many of the most frequent words (files are sorted by frequency); no more of the file is read."""
    lowercase: bool | Literal["auto"] = "auto"
    """auto: texts are lowercased where fewer than 1 in 100 words of the file have a capital letter."""
    max_tokens: int = Field(default=256, ge=2, le=100_000)
    """Words and punctuation marks of a text that are used; the rest is cut."""
    encoder: Literal["mean", "mean_max", "cnn"] = "mean"
    """mean: D features. mean_max: 2 D. cnn: 300, from three widths of filters, trained from random ones."""
    trainable: bool = False
    """Strategies that train the backbone train the vectors too; false: the vectors stay as they are."""
    more_words: WordList | None = None
    """Words to add to the vocabulary by their subwords, such as those of your own texts (fasttext_binary only)."""

    @field_validator("weights")
    @classmethod
    def _from_a_file(cls, weights: Weights) -> Weights:
        if weights.source not in ("file", "package"):
            raise ValueError(f"word vectors come from a file or a package, not from source {weights.source}")
        return weights

    @model_validator(mode="after")
    def _subwords(self) -> Self:
        if self.more_words and self.format not in ("auto", "fasttext_binary"):
            raise ValueError(f"`more_words` has no effect with format {self.format}: only fasttext_binary has subwords")
        return self


def title(options: Params) -> str:
    """A short name for tables and folders."""
    return f"{Path(options.weights.path or '').stem}-{options.encoder}"


def preprocessing(options: Params) -> dict[str, Any]:
    """The file's words as a tokenizer, and the size of the table."""
    found, _ = _read(options)
    return {
        "max_tokens": options.max_tokens,
        "inputs": ["input_ids", "attention_mask"],
        "pad_id": PAD,
        "unknown_id": UNKNOWN,
        "files": {"tokenizer.json": _tokenizer(found.words, options.lowercase)},
        "num_words": len(found.words),
        "dimension": int(found.vectors.shape[1]),
    }


def build(options: Params, *, pretrained: bool = True, preprocessing: dict[str, Any] | None = None) -> nn.Module:
    """The network without its classifier: token ids and mask, int64 [N, L] -> features [N, D]; `num_features` is D.

    `pretrained=False` gives random vectors for the same words, from torch's generator, and lets them train: there
    is nothing in them to keep. With `preprocessing` it needs no file.

    Raises:
        WeightsError: see the message for the file, the row, or the pinned hash.
    """
    import torch

    if not pretrained and preprocessing is not None:
        network = _network(int(preprocessing["num_words"]), int(preprocessing["dimension"]), options.encoder, True)
        network.provenance = {"source": "random", "licence": UNSTATED}  # type: ignore[assignment]
        return network
    found, digest = _read(options)
    rows, dimension = found.vectors.shape
    network = _network(rows, dimension, options.encoder, options.trainable or not pretrained)
    if not pretrained:
        network.provenance = {"source": "random", "licence": UNSTATED}  # type: ignore[assignment]
        return network
    if preprocessing is not None and (rows, dimension) != (preprocessing["num_words"], preprocessing["dimension"]):
        raise WeightsError(
            f"weights.path: {options.weights.path} has {rows} words of {dimension} numbers, and `select` found "
            f"{preprocessing['num_words']} of {preprocessing['dimension']}. Run `select` again."
        )
    with torch.no_grad():
        table: Any = network.vectors
        table[len(SPECIAL) :] = torch.tensor(found.vectors)
    network.provenance = {  # type: ignore[assignment]
        "source": options.weights.source, "package": options.weights.package, "sha256": digest, "licence": UNSTATED,
        "file": weights_file(options.weights).name, "format": found.format, "num_words": rows,
        "num_rows_set_aside": found.set_aside,
    }  # fmt: skip
    return network


def _read(options: Params) -> tuple[WordVectors, str]:
    path = weights_file(options.weights)
    state = path.stat()
    return _kept(
        path, state.st_size, state.st_mtime_ns, options.weights, options.format, options.max_words, options.more_words
    )


@functools.lru_cache(maxsize=2)
def _kept(
    path: Path, size: int, changed: int, weights: Weights, expected: str, max_words: int, more: WordList | None
) -> tuple[WordVectors, str]:
    """A file's vectors and hash, read once for all that asks in this process."""
    del size, changed  # part of the key
    digest = checked_hash(weights, path)
    return word_files.read(path, max_words, expected, _words(more) if more else ()), digest


def _words(more: WordList) -> tuple[str, ...]:
    path = Path.cwd() / more.path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"more_words.path: {more.path} cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != more.sha256:
        raise InputError(f"{path.name} has sha256 {digest}, but more_words.sha256 pins {more.sha256}")
    try:
        words = (line.strip() for line in content.decode().splitlines())
    except UnicodeDecodeError as error:
        raise InputError(f"more_words.path: {more.path} is not UTF-8 at byte {error.start}") from None
    return tuple(dict.fromkeys(word for word in words if word))


def _tokenizer(words: tuple[str, ...], lowercase: bool | Literal["auto"]) -> str:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    if lowercase == "auto":
        lowercase = sum(word != word.lower() for word in words) < CAPITALS * len(words)
    rows = {word: row for row, word in enumerate(words, len(SPECIAL))}
    tokenizer = Tokenizer(models.WordLevel(rows | dict(zip(SPECIAL, (PAD, UNKNOWN))), unk_token=SPECIAL[UNKNOWN]))
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # by measure: see the card
    return str(tokenizer.to_str())


def _network(num_words: int, dimension: int, encoder: str, trains: bool) -> nn.Module:
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    class WordNetwork(nn.Module):
        vectors: Tensor

        def __init__(self) -> None:
            super().__init__()
            table = torch.empty(len(SPECIAL) + num_words, dimension).uniform_(-RANGE, RANGE)
            table[: len(SPECIAL)] = 0
            if trains:
                self.vectors = nn.Parameter(table)
            else:
                self.register_buffer("vectors", table)
            if encoder == "cnn":
                self.filters = nn.ModuleList(nn.Conv1d(dimension, FILTERS, w, padding=w - 1) for w in WIDTHS)
                self.dropout = nn.Dropout(DROPOUT)
            sizes = {"mean": dimension, "mean_max": 2 * dimension, "cnn": FILTERS * len(WIDTHS)}
            self.num_features = sizes[encoder]

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            known = ((input_ids > UNKNOWN) & (attention_mask > 0)).unsqueeze(2)
            words = F.embedding(input_ids, self.vectors) * known
            if encoder == "cnn":
                return self._convolved(words, attention_mask)
            mean = words.sum(1) / known.sum(1).clamp(min=1)
            if encoder == "mean":
                return mean
            largest = words.masked_fill(~known, float("-inf")).amax(1)
            return torch.cat([mean, largest.where(known.any(1), 0.0)], 1)

        def _convolved(self, words: Tensor, attention_mask: Tensor) -> Tensor:
            """The largest answer of each filter at any place that touches the text."""
            length, found = attention_mask.sum(1, keepdim=True), []
            for layer, width in zip(self.filters, WIDTHS):
                answers = F.relu(layer(words.transpose(1, 2)))
                touches = torch.arange(answers.shape[2], device=words.device) < length + width - 1
                found.append((answers * touches.unsqueeze(1)).amax(2))  # none is below 0
            return self.dropout(torch.cat(found, 1))

        def extra_repr(self) -> str:
            """Part of the key of cached features: two encoders may have the same weights."""
            return f"{encoder}, {num_words} words of {dimension}"

    return WordNetwork()
