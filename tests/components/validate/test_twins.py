"""Near twins: no false pairs, hardly a missed one, the same pairs on every machine, and no quadratic cost."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from components.validate import twins

SCRIPT = """
from components.validate import twins
sides = [(f"a b c d e f g h {n % 3} i j k l m n o p q r s t u v w x y z", None) for n in range(9)]
found = twins.find(sides, 0.8, 3, 5)
print(found.one.tolist(), found.other.tolist(), found.similarity.tolist())
print(twins.signatures([twins.shingles("one two three four".split(), 3, {})])[0][:4].tolist())
"""

GOLDEN = [1769969546, 251792354, 327609939]


def corpus(num: int = 120, seed: int = 0) -> list[str]:
    """Texts of 60 words in families: copies with 0 to 12 words changed, so that similarities spread over 0.3 to 1."""
    rng = np.random.default_rng(seed)
    vocabulary = [f"word{n}" for n in range(2000)]
    found: list[str] = []
    while len(found) < num:
        words = [vocabulary[k] for k in rng.integers(0, len(vocabulary), 60)]
        for changed in range(6):
            copy = list(words)
            for place in rng.integers(0, 60, changed):
                copy[place] = vocabulary[rng.integers(0, len(vocabulary))]
            found.append(" ".join(copy))
    return found[:num]


def by_hand(one: str, other: str, size: int) -> float:
    """Jaccard of the sets of runs themselves, without any hash."""
    sets = [{tuple(w[i : i + size]) for i in range(max(1, len(w) - size + 1))} for w in (one.split(), other.split())]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def find(texts: list[str], min_similarity: float = 0.8, size: int = 3, min_words: int = 5) -> twins.Twins:
    return twins.find([(text, None) for text in texts], min_similarity, size, min_words)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("least", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_the_pairs_are_those_that_comparing_all_finds(least: float, size: int) -> None:
    texts = corpus()
    found = find(texts, least, size)
    told = dict(zip(zip(found.one.tolist(), found.other.tolist()), found.similarity.tolist()))
    right = {(i, j): by_hand(texts[i], texts[j], size) for i, j in combinations(range(len(texts)), 2)}
    right = {pair: alike for pair, alike in right.items() if alike >= least}
    assert set(told) <= set(right), "a false pair"
    assert len(told) >= 0.98 * len(right)
    assert list(told) == sorted(told)
    assert all(told[pair] == pytest.approx(right[pair]) for pair in told)


def test_golden_signature() -> None:
    """Another hash, seed or version of the library would give other candidates."""
    first = twins.signatures([twins.shingles(["one", "two", "three", "four"], 3, {})])[0][:3]
    assert first.tolist() == GOLDEN


@pytest.mark.parametrize(("least", "length"), [(0.5, 3), (0.7, 4), (0.8, 6), (0.9, 9), (1.0, 16)])
def test_bands_are_as_long_as_the_recall_allows(least: float, length: int) -> None:
    assert twins.band(least) == length
    assert 1 - (1 - least**length) ** (twins.NUM_HASHES // length) >= twins.MIN_RECALL


def test_a_form_letter_sent_a_thousand_times_does_not_cost_its_square() -> None:
    letters = [f"dear {n} " + " ".join(f"word{k}" for k in range(60)) for n in range(1000)]
    found = find(letters)
    assert len(found.one) < 1000 * 999 / 4
    assert len(found.rows(np.ones(len(found.one), bool))) == 1000


def test_case_and_punctuation_do_not_count_and_the_order_of_words_does() -> None:
    assert len(find(["One, two; three FOUR five!", "one two three four FIVE"]).one) == 1
    assert len(find(["one two three four five", "five four three two one"]).one) == 0


def test_scripts_without_blanks_are_compared_by_character() -> None:
    text = "我知道你需要更多機會這是委託由專業廣告公司代發的郵件"
    assert len(find([text, text + "。", text[::-1]]).one) == 1
    assert twins.words_of("Ångström 東京 ok") == ["ångström", "東", "京", "ok"]


def test_short_empty_and_no_texts() -> None:
    assert len(find([]).one) == len(find(["", "..."]).one) == len(find(["thank you", "Thank you!"]).one) == 0
    assert len(find(["thank you", "Thank you!"], min_words=2).one) == 1
    assert len(find(["a b c d e"]).one) == 0


def test_of_two_texts_both_must_be_alike() -> None:
    premise = " ".join(f"word{n}" for n in range(60))
    given = [(premise, "she is asleep now"), (premise, "he runs home fast"), (premise + " so", "She is asleep now.")]
    found = twins.find(given, 0.8, 3, 5)
    assert list(zip(found.one, found.other)) == [(0, 2)]
    swapped = [(premise, "a b c d e"), ("a b c d e", premise)]
    assert len(twins.find(swapped, 0.8, 3, 5).one) == 0
    assert len(twins.find([(premise, ""), (premise, "")], 0.8, 3, 5).one) == 1


def test_the_same_in_every_process() -> None:
    told = set()
    for seed in ("0", "1"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        root = Path(__file__).parents[3]
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], cwd=root, env=env, capture_output=True, text=True, check=True
        )
        told.add(done.stdout)
    assert len(told) == 1
