"""Pairs of texts that are nearly the same: MinHash proposes them, their shingles decide.

A shingle is a run of words; two texts are as alike as the share of shingles that they have in common (Jaccard). MinHash
(Broder 1997) with bands (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4) finds likely pairs without
comparing all; each is then compared by its shingles themselves, so there are no false pairs. All hashes are keyed by
constants: the same texts give the same pairs on every machine.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

SEED, NUM_HASHES = 1, 128
MIN_RECALL = 0.995
"""Chance that a pair just at the limit is proposed; bands are as long as it allows."""
NEIGHBOURS = 8
"""In each band, a text is compared with so many others of its bucket, in an order of the band's own: a bucket of
thousands (one form letter) does not cost its square."""
CHUNK = 20_000
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Scripts without blanks between words: each character counts as one."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Twins:
    """Rows one[i] < other[i] are alike by similarity[i]; sorted."""

    one: np.ndarray
    other: np.ndarray
    similarity: np.ndarray

    def rows(self, which: np.ndarray) -> np.ndarray:
        """The distinct rows of some of the pairs."""
        return np.unique(np.concatenate([self.one[which], self.other[which]]))


def find(texts: list[tuple[str, str | None]], min_similarity: float, size: int, min_words: int) -> Twins:
    """Pairs at least so alike; where samples have two texts, both must be.

    Args:
        size: words a shingle.
        min_words: shorter texts are not compared.
    """
    words = [[words_of(part) for part in both if part is not None] for both in texts]
    rows = np.array([i for i, parts in enumerate(words) if sum(map(len, parts)) >= min_words], dtype=np.int64)
    if not len(rows):
        return Twins(rows, rows, np.zeros(0))
    hashes: dict[str, int] = {}
    sides = [[shingles(words[i][side], size, hashes) for i in rows] for side in range(len(words[rows[0]]))]
    # A pair's two texts together are at least as alike as the less alike of them, so no pair is lost here.
    whole = sides[0] if len(sides) == 1 else [np.concatenate([first, ~second]) for first, second in zip(*sides)]
    one, other = candidates(signatures(whole), min_similarity)
    similarity = np.min([jaccard(side, one, other) for side in sides], axis=0)
    kept = similarity >= min_similarity
    return Twins(rows[one[kept]], rows[other[kept]], similarity[kept])


def words_of(text: str) -> list[str]:
    """Words without case and punctuation."""
    text = text.casefold()
    return _WORD.findall(text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text))


def shingles(words: list[str], size: int, hashes: dict[str, int]) -> np.ndarray:
    """uint64: the distinct runs of `size` words (a shorter text is one run), as 64-bit hashes; `hashes` is kept."""
    if not words:
        return np.zeros(0, np.uint64)
    for word in words:
        if word not in hashes:
            hashes[word] = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())
    keys = np.array([hashes[word] for word in words] + [0] * (size - len(words)), dtype=np.uint64)
    runs = np.zeros(len(keys) - size + 1, dtype=np.uint64)
    for place in range(size):  # mixed at each step, so that the order of words counts
        runs = (runs ^ (runs >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + keys[place : place + len(runs)]
    runs = (runs ^ (runs >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.unique(runs ^ (runs >> np.uint64(31)))


def signatures(sets: list[np.ndarray]) -> np.ndarray:
    """uint32 [N, NUM_HASHES]: the MinHash of each set."""
    from datasketch import MinHash

    given = ((s >> np.uint64(32)).tolist() for s in sets)
    made = MinHash.generator(given, num_perm=NUM_HASHES, seed=SEED, hashfunc=int, scheme="affine32")
    return np.array([m.hashvalues for m in made], dtype=np.uint32).reshape(-1, NUM_HASHES)


def candidates(signed: np.ndarray, min_similarity: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows that share a band and whose signatures agree about enough; (one, other), one < other, sorted."""
    length = band(min_similarity)
    spread = float(np.sqrt(min_similarity * (1 - min_similarity) / NUM_HASHES))
    least = min_similarity - 3 * spread
    found = [np.zeros(0, np.int64)]
    rng = np.random.Generator(np.random.Philox(key=SEED))
    for start in range(0, NUM_HASHES - length + 1, length):
        part = np.ascontiguousarray(signed[:, start : start + length])
        _, bucket = np.unique(part, axis=0, return_inverse=True)
        order = rng.permutation(len(signed))
        order = order[np.argsort(bucket[order], kind="stable")]
        for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            same = np.flatnonzero(bucket[order[:-step]] == bucket[order[step:]])
            if not len(same):
                break
            pair = np.sort([order[same], order[same + step]], axis=0)
            found.append(np.unique(pair[0] * len(signed) + pair[1]))
    pairs = np.unique(np.concatenate(found))
    kept = [pairs[:0]]
    for at in range(0, len(pairs), CHUNK):
        some = pairs[at : at + CHUNK]
        agree = (signed[some // len(signed)] == signed[some % len(signed)]).mean(axis=1)
        kept.append(some[agree >= least])
    pairs = np.concatenate(kept)
    return pairs // max(1, len(signed)), pairs % max(1, len(signed))


def band(min_similarity: float) -> int:
    """Hashes a band: the most with which a pair at the limit shares a band with a chance of MIN_RECALL."""
    for length in range(16, 1, -1):
        if 1 - (1 - min_similarity**length) ** (NUM_HASHES // length) >= MIN_RECALL:
            return length
    return 1


def jaccard(sets: list[np.ndarray], one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """float64: shared over all shingles of each pair of rows; 1 where both are empty."""
    from scipy.sparse import csr_array

    rows, place = np.unique(np.concatenate([one, other]), return_inverse=True)
    sizes = np.array([len(sets[row]) for row in rows], dtype=np.int64)
    flat: Any = np.concatenate([sets[row] for row in rows]) if len(rows) else np.zeros(0, np.uint64)
    names, columns = np.unique(flat, return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    shape = (len(rows), max(1, len(names)))
    marks = csr_array((np.ones(len(columns), np.int32), columns, starts), shape=shape)
    shared = np.zeros(len(one), dtype=np.int64)
    left, right = place[: len(one)], place[len(one) :]
    for at in range(0, len(one), CHUNK):
        some = slice(at, at + CHUNK)
        shared[some] = (marks[left[some]] * marks[right[some]]).sum(axis=1)
    union = sizes[left] + sizes[right] - shared
    return np.where(union > 0, shared / np.maximum(1, union), 1.0)
