"""The contract of preprocessing: one self-contained file a task, that gives at deployment what it gave in training."""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import factories
import numpy as np
import pandas as pd
import pytest

from components import plugins
from components.contracts import put_files, write_json
from components.preprocessing.image_classification import Preprocessing


@dataclass(frozen=True)
class Canonical:
    """What the tests give a module."""

    spec: dict[str, Any]
    """As a backbone gives it, with a key of its own."""
    manifest: Callable[[Path], pd.DataFrame]
    unreadable: dict[str, Any]
    """Reason -> a sample that is refused for it."""
    imports: set[str]
    """Names under which REQUIRES are imported."""
    free: list[str]
    """Sizes of the model's inputs that are free, beside the batch."""


def _images(root: Path) -> pd.DataFrame:
    return factories.manifest(root, factories.image_folder(root / "data", per_label=3))


CANONICAL = {
    "image_classification": Canonical(
        asdict(Preprocessing(16, 24, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))),
        _images,
        {"empty": b"", "not_an_image": b"text", "truncated_or_corrupt": b"\x89PNG\r\n"},
        {"PIL"},
        ["height", "width"],
    ),
    "text_classification": Canonical(
        {**factories.text_preprocessing(12), "pooling": "mean"},
        lambda root: factories.text_manifest(5),
        {
            "empty_text": b" \r\n\xef\xbb\xbf\t",
            "nul_byte": "a\0b",
            "invalid_utf8": b"\xff\xfe",
            "not_text": ("a", 7),
            "too_long": "a" * 1_000_001,
        },
        {"tokenizers"},
        ["length"],
    ),
}
NAMES = plugins.names("preprocessing")
PUBLIC = (
    "REQUIRES", "NOUN", "FILES", "AHEAD", "Unreadable", "Preprocessing", "Reader", "from_file", "add_arguments",
    "asked", "shipped", "describe", "words",
)  # fmt: skip


def given(name: str) -> tuple[ModuleType, ModuleType, Canonical]:
    return plugins.load("preprocessing", name), plugins.load("tasks", name), CANONICAL[name]


def reader(name: str, folder: Path) -> Any:
    """By what a bundle holds."""
    module, _, canonical = given(name)
    write_json(folder / "preprocessing.json", put_files(folder, module.shipped(canonical.spec)))
    return module.Reader(folder)


def plain(items: Any, what: str, total: int) -> Any:
    return items


def test_every_preprocessing_has_canonical_settings_and_is_a_tasks() -> None:
    assert set(NAMES) == set(CANONICAL), "describe the new preprocessing in CANONICAL"
    assert plugins.names("tasks") == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_has_all_that_the_bundle_asks_of_it(name: str) -> None:
    module, task, _ = given(name)
    assert [p for p in PUBLIC if not hasattr(module, p)] == []
    assert task.Unreadable is module.Unreadable
    problem = module.Unreadable("a_word", "told")
    assert (problem.reason, problem.detail, str(problem)) == ("a_word", "told", "a_word: told")
    assert all(metadata.version(package) for package in module.REQUIRES)


@pytest.mark.parametrize("name", NAMES)
def test_it_needs_the_standard_library_numpy_and_what_it_requires_alone(name: str) -> None:
    tree = ast.parse(Path(str(given(name)[0].__file__)).read_text())
    found = {a.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    found |= {(n.module or ".").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert found - set(sys.stdlib_module_names) == {"numpy", *CANONICAL[name].imports}


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_gives_the_very_inputs_of_training(name: str, tmp_path: Path) -> None:
    module, task, canonical = given(name)
    table = canonical.manifest(tmp_path)
    (tmp_path / "cache").mkdir()
    rows = task.prepare(table, canonical.spec, tmp_path, tmp_path / "cache", 1, plain)
    expected = plugins.load("graphs", name).feed(rows, canonical.spec)
    found, read = reader(name, tmp_path), []
    for number, row in enumerate(table.to_dict("records")):
        content, suffix = task.as_file(row, tmp_path)
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(content)
        read.append(found.read(module.from_file(path)))
    inputs = found.inputs(read)
    assert list(inputs) == list(expected)
    for array, wanted in zip(inputs.values(), expected.values()):
        assert array.dtype == wanted.dtype
        np.testing.assert_array_equal(array, wanted)
    lengths = task.lengths(rows)
    if lengths is not None:
        assert [found.length(row) for row in read] == list(lengths)
    assert json.loads(json.dumps(found.summary(module.from_file(path))))


@pytest.mark.parametrize("name", NAMES)
def test_only_what_it_needs_is_shipped(name: str, tmp_path: Path) -> None:
    module, _, canonical = given(name)
    shipped = module.shipped(canonical.spec)
    assert set(shipped) == set(canonical.spec) - {"pooling"}
    assert tuple(shipped.get("files", {})) == module.FILES
    reader(name, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"preprocessing.json", *module.FILES}
    for changed in module.FILES:
        (tmp_path / changed).write_text((tmp_path / changed).read_text() + " ")
        with pytest.raises(ValueError, match=rf"{changed} is not the one"):
            module.Reader(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_told_of_the_inputs_holds(name: str, tmp_path: Path) -> None:
    module, task, canonical = given(name)
    told = module.describe(canonical.spec)
    (tmp_path / "cache").mkdir()
    rows = task.prepare(canonical.manifest(tmp_path), canonical.spec, tmp_path, tmp_path / "cache", 1, plain)
    fed = plugins.load("graphs", name).feed(rows, canonical.spec)
    assert list(told["inputs"]) == list(fed)
    for one, array in zip(told["inputs"].values(), fed.values()):
        low, high = one["range"]
        assert low <= array.min() <= array.max() <= high
        assert one["meaning"]
        assert array.shape[-1] <= one.get("max_length", array.shape[-1])
    assert list(told["free"]) == canonical.free
    assert json.loads(json.dumps(told))


@pytest.mark.parametrize("name", NAMES)
def test_the_card_finds_words(name: str, tmp_path: Path) -> None:
    module, task, canonical = given(name)
    words = module.words(canonical.spec)
    assert set(words) == {"input", "usage", "limits", "fit"}
    assert all(line.startswith("python predict.py ") for line in words["usage"])
    assert words["limits"]
    (tmp_path / "cache").mkdir()
    rows = task.prepare(canonical.manifest(tmp_path), canonical.spec, tmp_path, tmp_path / "cache", 1, plain)
    assert set(words["fit"]) <= set(task.fit(rows, canonical.spec))


CASES = [(name, reason) for name in NAMES for reason in CANONICAL[name].unreadable]


@pytest.mark.parametrize(("name", "reason"), CASES)
def test_what_cannot_be_read_has_a_stable_reason(name: str, reason: str, tmp_path: Path) -> None:
    module, _, canonical = given(name)
    with pytest.raises(module.Unreadable) as told:
        reader(name, tmp_path).read(canonical.unreadable[reason])
    assert told.value.reason == reason


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_asked_for_in_order_and_read_only_when_wanted(name: str, tmp_path: Path) -> None:
    module, _, _ = given(name)
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    here = tmp_path / "here"
    here.write_bytes(b"content")
    asked = list(module.asked(parser.parse_args([str(here), str(tmp_path / "nowhere"), str(tmp_path)])))
    assert [where["file"] for where, _ in asked] == [str(here), str(tmp_path / "nowhere"), str(tmp_path)]
    assert asked[0][1]() == b"content"
    for _, get in asked[1:]:
        with pytest.raises(OSError, match=r"No such file|Is a directory"):
            get()
    assert not any(vars(parser.parse_args([])).values())  # nothing asked for: predict.py says so


def test_what_has_its_tokens_is_not_tokenised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from components.preprocessing import text_classification as texts

    how = texts.Preprocessing.read(factories.text_preprocessing())
    given = [texts.Text("the food was good"), texts.Text("we thought it was very bad")]
    prepared = how.prepared(given)
    expected = how.collate(given)
    asked: list[int] = []
    real = texts.Preprocessing.prepared
    monkeypatch.setattr(texts.Preprocessing, "prepared", lambda self, some: asked.append(len(some)) or real(self, some))
    for one, other in zip(how.collate([given[0], prepared[1]]), expected):
        assert (one == other).all()
    assert (how.counts(prepared) == how.counts(given)).all()
    assert asked == [1, 0, 2]
