"""Files are read as gensim reads them, damaged ones are refused; features, tokens and ONNX hold to the rules."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from components import plugins, word_files
from components.backbones import word_vectors as plugin
from components.backbones.word_vectors import Params
from components.contracts import InputError
from components.export.network import Deployed
from components.export.targets import onnx as target
from components.model import TransferModel
from components.preprocessing.text_classification import Preprocessing, Text
from components.unsafe_file import UnsafeFile
from components.weights import WeightsError

ENCODERS = ("mean", "mean_max", "cnn")
GLOVE = "the 1 0 2\ncat 3 -2 0\n. . . 0 0 1\nsat 0.5 0.5 0.5\n. -1 4 0\nn't 7 7 7\n"


def from_file(path: Path, **given: Any) -> Params:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Params.model_validate({"weights": {"source": "file", "path": str(path), "sha256": digest}, **given})


def written(folder: Path, content: str | bytes, **given: Any) -> Params:
    path = folder / "vectors.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return from_file(path, **given)


def sample(path: str) -> Path:
    """One of the small files that gensim is tested with."""
    gensim = pytest.importorskip("gensim")
    return Path(gensim.__file__).parent / "test/test_data" / path


def inputs(options: Params, *texts: str) -> tuple[torch.Tensor, ...]:
    how = Preprocessing.read(plugin.preprocessing(options))
    return tuple(torch.from_numpy(a) for a in how.collate([Text(t) for t in texts]))


def features(options: Params, *texts: str) -> np.ndarray:
    torch.manual_seed(0)
    network = plugin.build(options).eval()
    with torch.inference_mode():
        return network(*inputs(options, *texts)).numpy()


# --- files


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("euclidean_vectors.bin", "word2vec_binary"),
        ("lee_fasttext.vec", "word2vec_text"),
        ("test_glove.txt", "glove"),
        ("lee_fasttext_new.bin", "fasttext_binary"),
        ("crime-and-punishment.bin", "fasttext_binary"),
    ],
)
def test_a_file_is_read_as_gensim_reads_it(name: str, found: str, tmp_path: Path) -> None:
    path = sample(name)
    read = word_files.read(path, 10_000)
    if found == "fasttext_binary":
        from gensim.models.fasttext import load_facebook_vectors

        expected = load_facebook_vectors(str(path))
    else:
        from gensim.models import KeyedVectors

        if found == "glove":  # gensim leaves a file without a header open
            path = tmp_path / "headed.txt"
            path.write_bytes(b"76 50\n" + sample(name).read_bytes())
        expected = KeyedVectors.load_word2vec_format(str(path), binary=found == "word2vec_binary")
    assert read.format == found
    assert read.set_aside == {}
    assert list(read.words) == expected.index_to_key
    np.testing.assert_array_equal(read.vectors, np.stack([expected[w] for w in read.words]))


def test_words_that_are_not_utf8_are_set_aside_and_counted() -> None:
    read = word_files.read(sample("pang_lee_polarity_fasttext.vec"), 10_000)
    assert (len(read.words), read.set_aside) == (1689, {"not_utf8": 5})


def test_the_most_frequent_words_are_kept_and_a_packed_file_is_read_through(tmp_path: Path) -> None:
    path = tmp_path / "packed.gz"
    path.write_bytes(gzip.compress(GLOVE.encode()))
    assert word_files.read(path, 2).words == ("the", "cat")
    whole = word_files.read(path, 100)
    assert whole.words == ("the", "cat", ". . .", "sat", ".", "n't")
    np.testing.assert_array_equal(whole.vectors[2], [0, 0, 1])
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(WeightsError, match=r"packed\.gz cannot be used as word vectors: it cannot be read"):
        word_files.read(path, 100)


def binary(words: dict[bytes, list[float]], header: bytes = b"") -> bytes:
    dimension = len(next(iter(words.values())))
    rows = b"".join(w + b" " + struct.pack(f"<{dimension}f", *v) + b"\n" for w, v in words.items())
    return (header or b"%d %d\n" % (len(words), dimension)) + rows


def fasttext(**given: Any) -> bytes:
    """Two words, two buckets of subwords, of dimension 2; `given` damages it."""
    it = {"dim": 2, "kind": 2, "labels": 0, "rows": 4, "quantised": False, "pruned": -1, **given}
    head = struct.pack(
        "<2i12id3iqq", 793712314, 12, it["dim"], 5, 5, 1, 5, 1, 1, it["kind"], 2, 3, 6, 100, 1e-4,
        2 + it["labels"], 2, it["labels"], 10, it["pruned"],
    )  # fmt: skip
    entries = b"".join(w + b"\0" + struct.pack("<qb", 5, 0) for w in (b"cat", b"sat"))
    return head + entries + struct.pack("<?qq", it["quantised"], it["rows"], 2) + np.ones((4, 2), "<f4").tobytes()


def test_a_made_fasttext_binary_is_sound() -> None:
    assert len(fasttext()) == 92 + 2 * 13 + 17 + 32


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty"),
    "blank": (b"\n\n", "its first line is neither"),
    "prose": (b"Dear all,\nthis is a letter.\n", "its first line is neither"),
    "tabs": (b"the\t1\t2\n", "its first line is neither"),
    "no words promised": (b"0 3\n", "its header promises no word"),
    "ragged": (b"the 1 2 3\ncat 1 2\n", r"row 2 \('cat'\) has 2, not 3 numbers"),
    "one number": (b"the 1 2 3\ncat 5\n", r"row 2 \('cat'\) has 1, not 3 numbers"),
    "too many": (b"the 1 2 3\ncat 1 2 3 4\n", r"row 2 \('cat'\) has 4, not 3 numbers"),
    "not a number": (b"the 1 2 3\ncat 1 x 3\n", r"row 2 \('cat'\): 'x' is not a number"),
    "nan": (b"the 1 2 3\ncat 1 nan 3\n", r"row 2 \('cat'\) holds a value that is not a finite number"),
    "infinite": (b"the 1 2 3\ncat 1 1e60 3\n", r"row 2 \('cat'\) holds a value that is not a finite number"),
    "duplicate": (b"the 1 2 3\ncat 1 2 3\nthe 4 5 6\n", "1 duplicate of its first 3 rows, over 1%"),
    "not UTF-8": (b"the 1 2 3\n\xe9t\xe9 1 2 3\n", "1 not_utf8 of its first 2 rows, over 1%"),
    "no word": (b"the 1 2 3\n 1 2 3\n", "1 empty of its first 2 rows, over 1%"),
    "hole": (b"the 1 2 3\n\ncat 1 2 3\n", "row 2 is empty, and more follow"),
    "longer than promised": (b"1 3\nthe 1 2 3\ncat 1 2 3\n", "its header promises 1 words, and more follow"),
    "shorter than promised": (b"9 3\nthe 1 2 3\n", "its header promises 9 words, and it ends after 1"),
    "other dimension": (b"2 4\nthe 1 2 3\ncat 1 2 3\n", r"row 1 \('the'\) has 3, not 4 numbers"),
    "one long line": (b"the 1 2" + b" 1" * 600_000, "numbers a word, where 1 to 10000 are possible"),
    "huge": (b"90000000 300\nthe 1 2 3\n", "set `max_words` to 1250000 or less"),
    "binary too short": (binary({b"a": [1, 2]}, b"2 2\n"), "it ends in row 2"),
    "binary too long": (binary({b"a": [1, 2], b"b": [1, 2]}, b"1 2\n"), "more follows after its 1 words"),
    "binary without blanks": (b"2 2\n" + bytes(5000), "no word ends within 1000 bytes in row 1"),
    "binary nan": (binary({b"a": [1, float("nan")]}), r"row 1 \('a'\) holds a value that is not a finite number"),
    "fasttext header": (fasttext()[:50], "it ends within its header"),
    "fasttext dictionary": (fasttext()[:107], "its dictionary is damaged or cut short in row 2"),
    "fasttext vectors": (fasttext()[:-1], "it is damaged or cut short: 4 x 2 numbers"),
    "fasttext no vectors": (fasttext()[:118], "it is damaged or cut short: 0 x 0 numbers"),
    "fasttext dimension": (fasttext(dim=3), "it is damaged or cut short: 4 x 2 numbers"),
    "fasttext rows": (fasttext(rows=1 << 60), "it is damaged or cut short"),
    "fasttext classifier": (fasttext(kind=3), "it is a FastText classifier"),
    "fasttext labels": (fasttext(labels=1), "it is a FastText classifier"),
    "fasttext quantised": (fasttext(quantised=True), r"it is quantised \(.ftz\)"),
    "fasttext pruned": (fasttext(pruned=3), "its subwords are pruned"),
    "fasttext packed": (gzip.compress(fasttext()), "gunzip it"),
}


FOREIGN = {
    "pickle": (b"\x80\x04\x95abc", "pickle"),
    "pickle as text": (
        b"ccopy_reg\n_reconstructor\np0\n(c__main__\nA\np1\nc__builtin__\nobject\np2\nNtp3\nRp4\n.",
        "pickle",
    ),
    "packed pickle": (gzip.compress(b"\x80\x04\x95abc"), "pickle"),
    "numpy": (b"\x93NUMPY\x01\x00", "numpy"),
    "zip": (b"PK\x03\x04abc", "archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\nabc", "hdf5"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_another_kind_of_file_is_refused_by_its_first_bytes(case: str, tmp_path: Path) -> None:
    content, reason = FOREIGN[case]
    with pytest.raises(
        UnsafeFile, match=r"weights.path: vectors.txt is refused .* Word2Vec, GloVe and FastText"
    ) as told:
        plugin.build(written(tmp_path, content))
    assert told.value.reason == reason


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_the_key_and_the_place(case: str, tmp_path: Path) -> None:
    content, told = BAD[case]
    options = written(tmp_path, content, max_words=2_000_000)
    with pytest.raises(WeightsError, match=rf"weights.path: vectors.txt cannot be used as word vectors: .*{told}"):
        plugin.build(options)


@pytest.mark.parametrize(("number", "fits"), [(99, True), (98, False)])
def test_one_row_in_a_hundred_may_be_set_aside(number: int, fits: bool, tmp_path: Path) -> None:
    rows = "".join(f"w{i} {i} 1 2\n" for i in range(number)) + "w1 9 9 9\n"
    options = written(tmp_path, rows)
    if not fits:
        with pytest.raises(WeightsError, match="1 duplicate of its first 99 rows"):
            plugin.preprocessing(options)
        return
    assert plugin.build(options).provenance["num_rows_set_aside"] == {"duplicate": 1}
    np.testing.assert_array_equal(features(options, "w1"), [[1, 1, 2]])  # the first of the two counts


def test_another_format_than_the_one_that_was_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="it is glove, but `format` says word2vec_binary"):
        plugin.preprocessing(written(tmp_path, GLOVE, format="word2vec_binary"))
    headed = "1 3\nthe 1 2 3\n"
    for name in ("word2vec_text", "fasttext_text"):
        assert plugin.build(written(tmp_path, headed, format=name)).provenance["format"] == name
    with pytest.raises(WeightsError, match="`more_words` needs subwords"):
        word_files.read(tmp_path / "vectors.txt", 9, more_words=("dog",))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"weights": {"source": "random"}}, "come from a file or a package, not from source random"),
        ({"weights": {"source": "hub"}}, "come from a file or a package, not from source hub"),
        ({"weights": {"source": "file", "path": "a.txt"}}, "need `sha256`"),
        ({"format": "glove", "more_words": {"path": "a", "sha256": "0" * 64}}, "no effect with format glove"),
        ({"encoder": "lstm"}, "'mean', 'mean_max' or 'cnn'"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], told: str) -> None:
    weights = {"source": "package", "package": "gensim", "path": "a.txt"}
    with pytest.raises(ValidationError, match=told):
        Params.model_validate({"weights": weights, **given})


def test_a_file_with_another_hash_or_that_is_gone_is_refused(tmp_path: Path) -> None:
    options = written(tmp_path, GLOVE)
    plugin.build(options)
    (tmp_path / "vectors.txt").write_text(GLOVE.replace("7", "8"))
    with pytest.raises(WeightsError, match=r"but weights\.sha256 pins"):
        plugin.build(options)
    (tmp_path / "vectors.txt").unlink()
    with pytest.raises(WeightsError, match="must name one file"):
        plugin.preprocessing(options)


def test_a_file_is_read_once_for_all_that_asks(tmp_path: Path) -> None:
    options = written(tmp_path, GLOVE)
    plugin._kept.cache_clear()
    plugin.preprocessing(options)
    for encoder in ENCODERS:
        plugin.build(options.model_copy(update={"encoder": encoder}))
    assert plugin._kept.cache_info().misses == 1


# --- the vocabulary


def tokens(options: Params, text: str) -> list[int]:
    return inputs(options, text)[0][0].tolist()


def test_texts_are_lowercased_where_the_vocabulary_is(tmp_path: Path) -> None:
    assert tokens(written(tmp_path, GLOVE), "The CAT sat.") == [2, 3, 5, 6]
    assert tokens(written(tmp_path, GLOVE, lowercase=False), "The CAT sat.") == [1, 1, 5, 6]
    cased = GLOVE.replace("cat", "Cat")
    assert tokens(written(tmp_path, cased), "the Cat") == [2, 3]
    assert tokens(written(tmp_path, cased, lowercase=True), "the Cat") == [2, 1]


def test_a_word_outside_the_vocabulary_is_an_unknown_token(tmp_path: Path) -> None:
    options = written(tmp_path, GLOVE)
    how = Preprocessing.read(plugin.preprocessing(options))
    assert how.vocabulary == 8
    assert how.counts([Text("the dog sat."), Text("cat")]).tolist() == [[4, 4, 1], [1, 1, 0]]


def test_the_names_of_special_rows_in_a_text_are_no_special_tokens(tmp_path: Path) -> None:
    options = written(tmp_path, GLOVE + "[PAD] 1 1 1\npad 2 2 2\n", lowercase=True)
    assert tokens(options, "[PAD] [UNK]") == [1, 9, 1, 1, 1, 1]


def test_a_letter_is_the_same_however_its_accent_is_written(tmp_path: Path) -> None:
    assert tokens(written(tmp_path, "café 1 2 3\n"), "cafe\u0301 CAFÉ") == [2, 2]


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    options = from_file(sample("lee_fasttext.vec"), max_words=500)
    first, state = plugin.preprocessing(options), plugin.build(options).state_dict()
    plugin._kept.cache_clear()
    assert plugin.preprocessing(options) == first
    again = plugin.build(options).state_dict()
    assert all(torch.equal(state[k], again[k]) for k in state.keys() | again.keys())
    assert (first["num_words"], first["dimension"], first["unknown_id"]) == (500, 10, 1)


# --- FastText's subwords


def more(folder: Path, content: bytes, **given: Any) -> dict[str, str]:
    path = folder / "words.txt"
    path.write_bytes(content)
    return {"path": str(path), "sha256": hashlib.sha256(content).hexdigest(), **given}


def test_more_words_have_the_vectors_of_their_subwords(tmp_path: Path) -> None:
    from gensim.models.fasttext import load_facebook_vectors

    path = sample("lee_fasttext_new.bin")
    expected = load_facebook_vectors(str(path))
    assert "thinning" not in expected.key_to_index
    options = from_file(path, more_words=more(tmp_path, b"thinning\r\nthe\n\n"))
    found = features(options, "thinning", "the")
    np.testing.assert_allclose(found, [expected["thinning"], expected["the"]], atol=1e-7)
    assert plugin.preprocessing(options)["num_words"] == 1764
    assert tokens(from_file(path), "thinning") == [1]


@pytest.mark.parametrize(
    ("content", "given", "told"),
    [
        (b"cat\n", {"sha256": "0" * 64}, r"more_words\.sha256 pins 000"),
        (b"c\xe4t\n", {}, r"more_words\.path: .* is not UTF-8 at byte 1"),
        (b"cat\n", {"path": "nowhere.txt"}, r"more_words\.path: nowhere\.txt cannot be read"),
    ],
)
def test_a_word_list_that_cannot_be_used_is_refused(
    content: bytes, given: dict[str, str], told: str, tmp_path: Path
) -> None:
    options = from_file(sample("lee_fasttext_new.bin"), more_words=more(tmp_path, content, **given))
    with pytest.raises(InputError, match=told):
        plugin.preprocessing(options)


# --- features


def test_features_are_the_mean_of_the_known_words(tmp_path: Path) -> None:
    options = written(tmp_path, GLOVE)
    found = features(options, "the cat", "the dog cat dog dog", "dog", "sat")
    np.testing.assert_allclose(found, [[2, -1, 1], [2, -1, 1], [0, 0, 0], [0.5, 0.5, 0.5]], atol=1e-7)
    found = features(written(tmp_path, GLOVE, encoder="mean_max"), "the cat", "cat dog", "dog")
    expected = [[2, -1, 1, 3, 0, 2], [3, -2, 0, 3, -2, 0], [0, 0, 0, 0, 0, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_the_order_of_words_and_unknown_ones_between_them_count_in_cnn_alone(tmp_path: Path) -> None:
    pair = ("the cat sat.", "sat the. cat")
    for encoder in ENCODERS:
        one, other = features(written(tmp_path, GLOVE, encoder=encoder), *pair)
        assert np.allclose(one, other, atol=1e-6) == (encoder != "cnn")
    assert np.isfinite(features(written(tmp_path, GLOVE, encoder="cnn"), "dog", "the")).all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_padding_changes_nothing(encoder: str) -> None:
    options = from_file(sample("lee_fasttext.vec"), encoder=encoder)
    texts = ("police", "the prime minister said", "unheardof", "the attack on the city was " * 9)
    together = features(options, *texts)
    for text, row in zip(texts, together):
        np.testing.assert_allclose(features(options, text)[0], row, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_run_loads_without_the_file(encoder: str, tmp_path: Path) -> None:
    options = written(tmp_path, GLOVE, encoder=encoder)
    how, texts = plugin.preprocessing(options), inputs(options, "the cat", "sat")
    torch.manual_seed(0)
    trained = plugin.build(options, preprocessing=how).eval()
    (tmp_path / "vectors.txt").unlink()
    torch.manual_seed(1)
    empty = plugin.build(options, pretrained=False, preprocessing=how).eval()
    assert empty.provenance["source"] == "random"
    assert not torch.equal(empty.vectors, trained.vectors)
    empty.load_state_dict(trained.state_dict())
    torch.testing.assert_close(empty(*texts), trained(*texts), rtol=0, atol=0)


def test_a_preprocessing_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    options = written(tmp_path, GLOVE)
    how = plugin.preprocessing(options)
    with pytest.raises(WeightsError, match="has 3 words of 3 numbers, and `select` found 6 of 3"):
        plugin.build(options.model_copy(update={"max_words": 3}), preprocessing=how)


@pytest.mark.parametrize("trainable", [False, True])
def test_vectors_train_only_where_that_is_asked(trainable: bool, tmp_path: Path) -> None:
    options = written(tmp_path, GLOVE, trainable=trainable, encoder="cnn")
    model = TransferModel(plugin.build(options), 2)
    torch.nn.init.normal_(model.head.weight)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(model(*inputs(options, "the cat", "dog")), torch.tensor([0, 1])).backward()
    optimiser.step()
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert ("backbone.vectors" in moved) == trainable
    assert "backbone.filters.0.weight" in moved
    assert not model.backbone.vectors[:2].any()  # padding and unknown words stay at zero


def test_a_frozen_mean_has_nothing_to_train_and_the_optimiser_takes_that(tmp_path: Path) -> None:
    from components.finetune.phases import everything

    model = TransferModel(plugin.build(written(tmp_path, GLOVE)), 2)
    groups = everything(0.1, 0.1)(model)
    assert groups[1]["params"] == []
    torch.optim.AdamW(groups).step()
    scratch = plugin.build(written(tmp_path, GLOVE), pretrained=False)
    assert [name for name, _ in scratch.named_parameters()] == ["vectors"]  # nothing worth to be kept frozen


def test_encoders_with_the_same_weights_do_not_share_cached_features(tmp_path: Path) -> None:
    networks = [plugin.build(written(tmp_path, GLOVE, encoder=e)) for e in ("mean", "mean_max")]
    assert repr(networks[0]) != repr(networks[1])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_onnx_gives_the_same_for_any_batch_and_length(encoder: str, tmp_path: Path) -> None:
    import onnxruntime

    options = from_file(sample("lee_fasttext.vec"), encoder=encoder, max_tokens=60)
    how, task = plugin.preprocessing(options), plugins.load("tasks", "text_classification")
    torch.manual_seed(0)
    network = TransferModel(plugin.build(options), 3)
    torch.nn.init.normal_(network.head.weight)
    model = Deployed(network, 1.5, plugins.load("decisions", "single_label")).eval()
    example = dict(zip(task.model_inputs(how), task.example(how, 3)))
    target.export(model, example, model.outputs, tmp_path / "model.onnx", target.Params(), task.free_axes(how))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for length in (1, 7, 60):
        for batch in (1, 7):
            texts = [" ".join(["the", "fire", "unheardof", "city"][i % 4 :] * length) for i in range(batch)]
            given = tuple(a[:, :length] for a in inputs(options, *texts))
            with torch.inference_mode():
                expected = model(*given)
            found = session.run(None, dict(zip(example, (a.numpy() for a in given))))
            for one, other in zip(expected, found, strict=True):
                np.testing.assert_allclose(other, one.numpy(), atol=1e-5)
            assert batch == 1 or found[-1].std(axis=0).max() > 1e-3, "answers that do not differ would prove nothing"
