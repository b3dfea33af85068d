"""Words and blanks come apart and together again, and what the policies do with them is what they say."""

from __future__ import annotations

import numpy as np
import pytest

from components.augment import words
from components.augment.policies import eda

TEXTS = ["", " ", "a", " a", "a ", "\n\n a\t b \r\n", "one two", "\u00a0x\u2003y", "🙂 é\n"]


@pytest.mark.parametrize("text", TEXTS)
def test_join_is_the_inverse_of_split(text: str) -> None:
    found, blanks = words.split(text)
    assert words.join(found, blanks) == text
    assert len(blanks) == len(found) + 1
    assert found == text.split()


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("(lazy)", ("(", "lazy", ")")),
        ("don't!", ("", "don't", "!")),
        ("--", ("--", "", "")),
        ("_x_", ("_", "x", "_")),
        ("🙂", ("🙂", "", "")),
        ("", ("", "", "")),
    ],
)
def test_a_word_has_a_core(word: str, parts: tuple[str, str, str]) -> None:
    assert words.parts(word) == parts


@pytest.mark.parametrize(
    ("like", "word", "cased"),
    [("Dog", "cat", "Cat"), ("DOG", "cat", "CAT"), ("dog", "cat", "cat"), ("A", "one", "One")],
)
def test_capitals_are_kept(like: str, word: str, cased: str) -> None:
    assert words.cased(like, word) == cased


def test_function_words_negations_and_what_is_no_word_are_not_replaced() -> None:
    kept = ["not", "Never", "no", "the", "42", "x2", "don't", "", "re", "我喜欢这部电影", "ราคา"]
    assert [w for w in kept if words.replaceable(w)] == []
    assert all(words.replaceable(w) for w in ("film", "GREAT", "кошка", "سلام"))


def test_deletion_takes_the_share_it_is_told_and_keeps_line_breaks() -> None:
    found, blanks = words.split("\n".join("one two  three" for _ in range(2000)))
    left, between = eda.delete(found, blanks, 0.2, np.random.default_rng(0))
    assert 1 - len(left) / len(found) == pytest.approx(0.2, abs=0.02)
    assert len(between) == len(left) + 1
    text = words.join(left, between)
    assert set(text) <= set("onethrw \n")
    assert 1600 < text.count("\n") <= 1999  # one goes only where all three words of a line do
    assert eda.delete(["a", "b"], ["", " ", ""], 0.9999999, np.random.default_rng(0))[0] in (["a"], ["b"])


def test_of_blanks_that_meet_the_one_with_most_line_breaks_stays() -> None:
    class Second:
        def random(self, size: int) -> np.ndarray:
            return np.array([1.0, 0.0, 1.0])

    left = eda.delete(["a", "b", "c"], ["<", " ", "\n\n", ">"], 0.5, Second())  # type: ignore[arg-type]
    assert words.join(*left) == "<a\n\nc>"


def test_swap_moves_words_and_loses_none() -> None:
    found = [str(i) for i in range(100)]
    blanks = [str(-i) for i in range(101)]
    for share, least in ((0.001, 1), (0.05, 4)):
        moved, same = eda.swap(found, blanks, share, np.random.default_rng(1))
        assert sorted(moved) == sorted(found)
        assert same == blanks
        changed = sum(a != b for a, b in zip(moved, found))
        assert 2 * least <= changed + 2 <= 2 * round(max(1, share * 100)) + 2
        assert changed
    assert eda.swap(["a", "b"], ["", " ", ""], 0.1, np.random.default_rng(2))[0] == ["b", "a"]


def test_a_core_is_found_in_linear_time() -> None:
    assert words.parts("a" + "!" * 1_000_000 + "a")[1][:2] == "a!"
