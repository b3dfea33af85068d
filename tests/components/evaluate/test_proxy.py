"""The nearest-mean classifier against scikit-learn's, its folds, and what is planted to be forgotten."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from components.evaluate import proxy
from components.paired import paired_gain

LABELS = tuple(np.repeat(["a", "b", "c"], 40).tolist())
CONTENTS = [f"{i:03d}" for i in range(len(LABELS))]
FOLDS = proxy.folds(LABELS, CONTENTS, 17)


def features(apart: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means = np.eye(3, 10).repeat(40, axis=0)
    return (2 + apart * means + rng.normal(0, 1, (120, 10))).astype(np.float32)


def test_each_fold_is_judged_as_scikit_learn_does_it() -> None:
    rows = features(2.0)
    expected = np.zeros(len(rows), dtype=bool)
    for fold in range(proxy.NUM_FOLDS):
        known = fold != FOLDS
        centred = rows - rows[known].mean(0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        judge = NearestCentroid().fit(centred[known], np.array(LABELS)[known])
        expected[~known] = judge.predict(centred[~known]) == np.array(LABELS)[~known]
    assert (proxy.right(rows, LABELS, FOLDS) == expected).all()
    assert 0.6 < expected.mean() < 1


def test_folds_are_stratified_keep_copies_together_and_do_not_depend_on_order() -> None:
    assert np.bincount(FOLDS).tolist() == [24] * 5
    copied = proxy.folds(["a", "a", "a", "b"], ["x", "y", "x", "z"], 17)
    assert copied[0] == copied[2]
    assert (proxy.folds(LABELS[::-1], CONTENTS[::-1], 17)[::-1] == FOLDS).all()


def test_features_that_tell_nothing_are_at_chance() -> None:
    rates = [proxy.right(features(0.0, seed), LABELS, FOLDS).mean() for seed in range(30)]
    assert np.mean(rates) == pytest.approx(1 / 3, abs=0.05)


def test_what_is_lost_is_the_paired_difference_and_grows() -> None:
    old = proxy.Old(np.zeros(120), LABELS, FOLDS)
    before = features(4.0)
    found = proxy.measure({"frozen_probe": before, "main": features(1.0, 1), "other": before}, old, 0.95)
    lost = found["main"]["forgetting"]
    one, other = (proxy.right(rows, LABELS, FOLDS) for rows in (before, features(1.0, 1)))
    assert lost == paired_gain(one, other, 0.95)
    assert lost.low > 0
    assert found["other"]["forgetting"].value == 0
    assert proxy.measure({"main": before}, old, 0.95) == {}
