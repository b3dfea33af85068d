"""Policies that ask a language model: tiny ones with random weights, in the formats that real ones come in."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_language_models as tiny

from components import plugins, samples
from components.augment import networks
from components.augment.policies import back_translation
from components.augment.variants import Variants
from components.contracts import InputError
from components.preprocessing.text_classification import Text
from components.unsafe_file import UnsafeFile
from components.weights import WeightsError

TEXT = "Dear friend, this is a Special offer for you only: bring the (great) tickets and 2 films!"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("networks")
    return {
        "bert": tiny.masked(root / "bert"), "roberta": tiny.byte_level(root / "roberta"),
        "t5": tiny.translator(root / "t5"), "marian": tiny.marian(root / "marian"),
    }  # fmt: skip


def build(name: str, cache: Path | None = None, **options: Any) -> Any:
    choice = plugins.choose("augment.policies", {"name": name, **options})
    return choice.load().build(choice.params, cache=cache)


def drawn(vary: Any, text: str = TEXT, num: int = 20) -> list[str]:
    return [vary(Text(text), samples.keyed_rng(3, epoch, "x")).text for epoch in range(num)]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_words_are_replaced_by_whole_words_and_all_else_stays(kind: str, folders: dict[str, Path]) -> None:
    vary = build("masked_lm", network=tiny.pinned(folders[kind]), share=0.3, num_variants=6)
    before = TEXT.split()
    changed = 0
    for text in drawn(vary):
        after = text.split()
        assert len(after) == len(before)
        for old, new in zip(before, after):
            if old != new:
                changed += 1
                assert new.strip("(),:!").isalpha()
                word = new.strip("(),:!").lower()  # a byte-level vocabulary has beginnings of words that look whole
                assert any(w == word or (kind == "roberta" and w.startswith(word)) for w in tiny.WORDS), word
                assert new[:1].isupper() == old[:1].isupper()
                assert (new[-1] in ",:)!") == (old[-1] in ",:)!")
        kept = [w for w in ("this", "is", "a", "for", "you", "only:", "the", "and", "2") if w not in after]
        assert kept == []
    assert changed
    assert 2 <= len(set(drawn(vary, num=60))) <= 6
    assert len(vary.variants.of(TEXT)) == 6


def test_the_likeliest_word_is_taken_where_one_counts(folders: dict[str, Path]) -> None:
    """Against transformers' own prediction, with the word itself left out."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folders["bert"])
    model = AutoModelForMaskedLM.from_pretrained(folders["bert"]).eval()
    vary = build("masked_lm", network=tiny.pinned(folders["bert"]), share=0.01, top=1, num_variants=1)
    for text in ("a good film", "the lazy dog", "a river bank"):
        after = vary(Text(text), samples.keyed_rng(0, 0, "x")).text
        place = next(i for i, (a, b) in enumerate(zip(text.split(), after.split())) if a != b)
        masked = text.split()
        old, masked[place] = masked[place], "[MASK]"
        with torch.inference_mode():
            logits = model(**tokens(" ".join(masked), return_tensors="pt")).logits[0, 1 + place]
        order = tokens.convert_ids_to_tokens(logits.argsort(descending=True).tolist())
        best = next(w for w in order if w in tiny.WORDS and len(w) > 2 and w != old and _carries(w))
        assert after.split()[place] == best


def _carries(word: str) -> bool:
    from components.augment import words

    return words.replaceable(word)


def test_what_follows_behind_the_limit_stays(folders: dict[str, Path]) -> None:
    head, tail = "the lazy dog jumps over the quick fox", "a good film with a great story " * 40
    vary = build("masked_lm", network=tiny.pinned(folders["bert"]), share=0.5, max_tokens=10)
    for text in drawn(vary, f"{head} {tail}"):
        assert text.endswith(tail)
        assert text != f"{head} {tail}"
    vary = build("back_translation", forth=tiny.pinned(folders["t5"]), back=tiny.pinned(folders["t5"]),
                 share=1, max_tokens=8)  # fmt: skip
    first = "The lazy dog jumps over the fox. "
    assert all(t.endswith(tail) and not t.startswith(first) for t in drawn(vary, first + tail, 4))


@pytest.mark.parametrize("kind", ["t5", "marian"])
def test_sentences_are_translated_one_by_one_and_lines_stay(kind: str, folders: dict[str, Path]) -> None:
    network = tiny.pinned(folders[kind])
    vary = build("back_translation", forth=network, back=network, share=1, num_variants=3)
    text = "a good film. the lazy dog\n\n  ---\n\ta great story"
    variants = vary.variants.of(text)
    assert len(variants) == 3
    for variant in variants:
        assert variant.count("\n") == 3
        assert "\n\n  ---\n\t" in variant
        assert variant != text


def test_share_is_of_the_samples(folders: dict[str, Path]) -> None:
    network = tiny.pinned(folders["t5"])
    vary = build("back_translation", forth=network, back=network, share=0.3)
    varied = [t != "a good film" for t in drawn(vary, "a good film", 300)]
    assert 0.2 < np.mean(varied) < 0.4


def test_translations_are_those_of_the_library(folders: dict[str, Path]) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    network = tiny.pinned(folders["t5"])
    tokens = AutoTokenizer.from_pretrained(folders["t5"])
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"]).eval()

    def translated(text: str) -> str:
        given = tokens([text], truncation=True, max_length=64, return_tensors="pt")
        longest = min(64, 16 + 2 * given["input_ids"].shape[1])
        ids = model.generate(**given, num_beams=2, max_new_tokens=longest, do_sample=False)
        return " ".join(tokens.batch_decode(ids, skip_special_tokens=True)[0].split())

    vary = build("back_translation", forth=network, back=network, share=1, num_variants=1, prefix_forth="see ")
    assert vary.variants.of("a good film") == [translated(translated("see a good film"))]


def test_sentences_end_at_points_and_line_breaks() -> None:
    text = "One. Two!  Three\n four 3.5 five?\tSix"
    pieces = back_translation._cut(text)
    assert "".join(pieces) == text
    assert pieces[::2] == ["One.", "Two!", "Three", "four 3.5 five?", "Six"]
    assert back_translation._cut(" a") == [" a"]


def test_variants_are_kept_by_text_network_and_options(folders: dict[str, Path], tmp_path: Path) -> None:
    network = tiny.pinned(folders["bert"])
    first = build("masked_lm", tmp_path, network=network, share=0.3)
    before = drawn(first)
    assert first.variants.num_made == 1
    again = build("masked_lm", tmp_path, network=network, share=0.3)
    assert drawn(again) == before
    assert again.variants.num_made == 0
    for changed in ({"top": 2}, {"share": 0.2}, {"num_variants": 2}, {"max_tokens": 9}):
        other = build("masked_lm", tmp_path, **{"network": network, "share": 0.3, **changed})
        drawn(other)
        assert other.variants.num_made == 1, changed
    tiny.masked(tmp_path / "other", seed=1)
    other = build("masked_lm", tmp_path, network=tiny.pinned(tmp_path / "other"), share=0.3)
    drawn(other)
    assert other.variants.num_made == 1
    assert other.provenance != first.provenance


def test_a_damaged_file_of_variants_is_made_anew(tmp_path: Path) -> None:
    made: list[str] = []

    def make(text: str) -> list[str]:
        made.append(text)
        return [text.upper(), text.title()]

    assert Variants(make, tmp_path, "key").of("a b") == ["A B", "A B"]
    file = next(tmp_path.rglob("*.json"))
    for content in (b"", b"\xff\xfe", b'{"a": 1}', b"[1]", b'["A B"'):
        file.write_bytes(content)
        assert Variants(make, tmp_path, "key").of("a b") == ["A B", "A B"]
    assert len(made) == 6
    assert Variants(make, tmp_path, "key").of("a b") == ["A B", "A B"]
    assert len(made) == 6
    assert json.loads(file.read_text()) == ["A B", "A B"]
    assert str(tmp_path) not in file.read_text()


def test_each_text_is_made_once_however_many_ask() -> None:
    made: list[str] = []

    def make(text: str) -> list[str]:
        made.append(text)
        return [f"{text}{i}" for i in range(3)]

    kept = Variants(make, None)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: kept.of(str(i % 5)), range(200)))
    assert sorted(made) == list("01234")
    assert found[7] == ["20", "21", "22"]
    assert Variants(lambda _: [], None).draw("as it is", np.random.default_rng(0)) == "as it is"


def test_making_variants_draws_nothing_from_torchs_generator(folders: dict[str, Path]) -> None:
    """Training draws dropout from it while other threads vary texts."""
    import torch

    t5, bert = tiny.pinned(folders["t5"]), tiny.pinned(folders["bert"])
    policies = [build("masked_lm", network=bert), build("back_translation", forth=t5, back=t5, share=1)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for vary in policies:
        drawn(vary, "a good film with a great story", 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["masked_lm", "back_translation"])
def test_variants_of_other_code_are_made_anew(
    name: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """networks.py decides the longest input."""
    bert, t5 = tiny.pinned(folders["bert"]), tiny.pinned(folders["t5"])
    options: dict[str, Any] = {"network": bert} if name == "masked_lm" else {"forth": t5, "back": t5}
    before = build(name, None, **options).variants.key
    assert build(name, None, **options).variants.key == before
    other = tmp_path / "networks.py"
    other.write_bytes(Path(str(networks.__file__)).read_bytes() + b"# changed\n")
    monkeypatch.setattr(networks, "__file__", str(other))
    assert build(name, None, **options).variants.key != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_pin_covers_every_file_that_is_read(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = _changed(folders["bert"], tmp_path / "bert")
    chosen = tiny.pinned(folder)
    assert build("masked_lm", network=chosen).provenance == {"network_sha256": chosen["weights"]["sha256"]}
    with (folder / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(WeightsError, match=rf"sha256sum .*{name}.* gives .* pins"):
        build("masked_lm", network=chosen)


def _changed(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_a_network_that_cannot_serve_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    bert = folders["bert"]

    def told(match: str, name: str = "masked_lm", **options: Any) -> None:
        with pytest.raises(WeightsError, match=match):
            build(name, **options)

    told("pins 000", network={"weights": {**tiny.pinned(bert)["weights"], "sha256": "0" * 64}})
    told("must name one folder", network={"weights": {"source": "file", "path": "nowhere", "sha256": "0" * 64}})
    told("not installed", network={"weights": {"source": "package", "package": "no_such", "path": "model"}})
    told("cannot be read as AutoModelForSeq2SeqLM", "back_translation", forth=tiny.pinned(bert),
         back=tiny.pinned(bert))  # fmt: skip
    told("cannot be read as AutoModelForMaskedLM", network=tiny.pinned(folders["t5"]))
    pickled = _changed(bert, tmp_path / "pickled")
    digest = tiny.pinned(pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    told(r"no \.safetensors file", network=digest)
    broken = _changed(bert, tmp_path / "broken")
    (broken / "config.json").write_text("{")
    told("cannot be read", network=tiny.pinned(broken))
    remote = _changed(bert, tmp_path / "remote")
    config = json.loads((remote / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", "AutoModelForMaskedLM": "code.Model"}}
    (remote / "config.json").write_text(json.dumps(config))
    (remote / "code.py").write_text("raise SystemExit('their code ran')")
    with pytest.raises(UnsafeFile, match=r"config\.json is refused \[remote_code\].*unread, 'code\.py'"):
        build("masked_lm", network=tiny.pinned(remote))
    lying = _changed(bert, tmp_path / "lying")
    with (lying / "model.safetensors").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(UnsafeFile, match=r"model\.safetensors is refused \[bad_offsets\]"):
        build("masked_lm", network=tiny.pinned(lying))


def test_a_network_without_the_head_is_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    """The library would give it a random one."""
    from transformers import BertModel

    headless = _changed(folders["bert"], tmp_path / "headless")
    BertModel.from_pretrained(folders["bert"]).save_pretrained(headless)
    with pytest.raises(WeightsError, match=r"does not fit AutoModelForMaskedLM.*\n.*missing in the file.*cls"):
        build("masked_lm", network=tiny.pinned(headless))


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ({}, "`revision`"),
        ({"model": "bert-base-uncased"}, "`revision`"),
        ({"model": "bert-base-uncased", "revision": "main"}, "pattern"),
        ({"model": "../secret", "revision": "a" * 40}, None),
        ({"model": "a/b/c", "revision": "a" * 40}, "pattern"),
        ({"weights": {"source": "random"}}, "learned nothing"),
        ({"model": "x", "weights": {"source": "package", "package": "p", "path": "m"}}, "no effect"),
        ({"weights": {"source": "file", "path": "m"}}, "sha256"),
    ],
)
def test_mistakes_in_params_are_told(network: dict[str, Any], told: str | None) -> None:
    with pytest.raises(ValueError, match=told or "could not get"):
        build("masked_lm", network=network)


def test_the_hub_is_asked_at_the_pinned_commit_and_its_absence_told() -> None:
    network = {"model": "distilbert/distilroberta-base", "revision": "a" * 40}
    with pytest.raises(InputError, match="could not get the weights of distilbert/distilroberta-base at aaaa"):
        build("masked_lm", network=network)
