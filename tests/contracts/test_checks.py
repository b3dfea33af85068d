"""What every check of `validate` must keep, found by itself; each plugin needs a planted fault below."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components import plugins
from components.contracts import Finding, InputError
from components.validate.checks import duplicates, labels, leakage

Fault = tuple[Callable[[pd.DataFrame], pd.DataFrame], dict[str, Any], list[tuple[str, int]]]


def content(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def clean() -> pd.DataFrame:
    """60 samples of 3 labels, as the stage hands them to a check."""
    names = ["cat", "dog", "sparrow"]
    rows = [
        {"id": f"{names[n % 3]}/{n:02d}", "sha256": content(n), "label": names[n % 3], "attribute.camera": f"c{n % 6}"}
        for n in range(60)
    ]
    split = [["train", "train", "validation", "train", "test", "train"][n % 6] for n in range(60)]
    return pd.DataFrame(rows).assign(split=split, note="").sort_values("id").reset_index(drop=True)


def put(table: pd.DataFrame, rows: list[int], **values: Any) -> pd.DataFrame:
    for column, value in values.items():
        table.loc[rows, column] = value
    return table


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Cameras torn between splits."""
    return table.assign(**{"attribute.camera": ["a", "b"] * 30})


# Plugin -> (name of the fault, how it is planted in `clean`, options, [(severity, num_samples)]).
# Rows 0 to 19 are cats, 20 to 39 dogs, 40 to 59 sparrows.
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
            assert set(found.samples) <= set(clean()["id"])
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
