"""Words of a text and the blanks between them, for the policies that change words and leave the rest as it stands.

A word is what stands between blanks; its core is what is left without the punctuation around it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from components.preprocessing.text_classification import Text

# Words that carry the sentence and not its subject: no synonym fits them, and a negation that is replaced turns the
# label round. Few and English; others are left to chance.
KEPT = {
    "a", "about", "above", "after", "again", "against", "all", "also", "am", "an", "and", "any", "are", "as", "at",
    "barely", "be", "because", "been", "before", "being", "below", "between", "both", "but", "by", "can", "cannot",
    "could", "did", "do", "does", "doing", "down", "during", "each", "except", "few", "for", "from", "further", "had",
    "hardly", "has", "have", "having", "he", "her", "here", "hers", "herself", "him", "himself", "his", "how", "i",
    "if", "in", "into", "is", "it", "its", "itself", "just", "me", "more", "most", "my", "myself", "neither", "never",
    "no", "nobody", "none", "nor", "not", "nothing", "now", "nowhere", "of", "off", "on", "once", "only", "or", "other",
    "our", "ours", "ourselves", "out", "over", "own", "same", "she", "should", "so", "some", "such", "than", "that",
    "the", "their", "theirs", "them", "themselves", "then", "there", "these", "they", "this", "those", "through", "to",
    "too", "under", "unless", "until", "up", "us", "very", "was", "we", "were", "what", "when", "where", "which",
    "while", "who", "whom", "why", "will", "with", "without", "would", "you", "your", "yours", "yourself", "yourselves",
}  # fmt: skip
_UNSPACED = {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}  # begin a letter's name


def varied(row: Text, rng: np.random.Generator, change: Callable[[str, np.random.Generator], str]) -> Text:
    """The row with its text changed. Of a pair one is changed, drawn evenly, but never an empty one: two changes would
    be twice the harm where the label says how the two stand to each other."""
    if row.pair is None:
        return replace(row, text=change(row.text, rng), tokens=None)
    second = bool(rng.integers(2))
    if (second and row.pair.strip()) or not row.text.strip():
        return replace(row, pair=change(row.pair, rng), tokens=None)
    return replace(row, text=change(row.text, rng), tokens=None)


def split(text: str) -> tuple[list[str], list[str]]:
    """Words, and the blanks before each and after the last: one more than words. `join` is the inverse."""
    parts = re.split(r"(\s+)", text)
    words, blanks = parts[::2], ["", *parts[1::2], ""]
    if not words[0]:
        words, blanks = words[1:], blanks[1:]
    if words and not words[-1]:
        words, blanks = words[:-1], blanks[:-1]
    return words, blanks if words else [text]


def join(words: list[str], blanks: list[str]) -> str:
    """The text of words and the blanks around them."""
    return blanks[0] + "".join(word + blank for word, blank in zip(words, blanks[1:]))


def parts(word: str) -> tuple[str, str, str]:
    """Punctuation before, the core, punctuation after."""
    start, stop = 0, len(word)  # by hand: a pattern would be quadratic on a million exclamation marks
    while start < stop and not word[start].isalnum():
        start += 1
    while stop > start and not word[stop - 1].isalnum():
        stop -= 1
    return word[:start], word[start:stop], word[stop:]


def replaceable(core: str) -> bool:
    """Three letters or more and nothing else, and not one of the words that are kept; numbers, addresses, symbols and
    abbreviations never change. In a script without blanks a core is a whole clause, which no word can stand for."""
    if len(core) < 3 or not core.isalpha() or core.lower() in KEPT:
        return False
    return unicodedata.name(core[0], "").split(" ")[0].split("-")[0] not in _UNSPACED


def cased(like: str, word: str) -> str:
    """The word, capitalised as another one is."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
