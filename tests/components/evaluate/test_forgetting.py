"""Each figure of forgetting against a plain computation, and the words against what was planted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from components.contracts import Interval, RunRecord
from components.evaluate import forgetting
from components.evaluate.forgetting import Head, Rules
from components.samples import keyed_rng

RULES = Rules(0.95, 200, lambda what: keyed_rng(17, 0, what))


def record(run: str, source: str = "package", share: float = 1.0) -> RunRecord:
    return RunRecord(
        run, "reference", "image_classification", "single_label", {"name": "timm"}, run != "from_scratch",
        {"name": "full"}, ("a", "b"), {}, base_weights={"source": source}, label_share=share,
    )  # fmt: skip


def features(n: int = 60, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 1, (n, width)).astype(np.float32)


def head(width: int = 8, labels: int = 5) -> Head:
    rng = np.random.default_rng(4)
    return Head(rng.normal(0, 1, (labels, width)).astype(np.float32), rng.normal(0, 0.1, labels).astype(np.float32))


def plain_hsic(k: np.ndarray, j: np.ndarray) -> float:
    """Song et al., equation 5, term by term."""
    n = len(k)
    ones = np.ones(n)
    k, j = k - np.diag(np.diag(k)), j - np.diag(np.diag(j))
    parts = np.trace(k @ j), ones @ k @ ones * (ones @ j @ ones), ones @ k @ j @ ones
    return float((parts[0] + parts[1] / ((n - 1) * (n - 2)) - 2 * parts[2] / (n - 2)) / (n * (n - 3)))


def plain_cka(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one.astype(float), other.astype(float)
    k, j = one @ one.T, other @ other.T
    return plain_hsic(k, j) / math.sqrt(plain_hsic(k, k) * plain_hsic(j, j))


def test_similarity_of_features_and_its_jackknife_equal_the_plain_computation() -> None:
    one = features(20)
    other = one + features(20, seed=1)
    found = forgetting.cka(one, other, 0.95)
    assert found is not None
    assert found.value == pytest.approx(plain_cka(one, other), abs=1e-9)
    without = [plain_cka(np.delete(one, i, 0), np.delete(other, i, 0)) for i in range(20)]
    half = 1.959964 * math.sqrt(19 * np.var(without))
    assert (found.low, found.high) == pytest.approx((found.value - half, min(1, found.value + half)), abs=1e-6)


def test_similarity_is_1_of_turned_features_and_0_of_others_even_where_rows_are_few() -> None:
    one = features(12, 64)
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(0, 1, (64, 64)))
    same = forgetting.cka(one, 3 * one @ turn.astype(np.float32), 0.95)
    others = [forgetting.cka(one, features(12, 64, seed=s), 0.95) for s in range(1, 40)]
    assert same is not None
    assert same.value == pytest.approx(1, abs=1e-5)
    values = [o.value for o in others if o is not None]
    assert abs(np.mean(values)) < 0.1, "the plain estimate would give 0.8 and more"


def test_the_interval_of_the_similarity_holds_what_many_rows_give() -> None:
    truth = forgetting.cka(features(2000), features(2000) + features(2000, seed=1), 0.95)
    assert truth is not None
    found = [forgetting.cka(f := features(80, seed=s), f + features(80, seed=s + 1000), 0.95) for s in range(100)]
    held = [one is not None and one.low <= truth.value <= one.high for one in found]
    assert 0.85 <= np.mean(held) <= 1


@pytest.mark.parametrize("n", [4, 6])
def test_what_cannot_be_told_is_none(n: int) -> None:
    assert forgetting.cka(np.ones((n, 3), np.float32), np.ones((n, 3), np.float32), 0.95) is None


def test_cosine_and_divergence_equal_the_plain_computation() -> None:
    one, other = features(6), features(6, seed=1)
    plain = [float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for a, b in zip(one, other)]
    assert forgetting.cosines(one, other) == pytest.approx(plain, abs=1e-6)
    assert forgetting.cosines(np.zeros((1, 3)), np.zeros((1, 3))) == pytest.approx(1)
    own = head()

    def shares(rows: np.ndarray) -> np.ndarray:
        powers = np.exp(rows.astype(float) @ own.weight.T.astype(float) + own.bias)
        return np.asarray(powers / powers.sum(1, keepdims=True))

    p, q = shares(one), shares(other)
    found = forgetting.answers(own, one, other, RULES)
    assert found["source_kl"].value == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-9)
    assert found["source_answers_changed"].value == pytest.approx((p.argmax(1) != q.argmax(1)).mean())
    assert found["source_kl"].low < found["source_kl"].value < found["source_kl"].high


def measured(moved: float, own: Head | None, **more: Any) -> dict[str, Any]:
    one = features(200)
    rows = {"main": one + moved * features(200, seed=1), "frozen_probe": one, "from_scratch": features(200, seed=2)}
    return forgetting.measure(rows, {name: record(name) for name in rows}, own, RULES, **more)


def test_drift_grows_with_what_was_planted_and_so_do_the_words() -> None:
    found = [measured(moved, head()) for moved in (0.0, 0.02, 0.5, 30.0)]
    main = [one["runs"][0] for one in found]
    assert [row["verdict"] for row in main] == ["nothing changed", "little drift", "some drift", "strong drift"]
    assert np.all(np.diff([row["source_answers_changed"].value for row in main]) > 0)
    assert np.all(np.diff([row["source_kl"].value for row in main]) > 0)
    assert np.all(np.diff([row["feature_cka"].value for row in main]) < 0)
    assert "Nothing was forgotten" in found[0]["headline"]
    assert "evaluate.source_proxy" in found[3]["headline"]


def test_a_run_that_never_had_it_is_a_yardstick_and_the_probe_is_no_row() -> None:
    found = measured(0.5, None)
    assert [(row["run"], row["verdict"]) for row in found["runs"]] == [
        ("main", "some drift"), ("from_scratch", "never had it")
    ]  # fmt: skip
    assert "source_kl" not in found["runs"][0]
    flat = forgetting.flat(found)
    assert {"feature_cka", "feature_cka_low", "feature_cka_high", "feature_cosine"} <= flat.keys()
    assert not any("source" in name for name in flat)


@pytest.mark.parametrize(
    ("loss", "word"),
    [((0.2, 0.1, 0.3), "forgot"), ((0.01, -0.02, 0.04), "no evidence of forgetting"), ((-0.2, -0.3, -0.1), "gained")],
)
def test_samples_of_the_old_task_decide_where_there_are_some(loss: tuple[float, float, float], word: str) -> None:
    found = measured(30.0, head(), kept={"main": {"forgetting": Interval(*loss)}})
    assert found["runs"][0]["verdict"] == word
    assert "accuracy on samples of the old task" in found["headline"]
    assert forgetting.flat(found)["forgetting_low"] == loss[1]


def test_without_a_probe_or_pretrained_weights_it_says_why_it_was_not_measured() -> None:
    rows = {"main": features(), "frozen_probe": features()}
    none = forgetting.measure({"main": features()}, {"main": record("main")}, None, RULES)
    assert not none["measured"]
    assert "finetune.references has no frozen_probe" in none["headline"]
    random = forgetting.measure(rows, {name: record(name, "random") for name in rows}, None, RULES)
    assert "nothing that it could forget" in random["headline"]
    assert forgetting.flat(random) == {}


def test_runs_of_fewer_labels_are_left_out() -> None:
    rows = {"main": features(), "frozen_probe": features()}
    records = {name: record(name) for name in rows} | {"main_15": record("main_15", share=0.15)}
    assert [row["run"] for row in forgetting.measure(rows, records, None, RULES)["runs"]] == ["main"]
