"""Ranks, ties, the prior and the verdict on differences, by hand."""

from __future__ import annotations

import numpy as np

from components.select import ranking
from components.select.ranking import Entry


def entry(title: str, gmacs: float = 1.0, prior: float | None = None, **scores: float) -> Entry:
    cost = {"parameters_millions": 1.0, "gmacs": gmacs}
    return Entry(title, {"name": "timm"}, prior, cost, scores=dict(scores))


def test_places_share_ties() -> None:
    assert ranking.places([0.5, 0.9, 0.5, 0.1]) == [2.5, 1.0, 2.5, 4.0]


def test_the_best_mean_rank_wins() -> None:
    a, b, c = entry("a", x=1, y=5, z=5), entry("b", x=3, y=4, z=4), entry("c", x=2, y=3, z=3)
    assert [e.title for e in ranking.rank([a, b, c])] == ["a", "b", "c"]
    assert (a.mean_rank, b.mean_rank, c.mean_rank) == (1.666667, 1.666667, 2.666667)
    assert [e.rank for e in (a, b, c)] == [1, 2, 3]
    assert ranking.share_won(c, 3) == round((3 - 2.666667) / 2, 6)


def test_a_tie_goes_to_fewer_multiplications() -> None:
    a, b = entry("a", gmacs=2.0, x=1, y=2), entry("b", gmacs=1.0, x=2, y=1)
    ordered = ranking.rank([a, b])
    assert ordered[0] is b
    assert "a tie with a goes to fewer multiplications" in ranking.why(ordered, None, None)


def test_the_prior_is_one_more_rank_only_where_all_state_it() -> None:
    def candidates(prior: float | None) -> list[Entry]:
        return [entry("a", 1.0, prior, x=1, y=2), entry("b", 2.0, 0.8, x=2, y=1)]

    with_all = ranking.rank(candidates(0.7))
    assert [e.title for e in with_all] == ["b", "a"]
    assert with_all[0].ranks["prior"] == 1
    assert ranking.prior_agrees(with_all) is True
    with_some = ranking.rank(candidates(None))
    assert [e.title for e in with_some] == ["a", "b"]
    assert "prior" not in with_some[0].ranks
    assert ranking.prior_agrees(with_some) is None


def test_the_prior_alone_may_choose_another() -> None:
    ordered = ranking.rank([entry("a", 1.0, 0.7, x=2, y=2), entry("b", 1.0, 0.8, x=1, y=1)])
    assert ordered[0].title == "a"
    assert ranking.prior_agrees(ordered) is False
    assert "Published accuracy alone would choose another" in ranking.why(ordered, None, False)


def test_a_difference_is_clear_or_too_close_to_call() -> None:
    rng = np.random.default_rng(0)
    good, same, bad = rng.random(400) < 0.9, rng.random(400) < 0.9, rng.random(400) < 0.6
    first, second, third = entry("a", x=1), entry("b", x=1), entry("c", x=1)
    for one, answers in ((first, good), (second, same), (third, bad)):
        one.answers["probe"] = answers
    close, clear = ranking.difference(first, second, 17), ranking.difference(first, third, 17)
    assert close is not None
    assert clear is not None
    assert close["verdict"] == "too close to call"
    assert clear["verdict"] == "clear"
    assert clear["value"] == round(good.mean() - bad.mean(), 6)
    # paired: the usual normal interval of the mean difference, as both are over the same samples
    error = np.std(good.astype(float) - bad) / 20
    assert abs(clear["low"] - (clear["value"] - 1.96 * error)) < 0.01
    assert abs(clear["high"] - (clear["value"] + 1.96 * error)) < 0.01
    assert ranking.difference(entry("d", x=1), first, 17) is None


def test_a_cheaper_one_that_is_as_good_is_named() -> None:
    a, b = entry("a", gmacs=4.0, x=2), entry("b", gmacs=1.0, x=1)
    a.answers["probe"] = b.answers["probe"] = np.ones(50, dtype=bool)
    ordered = ranking.rank([a, b])
    told = ranking.why(ordered, ranking.difference(a, b, 1), None)
    assert told == (
        "a: best mean rank, 1.00 of 2 candidates by x. By probe it is right on 0.0 points more samples "
        "than b (95 % interval 0.0 to 0.0): too close to call. b costs 25% of its multiplications."
    )


def test_an_only_candidate_says_so() -> None:
    ordered = ranking.rank([entry("a", x=1)])
    assert ranking.why(ordered, None, None) == "a: the only candidate within the budget."
    assert ranking.share_won(ordered[0], 1) == 1.0
