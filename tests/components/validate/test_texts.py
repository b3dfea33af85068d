"""What the checks of texts share."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from components.contracts import InputError
from components.validate import texts


def test_texts_and_pairs() -> None:
    table = pd.DataFrame({"input.text": ["a", None, "c"]})
    assert texts.pairs(table, "x") == [("a", None), ("", None), ("c", None)]
    assert texts.joined(table, "x") == ["a", "", "c"]
    table["input.text_pair"] = ["b", "d", None]
    assert texts.pairs(table, "x") == [("a", "b"), ("", "d"), ("c", "")]
    assert texts.joined(table, "x") == ["a\nb", "\nd", "c\n"]


@pytest.mark.parametrize(("columns", "told"), [(["input.path"], "has input.path"), ([], "has no column input.*")])
def test_a_table_without_texts_is_told_with_the_key(columns: list[str], told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        texts.pairs(pd.DataFrame({"id": ["a"], **{c: ["b"] for c in columns}}), "some_check")
    assert str(caught.value).startswith("validate.checks: some_check reads texts")
    assert "run.task text_classification" in str(caught.value)


def test_tokens_are_words_marks_and_neighbours() -> None:
    found = texts.tokens("[SPAM] Label: x_1 ~~ caf\u00e9", ("card arrival", "label x"))
    assert found >= {
        "[spam]",
        "spam",
        "[",
        "]",
        "label:",
        "label",
        "label: x_1",
        "x_1",
        "x",
        "~~",
        "caf\u00e9",
        "label x",
    }
    assert "card arrival" not in found
    assert texts.tokens("") == texts.tokens(" \n") == set()


def test_of_a_long_text_beginning_and_end_are_read() -> None:
    text = "first " + "x " * 5_000 + "middle " + "y " * 5_000 + " last"
    assert {"first", "last"} <= texts.tokens(text)
    assert "middle" not in texts.tokens(text)
    assert max(map(len, texts.tokens("a" * 100 + " b"))) <= texts.LONGEST


def test_plain_names() -> None:
    assert texts.plain("Card_arrival: 2") == "card arrival 2"
    assert texts.plain("?!") == ""
