"""What every augmentation policy must keep, found by itself; each plugin needs golden bytes below for each task."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
import tiny_language_models as tiny
from PIL import Image

from components import plugins, samples
from components.augment.policies import light, trivial_augment
from components.preprocessing.text_classification import Text, clean

GOLDEN = {"identity": "8087a8b4480c", "light": "7be9c667cf1f", "trivial_augment": "57615be80fb4"}
"""First 12 hex digits of SHA-256 over 20 varied pictures."""
GOLDEN_TEXTS = {
    "back_translation": "8ec757ecf282", "eda": "ef5ca809bad2", "identity": "a4e621a660df",
    "masked_lm": "73ed2a1eec29", "synonyms": "0cdadcd0042a",
}  # fmt: skip
"""The same over 20 varied texts; the networks are tiny ones with random weights."""


def for_task(task: str) -> tuple[str, ...]:
    names = plugins.names("augment.policies")
    return tuple(n for n in names if task in plugins.load("augment.policies", n).TASKS)


NAMES, TEXT_NAMES = for_task("image_classification"), for_task("text_classification")
if lacking := (set(NAMES) ^ set(GOLDEN)) | (set(TEXT_NAMES) ^ set(GOLDEN_TEXTS)):
    raise AssertionError(f"policies without golden bytes, or bytes without a policy: {lacking}")

Policy = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def policy(name: str, **options: Any) -> Policy:
    choice = plugins.choose("augment.policies", {"name": name, **options})
    return choice.load().build(choice.params)


def rows(height: int = 32, width: int = 32) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.asarray(factories.shape_image(s, rng, 48).resize((width, height))) for s in factories.SHAPES]


def varied(name: str, row: np.ndarray, num: int, **options: Any) -> list[np.ndarray]:
    return [policy(name, **options)(row, samples.keyed_rng(7, epoch, "a sample")) for epoch in range(num)]


@pytest.mark.parametrize("name", NAMES)
def test_golden_bytes(name: str) -> None:
    digest = hashlib.sha256(b"".join(p.tobytes() for p in varied(name, rows()[1], 20)))
    assert digest.hexdigest()[:12] == GOLDEN[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(32, 32), (17, 40), (1, 1), (2, 90)])
def test_shape_and_type_are_kept_and_the_row_is_not_written_to(name: str, size: tuple[int, int]) -> None:
    for row in rows(*size):
        row.setflags(write=False)  # a memory map that is read is not writable either
        before = row.copy()
        for found in varied(name, row, 30):
            assert (found.shape, found.dtype) == (row.shape, np.uint8)
            assert not np.shares_memory(found, row)
        assert np.array_equal(row, before)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_key_gives_the_same_bytes_and_another_epoch_others(name: str) -> None:
    row = rows()[0]
    first = [p.tobytes() for p in varied(name, row, 20)]
    np.random.seed(5)  # foreign draws do not matter
    np.random.default_rng(5).random(100)
    backwards = [policy(name)(row, samples.keyed_rng(7, e, "a sample")).tobytes() for e in reversed(range(20))]
    assert backwards[::-1] == first
    assert len(set(first)) == 1 if name == "identity" else len(set(first)) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_a_view_into_a_larger_array_gives_the_same_as_a_copy(name: str) -> None:
    wide = np.concatenate([rows()[0], rows()[1]], axis=1)
    view = wide[:, :32]
    pairs = zip(varied(name, view, 20), varied(name, view.copy(), 20))
    assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_the_middle_grey_stays_where_it_was_on_average(name: str) -> None:
    """A policy that darkened or whitened everything would shift training against evaluation."""
    before = np.mean([r.mean() for r in rows()])
    after = np.mean([p.mean() for row in rows() for p in varied(name, row, 150)])
    assert after == pytest.approx(before, rel=0.2)


@pytest.mark.parametrize("name", plugins.names("augment.policies"))
def test_a_policy_names_its_tasks(name: str) -> None:
    tasks = plugins.load("augment.policies", name).TASKS
    assert tasks
    assert set(tasks) <= set(plugins.names("tasks"))


def test_identity_gives_the_very_pixels() -> None:
    assert all(np.array_equal(p, rows()[2]) for p in varied("identity", rows()[2], 3))


NONE = {"max_shift": 0, "max_rotation_degrees": 0, "max_scale": 0, "max_brightness": 0, "max_contrast": 0}


@pytest.mark.parametrize("size", [(32, 32), (17, 40)])
def test_light_without_limits_changes_nothing(size: tuple[int, int]) -> None:
    row = rows(*size)[0]
    assert all(np.array_equal(p, row) for p in varied("light", row, 5, **NONE))


def test_light_does_not_flip_until_told() -> None:
    row = rows()[2]
    found = [np.array_equal(p, row[:, ::-1]) for p in varied("light", row, 40, **NONE, flip=True)]
    assert 10 < sum(found) < 30
    assert light.Params().flip is False


def test_light_moves_by_what_it_says() -> None:
    """A white spot in the middle: where it goes, and how far at most."""
    row = np.zeros((65, 65, 3), np.uint8)
    row[32, 32] = 255
    places = []
    for picture in varied("light", row, 200, **{**NONE, "max_shift": 0.2}):
        y, x = np.unravel_index(picture[..., 0].argmax(), (65, 65))
        places.append((y - 32, x - 32))
    assert np.abs(places).max() == 13  # 0.2 of 65
    assert np.abs(np.mean(places, axis=0)).max() < 2
    turned = varied("light", row, 20, **{**NONE, "max_rotation_degrees": 180, "max_scale": 0.3})
    assert all(t[32, 32, 0] > 100 for t in turned)  # about the middle


def test_light_keeps_brightness_within_its_limit() -> None:
    row = np.full((8, 8, 3), 128, np.uint8)
    found = np.array([p[0, 0, 0] for p in varied("light", row, 300, **{**NONE, "max_brightness": 0.1})], int) - 128
    assert -26 <= found.min() < -20
    assert 20 < found.max() <= 26


def test_light_rotates_as_pillow_does() -> None:
    row, limits = rows(64, 64)[1], {**NONE, "max_rotation_degrees": 30}
    angle = samples.keyed_rng(7, 0, "a sample").uniform(-1, 1, 6)[2] * 30
    expected = np.asarray(Image.fromarray(row).rotate(-angle, Image.Resampling.BILINEAR), int)
    middle = np.s_[16:48, 16:48]
    assert np.abs(varied("light", row, 1, **limits)[0].astype(int)[middle] - expected[middle]).mean() < 1


def test_trivial_augment_has_the_fourteen_operations_and_each_acts() -> None:
    operations = trivial_augment.space(8)
    assert len(operations) == 14
    row = np.linspace(60, 190, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    row = np.where(rows()[0] > 100, row, rows()[0] // 2 + 20).astype(np.uint8)  # no black, no white: contrast to gain
    for name, operation in operations.items():
        found = np.asarray(operation.apply(Image.fromarray(row), operation.largest))
        assert np.array_equal(found, row) == (name == "identity"), name
        nothing = np.asarray(operation.apply(Image.fromarray(row), 0))
        assert np.array_equal(nothing, row) == (name not in ("auto_contrast", "equalize")), name


def test_trivial_augment_draws_operations_and_strengths_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, float]] = []

    def space(_: float) -> dict[str, trivial_augment.Operation]:
        def record(which: int) -> Callable[[Any, float], Any]:
            return lambda image, amount: drawn.append((which, amount)) or image

        return {str(n): trivial_augment.Operation(record(n), 30, n % 2 == 0) for n in range(14)}

    monkeypatch.setattr(trivial_augment, "space", space)
    varied("trivial_augment", rows()[0], 5600)
    counts = Counter(which for which, _ in drawn)
    assert len(counts) == 14
    assert all(abs(n - 400) < 100 for n in counts.values())  # 5 deviations
    strengths = Counter(round(abs(amount)) for _, amount in drawn)
    assert sorted(strengths) == list(range(31))
    assert all(abs(n - 181) < 75 for n in strengths.values())
    assert {which % 2 for which, amount in drawn if amount < 0} == {0}
    negative = [amount < 0 for which, amount in drawn if which % 2 == 0 and amount]
    assert 0.45 < np.mean(negative) < 0.55


def test_trivial_augment_moves_by_whole_pixels_as_it_says() -> None:
    row = rows()[0]
    moved = trivial_augment.space(8)["translate_x"].apply(Image.fromarray(row), 8)
    assert np.array_equal(np.asarray(moved)[:, :24], row[:, 8:])
    assert not np.asarray(moved)[:, 24:].any()


TEXT = """Dear friend,

the Quick brown fox jumps over the (lazy) dog near a QUIET river. We will meet again tomorrow morning at the station.
\tBring the tickets: 2 of them, see http://x.y/z"""
ODD = {
    "one word": "film",
    "one letter": "a",
    "emoji": "🙂 😀😀 👩‍👩‍👧",
    "right to left": "مرحبا بالعالم هذا نص قصير. שלום עולם",
    "no blanks": "我喜欢这部电影，因为它很好看。",
    "signs": "!!! ??? -- ...",
    "lines": "\n\n a \n\n\n b\tc  \n",
    "very long": "the quick brown fox jumps over the lazy dog. " * 5000,
    "one very long word": "good" * 50_000,
    "the network's own marks": "[MASK] [CLS] good </s> film [PAD]",
    "half a pattern": "!" * 100_000 + " good" + " " * 100_000 + "film",
}
NOTHING = {
    "eda": {"deletion": 0, "swap": 0}, "synonyms": {"share": 0}, "masked_lm": {"share": 0},
    "back_translation": {"share": 0}, "identity": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the policies of texts are named with: everything that they need, made here."""
    root = tmp_path_factory.mktemp("policies")
    vectors = root / "vectors.txt"
    rng = np.random.default_rng(3)
    vectors.write_text("".join(f"{w} {' '.join(f'{v:.4f}' for v in rng.normal(1, 1, 8))}\n" for w in tiny.WORDS))
    words = {"source": "file", "path": str(vectors), "sha256": hashlib.sha256(vectors.read_bytes()).hexdigest()}
    forth, back = (tiny.pinned(tiny.translator(root / name, seed)) for seed, name in enumerate(("forth", "back")))
    return {
        "identity": {},
        "eda": {"deletion": 0.1, "swap": 0.1},
        "synonyms": {"share": 0.3, "words": {**words, "min_similarity": 0.2}},
        "masked_lm": {"network": tiny.pinned(tiny.masked(root / "masked")), "share": 0.3},
        "back_translation": {"forth": forth, "back": back, "max_tokens": 12},
    }


Options = dict[str, dict[str, Any]]


def varied_texts(name: str, options: Options, row: Text, num: int, **changed: Any) -> list[Text]:
    vary: Any = policy(name, **{**options[name], **changed})
    return [vary(row, samples.keyed_rng(7, epoch, "a sample")) for epoch in range(num)]


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_golden_texts(name: str, options: Options) -> None:
    found = "\0".join(row.text for row in varied_texts(name, options, Text(TEXT), 20))
    assert hashlib.sha256(found.encode()).hexdigest()[:12] == GOLDEN_TEXTS[name], found


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_the_same_key_gives_the_same_text_in_any_order_and_from_any_thread(name: str, options: Options) -> None:
    rows = [
        Text(TEXT),
        Text("a good film with a great story"),
        Text("A special offer, for you only!", "Buy one today."),
    ]
    vary: Any = policy(name, **options[name])
    keys = [(i, epoch) for epoch in range(10) for i in range(3)]

    def draw(key: tuple[int, int]) -> Text:
        return vary(rows[key[0]], samples.keyed_rng(7, key[1], str(key[0])))

    first = [draw(k) for k in keys]
    assert [draw(k) for k in reversed(keys)][::-1] == first
    vary = policy(name, **options[name])
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, keys)) == first
    assert len({r.text for r in first[::3]}) >= (1 if name == "identity" else 2)


@pytest.mark.parametrize("name", TEXT_NAMES)
@pytest.mark.parametrize("kind", ODD)
def test_odd_texts_survive(name: str, kind: str, options: Options) -> None:
    row = Text(ODD[kind])
    for found in varied_texts(name, options, row, 3):
        assert clean(found.text), "a text must not become empty"
        assert found.pair is None
        assert len(found.text) < 2 * len(row.text) + 2000
    assert row == Text(ODD[kind])


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_nothing_is_left_of_the_tokens_of_what_was_there(name: str, options: Options) -> None:
    from components.preprocessing.text_classification import Tokens

    tokens = Tokens(np.arange(3, dtype=np.int32), np.zeros(3, np.uint8))
    row = Text(TEXT, None, tokens)
    for found in varied_texts(name, options, row, 4):
        assert found.tokens is None or found.text == TEXT
    assert row.tokens is tokens
    assert tokens.ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", [n for n in TEXT_NAMES if n != "identity"])
def test_of_a_pair_one_is_varied_and_never_an_empty_one(name: str, options: Options) -> None:
    row = Text("the quick brown fox jumps over the dog", "a good film with a great story and a bad ending")
    found = varied_texts(name, options, row, 24)
    changed = [(r.text != row.text, r.pair != row.pair) for r in found]
    assert (True, True) not in changed
    assert (True, False) in changed
    assert (False, True) in changed
    for text, pair in ((row.text, ""), ("", row.text)):
        ends = varied_texts(name, options, Text(text, pair), 6)
        assert all((r.text == "") == (text == "") and (r.pair == "") == (pair == "") for r in ends)
        assert any((r.text, r.pair) != (text, pair) for r in ends)


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_without_any_amount_nothing_changes(name: str, options: Options) -> None:
    for text in (TEXT, *ODD.values()):
        assert all(row.text == text for row in varied_texts(name, options, Text(text), 3, **NOTHING[name]))


def test_every_policy_of_texts_that_has_an_amount_can_be_switched_off() -> None:
    assert set(NOTHING) == set(TEXT_NAMES)


@pytest.mark.parametrize("name", ["eda", "synonyms"])
def test_lines_and_paragraphs_stay_what_they_were(name: str, options: Options) -> None:
    text = "\n\n".join(f"the quick brown fox {i}\n  jumps over the lazy dog {i}" for i in range(6))
    for found in varied_texts(name, options, Text(text), 10):
        assert found.text.count("\n\n") == 5
        assert found.text.count("\n") == 16


def test_the_variants_of_slow_policies_are_kept(options: Options, tmp_path: Path) -> None:
    """What one process made, the next one reads; without the folder it is made anew and is the same."""
    for name in ("masked_lm", "back_translation"):
        choice = plugins.choose("augment.policies", {"name": name, **options[name]})
        module, drawn = choice.load(), []
        for cache in (tmp_path / name, tmp_path / name, None):
            vary = module.build(choice.params, cache=cache)
            drawn.append([vary(Text(TEXT), samples.keyed_rng(7, e, "x")) for e in range(6)])
            assert vary.variants.num_made == (0 if len(drawn) == 2 else 1)
        assert drawn[0] == drawn[1] == drawn[2]
