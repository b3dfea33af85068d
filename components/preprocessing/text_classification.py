"""What the network sees of a text: one implementation for training, evaluation and deployment.

Needs only numpy and tokenizers and imports nothing of this project, because this very file is shipped in the
bundle. Rules, for every text:

- `clean` is applied: a byte-order mark and surrounding blanks go, line ends become one newline. Nothing else is
  changed: case, accents, spaces and punctuation are the tokenizer's business.
- The tokenizer is a tokenizer.json of the tokenizers library, its own truncation and padding set aside.
- At most `max_tokens` tokens, special ones counted; the end is cut, of a pair the end of the longer one.
- A text of which no token is left is one unknown token, so that no row is empty.
- A batch is padded on the right to its longest row, and the attention mask says which tokens are real.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
"""Name, among the `files` of a preprocessing, of the tokenizer's own JSON."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Names that a network's inputs may have."""
MAX_CHARS = 1_000_000
"""Longer texts are refused: a tokenizer reads all of a text before it is cut."""


class Unreadable(Exception):
    """Not a text that can be used: `reason` is a stable word, `detail` is for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Tokens:
    """One text as the network's vocabulary has it."""

    ids: np.ndarray
    """int32 [L]."""
    types: np.ndarray
    """uint8 [L]: 0 for the first text of a pair, 1 for the second."""


@dataclass(frozen=True)
class Text:
    """One sample: a text, the second one where the task has pairs, and its tokens once it was prepared."""

    text: str
    pair: str | None = None
    tokens: Tokens | None = None


def clean(text: str) -> str:
    """See the rules above."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip()


def checked(text: Any, pair: Any = None) -> Text:
    """A sample from what a table or a caller gave, cleaned.

    Raises:
        Unreadable: not_text, empty_text, too_long, nul_byte, invalid_utf8.
    """
    parts = [text] if pair is None else [text, pair]
    for part in parts:
        if not isinstance(part, str):
            raise Unreadable("not_text", type(part).__name__)
        if len(part) > MAX_CHARS:
            raise Unreadable("too_long", f"{len(part)} characters, over {MAX_CHARS}")
        if "\0" in part:
            raise Unreadable("nul_byte", f"at character {part.index(chr(0))}")
        if not part.isascii() and any("\ud800" <= c <= "\udfff" for c in part):
            raise Unreadable("invalid_utf8", "it holds half a character")
    cleaned = [clean(part) for part in parts]
    if not any(cleaned):
        raise Unreadable("empty_text", "blanks only" if any(parts) else "")
    return Text(cleaned[0], cleaned[1] if pair is not None else None)


@dataclass(frozen=True)
class Preprocessing:
    """How a text becomes the network's inputs."""

    tokenizer: str
    """The text of tokenizer.json."""
    max_tokens: int
    inputs: tuple[str, ...] = INPUTS[:2]
    pad_id: int = 0
    unknown_id: int | None = None
    """The tokenizer's token for what it does not know; None where it knows every byte."""

    @classmethod
    def read(cls, spec: dict[str, Any]) -> Preprocessing:
        """From a backbone's preprocessing: these fields, the tokenizer being files["tokenizer.json"]."""
        return _read(
            spec["files"][TOKENIZER], int(spec["max_tokens"]), tuple(spec["inputs"]), int(spec["pad_id"]),
            spec["unknown_id"],
        )  # fmt: skip

    def prepared(self, texts: Sequence[Text]) -> list[Text]:
        """The same samples with their tokens."""
        found = []
        for text, encoding in zip(texts, self._encoded(texts, _tokenizer(self.tokenizer, self.max_tokens))):
            ids, types = encoding.ids, encoding.type_ids
            if not ids:
                ids, types = [self.pad_id if self.unknown_id is None else self.unknown_id], [0]
            found.append(Text(text.text, text.pair, Tokens(np.array(ids, np.int32), np.array(types, np.uint8))))
        return found

    def counts(self, texts: Sequence[Text]) -> np.ndarray:
        """int64 [N, 3]: tokens of each text before it is cut, how many of them are kept, how many of the kept
        are unknown."""
        whole = self._encoded(texts, _tokenizer(self.tokenizer, None))
        kept = [_tokens(t) for t in self.prepared(texts)]
        unknown = [int((k.ids == self.unknown_id).sum()) if self.unknown_id is not None else 0 for k in kept]
        rows = [(max(1, len(w.ids)), len(k.ids), u) for w, k, u in zip(whole, kept, unknown)]
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    def collate(self, texts: Sequence[Text]) -> tuple[np.ndarray, ...]:
        """The network's inputs: int64 [N, L] each, in the order of `inputs`."""
        missing = [i for i, text in enumerate(texts) if text.tokens is None]
        whole = list(texts)
        for i, text in zip(missing, self.prepared([texts[i] for i in missing])):
            whole[i] = text
        rows = [_tokens(text) for text in whole]
        shape = (len(rows), max((len(r.ids) for r in rows), default=1))
        arrays = {
            "input_ids": np.full(shape, self.pad_id, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for i, row in enumerate(rows):
            n = len(row.ids)
            arrays["input_ids"][i, :n] = row.ids
            arrays["attention_mask"][i, :n] = 1
            arrays["token_type_ids"][i, :n] = row.types
        return tuple(arrays[name] for name in self.inputs)

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(_tokenizer(self.tokenizer, self.max_tokens).get_vocab_size())

    @staticmethod
    def _encoded(texts: Sequence[Text], tokenizer: Tokenizer) -> list[Any]:
        given = [clean(t.text) if t.pair is None else (clean(t.text), clean(t.pair)) for t in texts]
        return list(tokenizer.encode_batch(given)) if given else []


def _tokens(text: Text) -> Tokens:
    assert text.tokens is not None, "prepared before"
    return text.tokens


@functools.lru_cache(maxsize=8)
def _read(tokenizer: str, max_tokens: int, inputs: tuple[str, ...], pad_id: int, unknown: Any) -> Preprocessing:
    return Preprocessing(tokenizer, max_tokens, inputs, pad_id, None if unknown is None else int(unknown))


@functools.lru_cache(maxsize=8)
def _tokenizer(text: str, max_tokens: int | None) -> Tokenizer:
    """The tokenizer with our own truncation and padding; one that cuts is another object than one that does not."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if max_tokens is not None:
        tokenizer.enable_truncation(max_length=max_tokens)
    return tokenizer
