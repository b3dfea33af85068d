"""What the network sees of a text: one implementation for training, evaluation and deployment.

What: a text, or a pair of texts -> token ids -> the network's inputs. Needs only numpy and tokenizers and imports
nothing of this project, because this very file is shipped in the bundle, as preprocessing.py beside predict.py.
When: a sample is a text, or a pair of them, and its tokenizer can be written as one tokenizer.json.
Not when: what stands after `max_tokens` tokens matters.
Settings: those of `Preprocessing`; they come from the chosen backbone and lie in preprocessing.json.
Cost: all of a text is tokenised before it is cut.
Evidence here: predict.py gives the ids, labels and probabilities of the training code on 200 texts
(tests/components/handoff/test_text.py).
Source: the tokenizers library; the rules below are our own.

Rules, for every text:

- `clean` is applied: byte-order marks in front and surrounding blanks go, line ends become one newline. Nothing else is
  changed: case, accents, spaces and punctuation are the tokenizer's business.
- The tokenizer is a tokenizer.json of the tokenizers library, its own truncation and padding set aside.
- At most `max_tokens` tokens, special ones counted; the end is cut, of a pair the end of the longer one.
- A text of which no token is left is one unknown token, so that no row is empty.
- A model that was trained on pairs takes pairs alone, and one that was not takes none.
- A batch is padded on the right to its longest row, and the attention mask says which tokens are real.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

REQUIRES = ("tokenizers",)
"""Packages that this file needs beside numpy."""
NOUN = "text"
"""What one sample is called."""
AHEAD = 1024
"""Samples that predict.py reads before it runs the network, so that like lengths go through together."""
TOKENIZER = "tokenizer.json"
"""Name, among the `files` of a preprocessing, of the tokenizer's own JSON."""
FILES = (TOKENIZER,)
"""Files that the settings rest on."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Names that a network's inputs may have."""
SECOND = "text_pair"
"""Among what a model `reads` of a sample: the second text of a pair. An empty list: unknown, nothing is refused."""
MAX_CHARS = 1_000_000
"""Longer texts are refused: a tokenizer reads all of a text before it is cut."""
MAX_BYTES = 25 * MAX_CHARS
"""Larger files are refused unread: a pair in JSON has fewer, even where each character is escaped."""
BYTE_ORDER_MARK = "\ufeff"


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
    """See the rules above. What is clean stays as it is."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    start = next((i for i, char in enumerate(text) if char != BYTE_ORDER_MARK and not char.isspace()), len(text))
    return text[start:].rstrip()


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
        kept = self._kept(texts)
        unknown = [int((k.ids == self.unknown_id).sum()) if self.unknown_id is not None else 0 for k in kept]
        rows = [(max(1, len(w.ids)), len(k.ids), u) for w, k, u in zip(whole, kept, unknown)]
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    def collate(self, texts: Sequence[Text]) -> tuple[np.ndarray, ...]:
        """The network's inputs: int64 [N, L] each, in the order of `inputs`."""
        rows = self._kept(texts)
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

    def _kept(self, texts: Sequence[Text]) -> list[Tokens]:
        """The tokens of each, made where they are not there yet."""
        made = iter(self.prepared([text for text in texts if text.tokens is None]))
        return [_tokens(next(made)) if text.tokens is None else text.tokens for text in texts]

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


def plain(text: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json, without truncation and padding of its own."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@functools.lru_cache(maxsize=8)
def _tokenizer(text: str, max_tokens: int | None) -> Tokenizer:
    """The tokenizer with our own truncation and padding; one that cuts is another object than one that does not."""
    tokenizer = plain(text)
    if max_tokens is not None:
        tokenizer.enable_truncation(max_length=max_tokens)
    return tokenizer


Sample = bytes | str | tuple[str, str]


class Reader:
    """From a sample to the network's inputs, by the settings in a bundle's folder."""

    def __init__(self, folder: Path) -> None:
        spec = json.loads((folder / "preprocessing.json").read_text("utf-8"))
        content = (folder / TOKENIZER).read_bytes()
        if hashlib.sha256(content).hexdigest() != spec["files"][TOKENIZER]:
            raise ValueError(f"{TOKENIZER} is not the one that preprocessing.json names")
        self.how = Preprocessing.read({**spec, "files": {TOKENIZER: content.decode()}})
        self.reads: list[str] = spec.get("reads", [])

    def read(self, sample: Sample) -> Text:
        """A text, a pair of texts, or the bytes of a text file -> its tokens.

        Raises:
            Unreadable: see `checked`; no_pair, a_pair: not what the model was trained on.
        """
        if isinstance(sample, bytes):
            try:
                sample = sample.decode()
            except UnicodeDecodeError as error:
                raise Unreadable("invalid_utf8", f"at byte {error.start}") from None
        text, pair = (sample, None) if isinstance(sample, str) else sample
        if pair is None and SECOND in self.reads:
            raise Unreadable("no_pair", 'this model compares two texts: give --pair, or "pair" in a .json')
        if pair is not None and self.reads and SECOND not in self.reads:
            raise Unreadable("a_pair", "this model reads one text: give it without a second one")
        return self.how.prepared([checked(text, pair)])[0]

    def length(self, row: Text) -> int:
        """How long a row is, in tokens."""
        return len(_tokens(row).ids)

    def inputs(self, rows: Sequence[Text]) -> dict[str, np.ndarray]:
        """The network's inputs by their names."""
        return dict(zip(self.how.inputs, self.how.collate(rows)))

    def summary(self, sample: Sample) -> dict[str, Any]:
        """One sample's inputs [L], for whoever prepares them in another language."""
        return {name: values[0].tolist() for name, values in self.inputs([self.read(sample)]).items()}


def from_file(path: Path) -> Sample:
    """What `Reader.read` takes, from a file: UTF-8, or {"text": ..., "pair": ...} where its name ends in .json."""
    if path.stat().st_size > MAX_BYTES:
        raise Unreadable("too_long", f"{path.stat().st_size} bytes")
    content = path.read_bytes()
    return _picked(content) if path.suffix.lower() == ".json" else content


def as_file(text: str, pair: str | None) -> tuple[bytes, str]:
    """The inverse of `from_file`: content, and the end of its name."""
    if pair is None:
        return text.encode(), ".txt"
    return json.dumps({"text": text, "pair": pair}, ensure_ascii=False, indent=1).encode(), ".json"


def _picked(content: bytes) -> Any:
    """The text, or the two texts, in a JSON object; `checked` sees to it that they are texts."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unreadable("not_json", str(error)) from None
    if not isinstance(fields, dict) or "text" not in fields:
        raise Unreadable("not_json", 'not an object with "text", and "pair" where there is a second one')
    return (fields["text"], fields["pair"]) if fields.get("pair") is not None else fields["text"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What predict.py takes samples from."""
    pair = '{"text": ..., "pair": ...}'
    parser.add_argument("files", nargs="*", metavar="file", help=f"text files; a .json holds {pair}")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="a text; may be given again")
    parser.add_argument("--pair", action="append", default=[], metavar="TEXT", help="its second text, one a --text")
    lines = f"one text a line, in a .jsonl one {pair} a line; - is standard input"
    parser.add_argument("--lines", metavar="FILE", help=lines)


Asked = Iterator[tuple[dict[str, Any], Callable[[], Sample]]]


def asked(given: argparse.Namespace) -> Asked:
    """What the arguments stand for: of each sample where it is from, and how to get it (OSError, Unreadable).

    Raises:
        ValueError: arguments that do not go together.
    """
    if given.pair and len(given.pair) != len(given.text):
        raise ValueError(f"{len(given.text)} --text and {len(given.pair)} --pair: give one --pair for each --text")
    return _asked(given)


def _asked(given: argparse.Namespace) -> Asked:
    for name in given.files:
        yield {"file": name}, functools.partial(from_file, Path(name))
    for number, text in enumerate(given.text):
        if given.pair:
            yield {"text": text, "pair": given.pair[number]}, functools.partial(_same, (text, given.pair[number]))
        else:
            yield {"text": text}, functools.partial(_same, text)
    if given.lines:
        take = _picked if given.lines.lower().endswith(".jsonl") else _same
        try:
            with sys.stdin.buffer if given.lines == "-" else Path(given.lines).open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    yield {"file": given.lines, "line": number}, functools.partial(take, line)
        except OSError as error:  # what was read before it still counts
            yield {"file": given.lines}, functools.partial(_raise, error)


def _same(sample: Sample) -> Sample:
    return sample


def _raise(error: Exception) -> Sample:
    raise error


def shipped(spec: dict[str, Any], reads: Sequence[str] = ()) -> dict[str, Any]:
    """The settings that this file needs, of those that a backbone gave; and what the model was trained on."""
    how = asdict(Preprocessing.read(spec))
    return {"files": {TOKENIZER: how.pop("tokenizer")}, **how, **({"reads": list(reads)} if reads else {})}


def describe(spec: dict[str, Any]) -> dict[str, Any]:
    """For whoever calls the network without this file: its `inputs` by name, and what its `free` dimensions
    beside the batch stand for."""
    how = Preprocessing.read(spec)
    highest = max(_tokenizer(how.tokenizer, how.max_tokens).get_vocab().values())
    cut = f"cut to {how.max_tokens} tokens with the special ones, padded on the right with {how.pad_id}"
    meanings = {
        "input_ids": (f"the tokens of {TOKENIZER}, {cut}", highest),
        "attention_mask": ("1 for a token, 0 for padding", 1),
        "token_type_ids": ("0 for the first text, 1 for the second one of a pair", 1),
    }
    inputs = {
        name: {"meaning": meanings[name][0], "range": [0, meanings[name][1]], "max_length": how.max_tokens}
        for name in how.inputs
    }
    return {"inputs": inputs, "free": {"length": f"tokens of the longest text of the batch, 1 to {how.max_tokens}"}}


def words(spec: dict[str, Any], reads: Sequence[str] = ()) -> dict[str, Any]:
    """What the model card says of samples, of which the model `reads` these parts; `fit` explains figures of
    tasks.text_classification.fit."""
    most, pairs = Preprocessing.read(spec).max_tokens, SECOND in reads
    return {
        "input": f"{'pair of texts' if pairs else 'text'} of any length in UTF-8; the first {most} tokens are seen",
        "usage": [
            f"python predict.py message.{'json' if pairs else 'txt'}",
            f'python predict.py --text "..." {"--pair ... " if pairs else ""}--top 3',
            "python predict.py --help",
        ],
        "limits": [
            "The tokenizer must be the one in this folder: another one gives other ids and other answers.",
            f"What stands after the first {most} tokens of a text is not seen.",
        ],
        "fit": {
            "truncated_share": "share of texts whose end is cut",
            "unknown_share": "share of tokens that its vocabulary does not know",
            "coverage": "share of all tokens that it sees and knows",
            "tokens_p95": "tokens of a text, 95th percentile",
        },
    }
