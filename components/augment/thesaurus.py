"""Words of like meaning: from WordNet's own files, or the nearest in pretrained word vectors.

WordNet's files are read here and not by nltk's reader: that one refuses folders beside nltk's data path, wants files
that other packages of the same data lack (lexnames, *.exc), and is not safe beside threads. nltk finds its data.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from components import word_files
from components.contracts import InputError

POS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
"""Number in a sense's key -> its part of speech; 5 is an adjective beside another."""
FILES = ("data.adj", "data.adv", "data.noun", "data.verb", "index.sense")
_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # of adjectives: before or after the noun only


class ThesaurusError(InputError):
    """WordNet's data are not there, or are something else."""


@dataclass(frozen=True)
class WordNet:
    """Synonyms by the senses of a word."""

    senses: dict[str, tuple[tuple[str, int], ...]]
    """Lemma -> its senses of all parts of speech, the most frequent first: (part of speech, place in `data`)."""
    data: dict[str, bytes]
    sha256: str

    def synonyms(self, word: str, max_senses: int) -> tuple[str, ...]:
        """Other lemmas of the first senses; none for a form that is no lemma (dogs), as the bare lemma would break
        number or tense."""
        found: list[str] = []
        for pos, place in self.senses.get(word, ())[:max_senses]:
            found += [w for w in self._lemmas(pos, place) if w.lower() != word and w.replace(" ", "").isalpha()]
        return tuple(dict.fromkeys(found))

    def _lemmas(self, pos: str, place: int) -> list[str]:
        fields = self.data[pos][place : self.data[pos].find(b"\n", place)].decode().split(" ")
        if fields[0] != f"{place:08d}":
            raise ThesaurusError(f"data.{pos} does not belong to index.sense: take both from one release of WordNet")
        number = int(fields[3], 16)
        return [_MARKER.sub("", w).replace("_", " ") for w in fields[4 : 4 + 2 * number : 2]]


def wordnet(folder: str | None, sha256: str | None) -> WordNet:
    """From a folder with index.sense, data.noun, ..., or from nltk's data path.

    Raises:
        ThesaurusError: it is not there, is something else, or not the pinned one.
    """
    found = _wordnet(None if folder is None else Path.cwd() / folder)
    if sha256 and found.sha256 != sha256:
        raise ThesaurusError(f"WordNet's files have sha256 {found.sha256}, but words.sha256 pins {sha256}")
    return found


@functools.lru_cache(maxsize=2)
def _wordnet(folder: Path | None) -> WordNet:
    files = {name: _file(folder, name) for name in FILES}
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    data = {name.removeprefix("data."): content for name, content in files.items()}
    return WordNet(_senses(data.pop("index.sense")), data, hashlib.sha256(lines.encode()).hexdigest())


def _file(folder: Path | None, name: str) -> bytes:
    try:
        if folder is not None:
            return (folder / name).read_bytes()
        import nltk

        with nltk.data.find(f"corpora/wordnet/{name}").open() as handle:
            return bytes(handle.read())
    except (OSError, LookupError):
        where = f"in the folder {folder.name}" if folder is not None else "in nltk's data path"
        raise ThesaurusError(
            f"WordNet's file {name} is not {where}. Install the data (`python -m nltk.downloader wordnet`), or name a "
            f"folder that holds {', '.join(FILES)} as `words: {{source: wordnet, path: ...}}`, or take word vectors: "
            "`words: {source: file, path: ..., sha256: ...}`."
        ) from None


def _senses(index: bytes) -> dict[str, tuple[tuple[str, int], ...]]:
    """`lemma%pos:... place number count`, one sense a line; count: how often it was met in annotated texts."""
    found: dict[str, list[tuple[int, int, str, int]]] = {}
    try:
        for line in index.decode().splitlines():
            key, place, number, count = line.split()
            lemma, _, rest = key.partition("%")
            found.setdefault(lemma, []).append((-int(count), int(number), POS[rest[0]], int(place)))
    except (ValueError, KeyError, IndexError):
        raise ThesaurusError("index.sense is not that of WordNet") from None
    return {lemma: tuple((pos, place) for _, _, pos, place in sorted(senses)) for lemma, senses in found.items()}


@dataclass(frozen=True)
class Vectors:
    """Neighbours by the cosine of word vectors."""

    words: list[str]
    places: dict[str, int]
    """Of each word in small letters."""
    matrix: np.ndarray
    """float32 [N, D], rows of length 1."""

    def neighbours(self, word: str, number: int, min_similarity: float) -> tuple[str, ...]:
        """The nearest other words, nearest first."""
        if word not in self.places:
            return ()
        similar = self.matrix @ self.matrix[self.places[word]]
        near = np.flatnonzero(similar >= min_similarity)
        order = (self.words[i] for i in near[np.argsort(-similar[near], kind="stable")])
        return tuple(islice((w for w in order if w.lower() != word and w.isalpha()), number))


@functools.lru_cache(maxsize=2)
def vectors(path: Path, max_words: int) -> Vectors:
    """The first words of a file of word vectors, which are the most frequent ones.

    Raises:
        WeightsError: it is something else.
    """
    held = word_files.read(path, max_words)
    matrix = held.vectors / np.maximum(np.linalg.norm(held.vectors, axis=1, keepdims=True), 1e-12)
    places: dict[str, int] = {}
    for place, word in enumerate(held.words):
        places.setdefault(word.lower(), place)
    return Vectors(list(held.words), places, matrix)
