"""Golden numbers of the metrics, their intervals, and the words about transfer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from components import quality
from components.contracts import Interval
from components.decisions import single_label as decision
from components.evaluate import transfer


def made(truth: np.ndarray, shares: np.ndarray, guess: np.ndarray | None = None) -> quality.Scored:
    eye = np.eye(shares.shape[1], dtype=bool)
    guess = shares.argmax(1) if guess is None else guess
    return quality.Scored(
        eye[truth], eye[guess], shares, decision.confidence(shares), decision.log_losses(shares, eye[truth])
    )


def scored(n: int = 300, k: int = 4, seed: int = 0) -> quality.Scored:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    logits = rng.normal(0, 1, (n, k))
    logits[np.arange(n), truth] += 1.5
    return made(truth, decision.probabilities(logits, 1))


def test_metrics_equal_those_of_scikit_learn() -> None:
    s = scored()
    found = quality.measure(s, 10, 100, 0.95, np.random.default_rng(0))
    truth, guess = s.truth.argmax(1), s.guess.argmax(1)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(truth, guess, average="macro")
    assert found["accuracy"].value == pytest.approx(reference.accuracy_score(truth, guess))
    assert found["balanced_accuracy"].value == pytest.approx(reference.balanced_accuracy_score(truth, guess))
    assert found["precision_macro"].value == pytest.approx(precision)
    assert found["recall_macro"].value == pytest.approx(recall)
    assert found["f1_macro"].value == pytest.approx(f1)
    assert found["log_loss"].value == pytest.approx(reference.log_loss(truth, s.shares))


def test_every_interval_holds_its_value() -> None:
    for name, interval in quality.measure(scored(), 10, 400, 0.95, np.random.default_rng(0)).items():
        if name != "ece":  # resampling adds noise to a bin's gap, so its interval may lie above the value
            assert interval.low <= interval.value <= interval.high, name


@pytest.mark.parametrize(("right", "n"), [(263, 270), (50, 50), (0, 7), (3, 4)])
def test_wilson_equals_that_of_scipy_and_does_not_collapse(right: int, n: int) -> None:
    theirs = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    ours = quality.wilson(right, n, 0.95)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))
    assert ours.high - ours.low > 0.01


def test_wilson_covers_at_its_level() -> None:
    rng = np.random.default_rng(0)
    hits = [(i := quality.wilson(int(rng.binomial(60, 0.93)), 60, 0.95)).low <= 0.93 <= i.high for _ in range(2000)]
    assert 0.93 <= np.mean(hits) <= 0.985


def test_calibration_error_by_hand() -> None:
    shares = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    s = made(np.array([0, 1, 0, 0]), shares)
    assert quality.expected_calibration_error(s, 10) == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)


def test_temperature_finds_the_scale_that_was_hidden() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 5))
    targets = np.array([rng.choice(5, p=p) for p in decision.probabilities(logits, 1)])
    assert quality.fit_temperature(3 * logits, np.eye(5, dtype=bool)[targets], decision) == pytest.approx(3, rel=0.08)


def test_label_without_test_samples_is_null_not_zero() -> None:
    s = made(np.array([0, 0]), np.array([[0.9, 0.1, 0], [0.2, 0.8, 0]]))
    rows = quality.per_label(s, ("a", "b", "c"))
    assert rows[0]["recall"] == 0.5
    counts = [(row["num"], row["num_decided"], row["num_right"]) for row in rows]
    assert counts == [(2, 1, 1), (0, 1, 0), (0, 0, 0)]
    assert rows[2].items() >= {"label": "c", "precision": None, "recall": None, "f1": None}.items()


def test_paired_gain_golden_and_does_not_collapse_when_runs_agree() -> None:
    same = np.ones(100, dtype=bool)
    gain = transfer.paired_gain(same, same, 0.95)
    assert gain.value == 0
    assert gain.low < 0 < gain.high
    ours, theirs = np.ones(100, dtype=bool), np.arange(100) >= 20
    gain = transfer.paired_gain(ours, theirs, 0.95)
    assert gain.value == pytest.approx(0.2)
    # by hand: b = 20.5, c = 0.5, n = 102; 20/102 -+ 1.959964 * sqrt(21 - 400/102) / 102
    assert (gain.low, gain.high) == (pytest.approx(0.1166690, abs=1e-6), pytest.approx(0.2754879, abs=1e-6))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.1, "helped"), (-0.1, 0.1, "no evidence"), (-0.2, -0.1, "negative transfer")],
)
def test_verdict_in_words(low: float, high: float, words: str) -> None:
    assert transfer.verdict(Interval((low + high) / 2, low, high)) == words
