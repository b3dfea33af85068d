"""The split: shares, copies, groups, tiny labels, a split of the user's own, and that it stays put."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.contracts import InputError
from components.validate import stage
from components.validate.split import assign, findings, units

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def shares(**more: Any) -> stage.Split:
    return stage.Split.model_validate({**SHARES, **more})


def table(counts: dict[str, int]) -> pd.DataFrame:
    rows = [(f"{label}/{n:04d}", label) for label, count in counts.items() for n in range(count)]
    frame = pd.DataFrame(rows, columns=["id", "label"])
    return frame.assign(sha256=[hashlib.sha256(i.encode()).hexdigest() for i in frame["id"]])


def counts(frame: pd.DataFrame, split: pd.Series) -> dict[str, Counter[str]]:
    return {str(label): Counter(split[rows.index]) for label, rows in frame.groupby("label")}


def test_golden_split() -> None:
    found = assign(table({"a": 12, "b": 5}), 17, shares())
    assert "".join(name[1] for name in found) == "arrrerrrrarrerrar"  # the second letter: r train, a validation, e test


@pytest.mark.parametrize("seed", range(5))
def test_shares_hold_within_one_sample_a_label(seed: int) -> None:
    frame = table({"a": 200, "b": 33, "c": 10, "d": 3})
    for label, found in counts(frame, assign(frame, seed, shares())).items():
        num = sum(found.values())
        for name, share in SHARES.items():
            slack = 1 if name != "train" else 2
            assert abs(found[name] - share * num) <= slack + (num < 7), (label, found)


@pytest.mark.parametrize("seed", range(5))
def test_shares_hold_over_many_small_labels(seed: int) -> None:
    """0.15 of 8 is 1.2: were each label rounded to the nearest, validation and test would have 0.125 of all."""
    frame = table({f"label {n}": 8 for n in range(100)})
    found = Counter(assign(frame, seed, shares()))
    assert abs(found["test"] / 800 - 0.15) < 0.005
    assert abs(found["validation"] / 800 - 0.15) < 0.005


@pytest.mark.parametrize(
    ("num", "expected"),
    [
        (1, {"train"}),
        (2, {"train", "test"}),
        (3, {"train", "validation", "test"}),
        (4, {"train", "validation", "test"}),
    ],
)
def test_tiny_labels_get_what_they_can(num: int, expected: set[str]) -> None:
    for seed in range(20):
        frame = table({"tiny": num, "large": 50})
        assert set(counts(frame, assign(frame, seed, shares()))["tiny"]) == expected


@pytest.mark.parametrize("extreme", [(0.02, 0.49, 0.49), (0.98, 0.01, 0.01)])
def test_every_split_gets_each_label_at_extreme_shares(extreme: tuple[float, float, float]) -> None:
    frame = table({"a": 3, "b": 7, "c": 20})
    for seed in range(20):
        for found in counts(frame, assign(frame, seed, shares(**dict(zip(SHARES, extreme))))).values():
            assert set(found) == set(SHARES)


def test_copies_stay_together_and_do_not_shift_the_shares() -> None:
    frame = table({"a": 40, "b": 40})
    copied = pd.concat([frame, *[frame.iloc[:10].assign(id=frame["id"][:10] + f" copy {n}") for n in range(6)]])
    copied = copied.reset_index(drop=True)
    split = assign(copied, 1, shares())
    assert (split.groupby(copied["sha256"]).nunique() == 1).all()
    pd.testing.assert_series_equal(split[:80], assign(frame, 1, shares()), check_names=False)


def test_neither_order_nor_ids_matter() -> None:
    frame = table({"a": 30, "b": 20})
    split = assign(frame, 1, shares())
    shuffled = frame.sample(frac=1, random_state=0).assign(id=lambda f: f["id"] + "x")
    pd.testing.assert_series_equal(assign(shuffled, 1, shares()).sort_index(), split, check_names=False)


@pytest.mark.parametrize("seed", range(10))
def test_one_more_sample_moves_few_others_and_none_of_another_label(seed: int) -> None:
    frame = table({"a": 101, "b": 40})
    before = assign(frame[frame["id"] != "a/0050"], seed, shares())
    after = assign(frame, seed, shares())
    moved = before != after[before.index]
    assert moved.sum() <= 3
    assert not moved[frame["label"] == "b"].any()
    exchanged = moved & before.isin(["validation", "test"]) & after[before.index].isin(["validation", "test"])
    assert not exchanged.any()


def test_a_group_is_not_torn_even_through_a_copy() -> None:
    frame = table({"a": 60, "b": 60}).assign(**{"attribute.patient": [f"p{n % 24}" for n in range(120)]})
    frame.loc[5, "sha256"] = frame.loc[30, "sha256"]  # patients p5 and p6 share a picture
    split = assign(frame, 1, shares(group="patient"))
    assert (split.groupby(frame["attribute.patient"]).nunique() == 1).all()
    linked = split[frame["attribute.patient"].isin(["p5", "p6"])]
    assert linked.nunique() == 1
    assert set(split) == set(SHARES)
    torn = assign(frame, 1, shares()).groupby(frame["attribute.patient"]).nunique()
    assert (torn > 1).any()  # without the option it would be


def test_a_sample_without_a_group_stands_alone() -> None:
    frame = table({"a": 4}).assign(**{"attribute.patient": ["p", None, "", "p"]})
    found = units(frame, "patient")
    assert found[0] == found[3]
    assert found.nunique() == 3


def test_the_users_own_split_is_taken_as_it_is() -> None:
    own = ["Train ", "test", "val", "training", "dev", "TEST"]
    frame = table({"a": 6}).assign(**{"attribute.split": own})
    assert list(assign(frame, 1, shares())) == ["train", "test", "validation", "train", "validation", "test"]


def test_validation_is_cut_from_the_users_training_part() -> None:
    frame = table({"a": 100, "b": 100}).assign(**{"attribute.split": ["train"] * 80 + ["test"] * 40 + ["train"] * 80})
    split = assign(frame, 1, shares())
    assert (split[frame["attribute.split"] == "test"] == "test").all()
    assert Counter(split)["validation"] == pytest.approx(160 * 0.15 / 0.85, abs=2)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (["train", "test", "validation", "later"], "holds 'later'. Known: train"),
        (["train", None, "validation", "test"], "holds ''"),
        (["train", "train", "validation", "train"], "no test samples"),
        (["test", "test", "test", "test"], "no train and no validation samples"),
    ],
)
def test_a_split_of_the_users_own_that_cannot_be_used_is_told(own: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        assign(table({"a": 4}).assign(**{"attribute.split": own}), 1, shares())
    assert "ingest.source" in str(caught.value)


def test_an_empty_table_gives_an_empty_split() -> None:
    assert assign(table({"a": 1})[:0], 1, shares()).empty


def test_splits_that_cannot_be_trained_or_measured_are_told() -> None:
    frame = table({"a": 4, "b": 3})
    frame["labels"] = [(label,) for label in frame["label"]]
    frame["split"] = ["train", "train", "validation", "test", "test", "test", "validation"]
    found = findings(frame)
    assert [(f.severity, f.num_samples) for f in found] == [("error", 3)]
    assert "`b`" in found[0].message
    frame["split"] = "train"
    assert [f.message.split(";")[0] for f in findings(frame)] == ["no samples in validation, test"]
    frame["split"] = ["train", "validation", "test", "train", "train", "train", "test"]
    assert [f.severity for f in findings(frame)] == ["warning"]


def test_of_several_labels_each_is_looked_for() -> None:
    frame = table({"x": 4})
    frame["labels"] = [("a", "b"), ("a",), ("b", "c"), ()]
    frame["split"] = ["train", "train", "validation", "test"]
    assert [(f.severity, f.num_samples) for f in findings(frame)] == [("error", 1), ("warning", 0), ("warning", 0)]
    assert "`c`" in findings(frame)[0].message


def sets(num: int, num_labels: int, share: float, kinds: int | None = None) -> pd.DataFrame:
    """Samples that have each label with a probability that falls from `share`, or one of so many such sets."""
    rng = np.random.default_rng(3)
    chances = np.linspace(share, share / 10, num_labels)
    drawn = rng.random((kinds or num, num_labels)) < chances
    has = drawn if kinds is None else drawn[np.arange(num) % kinds]
    held = [tuple(f"label {k:02d}" for k in np.flatnonzero(row)) for row in has]
    frame = table({"x": num})
    return frame.assign(label=[";".join(own) or "(none)" for own in held], labels=pd.Series(held, dtype=object))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("num", "kinds"), [(1000, None), (1000, 250), (1000, 330), (200, None), (1000, 20)])
def test_shares_hold_however_many_sets_of_labels_there_are(seed: int, num: int, kinds: int | None) -> None:
    """Of 1,000 samples with 12 labels most sets occur once; were each a stratum, all of these would be trained on."""
    frame = sets(num, 12, 0.6, kinds)
    assert kinds is not None or frame["label"].nunique() > 0.5 * num
    split = assign(frame, seed, shares())
    found = Counter(split)
    for name, share in SHARES.items():
        assert found[name] / num == pytest.approx(share, abs=0.02)
    each = frame.assign(split=split).explode("labels").dropna(subset="labels")
    for _, own in each.groupby("labels"):
        assert set(own["split"]) == set(SHARES)
        assert (own["split"] == "test").mean() == pytest.approx(0.15, abs=0.05 + 2 / len(own))


def test_a_common_set_keeps_its_shares_and_a_rare_label_is_in_every_split() -> None:
    held = [("a", "b")] * 40 + [("a",)] * 40 + [()] * 40
    held += [("a", "rare"), ("b", "rare"), ("a", "b", "rare"), ("once",)]
    frame = table({"x": len(held)})
    frame = frame.assign(label=[";".join(own) or "(none)" for own in held], labels=pd.Series(held, dtype=object))
    for seed in range(20):
        split = assign(frame, seed, shares())
        for start in (0, 40, 80):
            assert Counter(split[start : start + 40])["test"] in (5, 6, 7)
        assert set(split[120:123]) == set(SHARES)
        assert split[123] == "train"


def test_one_more_sample_with_several_labels_moves_few_others() -> None:
    frame = sets(400, 8, 0.5)
    before, after = assign(frame[:-1], 1, shares()), assign(frame, 1, shares())
    assert (before != after[:-1]).sum() <= 8


def test_a_column_of_one_label_each_changes_nothing() -> None:
    frame = table({"a": 12, "b": 5, "c": 2, "d": 1})
    split = assign(frame, 17, shares())
    pd.testing.assert_series_equal(assign(frame.assign(labels=[(v,) for v in frame["label"]]), 17, shares()), split)
