"""tokenizer.onnx is written where its ids are proven equal, and else it is said what differs."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import factories
import numpy as np
import odd_texts
import onnxruntime
import pytest
import tiny_encoders

from components import hard_texts
from components.contracts import InputError
from components.graphs import text_classification as graphs
from components.preprocessing import text_classification as texts
from components.preprocessing.text_classification import Preprocessing, Text


def spec(tokenizer: str, max_tokens: int = 24) -> dict[str, Any]:
    return {
        "max_tokens": max_tokens,
        "inputs": ["input_ids", "attention_mask", "token_type_ids"],
        "pad_id": 0,
        "unknown_id": None,
        "files": {"tokenizer.json": tokenizer},
    }


def tokenizer_of(family: str) -> str:
    return str(getattr(tiny_encoders, family)()[1].backend_tokenizer.to_str())


def test_byte_pairs_are_proven_equal_and_written(tmp_path: Path) -> None:
    import onnxruntime_extensions

    own = spec(tokenizer_of("roberta"))
    told = graphs.companion(own, tmp_path)
    assert (told["file"], told["num_different"]) == ("tokenizer.onnx", 0), told
    assert told["num_texts"] > 400
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    session = onnxruntime.InferenceSession(tmp_path / "tokenizer.onnx", options, providers=["CPUExecutionProvider"])
    read = Preprocessing.read(own)
    lengths = set()
    for text in [text for text in odd_texts.ODD if len(text) < 30_000]:
        cleaned = texts.clean(text)
        found = session.run(None, {"text": np.array([cleaned], dtype=object)})
        for array, wanted in zip(found, read.collate([Text(cleaned)]), strict=True):
            np.testing.assert_array_equal(array, wanted, err_msg=ascii(text[:40]))
        lengths.add(found[0].shape[1])
    assert max(lengths) == 24 > min(lengths), "some were cut, and some were not"
    content = (tmp_path / "tokenizer.onnx").read_bytes()
    name, again = next(graphs._graphs(read))
    assert (name, again.SerializeToString(deterministic=True)) == (told["operator"], content)


def test_word_pieces_differ_and_nothing_is_written(tmp_path: Path) -> None:
    told = graphs.companion(spec(tokenizer_of("bert")), tmp_path)
    assert "file" not in told
    assert told["why"].startswith("BertTokenizer: other ids for ")
    assert f" of {told['num_texts']} texts, the first is " in told["why"]
    assert told["why"].isascii()
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_no_operator_knows_is_told(tmp_path: Path) -> None:
    assert "has no operator" in graphs.companion(spec(factories.tokenizer_json()), tmp_path)["why"]
    assert not list(tmp_path.iterdir())


def test_a_graph_that_cannot_run_is_told_by_the_process_that_tried() -> None:
    assert isinstance(graphs._asked(b"no graph", ["a"]), str)


def test_no_answer_in_time_ends_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load on the machine must not decide whether there is a tokenizer.onnx."""
    monkeypatch.setattr(graphs, "MAX_SECONDS", 0)
    with pytest.raises(InputError, match="gave no answer for"):
        graphs.companion(spec(tokenizer_of("roberta")), tmp_path)
    assert not list(tmp_path.iterdir())


def test_hard_texts_are_hard_and_the_same_each_time() -> None:
    given = hard_texts.texts()
    assert given == hard_texts.texts()
    assert len(given) == len([text for text in given if texts.checked(text)]) > 400
    categories = {unicodedata.category(char) for text in given for char in text}
    assert {"Mn", "Mc", "Me", "Cf", "Cc", "Co", "Cn", "Sk", "So", "Nl", "Lt", "Lm", "Pi", "Zl", "Zp"} <= categories
    assert max(map(len, given)) > 5000
    with pytest.raises(texts.Unreadable):  # which is why there are no halves of surrogate pairs among them
        texts.checked("\ud800")
