"""Texts: the deployed model takes token ids, and a second graph beside it makes them where that is proven.

What: leaves the network as it is, and writes the tokenizer as tokenizer.onnx, by the operators of
onnxruntime-extensions, if that graph gives the very ids on every text of components/hard_texts.py.
When: texts; a graph that makes ids spares a caller without the tokenizers library.
Not when: texts come in pairs, or in batches: tokenizer.onnx takes one text. It also needs that library to be loaded
by whoever runs it, so predict.py does without.
Settings: those of `Preprocessing`.
Cost: 4 to 10 s in `export`, in a process of its own; the file holds tokenizer.json.
Evidence here: of 497 texts (tests/components/graphs/test_text_classification.py, onnxruntime-extensions 0.15.2,
2026-11-21), byte-level BPE has equal ids on all (RoBERTa, GPT-2, ModernBERT and BART layouts), so it is written.
WordPiece is not: 133 differ for MiniLM at 128 tokens in the spam example (accents outside Latin, Hangul, control
characters, tokens written out), nor are Unigram (44 of 497 at best) and plain words (no operator).
BertTokenizer ended the process where its fourth output was asked for.
Source: onnxruntime-extensions 0.15.2, BertTokenizer and HfJsonTokenizer.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components import hard_texts, params, tied
from components.contracts import InputError, write_atomic
from components.preprocessing import text_classification as texts
from components.preprocessing.text_classification import Preprocessing, Text

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import onnx
    import pandas as pd

FILE, TEXT = "tokenizer.onnx", "text"
"""Name of the second graph, and of its input."""
DOMAIN = "ai.onnx.contrib"
MAX_SECONDS = 300
"""For all texts; beyond it the stage ends, so that load on the machine does not decide what is written."""
CLASSES = {"BPE": ("GPT2Tokenizer", "LlamaTokenizer"), "Unigram": ("T5Tokenizer", "XLMRobertaTokenizer")}
"""Model of a tokenizer.json -> what HfJsonTokenizer may call it."""


class Params(params.Params):
    """No options."""


def joined(network: onnx.ModelProto, preprocessing: dict[str, Any]) -> onnx.ModelProto:
    """The network: no operator of plain ONNX makes tokens."""
    del preprocessing
    return network


def feed(rows: np.ndarray, preprocessing: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the joined model takes for prepared rows, an object array [N] of Text: int64 [N, L] by name."""
    how = Preprocessing.read(preprocessing)
    return dict(zip(how.inputs, how.collate(list(rows))))


def told(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """What is inside the graph, and what is left to whoever calls it."""
    how = Preprocessing.read(preprocessing)
    return {
        "inside": [],
        "outside": ["clean the text", f"tokenise, at most {how.max_tokens} tokens", "pad a batch to its longest row"],
        "why": "no operator of plain ONNX makes tokens; preprocessing.py has the rules",
        "tolerance": 0,
    }


def compare(table: pd.DataFrame, preprocessing: dict[str, Any], root: Path) -> dict[str, Any]:
    """Nothing of the preprocessing is inside the model, so there is nothing to compare."""
    del table, preprocessing, root
    return {}


def companion(preprocessing: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Writes tokenizer.onnx into `folder` if its ids are equal on every hard text; else says `why` there is none.

    Raises:
        InputError: it gave no answer in time.
    """
    how = Preprocessing.read(preprocessing)
    given = [text for text in map(texts.clean, hard_texts.texts()) if text]
    wanted = [row.tokens.ids.tolist() for row in how.prepared([Text(text) for text in given]) if row.tokens]
    whys = []
    for name, graph in _graphs(how):
        content = graph.SerializeToString(deterministic=True)
        found = _asked(content, given)
        if isinstance(found, str):
            whys.append(f"{name}: {found}")
            continue
        wrong = [text for text, ids, right in zip(given, found, wanted) if ids != right]
        if not wrong:
            write_atomic(folder / FILE, content)
            return {
                "file": FILE, "operator": name, "num_texts": len(given), "num_different": 0,
                "input": "one text, cleaned by the rules of preprocessing.py, as a string tensor [1]; not a pair",
                "requires": f"onnxruntime-extensions=={metadata.version('onnxruntime-extensions')}",
            }  # fmt: skip
        whys.append(f"{name}: other ids for {len(wrong)} of {len(given)} texts, the first is {wrong[0][:40]!a}")
    none = "onnxruntime-extensions has no operator for this kind of tokenizer"
    return {"why": "; ".join(whys) or none, "num_texts": len(given)}


def _graphs(how: Preprocessing) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The operators that may be this tokenizer, each as a graph."""
    spec = json.loads(texts.plain(how.tokenizer).to_str())
    model, normal = spec["model"], spec["normalizer"] or {}
    if model["type"] == "WordPiece" and normal.get("type") == "BertNormalizer":
        words = sorted(model["vocab"], key=model["vocab"].get)
        accents = normal["lowercase"] if normal["strip_accents"] is None else normal["strip_accents"]
        options: dict[str, Any] = {"do_lower_case": int(normal["lowercase"]), "strip_accents": int(accents)}
        options |= {"tokenize_chinese_chars": int(normal["handle_chinese_chars"]), "unk_token": model["unk_token"]}
        yield (
            "BertTokenizer",
            _graph(how, ("types", "mask"), 1, "BertTokenizer", vocab_file="\n".join(words), **options),
        )
    text = json.dumps({**spec, "post_processor": None})  # special tokens are put around afterwards
    for name in CLASSES.get(model["type"], ()):
        config = {"tokenizer_class": name, "add_prefix_space": _prefixed(spec), "add_bos_token": False}
        config |= {"add_eos_token": False, "unk_token": _unknown(model)}
        options = {"tokenizer_vocab": text, "tokenizer_config": json.dumps(config)}
        yield f"HfJsonTokenizer as {name}", _graph(how, (), 0, "HfJsonTokenizer", **options)


def _prefixed(spec: dict[str, Any]) -> bool:
    first = spec["pre_tokenizer"] or {}
    return any(part.get("add_prefix_space") for part in first.get("pretokenizers", [first]))


def _unknown(model: dict[str, Any]) -> str | None:
    if model.get("unk_id") is not None:
        return str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token")


def _graph(how: Preprocessing, more: Sequence[str], around: int, operator: str, **options: Any) -> onnx.ModelProto:
    """`text` [1] -> the network's inputs, int64 [1, length]. Of what the operator gives, `around` special tokens at
    either end are taken off; the rest is cut, and the tokenizer's own are put around, as preprocessing.py does."""
    import onnx
    from onnx import TensorProto, helper

    shown = texts.plain(how.tokenizer).encode("a")
    special = shown.special_tokens_mask
    num_first = special.index(0) if 0 in special else len(special)
    num_last = special[::-1].index(0) if 0 in special else 0
    first, last = shown.ids[:num_first], shown.ids[len(shown.ids) - num_last :]
    body = onnx.parser.parse_graph(f"""
        framed (int64[n] some_ids) => (int64[1, length] input_ids) {{
        flat = Constant <value = int64[1] {{-1}}> ()
        row = Constant <value = int64[2] {{1, -1}}> ()
        one = Constant <value = int64 {{1}}> ()
        around = Constant <value = int64[1] {{{around}}}> ()
        room = Constant <value = int64[1] {{{how.max_tokens - num_first - num_last + around}}}> ()
        first = {_list(first)}
        last = {_list(last)}
        ids = Reshape (some_ids, flat)
        num = Shape (ids)
        num_own = Sub (num, around)
        end = Min (num_own, room)
        own = Slice (ids, around, end)
        kept = Concat <axis = 0> (first, own, last)
        input_ids = Reshape (kept, row)
        token_type_ids = Sub (input_ids, input_ids)
        attention_mask = Add (token_type_ids, one)
        }}""")
    node = helper.make_node(operator, [TEXT], ["some_ids", *more], domain=DOMAIN, **options)
    text = helper.make_tensor_value_info(TEXT, TensorProto.STRING, [1])
    outputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [1, "length"]) for name in how.inputs]
    graph = helper.make_graph([node, *body.node], "tokenizer", [text], outputs)
    versions = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=10)


def _list(ids: Sequence[int]) -> str:
    return f"Constant <value = int64[{len(ids)}] {{{', '.join(map(str, ids))}}}> ()"


def _asked(graph: bytes, given: list[str]) -> list[list[int]] | str:
    """The ids of each text, by a process of its own: a fault in these operators ends the process that runs them."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, graph, given, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(MAX_SECONDS):  # that may be the machine's load, so nothing is concluded from it
            raise InputError(
                f"the graph of the tokenizer gave no answer for {len(given)} texts in {MAX_SECONDS} s. Run `export` "
                "again when the machine has less to do."
            )
        found: list[list[int]] | str = ours.recv()
    except EOFError:
        found = "it ends the process that runs it"
    finally:
        process.kill()
        process.join()
    return found


def _answer(out: Connection, graph: bytes, given: list[str], parent: int) -> None:
    tied.to(parent)
    import onnxruntime
    import onnxruntime_extensions

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it does not take is told by the caller
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        out.send([session.run(["input_ids"], {TEXT: np.array([text], dtype=object)})[0][0].tolist() for text in given])
    except Exception as error:  # its errors have no common type
        out.send((str(error).splitlines() or [type(error).__name__])[0].split(" : ")[-1][:200])
