"""How much of what the backbone knew is lost: drift of its features, and of its old classifier's answers.

Both on the test samples, each held against the frozen probe's backbone, which is the pretrained one. They say how far a
network moved where it is used, not how well it still does the old task: that is measured on samples of the old task
alone (proxy.py), where some are given. The words for drift are conventions (LITTLE, STRONG), not tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from components.contracts import Interval, RunRecord
from components.quality import wilson

LITTLE, STRONG = 0.1, 0.5
"""Share of answers that changed, or 1 - CKA where there is no classifier: below is little drift, above is strong."""
MOST_ROWS = 2000
"""Of the similarity of features, which takes a table of rows by rows."""
FEWEST_ROWS = 5
CHUNK = 1024
"""Samples that the old classifier, which may have 20,000 labels, is asked about at once."""
PROBE = "frozen_probe"


@dataclass(frozen=True)
class Head:
    """The classifier that the backbone was pretrained with."""

    weight: np.ndarray
    """[S, D]"""
    bias: np.ndarray

    def log_shares(self, features: np.ndarray) -> np.ndarray:
        """Logarithm of its probabilities for features [N, D], float64 [N, S]."""
        logits = features.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


@dataclass(frozen=True)
class Rules:
    """How sure."""

    level: float
    num_bootstrap: int
    rng: Callable[[str], np.random.Generator]
    """Random numbers by what they are for."""


def why_not(records: Mapping[str, RunRecord]) -> str:
    """Why forgetting cannot be measured; empty where it can."""
    if PROBE not in records:
        return "finetune.references has no frozen_probe, whose backbone is the pretrained one. Add it there"
    if records[PROBE].base_weights.get("source") == "random":
        return "the backbone's weights are random, so there is nothing that it could forget"
    return ""


def measure(
    features: Mapping[str, np.ndarray],
    records: Mapping[str, RunRecord],
    head: Head | None,
    rules: Rules,
    kept: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Every run but the probe against it; `features` [N, D] of the test rows by run, in one order.

    `kept`: what each run still makes of samples of the old task (proxy.measure), where there are such.
    """
    reason = why_not(records)
    if reason:
        return {"measured": False, "runs": [], "headline": f"What was forgotten was not measured: {reason}."}
    rows = [
        _row(name, features[PROBE], features[name], record, head, rules, (kept or {}).get(name))
        for name, record in records.items()
        if name != PROBE and record.label_share == 1
    ]
    told = {"num_samples": len(features[PROBE]), "source_classifier": head is not None, "source_proxy": bool(kept)}
    return {"measured": True, **told, "runs": rows, "headline": _headline(rows[0])}


def flat(found: dict[str, Any]) -> dict[str, float]:
    """The main run's figures as metrics; what was not measured is absent."""
    figures: dict[str, Interval] = {}
    for row in found["runs"]:
        if row["run"] == "main":
            figures = {k: v for k, v in row.items() if isinstance(v, Interval)}
    ends = (("value", ""), ("low", "_low"), ("high", "_high"))
    return {name + end: getattr(one, key) for name, one in figures.items() for key, end in ends}


def _row(
    name: str,
    before: np.ndarray,
    after: np.ndarray,
    record: RunRecord,
    head: Head | None,
    rules: Rules,
    kept: dict[str, Any] | None,
) -> dict[str, Any]:
    few = rules.rng("rows of the similarity").permutation(len(before))[:MOST_ROWS]
    found: dict[str, Any] = {
        "feature_cka": cka(before[few], after[few], rules.level),
        "feature_cosine": mean(cosines(before, after), rules, -1.0, 1.0),
        **(answers(head, before, after, rules) if head is not None else {}),
        **(kept or {}),
    }
    same = bool(np.array_equal(before, after))
    return {"run": name, "pretrained": record.pretrained, "verdict": _verdict(found, record.pretrained, same), **found}


def answers(head: Head, before: np.ndarray, after: np.ndarray, rules: Rules) -> dict[str, Interval]:
    """What the old classifier says of the features: the share of samples for which its answer changed, and the mean
    Kullback-Leibler divergence of what it said from what it says, in nats."""
    changed, divergence = np.zeros(len(before), dtype=bool), np.zeros(len(before))
    for at in range(0, len(before), CHUNK):
        some = slice(at, at + CHUNK)
        said, says = head.log_shares(before[some]), head.log_shares(after[some])
        changed[some] = said.argmax(axis=1) != says.argmax(axis=1)
        divergence[some] = (np.exp(said) * (said - says)).sum(axis=1)
    return {
        "source_answers_changed": wilson(int(changed.sum()), len(changed), rules.level),
        "source_kl": mean(np.maximum(divergence, 0.0), rules, 0.0, np.inf),
    }


def cosines(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Cosine of each sample's features before and after, float64 [N]; 1 of two that are zero."""
    one, other = before.astype(np.float64), after.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    alike = np.divide((one * other).sum(axis=1), lengths, out=np.zeros(len(one)), where=lengths > 0)
    return np.where(lengths > 0, np.clip(alike, -1, 1), (before == after).all(axis=1).astype(float))


def mean(values: np.ndarray, rules: Rules, lowest: float, highest: float) -> Interval:
    """With its percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13)."""
    rng, n = rules.rng("bootstrap of means"), len(values)
    draws = [values[rng.integers(0, n, n)].mean() for _ in range(rules.num_bootstrap)]
    low, high = np.clip(np.quantile(draws, [(1 - rules.level) / 2, (1 + rules.level) / 2]), lowest, highest)
    return Interval(float(values.mean()), float(low), float(high), rules.level)


def cka(before: np.ndarray, after: np.ndarray, level: float) -> Interval | None:
    """Linear centred kernel alignment of features [N, D] of the same N samples: 1 if one is the other turned or scaled.

    Kornblith et al., Similarity of neural network representations revisited, ICML 2019, section 3, with the unbiased
    estimate of HSIC (Song et al., JMLR 13, 2012, equation 5): the plain one is near 1 of anything where N is below D.
    Interval of the jackknife (Efron and Tibshirani, 1993, chapter 11). None: too few rows, or no variance.
    """
    n = len(before)
    if n < FEWEST_ROWS:
        return None
    one, other = _gram(before), _gram(after)
    parts = [_hsic(a, b) for a, b in ((one, other), (one, one), (other, other))]
    value, without = (_ratio(*(part[i] for part in parts)) for i in (0, 1))
    if not np.isfinite([value, *without]).all():
        return None
    half = NormalDist().inv_cdf((1 + level) / 2) * float(np.sqrt((n - 1) * without.var()))
    value = float(value)
    return Interval(value, max(-1.0, value - half), min(1.0, value + half), level)


def _gram(features: np.ndarray) -> np.ndarray:
    """Inner products of the rows, float64 [N, N], the diagonal zero."""
    rows = features.astype(np.float64)
    rows -= rows.mean(axis=0)  # changes nothing but rounding
    products = rows @ rows.T / max(float((rows**2).mean()), 1e-300)
    np.fill_diagonal(products, 0.0)
    return np.asarray(products)


def _hsic(k: np.ndarray, j: np.ndarray) -> tuple[float, np.ndarray]:
    """The unbiased estimate over all rows, and over all but each one [N]; both have a zero diagonal."""

    def estimate(n: int, both: Any, own: Any, others: Any, crossed: Any) -> Any:
        return (both + own * others / ((n - 1) * (n - 2)) - 2 * crossed / (n - 2)) / (n * (n - 3))

    n = len(k)
    both, own, others = (k * j).sum(axis=1), k.sum(axis=1), j.sum(axis=1)
    crossed = own @ others
    whole = estimate(n, both.sum(), own.sum(), others.sum(), crossed)
    left = crossed - own * others - j @ own - k @ others + both
    without = estimate(n - 1, both.sum() - 2 * both, own.sum() - 2 * own, others.sum() - 2 * others, left)
    return float(whole), without


def _ratio(crossed: Any, one: Any, other: Any) -> Any:
    power = np.asarray(one, float) * np.asarray(other, float)
    return np.divide(crossed, np.sqrt(np.maximum(power, 0)), out=np.full(power.shape, np.nan), where=power > 1e-12)


def _verdict(found: dict[str, Any], pretrained: bool, same: bool) -> str:
    """In words."""
    if not pretrained:
        return "never had it"
    loss: Interval | None = found.get("forgetting")
    if same:
        return "nothing changed"
    if loss is not None:
        return "forgot" if loss.low > 0 else "gained" if loss.high < 0 else "no evidence of forgetting"
    changed: Interval | None = found.get("source_answers_changed")
    similar: Interval | None = found["feature_cka"]
    if changed is None and similar is None:
        return "cannot be told"
    far = changed.value if changed is not None else 1 - similar.value if similar is not None else 0.0
    return "little drift" if far < LITTLE else "strong drift" if far > STRONG else "some drift"


def _headline(row: dict[str, Any]) -> str:
    if row["verdict"] == "nothing changed":
        return "Nothing was forgotten: the backbone is the pretrained one."
    told = []
    loss: Interval | None = row.get("forgetting")
    if loss is not None:
        span = f"[{-100 * loss.high:+.1f}, {-100 * loss.low:+.1f}]"
        told.append(f"{-100 * loss.value:+.1f} points {span} of accuracy on samples of the old task")
    changed: Interval | None = row.get("source_answers_changed")
    if changed is not None:
        span = f"[{100 * changed.low:.1f}, {100 * changed.high:.1f}]"
        told.append(f"the old classifier changes its answer for {100 * changed.value:.1f} % {span} of the test samples")
    similar: Interval | None = row["feature_cka"]
    if similar is not None:
        told.append(f"similarity of features (CKA) {similar.value:.2f} [{similar.low:.2f}, {similar.high:.2f}]")
    words = f"{row['verdict'][0].upper()}{row['verdict'][1:]} against the pretrained backbone"
    asked = (
        ""
        if loss is not None
        else " What that costs the old task is measured where evaluate.source_proxy names samples."
    )
    return f"{words}: {'; '.join(told)}.{asked}" if told else f"{words}.{asked}"
