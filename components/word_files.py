"""Files of word vectors, read row by row: Word2Vec (text and binary), GloVe text, FastText (.vec and .bin).

What is in a file is measured and told, never guessed over:

- The format is found by content. Pickles, numpy arrays and archives are refused unopened; .gz is read through.
- Files are sorted by frequency, so the first `max_words` rows are the most frequent words; no further row is read.
- A row with too few or too many numbers, one that is not a finite number, and a header that does not fit are errors.
- Rows whose word is empty, not UTF-8, or there before (the first one counts) are set aside and counted; more than
  MAX_SET_ASIDE of all rows are an error.
- At most MAX_BYTES of vectors are held. Of a FastText binary only the rows that are asked for are read from disk.

Text and Word2Vec's binary form are read here and not by gensim 4.4.0, which takes a row of one number for a whole
vector, lets NaN through, stops at GloVe's ". . .", and needs 9 s of processor time for 100,000 x 100 instead of 3
(tests/golden/measure_word_vectors.py); FastText's hashing of subwords is gensim's.
"""

from __future__ import annotations

import gzip
import mmap
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from components.unsafe_file import UnsafeFile, foreign
from components.weights import WeightsError

FORMATS = ("word2vec_binary", "word2vec_text", "glove", "fasttext_text", "fasttext_binary")
MAX_BYTES = 1_500_000_000
"""An ONNX file cannot hold more than 2 GB, and little more fits beside the rest in 4 GB of memory."""
MAX_DIMENSION = 10_000
MAX_LINE = 1 << 20
MAX_WORD = 1000
"""Bytes."""
MAX_SET_ASIDE = 0.01
_FASTTEXT = struct.Struct("<2i12id3iqq")
_MAGIC = struct.pack("<i", 793712314)


@dataclass(frozen=True)
class WordVectors:
    """What a file holds, most frequent word first."""

    words: tuple[str, ...]
    """Each once."""
    vectors: np.ndarray
    """float32 [N, D], finite, read-only."""
    format: str
    set_aside: dict[str, int]
    """Reason -> number of rows."""


def read(path: Path, max_words: int, expected: str = "auto", more_words: Sequence[str] = ()) -> WordVectors:
    """The first `max_words` words of a file; `expected` is auto or one of FORMATS.

    `more_words` get the vectors of their subwords, which only a FastText binary can give.

    Raises:
        WeightsError: it cannot be read, is something else, or is damaged; the message names the row.
        UnsafeFile: it is a pickle, an archive or another kind of file, which is never opened as what it is.
    """
    try:
        found = _format(path)
        text = ("word2vec_text", "fasttext_text")  # the same thing: a header and rows of text
        found = expected if found in text and expected in text else found
        if expected not in ("auto", found):
            raise _bad(path, f"it is {found}, but `format` says {expected}")
        if more_words and found != "fasttext_binary":
            raise _bad(path, f"`more_words` needs subwords, and only fasttext_binary has them; this is {found}")
        if found == "fasttext_binary":
            return _fasttext_binary(path, max_words, more_words)
        with _opened(path) as stream:
            return (_binary if found == "word2vec_binary" else _text)(path, stream, max_words, found)
    except (OSError, EOFError, zlib.error) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _bad(path, f"it cannot be read: {told}") from None


def _bad(path: Path, why: str) -> WeightsError:
    return WeightsError(f"weights.path: {path.name} cannot be used as word vectors: {why}")


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]


def _format(path: Path) -> str:
    with _opened(path) as stream:
        first = stream.readline(MAX_LINE)
        after = stream.read(MAX_LINE)
    if not first:
        raise _bad(path, "it is empty")
    if (reason := foreign(first + after)) and reason != "executable":  # "MZ" may be a word
        raise UnsafeFile(path, reason, key="weights.path", todo="Word2Vec, GloVe and FastText files can be read")
    if first.startswith(_MAGIC):
        return "fasttext_binary"
    if len(first) < 100 and len(fields := first.split()) == 2 and all(f.isdigit() for f in fields):
        row = after.split(b"\n", 1)[0].rstrip().split(b" ")
        odd = any(c < 32 and c not in b"\t\r\n" for c in after[:400])
        is_text = not odd or (len(row) == int(fields[1]) + 1 and all(map(_is_number, row[1:])))
        return "word2vec_text" if is_text else "word2vec_binary"
    values = first.rstrip().split(b" ")
    if len(values) >= 3 and all(map(_is_number, values[-2:])):
        return "glove"
    raise _bad(path, "its first line is neither `<words> <dimension>` nor a word and its numbers, by single blanks")


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Rows:
    """Collects rows and keeps the rules about them."""

    def __init__(self, path: Path, dimension: int, found: str, promised: int = 0) -> None:
        if not 1 <= dimension <= MAX_DIMENSION:
            raise _bad(path, f"{dimension} numbers a word, where 1 to {MAX_DIMENSION} are possible")
        self.path, self.dimension, self.found = path, dimension, found
        self.words: dict[str, None] = {}
        self.vectors: list[np.ndarray] = []
        self.aside: Counter[str] = Counter()
        self.most = MAX_BYTES // (4 * dimension)
        if promised > self.most:
            raise self._too_large()

    def add(self, word: bytes, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise _bad(self.path, f"row {self.row} ({_shown(word)}) holds a value that is not a finite number")
        try:
            name = word.decode()
        except UnicodeDecodeError:
            self.aside["not_utf8"] += 1
            return
        if not name or name in self.words:
            self.aside["duplicate" if name else "empty"] += 1
            return
        if len(self.words) == self.most:
            raise self._too_large()
        self.words[name] = None
        self.vectors.append(values)

    @property
    def row(self) -> int:
        """Number, from 1, of the row that comes next."""
        return len(self.words) + self.aside.total() + 1

    def done(self) -> WordVectors:
        if not self.words:
            raise _bad(self.path, "it holds no word")
        if self.aside.total() > MAX_SET_ASIDE * (self.row - 1):
            told = ", ".join(f"{number} {reason}" for reason, number in sorted(self.aside.items()))
            told = f"{told} of its first {self.row - 1} rows, over {MAX_SET_ASIDE:.0%}"
            raise _bad(self.path, f"{told}: it is damaged, or not {self.found}")
        vectors = np.stack(self.vectors).astype(np.float32, copy=False)
        vectors.flags.writeable = False
        return WordVectors(tuple(self.words), vectors, self.found, dict(sorted(self.aside.items())))

    def _too_large(self) -> WeightsError:
        told = f"{self.dimension} numbers a word are over {MAX_BYTES / 1e9:.1f} GB with that many words"
        return _bad(self.path, f"{told}; set `max_words` to {self.most} or less")


def _shown(word: bytes) -> str:
    return repr(word[:40].decode(errors="replace"))


def _header(path: Path, stream: BinaryIO) -> tuple[int, int]:
    words, dimension = (int(f) for f in stream.readline(MAX_LINE).split())
    if not words:
        raise _bad(path, "its header promises no word")
    return words, dimension


def _text(path: Path, stream: BinaryIO, max_words: int, found: str) -> WordVectors:
    promised, dimension, line = 0, 0, b""
    if found == "glove":
        line = stream.readline(MAX_LINE)
        dimension = len(line.rstrip().split(b" ")) - 1
    else:
        promised, dimension = _header(path, stream)
    rows = _Rows(path, dimension, found, min(promised, max_words))
    while len(rows.words) < max_words:
        line = line or stream.readline(MAX_LINE)
        if not line.strip():
            break
        if promised and rows.row > promised:
            raise _bad(path, f"its header promises {promised} words, and more follow")
        if len(line) == MAX_LINE:
            raise _bad(path, f"row {rows.row} is longer than {MAX_LINE} bytes")
        rows.add(*_parsed(path, line, rows))
        line = b""
    else:
        return rows.done()
    if stream.read(MAX_LINE).strip():
        raise _bad(path, f"row {rows.row} is empty, and more follow")
    if rows.row <= promised:
        raise _bad(path, f"its header promises {promised} words, and it ends after {rows.row - 1}")
    return rows.done()


def _parsed(path: Path, line: bytes, rows: _Rows) -> tuple[bytes, np.ndarray]:
    """A word may hold blanks (GloVe 840B has ". . ."), but no number after one."""
    fields = line.rstrip(b"\r\n ").split(b" ")
    word, values = fields[: -rows.dimension], fields[-rows.dimension :]
    if not word or any(map(_is_number, word[1:])):
        told = f"row {rows.row} ({_shown(fields[0])}) has {len(fields) - 1}, not {rows.dimension} numbers"
        raise _bad(path, told)
    try:
        with np.errstate(over="ignore"):
            return b" ".join(word), np.fromiter(map(float, values), np.float32, len(values))
    except ValueError:
        wrong = next(v for v in values if not _is_number(v))
        raise _bad(path, f"row {rows.row} ({_shown(word[0])}): {_shown(wrong)} is not a number") from None


def _binary(path: Path, stream: BinaryIO, max_words: int, found: str) -> WordVectors:
    promised, dimension = _header(path, stream)
    rows = _Rows(path, dimension, found, min(promised, max_words))
    damaged = f"its header (`{promised} {dimension}`) is wrong, or it is damaged"
    while len(rows.words) < max_words and rows.row <= promised:
        word = bytearray()
        while (char := stream.read(1)) != b" ":
            if not char or len(word) > MAX_WORD:
                why = "it ends in" if not char else f"no word ends within {MAX_WORD} bytes in"
                raise _bad(path, f"{why} row {rows.row}; {damaged}")
            word += char
        values = stream.read(4 * dimension)
        if len(values) < 4 * dimension:
            raise _bad(path, f"it ends in row {rows.row}; {damaged}")
        rows.add(bytes(word).lstrip(b"\n"), np.frombuffer(values, "<f4"))
    if rows.row > promised and stream.read(64).strip():
        raise _bad(path, f"more follows after its {promised} words; {damaged}")
    return rows.done()


def _fasttext_binary(path: Path, max_words: int, more_words: Sequence[str]) -> WordVectors:
    """A word's vector is the mean of its own row and those of its subwords; a further word has only subwords."""
    from gensim.models.fasttext import ft_ngram_hashes

    with path.open("rb") as stream:
        head = stream.read(_FASTTEXT.size)
        if not head.startswith(_MAGIC):
            raise _bad(path, "a FastText binary cannot be read packed; gunzip it")
        if len(head) < _FASTTEXT.size:
            raise _bad(path, "it ends within its header")
        numbers = _FASTTEXT.unpack(head)
        dimension, kind, bucket, shortest, longest = (numbers[i] for i in (2, 9, 10, 11, 12))
        num_entries, num_words, num_labels, _, num_pruned = numbers[15:]
        if num_pruned > 0:
            raise _bad(path, "its subwords are pruned, as in a quantised model; use the .bin that it was made from")
        if kind == 3 or num_labels:
            raise _bad(path, "it is a FastText classifier; vectors of skip-gram or CBOW models can be used")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            names, at = _entries(path, content, num_entries, max_words)
            size = len(content)
            quantised, num_rows, width = struct.unpack_from("<?qq", content[at : at + 17].ljust(17, b"\0"))
    if quantised:
        raise _bad(path, "it is quantised (.ftz); use the .bin that it was made from")
    fits = width == dimension and num_rows == num_words + bucket and size >= at + 17 + 4 * num_rows * width
    if not fits or bucket < 0 or not 0 <= longest <= MAX_WORD:
        told = f"{num_rows} x {width} numbers for {num_words} words, {bucket} subwords and dimension {dimension}"
        raise _bad(path, f"it is damaged or cut short: {told}, in {size} bytes")
    rows = _Rows(path, dimension, "fasttext_binary", len(names))
    table = np.memmap(path, "<f4", "r", at + 17, (num_rows, width))

    def subwords(text: str) -> list[int]:
        return [num_words + h for h in ft_ngram_hashes(text, shortest, longest, bucket)] if bucket else []

    for number, name in enumerate(names):
        rows.add(name, table[[number, *subwords(name.decode(errors="replace"))]].mean(axis=0))
    for text in more_words:
        if text not in rows.words and (parts := subwords(text)):
            rows.add(text.encode(), table[parts].mean(axis=0))
    return rows.done()


def _entries(path: Path, content: mmap.mmap, number: int, max_words: int) -> tuple[list[bytes], int]:
    """The first words, and where the dictionary ends. Each is its bytes, NUL, its count (8 bytes), its kind (1)."""
    names, at = [], _FASTTEXT.size
    for row in range(number):
        end = content.find(b"\0", at, at + MAX_WORD)
        if end < 0 or end + 10 > len(content):
            raise _bad(path, f"its dictionary is damaged or cut short in row {row + 1}")
        if row < max_words:
            names.append(content[at:end])
        at = end + 10
    return names, at
