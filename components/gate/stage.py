"""Judge the measured figures by the rules of params.

Reads: evaluate/metrics.json, bias/metrics.json, drift/metrics.json.
Writes: verdict.json (contracts.Verdict: one judged rule each, with its margin and its reason).
Decides: `gate.rules` and the metrics they name. Every rule must hold. A metric that is missing, null or not a
finite number is a failed rule, and so is one of a stage that left no metrics at all.
Fails: never for a figure: a refusal is a verdict, and the stages that read this folder stop on it. Rules that
cannot be read, that can never all hold, or an empty list are mistakes in params (ParamsError).
Does not check: how the metrics were measured. Intervals are judged where a rule names them (`accuracy_low`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from components import contracts, params
from components.contracts import Verdict, read_json, write_json
from components.job import Job

NEEDS = ("evaluate", "bias", "drift")


class RuleParams(params.Limited):
    """One rule: a metric and exactly one limit."""

    metric: str
    """<stage>.<metric>, as in artifacts/<stage>/metrics.json: evaluate.accuracy_low"""
    name: str = Field(default="", max_length=120)
    """What to call it in the verdict; by default the metric and its limit."""
    why: str = Field(default="", max_length=400)
    """Why the rule is there; told with a refusal."""

    @field_validator("metric")
    @classmethod
    def _of_a_stage_that_is_read(cls, value: str) -> str:
        stage, _, metric = value.partition(".")
        if stage in NEEDS and metric:
            return value
        close = difflib.get_close_matches(stage, NEEDS, n=1)
        hint = f"did you mean `{close[0]}.{metric or '...'}`? " if close else ""
        raise ValueError(
            f"not a metric that the gate reads. {hint}Allowed: {', '.join(f'{n}.<metric>' for n in NEEDS)}"
        )

    def title(self) -> str:
        """'evaluate.accuracy_low at least 0.95', after the rule's own name where it has one."""
        told = super().title()
        return f"{self.name} ({told})" if self.name else told


class Params(params.Params):
    """Section `gate`."""

    rules: tuple[RuleParams, ...] = Field(min_length=1)
    """All must hold. An empty list would pass everything, so it is refused."""

    @model_validator(mode="after")
    def _can_all_hold(self) -> Self:
        told = []
        for side in ("at_least", "at_most"):
            metrics = [r.metric for r in self.rules if getattr(r, side) is not None]
            told += [f"{m} has {side} more than once; keep one" for m in sorted(set(metrics)) if metrics.count(m) > 1]
        floors = {r.metric: r.at_least for r in self.rules if r.at_least is not None}
        ceilings = {r.metric: r.at_most for r in self.rules if r.at_most is not None}
        for metric in sorted(floors.keys() & ceilings.keys()):
            if floors[metric] > ceilings[metric]:
                told.append(f"{metric} cannot be at least {floors[metric]} and at most {ceilings[metric]}")
        if told:
            raise ValueError("; ".join(told))
        return self


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns passed (0 or 1), num_rules, num_failed."""
    verdict = judge(params.rules, _metrics(job))
    write_json(job.out("verdict.json"), verdict)
    failed = [r for r in verdict.rules if not r.passed]
    job.say(f"passed, {len(verdict.rules)} rules" if verdict.passed else f"refused:\n{verdict.refusal()}")
    return {
        "passed": float(verdict.passed),
        "num_rules": float(len(verdict.rules)),
        "num_failed": float(len(failed)),
    }


def judge(rules: Sequence[RuleParams], metrics: Mapping[str, Any]) -> Verdict:
    """The verdict on metrics named "<stage>.<metric>". Pure.

    The margin is value - at_least or at_most - value: a value on the limit passes with margin 0.
    """
    assert rules, "params refuse an empty list"
    judged = tuple(_judge_one(rule, metrics) for rule in rules)
    return Verdict("gate", all(r.passed for r in judged), judged)


def _judge_one(rule: RuleParams, metrics: Mapping[str, Any]) -> contracts.Rule:
    value = _measured(metrics.get(rule.metric))
    if value is None:
        why = _with_reason(_not_measured(rule.metric, metrics), rule)
        return contracts.Rule(rule.title(), False, None, rule.limit, None, why, rule.metric, rule.side)
    margin, told = contracts.margin(value, rule.side, rule.limit)
    passed = margin >= 0
    why = told if passed else _with_reason(told, rule)
    return contracts.Rule(rule.title(), passed, value, rule.limit, margin, why, rule.metric, rule.side)


def _measured(value: Any) -> float | None:
    """The value as a finite number, or None: true, "0.9", null and NaN are not measurements."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _not_measured(metric: str, metrics: Mapping[str, Any]) -> str:
    stage = metric.split(".")[0]
    if metric in metrics:
        return f"not measured: {stage} gave {metrics[metric]!r} for it"
    known = sorted(m for m in metrics if m.startswith(f"{stage}."))
    close = difflib.get_close_matches(metric, sorted(metrics), n=3)
    if close:
        return f"not measured: {stage} gave no such figure (too few samples, or a typo?). Close: {', '.join(close)}"
    return f"not measured: {stage} gave {', '.join(known[:12]) or 'no metrics'}"


def _with_reason(told: str, rule: RuleParams) -> str:
    return f"{told}. {rule.why}" if rule.why else told


def _metrics(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage in NEEDS:
        found.update(_of_stage(job, stage))
    return found


def _of_stage(job: Job, stage: str) -> Iterable[tuple[str, Any]]:
    try:
        path = job.source(stage, "metrics.json")
    except FileNotFoundError:
        job.say(f"artifacts/{stage}/metrics.json is not there: every rule about {stage} fails")
        return []
    return [(f"{stage}.{name}", value) for name, value in read_json(path).items()]
