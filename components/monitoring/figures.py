"""What the monitor measures, by name, and how a rule over it is judged. Light: settings are checked against it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Protocol

from components import contracts
from components.contracts import Verdict

STAGE = "monitor"
METRICS = {
    "num_new": "samples that were judged",
    "num_unreadable": "files or rows that arrived and cannot be read",
    "share_unreadable": "those, of all that arrived",
    "num_columns": "columns that were compared: properties, predicted label, confidence, true label",
    "num_columns_drifted": "those that differ from the reference profile",
    "share_of_columns": "their share",
    "embeddings_score": "how far the features lie apart, in the detector's unit",
    "embeddings_p_value": "how often as far without any drift",
    "embeddings_drifted": "1: they do differ, 0: they do not",
    "mean_confidence": "mean stated confidence",
    "num_labelled": "new samples with a label",
    "num_unknown_labels": "labels among them that the model does not know; its answer to such a sample is wrong",
    "accuracy": "on those with a label",
    "accuracy_low": "its interval (Wilson, 95 %)",
    "accuracy_high": "its interval (Wilson, 95 %)",
    "accuracy_loss": "accuracy in the bundle's record minus this one",
    "accuracy_loss_low": "its interval (Newcombe, 95 %)",
    "accuracy_loss_high": "its interval (Newcombe, 95 %)",
    "days_since_trained": "since the commit that records the model",
    "days_live": "since it was promoted",
}
"""What was not measured is absent."""


class RuleLike(Protocol):
    """A rule of infra/operations.yaml."""

    metric: str
    optional: bool

    @property
    def limit(self) -> float:
        """What the metric is held against."""

    @property
    def side(self) -> str:
        """at_least or at_most."""

    def title(self) -> str:
        """In words."""


def unknown(metric: str) -> str:
    """What to say of a rule's metric that is none; "" if it is one."""
    name = metric.removeprefix(f"{STAGE}.")
    if name in METRICS:
        return ""
    close = difflib.get_close_matches(name, METRICS, n=1)
    hint = f"did you mean `{STAGE}.{close[0]}`? " if close else ""
    return f"the monitor measures no {metric!r}. {hint}Known: {', '.join(f'{STAGE}.{n}' for n in METRICS)}"


def judge(rules: Iterable[RuleLike], metrics: Mapping[str, float], why_not: str = "") -> Verdict:
    """The verdict on metrics (without `monitor.`). What was not measured fails its rule, unless that is optional;
    `why_not` says why something may not have been measured."""
    judged = tuple(_judge_one(rule, metrics, why_not) for rule in rules)
    return Verdict(STAGE, all(one.passed for one in judged), judged)


def _judge_one(rule: RuleLike, metrics: Mapping[str, float], why_not: str) -> contracts.Rule:
    title, side, limit = rule.title(), rule.side, rule.limit
    value = metrics.get(rule.metric.removeprefix(f"{STAGE}."))
    if value is None or not math.isfinite(value):
        told = "not measured" + (f": {why_not}" if why_not else "") + (" (optional)" if rule.optional else "")
        return contracts.Rule(title, rule.optional, None, limit, None, told, rule.metric, side)
    far, told = contracts.margin(value, side, limit)
    return contracts.Rule(title, far >= 0, value, limit, far, told, rule.metric, side)
