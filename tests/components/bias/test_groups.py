from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.bias import groups
from components.contracts import InputError


def only(values: list[float]) -> groups.Grouping:
    found, _ = groups.find(pd.DataFrame({"property.x": np.array(values, float)}), [], ["x"])
    return found[0]


def test_thirds_are_of_equal_size_and_named_by_range() -> None:
    grouping = only(list(range(9)))
    assert grouping.groups == ("low (0 to 2)", "middle (3 to 5)", "high (6 to 8)")
    assert grouping.codes.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_equal_values_are_never_torn_apart() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = rng.integers(0, rng.integers(2, 9), rng.integers(3, 60)).astype(float)
        values[: rng.integers(0, len(values))] = rng.choice([0, 4, 9])  # heavy ties anywhere
        if len(set(values)) < 2:
            continue
        grouping = only(list(values))
        assert 2 <= len(grouping.groups) <= 3
        assert set(grouping.codes) == set(range(len(grouping.groups)))  # none is empty
        for value in set(values):
            assert len(set(grouping.codes[values == value])) == 1
        assert (np.diff(grouping.codes[np.argsort(values, kind="stable")]) >= 0).all()


def test_heavy_ties_give_two_groups() -> None:
    assert only([0] * 20 + [1, 2, 3, 4]).groups == ("low (0 to 0)", "high (1 to 4)")
    assert only([1, 2, 3, 4] + [9] * 20).groups == ("low (1 to 4)", "high (9 to 9)")


def test_few_values_are_groups_of_their_own() -> None:
    assert only([8, 8, 16, 8]).groups == ("8", "16")


def test_missing_values_are_a_group_of_their_own() -> None:
    grouping = only([1, 2, 3, 4, 5, 6, float("nan")])
    assert grouping.groups[-1] == groups.NOT_GIVEN
    assert grouping.codes[-1] == 3
    table = pd.DataFrame({"attribute.skin": ["light", None, "dark", ""]})
    found, _ = groups.find(table, ["skin"], [])
    assert found[0].groups == ("dark", "light", groups.NOT_GIVEN)
    assert found[0].codes.tolist() == [1, 2, 0, 2]


def test_constant_columns_are_left_out_and_said() -> None:
    table = pd.DataFrame({"property.width": [8.0, 8.0], "attribute.site": ["a", "a"]})
    found, skipped = groups.find(table, ["attribute.site"], ["width"])
    assert found == []
    assert [s["why"] for s in skipped] == ["site is a for every sample", "width is 8 for every sample"]


def test_an_unknown_name_is_answered_with_those_that_are_there() -> None:
    table = pd.DataFrame({"property.width": [8.0, 9.0], "attribute.site": ["a", "b"]})
    with pytest.raises(InputError, match=r"bias\.attributes: .*'skin'.*There are: site"):
        groups.find(table, ["skin"], [])
    with pytest.raises(InputError, match=r"bias\.properties: .*'hue'.*There are: width"):
        groups.find(table, [], ["hue"])
    with pytest.raises(InputError, match="There are: none"):
        groups.find(table.drop(columns="attribute.site"), ["skin"], [])


def test_an_identifier_is_refused() -> None:
    table = pd.DataFrame({"attribute.patient": [str(i) for i in range(300)]})
    with pytest.raises(InputError, match="patient has 300 values"):
        groups.find(table, ["patient"], [])


def test_an_attribute_and_a_property_of_one_name_stay_apart() -> None:
    table = pd.DataFrame({"property.x": [1.0, 2.0], "attribute.x": ["a", "b"]})
    found, _ = groups.find(table, ["x"], ["x"])
    assert [g.name for g in found] == ["x", "x (measured)"]
