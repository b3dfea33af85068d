"""What every score of `select` must keep, found by itself; each plugin needs a golden number below."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from components import plugins
from components.select.scores import knn_probe, linear_probe, logme

GOLDEN = {"knn_probe": 55 / 120, "linear_probe": 66 / 120, "logme": -0.6645855425666527}
"""On `blobs(120, 40, 4, 1.5)` with default options and seed 3."""

NAMES = plugins.names("select.scores")
if set(NAMES) != set(GOLDEN):
    raise AssertionError(f"scores without a golden number, or numbers without a score: {set(NAMES) ^ set(GOLDEN)}")


def blobs(num: int, width: int, num_labels: int, distance: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clouds whose centres lie `distance` deviations from the origin; distance 0 is no signal."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % num_labels
    centres = rng.normal(size=(num_labels, width))
    centres *= distance / np.linalg.norm(centres, axis=1, keepdims=True)
    return centres[labels] + rng.normal(size=(num, width)), labels


@pytest.fixture(autouse=True)
def one_blas_thread() -> Iterator[None]:
    """As the stage does: on small matrices a second thread only waits."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(params=NAMES)
def plugin(request: pytest.FixtureRequest) -> ModuleType:
    return plugins.load("select.scores", request.param)


def score(plugin: ModuleType, features: np.ndarray, labels: np.ndarray, seed: int = 3) -> float:
    return plugin.score(features, labels, plugin.Params(), seed)


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_number_stands(name: str) -> None:
    value = score(plugins.load("select.scores", name), *blobs(120, 40, 4, 1.5))
    assert value == pytest.approx(GOLDEN[name], abs=1e-6)


@pytest.mark.parametrize(("num", "width"), [(200, 20), (60, 200)])
def test_separable_scores_above_random(plugin: ModuleType, num: int, width: int) -> None:
    apart = score(plugin, *blobs(num, width, 4, 30.0))
    some = score(plugin, *blobs(num, width, 4, 3.0))
    none = score(plugin, *blobs(num, width, 4, 0.0))
    assert apart > some > none


def test_the_order_of_rows_does_not_matter(plugin: ModuleType) -> None:
    features, labels = blobs(90, 30, 3, 2.0)
    features[1] = features[4]  # neighbours equally near must not be told apart by their place
    order = np.random.default_rng(1).permutation(len(labels))
    assert score(plugin, features[order], labels[order]) == pytest.approx(score(plugin, features, labels), abs=1e-9)


def test_the_names_of_labels_do_not_matter(plugin: ModuleType) -> None:
    features, labels = blobs(90, 30, 3, 2.0)
    assert score(plugin, features, labels + 7) == pytest.approx(score(plugin, features, labels), abs=1e-9)


@pytest.mark.parametrize(
    "case",
    [
        blobs(6, 50, 3, 1.0),  # two samples a label, N < D
        blobs(40, 300, 4, 1.0),
        (np.zeros((12, 5)), np.arange(12) % 2),  # a dead network
        (np.ones((12, 20)), np.arange(12) % 3),
        (np.repeat(blobs(12, 4, 2, 1.0)[0], 8, axis=1), np.arange(12) % 2),  # rank-deficient
        (np.eye(3)[np.arange(30) % 3], np.arange(30) % 3),  # the labels themselves
        (np.eye(9)[np.arange(9) % 3] * 1e6, np.arange(9) % 3),
        (blobs(11, 4, 2, 1.0)[0], np.array([0] * 10 + [1])),  # a label with one sample
        (blobs(4, 4, 2, 1.0)[0], np.arange(4)),
    ],
)
def test_it_is_finite_for_hard_cases(plugin: ModuleType, case: tuple[np.ndarray, np.ndarray]) -> None:
    assert np.isfinite(score(plugin, *case))


def test_the_same_seed_gives_the_same_number(plugin: ModuleType) -> None:
    data = blobs(80, 30, 4, 1.0)
    assert score(plugin, *data) == score(plugin, *data)


def test_inputs_are_left_as_they_were(plugin: ModuleType) -> None:
    features, labels = blobs(50, 20, 2, 1.0)
    before = features.copy(), labels.copy()
    score(plugin, features, labels)
    assert np.array_equal(before[0], features)
    assert np.array_equal(before[1], labels)


@pytest.mark.parametrize("name", [n for n in NAMES if hasattr(plugins.load("select.scores", n), "correct")])
def test_answers_a_sample_agree_with_the_score(name: str) -> None:
    """The optional `correct`, which the stage's verdict on differences rests on."""
    plugin = plugins.load("select.scores", name)
    features, labels = blobs(80, 30, 4, 1.5)
    right = plugin.correct(features, labels, plugin.Params(), 3)
    assert right.dtype == bool
    assert right.shape == (80,)
    assert right.mean() == score(plugin, features, labels)


def dense_evidence(features: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> float:
    """log N(y; 0, I/beta + F F'/alpha) / N, by a Cholesky factor."""
    n = len(y)
    factor = np.linalg.cholesky(np.eye(n) / beta + features @ features.T / alpha)
    white = np.linalg.solve(factor, y)
    return float(-0.5 * (white @ white + n * np.log(2 * np.pi)) - np.log(np.diag(factor)).sum()) / n


def _case(name: str) -> tuple[np.ndarray, np.ndarray]:
    few, many = blobs(30, 90, 3, 2.0), blobs(90, 30, 3, 2.0)
    return {
        "N<D": few,
        "N=D": blobs(50, 50, 3, 2.0),
        "N>D": many,
        "rank-deficient, N>D": (
            many[0] @ np.random.default_rng(2).normal(size=(30, 5)) @ np.random.default_rng(3).normal(size=(5, 30)),
            many[1],
        ),
        "rank-deficient, N<D": (np.repeat(few[0][:, :10], 9, axis=1), few[1]),
        "constant columns": (np.hstack([np.full((90, 3), 5.0), np.zeros((90, 2)), many[0]]), many[1]),
        "as a network gives them": (np.maximum(many[0], 0) + 3.0, many[1]),
        "no signal": blobs(90, 30, 2, 0.0),
        "float32 rounding": (few[0].astype(np.float32).astype(np.float64), few[1]),
    }[name]


CASES = [
    "N<D", "N=D", "N>D", "rank-deficient, N>D", "rank-deficient, N<D", "constant columns",
    "as a network gives them", "no signal", "float32 rounding",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_logme_is_the_exact_evidence(case: str) -> None:
    features, labels = _case(case)
    targets = np.eye(labels.max() + 1)[labels]
    found = logme.evidence(features, targets)
    dense = [dense_evidence(features, y, a, b) for y, a, b in zip(targets.T, found.alpha, found.beta)]
    np.testing.assert_allclose(found.per_sample, dense, rtol=1e-6)
    assert logme.score(features, labels, logme.Params(), 0) == pytest.approx(np.mean(dense), rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_logme_finds_the_largest_evidence(case: str) -> None:
    features, labels = _case(case)
    targets = np.eye(labels.max() + 1)[labels]
    found = logme.evidence(features, targets)
    near = [0.5, 0.95, 1.05, 2.0]
    for y, value, alpha, beta in zip(targets.T, found.per_sample, found.alpha, found.beta):
        around = [dense_evidence(features, y, alpha * a, beta * b) for a in near for b in near]
        assert max(around) <= value + 1e-9


def test_logme_agrees_with_the_published_fixed_point() -> None:
    features, labels = blobs(200, 40, 4, 2.0)
    y = (labels == 1).astype(float)
    alpha = beta = 1.0
    for _ in range(500):  # MacKay's updates, LogME paper, algorithm 1
        matrix = alpha * np.eye(40) + beta * features.T @ features
        mean = beta * np.linalg.solve(matrix, features.T @ y)
        gamma = 40 - alpha * np.trace(np.linalg.inv(matrix))
        alpha, beta = gamma / (mean @ mean), (200 - gamma) / ((features @ mean - y) ** 2).sum()
    found = logme.evidence(features, y[:, None])
    assert found.alpha[0] == pytest.approx(alpha, rel=1e-4)
    assert found.beta[0] == pytest.approx(beta, rel=1e-4)


def test_logme_does_not_grow_with_width_alone() -> None:
    """The widely used reference code gave +88.85 for a case like this; weights of 0 give -0.726."""
    wide = logme.score(*blobs(100, 2048, 4, 0.0), logme.Params(), 0)
    null = -0.5 * (np.log(2 * np.pi * 0.25) + 1)
    assert null - 1e-9 <= wide < null + 0.02


def test_logme_without_signal_is_that_of_weights_of_zero() -> None:
    labels = np.arange(100) % 2
    features = np.random.default_rng(0).normal(size=(100, 3))
    targets = np.eye(2)[labels]
    q, _ = np.linalg.qr(np.hstack([targets, features]))
    found = logme.evidence(q[:, 2:] * 10, targets)  # orthogonal to the targets: alpha -> infinity
    null = -0.5 * (np.log(2 * np.pi * 0.5) + 1)
    np.testing.assert_allclose(found.per_sample, null, rtol=1e-6)
    assert np.isfinite(found.alpha).all()


def test_knn_counts_by_hand() -> None:
    angles = np.deg2rad([0, 1, 2, 40, 41, 90.0])
    features = np.column_stack([np.cos(angles), np.sin(angles)])
    labels = np.array([0, 0, 1, 1, 1, 0])
    assert knn_probe.correct(features, labels, knn_probe.Params(k=1), 0).tolist() == [1, 1, 0, 1, 1, 0]
    assert knn_probe.score(features, labels, knn_probe.Params(k=1), 0) == pytest.approx(4 / 6)


def test_knn_lets_the_nearer_side_win_a_tied_vote() -> None:
    angles = np.deg2rad([0, 5, 20.0])
    features = np.column_stack([np.cos(angles), np.sin(angles)])
    assert knn_probe.correct(features, np.array([1, 1, 0]), knn_probe.Params(k=2), 0).tolist() == [1, 1, 0]
    assert knn_probe.correct(features, np.array([1, 0, 1]), knn_probe.Params(k=2), 0).tolist() == [0, 0, 0]


def test_linear_probe_is_scikit_learns_on_the_same_folds() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = blobs(120, 40, 4, 1.5)
    order = linear_probe._canonical(features, labels)
    fold = PredefinedSplit(linear_probe.folds(labels[order], 4, 3))
    chain = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    answers = cross_val_predict(chain, features[order], labels[order], cv=fold)
    ours = linear_probe.correct(features, labels, linear_probe.Params(), 3)
    assert np.array_equal(answers == labels[order], ours[order])


def test_folds_spread_every_label() -> None:
    labels = np.repeat([0, 1, 2], [40, 9, 5])
    fold = linear_probe.folds(labels, 4, 1)
    for label in range(3):
        counts = np.bincount(fold[labels == label], minlength=4)
        assert counts.max() - counts.min() <= 1
    assert linear_probe.folds(np.repeat([0, 1], [40, 2]), 4, 1).max() == 1
