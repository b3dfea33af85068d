"""Near duplicates: texts that are almost the same, in two splits, with different labels, or several times over.

What: TODO
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from components import params
from components.contracts import Finding
from components.validate import texts

if TYPE_CHECKING:
    import pandas as pd

NAME = "near_duplicates"
TASKS = ("text_classification",)
SEED, NUM_HASHES, NEIGHBOURS = 1, 128, 32
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Scripts without blanks between words: each character counts as one."""
_WORD = re.compile(r"\w+")


class Params(params.Params):
    """Options."""

    min_similarity: float = Field(default=0.8, ge=0.5, le=1)
    """Shingles in common over all shingles of the two (Jaccard); of a pair of texts, the smaller of the two."""
    shingle_words: int = Field(default=3, ge=1, le=10)
    """Words in a row that form a shingle."""
    min_words: int = Field(default=5, ge=1)
    """Shorter texts are not compared: "Thank you!" is said twice without being copied."""
    max_leaked: float = Field(default=0.1, ge=0, le=1)
    """Largest share of validation and test with a near twin in train that is a warning; more is an error."""
    max_conflicting: float = Field(default=0.01, ge=0, le=1)
    """Largest share of samples with a near twin of another label that is a warning; more is an error."""


@dataclass(frozen=True)
class Twins:
    """Verified pairs of rows: one[i] < other[i]."""

    one: np.ndarray
    other: np.ndarray
    similarity: np.ndarray


def check(table: pd.DataFrame, params: Params) -> list[Finding]:
    """See above. The table is every row of the manifest; rows set aside (no `split`) are not looked at.

    Raises:
        InputError: the table has no texts.
    """
    used = table[table["split"].notna()].sort_values("id", kind="stable").drop_duplicates("sha256")
    used = used.reset_index(drop=True)  # copies to the letter are told by `duplicates` and `leakage`
    found = twins(texts.pairs(used, NAME), params)
    train, label = (used["split"] == "train").to_numpy(), used["label"].to_numpy()
    leaked = train[found.one] != train[found.other]
    conflict = label[found.one] != label[found.other]
    return [
        *_leaked(used, found, leaked, train, params),
        *_conflicting(used, found, conflict, params),
        *_repeated(used, found, leaked | conflict),
    ]


def _leaked(used: pd.DataFrame, found: Twins, which: np.ndarray, train: np.ndarray, params: Params) -> list[Finding]:
    rows = np.unique(np.concatenate([found.one[which], found.other[which]]))
    rows, held_out = rows[~train[rows]], int((~train).sum())
    if not len(rows):
        return []
    share = len(rows) / held_out
    told = (
        f"{len(rows)} of {held_out} validation and test texts ({share:.1%}) have a near twin in train "
        f"({_examples(used, found, which, 'split', 'in {}')}); what is measured is partly memory. Take the twins out, "
        "or keep them together: an attribute with one value a group of twins, named in validate.split.group"
    )
    return [_finding("error" if share > params.max_leaked else "warning", told, used, rows)]


def _conflicting(used: pd.DataFrame, found: Twins, which: np.ndarray, params: Params) -> list[Finding]:
    rows = np.unique(np.concatenate([found.one[which], found.other[which]]))
    if not len(rows):
        return []
    share = len(rows) / len(used)
    told = (
        f"{len(rows)} of {len(used)} texts ({share:.1%}) have a near twin with another label "
        f"({_examples(used, found, which, 'label', 'is `{}`')}); one of the labels may be wrong: look, and mend it"
    )
    return [_finding("error" if share > params.max_conflicting else "warning", told, used, rows)]


def _repeated(used: pd.DataFrame, found: Twins, told_already: np.ndarray) -> list[Finding]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    known = np.unique(np.concatenate([found.one[told_already], found.other[told_already]]))
    which = ~np.isin(found.one, known) & ~np.isin(found.other, known)
    one, other = found.one[which], found.other[which]
    rows = np.unique(np.concatenate([one, other]))
    if not len(rows):
        return []
    edges = coo_array((np.ones(len(one)), (one, other)), shape=(len(used), len(used)))
    groups = connected_components(edges, directed=False)[1][rows]
    told = (
        f"{len(rows)} texts are {len(np.unique(groups))} texts in near copies ({_examples(used, found, which)}), the "
        f"largest {np.bincount(groups).max()} times; they weigh more than others"
    )
    return [_finding("warning", told, used, rows)]


def _finding(severity: str, told: str, used: pd.DataFrame, rows: np.ndarray) -> Finding:
    return Finding(NAME, severity, told, len(rows), tuple(str(i) for i in used["id"].iloc[rows[:20]]))


def _examples(used: pd.DataFrame, found: Twins, which: np.ndarray, column: str = "", how: str = "") -> str:
    told = []
    for pair in np.flatnonzero(which)[:3]:
        rows = used.iloc[[found.one[pair], found.other[pair]]]
        names = [f"{row['id']} {how.format(row[column])}" if column else str(row["id"]) for _, row in rows.iterrows()]
        told.append(f"{' ~ '.join(names)}, {found.similarity[pair]:.2f} alike")
    return "; ".join(told) + ("; ..." if which.sum() > 3 else "")


def twins(given: list[tuple[str, str | None]], params: Params) -> Twins:
    """Pairs of texts that are alike enough, sorted; every one verified by its shingles."""
    words = [[_words(part) for part in pair if part is not None] for pair in given]
    rows = np.array([i for i, parts in enumerate(words) if sum(map(len, parts)) >= params.min_words], dtype=np.int64)
    sides = [[shingles(words[i][side], params.shingle_words) for i in rows] for side in range(len(words[0]))] if len(rows) else []
    if not sides:
        return Twins(rows, rows, np.zeros(0))
    whole = sides[0] if len(sides) == 1 else [np.concatenate([a, ~b]) for a, b in zip(*sides)]
    one, other = candidates(signatures(whole), params.min_similarity)
    similarity = np.min([jaccard(side, one, other) for side in sides], axis=0)
    kept = similarity >= params.min_similarity
    return Twins(rows[one[kept]], rows[other[kept]], similarity[kept])


def _words(text: str) -> list[str]:
    text = text.casefold()
    return _WORD.findall(text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text))


def shingles(words: list[str], size: int) -> np.ndarray:
    """uint64: the distinct runs of `size` words, hashed (a shorter text is one run)."""
    key = np.array([_hash(w) for w in words] + [0] * max(0, size - len(words)), dtype=np.uint64)
    if not words:
        return key[:0]
    runs = np.zeros(len(key) - size + 1, dtype=np.uint64)
    for place in range(size):
        runs = (runs ^ (runs >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + key[place : place + len(runs)]
    runs ^= runs >> np.uint64(32)
    return np.unique(runs * np.uint64(0xBF58476D1CE4E5B9))
