"""How fast a model ages: dates, cuts, and figures that are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.contracts import InputError
from components.monitoring import aging, aging_page


def table(days: list[str | None], labels: list[str | None] | None = None) -> pd.DataFrame:
    number = len(days)
    given = labels or ["a", "b"] * (number // 2) + ["a"] * (number % 2)
    return pd.DataFrame({"id": [f"{i:03}" for i in range(number)], "label": given, "attribute.day": days})


def test_samples_fall_into_their_periods_and_those_without_date_or_label_are_left_out() -> None:
    given = table(["2025-01-31", "2025-02-01T23:59:59Z", "2025-02-28 10:00:00", "soon", None, "2025-03-05"])
    given.loc[5, "label"] = " "
    found, lacking = aging.dated(given, "day", "month")
    assert [str(one) for one in found["period"]] == ["2025-01", "2025-02", "2025-02"]
    assert lacking == 2
    assert aging.dated(given, "attribute.day", "week")[0]["period"].nunique() == 2


@pytest.mark.parametrize(
    ("given", "column", "period", "told"),
    [
        (table(["2025-01-01", "2025-02-01"]), "date", "month", "Known: day"),
        (table(["yesterday", "tomorrow", "2025-02-01"]), "day", "month", "yesterday"),
        (table(["2025-01-01", "2025-02-01"]), "day", "year", "take a shorter one"),
    ],
)
def test_what_cannot_be_replayed_is_told(given: pd.DataFrame, column: str, period: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        aging.dated(given, column, period)


def months(*counts: int) -> pd.DataFrame:
    days = [f"2025-{month:02}-{1 + i % 28:02}" for month, count in enumerate(counts, 1) for i in range(count)]
    return aging.dated(table(list(days)), "day", "month")[0]


def test_cuts_have_enough_before_them_and_are_evenly_spread() -> None:
    found = months(5, 5, 10, 10, 10, 10)
    assert [str(one) for one in aging.cuts(found, 9, 10)] == ["2025-03", "2025-04", "2025-05", "2025-06"]
    assert [str(one) for one in aging.cuts(found, 2, 10)] == ["2025-03", "2025-06"]
    with pytest.raises(InputError, match="--min-train"):
        aging.cuts(found, 2, 1000)
    found["label"] = "a"
    with pytest.raises(InputError, match="two labels"):
        aging.cuts(found, 2, 10)


def cells(*shares: tuple[int, int, int]) -> list[aging.Cell]:
    """(age, right, num) of a cut at 2025-01."""
    cut = pd.Period("2025-01", "M")
    return [
        aging.cell(cut, cut + age, np.arange(num) < right, np.zeros(num, dtype=bool), 0.95)
        for age, right, num in shares
    ]


def test_ages_are_pooled_over_cuts_and_the_loss_is_newcombes() -> None:
    other = aging.cell(pd.Period("2025-04", "M"), pd.Period("2025-04", "M"), np.zeros(9), np.zeros(9), 0.95)
    ages = aging.by_age([*cells((0, 56, 70), (3, 48, 80)), other], 0.95)
    assert [(one.age, one.num, one.num_cuts) for one in ages] == [(0, 79, 2), (3, 80, 1)]
    loss = ages[1].loss  # against the same cut when it was young, not against the other
    # Newcombe, Statistics in Medicine 17, 1998, table II, method 10: 56/70 against 48/80
    assert loss is not None
    assert (loss.value, loss.low, loss.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert "lost 20.0 points (5.2 to 33.4) at age 3" in aging.headline(ages, "month")


def test_an_age_that_is_no_worse_after_one_that_is_makes_nobody_retrain() -> None:
    ages = aging.by_age(cells((0, 900, 1000), (1, 30, 60), (2, 92, 100)), 0.95)
    assert ages[1].loss is not None
    assert ages[1].loss.level == pytest.approx(0.975)
    assert ages[1].accuracy.level == 0.95
    told = aging.headline(ages, "month")
    assert "at age 1, but at age 2 there is no evidence of a loss" in told


def test_no_evidence_is_said_as_such() -> None:
    told = aging.headline(aging.by_age(cells((0, 50, 60), (1, 49, 60)), 0.95), "month")
    assert "No evidence that it ages within 1 month" in told
    assert "no older model" in aging.headline(aging.by_age(cells((0, 5, 6)), 0.95), "week")


def test_the_page_holds_every_figure_and_escapes_names() -> None:
    own = cells((0, 56, 70), (3, 48, 80))
    told = {
        "name": "<b>mails", "period": "month", "headline": "It ages.", "notes": ["A note."],
        "models": [{"cut": "2025-01", "num_train": 9, "backbone": "x", "own_accuracy": None, "note": "not trained"}],
    }  # fmt: skip
    page = aging_page.render(told, own, aging.by_age(own, 0.95))
    for one in ("&lt;b&gt;mails", "80.0% (69.2 to 87.7)", "+20.0 (+5.2 to +33.4)", "not trained", "data:image/png"):
        assert one in page
    assert "<b>mails" not in page
    assert "http" not in page
