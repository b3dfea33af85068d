"""What every check of `validate` must keep, found by itself; each plugin needs a planted fault below."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components import plugins
from components.contracts import Finding, InputError
from components.validate.checks import duplicates, label_leak, labels, leakage, near_duplicates, text_quality

Fault = tuple[Callable[[pd.DataFrame], pd.DataFrame], dict[str, Any], list[tuple[str, int]]]


def content(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


VOCABULARY = [
    a + b + c for a in "bdkmst" for b in "aeiou" for c in ("lo", "ra", "na", "pi", "ve", "zu", "ck", "st", "mp", "n")
]


@functools.lru_cache(maxsize=8000)
def words(number: int) -> str:
    """A text of 25 words of 300."""
    return " ".join(VOCABULARY[k] for k in np.random.default_rng(number).integers(0, len(VOCABULARY), 25))


def clean(num: int = 60) -> pd.DataFrame:
    """Samples of 3 labels, as the stage hands them to a check. Cats are all in train."""
    names = ["cat", "dog", "sparrow"]
    rows = [
        {
            "id": f"{names[n % 3]}/{n:02d}", "sha256": content(n), "label": names[n % 3], "input.text": words(n),
            "attribute.camera": f"c{n % 6}",
        }
        for n in range(num)
    ]  # fmt: skip
    split = [["train", "train", "validation", "train", "test", "train"][n % 6] for n in range(num)]
    return pd.DataFrame(rows).assign(split=split, note="").sort_values("id").reset_index(drop=True)


def put(table: pd.DataFrame, rows: list[int], **values: Any) -> pd.DataFrame:
    for column, value in values.items():
        table.loc[rows, column] = value
    return table


def say(table: pd.DataFrame, *rows: int, text: str) -> pd.DataFrame:
    """`text` for some rows, `{}` in it standing for their own text."""
    for row in rows:
        table.loc[row, "input.text"] = text.replace("{}", str(table.loc[row, "input.text"]))
    return table


def twin(table: pd.DataFrame, one: int, other: int, how: str = "{} Indeed!") -> pd.DataFrame:
    """Nearly the same text twice."""
    return put(table, [other], **{"input.text": how.replace("{}", str(table.loc[one, "input.text"]))})


def pairs(table: pd.DataFrame, **second: str) -> pd.DataFrame:
    """Every sample has a second text; `row_3` says which one row 3 has."""
    table = table.assign(**{"input.text_pair": [words(1000 + n) for n in range(len(table))]})
    for row, text in second.items():
        table.loc[int(row.removeprefix("row_")), "input.text_pair"] = text
    return table


def mark(label: str, share: float, text: str, others: int = 0) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A larger table in which a share of a label's training samples have a mark, and so many others."""

    def plant(table: pd.DataFrame) -> pd.DataFrame:
        table = clean(600)
        own = table.index[(table["label"] == label) & (table["split"] == "train")]
        rest = table.index[(table["label"] != label) & (table["split"] == "train")]
        return say(table, *own[: round(share * len(own))], *rest[:others], text=text)

    return plant


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Cameras torn between splits."""
    return table.assign(**{"attribute.camera": ["a", "b"] * 30})


# Plugin -> (name of the fault, how it is planted in `clean`, options, [(severity, num_samples)]).
# Rows 0 to 19 are cats, 20 to 39 dogs (train, test, train, ...), 40 to 59 sparrows (validation, train, ...).
FAULTS: dict[str, dict[str, Fault]] = {
    "labels": {
        "missing": (lambda t: put(t, [3, 4], label=None, split=None), {}, [("warning", 2)]),
        "too few": (lambda t: t[t["label"].ne("dog") | (t.index < 24)], {"min_per_label": 5}, [("error", 4)]),
        "copies are not more": (lambda t: put(t, [0, 1, 2], sha256=content(0)), {"min_per_label": 19}, [("error", 20)]),
        "swapped letters": (lambda t: put(t, [7], label="cta"), {"min_per_label": 1}, [("warning", 1)]),
        "two edits in a long name": (
            lambda t: put(t.replace("sparrow", "sparrowhawk"), [41], label="sparowhwk"), {"min_per_label": 1},
            [("warning", 1)],
        ),
        "case": (lambda t: put(t, list(range(10)), label="Cat"), {}, [("warning", 10)]),
        "space": (lambda t: put(t, [0], label="cat "), {"min_per_label": 1}, [("warning", 1)]),
        "one label": (lambda t: t.assign(label="cat"), {}, [("error", 60)]),
        "no label": (lambda t: t.assign(label=None, split=None), {}, [("warning", 60), ("error", 0)]),
        "imbalance": (lambda t: t[t["label"].ne("dog") | (t.index < 24)], {"min_per_label": 2, "max_imbalance": 4},
                      [("warning", 0)]),
    },
    "duplicates": {
        "same label": (lambda t: put(t, [0, 1, 2], sha256=content(0)), {}, [("warning", 3)]),
        "another label": (lambda t: put(t, [0, 1, 45], sha256=content(0)), {}, [("error", 3)]),
        "both": (lambda t: put(put(t, [0, 45], sha256=content(0)), [8, 9], sha256=content(900)), {},
                 [("error", 2), ("warning", 2)]),
    },
    "leakage": {
        "same content": (lambda t: put(put(t, [0, 1], sha256=content(0)), [0], split="test"), {}, [("error", 2)]),
        "same camera": (spread, {"groups": ["camera"]}, [("error", 60)]),
    },
    "text_quality": {
        "empty": (lambda t: say(t, 3, 4, text=" \n"), {}, [("error", 2)]),
        "some may be empty": (lambda t: say(t, 3, 4, text=""), {"max_empty": 0.05}, [("warning", 2)]),
        "one of two": (lambda t: pairs(t, row_3="", row_4=" "), {}, [("warning", 2)]),
        "both of two": (lambda t: say(pairs(t, row_3=""), 3, text=""), {}, [("error", 1)]),
        "in the second": (lambda t: pairs(t, row_3="it\u00e2\u20ac\u2122s"), {}, [("warning", 1)]),
        "nul": (lambda t: say(t, 3, text="{}\0"), {}, [("error", 1)]),
        "half a character": (lambda t: say(t, 3, text="{} \ud83d"), {}, [("error", 1)]),
        "a lost character": (lambda t: say(t, 3, 5, text="caf\ufffd {}"), {}, [("warning", 2)]),
        "too many lost": (lambda t: say(t, 3, 5, text="caf\ufffd {}"), {"max_replaced": 0.02}, [("error", 2)]),
        "mojibake": (lambda t: say(t, 3, text="{} a café".encode().decode("cp1252")), {}, [("warning", 1)]),
        "control": (lambda t: say(t, 3, text="\x1b[1m{}"), {}, [("warning", 1)]),
        "a tag": (lambda t: say(t, 3, text='{} <a\nhref="x">'), {}, [("warning", 1)]),
        "an entity": (lambda t: say(t, 3, text="{}&nbsp;&#8220;"), {}, [("warning", 1)]),
        "short": (lambda t: say(t, 3, text=" ok "), {}, [("warning", 1)]),
        "long": (lambda t: say(t, 3, text="{}" + " " * 99 + "x"), {"max_chars": 220}, [("warning", 1)]),
        "two at once": (lambda t: say(t, 3, text="<br>\x08"), {"max_html": 0}, [("warning", 1), ("error", 1)]),
    },
    "near_duplicates": {
        "one label": (lambda t: twin(t, 0, 1), {}, [("warning", 2)]),
        "three of them": (lambda t: twin(twin(t, 0, 1), 0, 2, "Well, {}"), {}, [("warning", 3)]),
        "case and marks": (lambda t: put(t, [1], **{"input.text": t.loc[0, "input.text"].upper() + " ..."}), {},
                           [("warning", 2)]),
        "in train and test": (lambda t: twin(t, 20, 21), {}, [("warning", 1)]),
        "too many": (lambda t: twin(t, 20, 21), {"max_leaked": 0.04}, [("error", 1)]),
        "another label": (lambda t: twin(t, 0, 20), {}, [("error", 2)]),
        "few of another label": (lambda t: twin(t, 0, 20), {"max_conflicting": 0.05}, [("warning", 2)]),
        "both": (lambda t: twin(t, 0, 21), {}, [("warning", 1), ("error", 2)]),
        "far apart": (lambda t: twin(twin(t, 0, 1), 30, 32), {}, [("warning", 4)]),
        "less alike": (lambda t: twin(t, 0, 1, "{} one two three four five"), {"min_similarity": 0.7},
                       [("warning", 2)]),
        "pairs": (lambda t: twin(pairs(t, row_0=words(7), row_1=words(7) + " so"), 0, 1), {}, [("warning", 2)]),
    },
    "label_leak": {
        "a tag": (mark("cat", 1, "[x-17] {}"), {}, [("warning", 200)]),
        "is an error": (mark("cat", 1, "[x-17] {}"), {"severity": "error"}, [("error", 200)]),
        "a footer": (mark("dog", 0.6, "{}\n-- \nsent by zed", others=1), {}, [("warning", 60)]),
        "marks alone": (mark("sparrow", 0.7, "{} ~~"), {}, [("warning", 70)]),
        "its name": (mark("sparrow", 0.3, "{} Sparrow."), {}, [("warning", 30)]),
        "its name in a mark": (mark("dog", 0.3, "[DOG]{}"), {}, [("warning", 30)]),
    },
}  # fmt: skip

NAMES = plugins.names("validate.checks")
if set(NAMES) != set(FAULTS):
    raise AssertionError(f"checks without a planted fault, or faults without a check: {set(NAMES) ^ set(FAULTS)}")


@pytest.fixture(params=NAMES)
def plugin(request: pytest.FixtureRequest) -> ModuleType:
    return plugins.load("validate.checks", request.param)


def check(plugin: ModuleType, table: pd.DataFrame, **more: Any) -> list[Finding]:
    return list(plugin.check(table.reset_index(drop=True), plugin.Params.model_validate(more)))


def test_clean_data_gives_none(plugin: ModuleType) -> None:
    assert check(plugin, clean()) == []


@pytest.mark.parametrize(("name", "fault"), [(n, f) for n, faults in FAULTS.items() for f in faults])
def test_a_planted_fault_gives_exactly_it(name: str, fault: str) -> None:
    plant, more, expected = FAULTS[name][fault]
    found = check(plugins.load("validate.checks", name), plant(clean()), **more)
    assert [(f.severity, f.num_samples) for f in found] == expected
    assert {f.check for f in found} == {name}


@pytest.mark.parametrize(("name", "fault"), [(n, f) for n, faults in FAULTS.items() for f in faults])
def test_other_checks_are_quiet_about_it(name: str, fault: str) -> None:
    """Each kind of fault is told once, by whom it belongs to."""
    belongs = {("leakage", "same content"): {"duplicates"}, ("labels", "copies are not more"): {"duplicates"}}
    belongs |= {("duplicates", f): {"leakage"} for f in FAULTS["duplicates"]}
    table = FAULTS[name][fault][0](clean())
    for other in set(NAMES) - {name, "labels"} - belongs.get((name, fault), set()):
        assert check(plugins.load("validate.checks", other), table) == [], other


def test_a_finding_has_at_most_twenty_ids_and_a_severity_that_is_known(plugin: ModuleType) -> None:
    for plant, more, _ in FAULTS[plugin.NAME].values():
        for found in check(plugin, plant(clean()), **more):
            assert found.severity in ("error", "warning")
            assert len(found.samples) <= 20
            assert set(found.samples) <= set(plant(clean())["id"])
            assert all(type(v) in (str, int, tuple) for v in dataclasses.asdict(found).values())
            assert "\n" not in found.message


def test_no_rows_and_no_accepted_rows_are_answered(plugin: ModuleType) -> None:
    for table in (clean()[:0], clean().assign(split=None)):
        assert all(f.check == plugin.NAME for f in check(plugin, table))


def test_the_table_is_left_as_it_was(plugin: ModuleType) -> None:
    for plant, more, _ in FAULTS[plugin.NAME].values():
        table = plant(clean()).reset_index(drop=True)
        before = table.copy()
        plugin.check(table, plugin.Params.model_validate(more))
        pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("cat", "cta", 1), ("cat", "cat", 0), ("cat", "at", 1), ("cat", "caat", 1), ("cat", "dog", 3), ("", "abc", 3),
     ("ca", "abc", 3), ("kitten", "sitting", 3), ("sparrowhawk", "sparowhwk", 2)],
)  # fmt: skip
def test_edits_counts_them(one: str, other: str, distance: int) -> None:
    assert labels.edits(one, other, 9) == labels.edits(other, one, 9) == distance
    assert labels.edits(one, other, 1) == min(distance, 2)


@pytest.mark.parametrize(
    "names",
    [("0", "1"), ("a", "b"), ("type1", "type2"), ("type10", "type1"), ("no", "on"), ("lion", "tiger")],
)
def test_what_is_no_typo_is_not_called_one(names: tuple[str, str]) -> None:
    table = clean()
    table["label"] = np.where(table.index < 2, names[1], names[0])
    assert check(labels, table, min_per_label=1, max_imbalance=100) == []


def test_labels_that_are_both_common_are_no_typos() -> None:
    assert check(labels, clean().replace("dog", "bat")) == []
    table = put(clean(), [7], label="bat")
    assert len(check(labels, table, min_per_label=1)) == 1
    assert check(labels, table, min_per_label=1, rare=0) == []


def test_messages_say_which() -> None:
    plant = FAULTS["duplicates"]["another label"][0]
    message = check(duplicates, plant(clean()))[0].message
    assert "cat/00 is `cat` = cat/03 is `cat` = sparrow/17 is `sparrow`" in message
    message = check(leakage, spread(clean()), groups=["camera"])[0].message
    assert "2 value(s) of `camera`" in message
    assert "validate.split.group" in message


def test_an_unknown_group_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'patient'. Known: camera"):
        check(leakage, clean(), groups=["patient"])


TEXT_CHECKS = [name for name in NAMES if hasattr(plugins.load("validate.checks", name), "TASKS")]


def test_the_checks_of_texts_are_known() -> None:
    assert TEXT_CHECKS == ["label_leak", "near_duplicates", "text_quality"]


@pytest.mark.parametrize("name", TEXT_CHECKS)
def test_a_check_of_texts_says_so_where_there_are_none(name: str) -> None:
    table = clean().rename(columns={"input.text": "input.path"})
    told = rf"validate\.checks: {name} reads texts .*text_classification.*has input\.path"
    with pytest.raises(InputError, match=told):
        check(plugins.load("validate.checks", name), table)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(TEXT_CHECKS)))
def test_the_others_do_not_need_texts(name: str) -> None:
    plugin = plugins.load("validate.checks", name)
    assert check(plugin, clean().rename(columns={"input.text": "input.path"})) == []


@pytest.mark.parametrize("name", TEXT_CHECKS)
def test_what_was_set_aside_is_not_looked_at(name: str) -> None:
    table = clean(600)
    table = say(table, *table.index[table["label"] == "cat"], text="[x-17] same text for all of these cats \x08")
    assert check(plugins.load("validate.checks", name), table) != []
    aside = put(table, list(table.index[table["label"] == "cat"]), label=None, split=None)
    assert check(plugins.load("validate.checks", name), aside) == []


@pytest.mark.parametrize("name", TEXT_CHECKS)
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    for plant, more, _ in FAULTS[name].values():
        table, plugin = plant(clean()), plugins.load("validate.checks", name)
        shuffled = table.sample(frac=1, random_state=1).sort_values("id")  # as the stage does
        assert check(plugin, table.sort_values("id"), **more) == check(plugin, shuffled, **more)


@pytest.mark.parametrize(
    "broken",
    [
        "it’s",
        "“so”",
        "a – b",
        "naïve",
        "£5",
        "5 °C",
        "señor",
        "über",
        "привет",
        "Ελλάδα",
        "中文",
        "日本語",
        "😀",
        "\ufeffx",
    ],
)
@pytest.mark.parametrize("charset", ["cp1252", "latin-1"])
def test_utf8_read_wrongly_is_found(broken: str, charset: str) -> None:
    wrong = "".join(bytes([b]).decode(charset, "ignore") or chr(b) for b in broken.encode())
    found = check(text_quality, say(clean(), 3, text="{} " + wrong), max_control=1)
    assert "hold letters read in the wrong character set" in " ".join(f.message for f in found)


@pytest.mark.parametrize(
    "right",
    [
        "it’s “so” – a naïve señor über £5, 5 °C, ½ €", "CAFÉ» «À» MANHÃ” SÃO «Ê…",
        "cassé…\u00a0» dit-il, «\u00a0là…\u00a0»",
        "maçã…", "Â quelle heure ? ÂGE", "STRASSE, STRAẞE, Straß…",
        "Ísland það er “gott”", "привет, Ελλάδα, 中文, 日本語, 😀",
        "ngôn ngữ, TẤT CẢ, Âu, HẬU", "a < b > c & d; x<y>z; R&D; AT&T; <3; <eugen@leitl.org>; a\tb\nc",
    ],
)  # fmt: skip
def test_what_is_right_is_not_called_broken(right: str) -> None:
    assert check(text_quality, say(clean(), 3, text="{} " + right)) == []


def test_texts_that_differ_enough_are_no_twins() -> None:
    assert check(near_duplicates, twin(clean(), 0, 1, "{} one two three four five six")) == []
    shuffled = clean()
    shuffled.loc[1, "input.text"] = " ".join(sorted(shuffled.loc[0, "input.text"].split()))
    assert check(near_duplicates, shuffled) == []
    assert check(near_duplicates, say(clean(), 0, 1, 20, 21, text="Thank you very much!")) == []  # too short to tell
    assert check(near_duplicates, twin(pairs(clean()), 0, 20)) == []  # one premise, two hypotheses


def test_evidence_that_is_not_nearly_alone_is_no_leak() -> None:
    assert check(label_leak, mark("cat", 0.45, "{} viagra")(clean())) == []
    assert check(label_leak, mark("cat", 1, "{} viagra", others=15)(clean())) == []
    assert check(label_leak, mark("dog", 0.15, "{} dog")(clean())) == []
    assert check(label_leak, mark("dog", 0.3, "{} dog", others=6)(clean())) == []
    assert check(label_leak, say(clean(), *range(8), text="{} [x]")) == []  # 8 of 20 cats, too few to know


def test_a_rare_labels_own_words_are_no_leak() -> None:
    """100 of 182 and 79 of 3,961: 0.95 at equal weight, but who holds it is as likely another."""
    table = clean(3000).assign(split="train", label="often")
    rare = table.index[:150]
    table.loc[rare, "label"] = "rare"
    assert check(label_leak, say(table, *rare[:90], *table.index[1000:1060], text="{} all rights reserved")) == []
    assert len(check(label_leak, say(table, *rare[:90], text="{} ~~"))) == 1


def test_text_quality_says_what_it_found_without_the_words_around_it() -> None:
    wrong = (
        ("Smith&nbsp;", "entity"), ("Smith<a href='smith'>", "tag"), ("Smith<!-- smith -->", "comment"),
        ("Smith\x08", "U+0008"), ("Smith\ud83d", "U+D83D"), ("Smith" * 50, "250 characters"),
        ("Smith caf\u00c3\u00a9", ""), ("Smith\ufffd", ""), ("Smith\0", ""),
    )  # fmt: skip
    for text, told in wrong:
        message = check(text_quality, say(clean(), 3, text=text), max_chars=200)[0].message
        assert "smith" not in message.lower()
        assert f"(cat/09 {told})" in message if told else "(cat/09)" in message
    assert "(cat/09 2 characters)" in check(text_quality, say(clean(), 3, text=" ok "))[0].message


def test_messages_of_the_text_checks_say_what_and_where() -> None:
    def told(plugin: ModuleType, table: pd.DataFrame, **more: Any) -> str:
        return check(plugin, table, **more)[0].message

    message = told(text_quality, say(clean(), 3, text="a\nb\0c"))
    assert "1 of 60 texts (1.7%) hold NUL bytes (cat/09); it may" in message
    message = told(near_duplicates, twin(clean(), 20, 21))
    assert "1 of 20 validation and test texts (5.0%) have a near twin in train" in message
    assert "dog/01 in train ~ dog/04 in test, 96% alike" in message
    assert "validate.split.group" in message
    assert "cat/00 is `cat` ~ dog/01 is `dog`" in told(near_duplicates, twin(clean(), 0, 20))
    assert "3 texts are near copies of 1" in told(near_duplicates, twin(twin(clean(), 0, 1), 0, 2))
    message = told(label_leak, mark("dog", 0.6, "{}\n-- \nsent by zed", others=1)(clean()))
    assert "of its 100 training texts and 300 others, `-- sent` in 60 and 1, `sent by` in 60 and 1" in message
    assert "raise min_share" in message


def test_of_several_labels_each_is_counted() -> None:
    sets = [("a", "b"), ("a",), ("b",), ("a", "b"), ()] * 3 + [("rare",)]
    rows = pd.DataFrame(
        {
            "id": [f"{i:02d}" for i in range(len(sets))],
            "sha256": [f"{i:064x}" for i in range(len(sets))],
            "label": [";".join(own) or "(none)" for own in sets],
            "labels": sets,
            "split": "train",
        }
    )
    module = plugins.load("validate.checks", "labels")
    found = module.check(rows, module.Params(min_per_label=5))
    assert [(f.severity, f.num_samples) for f in found] == [("error", 1)]
    assert "`rare` 1" in found[0].message


def several(num: int = 300) -> pd.DataFrame:
    """Training texts with `sport`, `politics`, both and more, or none: every set holds few of them."""
    rng = np.random.default_rng(2)
    names = ("sport", "politics", "music", "travel", "food")
    held = [tuple(sorted(n for n in names if rng.random() < 0.4)) for _ in range(num)]
    table = clean(num).assign(split="train", label=[";".join(own) or "(none)" for own in held])
    return table.assign(labels=pd.Series(held, dtype=object))


def test_of_several_labels_the_leak_of_each_is_found() -> None:
    assert check(label_leak, several()) == []
    table = several()
    rows = table.index[table["labels"].map(lambda own: "sport" in own)]
    found = check(label_leak, say(table, *rows, text="[tagx] {}"))
    assert [(f.severity, f.num_samples) for f in found] == [("warning", len(rows))]
    told = (
        f"label `sport` away: of its {len(rows)} training texts and {300 - len(rows)} others, `[tagx]` in {len(rows)}"
    )
    assert told in found[0].message


def test_of_several_labels_what_others_have_too_is_no_leak() -> None:
    table = several()
    rows = table.index[table["labels"].map(lambda own: "sport" in own or own == ("food",))]
    assert len(rows) < 200
    assert check(label_leak, say(table, *rows, text="[tagx] {}")) == []


def test_a_column_of_one_label_each_gives_the_same_leaks() -> None:
    for plant, more, _ in FAULTS["label_leak"].values():
        table = plant(clean())
        own = table.assign(labels=[(label,) for label in table["label"]])
        assert check(label_leak, own, **more) == check(label_leak, table, **more) != []
