"""The gate: rules over metrics, failing closed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components.contracts import Refused, Verdict, read_record, write_json
from components.gate.stage import NEEDS, Params, RuleParams, judge, run
from components.job import Job
from components.params import ParamsError, read

METRICS = {"evaluate.accuracy_low": 0.97, "evaluate.ece": 0.02, "bias.worst_group_accuracy": 0.91}


def rules(*specs: dict[str, Any]) -> tuple[RuleParams, ...]:
    return Params.model_validate({"rules": list(specs)}).rules


def gate_job(make_job: Callable[..., Job], **metrics: dict[str, Any]) -> Job:
    job = make_job("gate", NEEDS)
    for stage, values in metrics.items():
        write_json(job.root / "artifacts" / stage / "metrics.json", values)
    return job


def test_all_rules_hold() -> None:
    verdict = judge(
        rules({"metric": "evaluate.accuracy_low", "at_least": 0.95}, {"metric": "evaluate.ece", "at_most": 0.05}),
        METRICS,
    )
    assert verdict.passed
    assert [r.name for r in verdict.rules] == [
        "evaluate.accuracy_low at least 0.95",
        "evaluate.ece at most 0.05",
    ]
    assert [r.margin for r in verdict.rules] == [pytest.approx(0.02), pytest.approx(0.03)]
    assert [(r.metric, r.side, r.limit) for r in verdict.rules] == [
        ("evaluate.accuracy_low", "at_least", 0.95), ("evaluate.ece", "at_most", 0.05),
    ]  # fmt: skip


def test_one_failed_rule_refuses_with_margin_and_reason() -> None:
    spec = {
        "metric": "bias.worst_group_accuracy",
        "at_least": 0.95,
        "name": "no group left behind",
        "why": "Agreed with QA.",
    }
    verdict = judge(rules(spec, {"metric": "evaluate.ece", "at_most": 0.05}), METRICS)
    failed = verdict.rules[0]
    assert (verdict.passed, failed.passed, verdict.rules[1].passed) == (False, False, True)
    assert failed.margin == pytest.approx(-0.04)
    assert failed.name == "no group left behind (bias.worst_group_accuracy at least 0.95)"
    assert failed.why == "0.91 is below 0.95, by 0.04. Agreed with QA."
    assert verdict.refusal() == f"  - {failed.name}: {failed.why}"


def test_a_value_on_the_limit_passes() -> None:
    verdict = judge(
        rules({"metric": "evaluate.a", "at_least": 0.95}, {"metric": "evaluate.b", "at_most": 0}),
        {"evaluate.a": 0.95, "evaluate.b": 0},
    )
    assert verdict.passed
    assert [r.margin for r in verdict.rules] == [0, 0]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, True, "0.99", 10**400, [1.0]])
def test_what_is_not_a_finite_number_fails_either_limit(value: object) -> None:
    for side in ("at_least", "at_most"):
        judged = judge(rules({"metric": "evaluate.accuracy", side: 0.5}), {"evaluate.accuracy": value}).rules[0]
        assert (judged.passed, judged.value, judged.margin) == (False, None, None)
        assert judged.why.startswith("not measured")


def test_a_missing_metric_fails_and_close_names_are_told() -> None:
    judged = judge(rules({"metric": "evaluate.acuracy_low", "at_least": 0.5}), METRICS).rules[0]
    assert not judged.passed
    assert "Close: evaluate.accuracy_low" in judged.why
    assert (judged.metric, judged.side) == ("evaluate.acuracy_low", "at_least")


def test_better_metrics_never_turn_a_pass_into_a_refusal() -> None:
    rng = random.Random(5)
    names = [f"evaluate.m{i}" for i in range(4)]
    passes = 0
    for _ in range(3000):
        wanted = rules(
            *({"metric": n, rng.choice(("at_least", "at_most")): rng.choice((0, 0.5, rng.gauss(0, 1)))} for n in names)
        )
        metrics = {n: rng.choice((0, 0.5, rng.gauss(0, 1), rng.gauss(0, 1e9))) for n in names}
        before = judge(wanted, metrics)
        better = {}
        for rule in wanted:
            step = rng.choice((0, abs(rng.gauss(0, 1e-9)), abs(rng.gauss(0, 1))))
            better[rule.metric] = metrics[rule.metric] + (step if rule.at_least is not None else -step)
        after = judge(wanted, better)
        passes += before.passed
        assert all(b.passed <= a.passed for b, a in zip(before.rules, after.rules)), (wanted, metrics, better)
        assert all(r.passed == (r.margin is not None and r.margin >= 0) for r in (*before.rules, *after.rules))
        lost = rng.choice(names)
        assert not judge(wanted, {k: v for k, v in better.items() if k != lost}).passed
    assert 100 < passes < 2900, "the loop must see both outcomes"


def test_stage_writes_the_verdict_and_succeeds_when_it_refuses(make_job: Callable[..., Job]) -> None:
    job = gate_job(make_job, evaluate={"accuracy": 0.4}, bias={}, drift={})
    metrics = run(Params.model_validate({"rules": [{"metric": "evaluate.accuracy", "at_least": 0.5}]}), job)
    assert metrics == {"passed": 0.0, "num_rules": 1.0, "num_failed": 1.0}
    verdict = read_record(Verdict, job.building / "verdict.json")
    assert (verdict.stage, verdict.passed) == ("gate", False)


def test_who_reads_a_refused_gate_stops(make_job: Callable[..., Job]) -> None:
    job = gate_job(make_job, evaluate={"accuracy": 0.4}, bias={}, drift={})
    run(Params.model_validate({"rules": [{"metric": "evaluate.accuracy", "at_least": 0.5}]}), job)
    job.publish()
    with pytest.raises(Refused, match=r"accuracy at least 0\.5: 0\.4 is below 0\.5, by 0\.1"):
        Job.at(job.root, "export", ("gate",)).source("gate", "verdict.json")


def test_a_stage_without_metrics_fails_its_rules(make_job: Callable[..., Job]) -> None:
    job = gate_job(make_job, evaluate={"accuracy": 0.9})
    metrics = run(Params.model_validate({"rules": [{"metric": "drift.share_of_columns", "at_most": 1.0}]}), job)
    assert metrics["passed"] == 0.0
    assert "drift gave no metrics" in read_record(Verdict, job.building / "verdict.json").rules[0].why


def test_same_metrics_same_bytes(make_job: Callable[..., Job]) -> None:
    job = gate_job(make_job, evaluate={"a": 0.1 + 0.2}, bias={}, drift={})
    params = Params.model_validate(
        {"rules": [{"metric": "evaluate.a", "at_least": 0.3}, {"metric": "bias.b", "at_most": 1}]}
    )
    written = []
    for _ in range(2):
        run(params, job)
        written.append((job.building / "verdict.json").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"metric": "evaluat.accuracy", "at_least": 0.9}, r"did you mean `evaluate.accuracy`\?"),
        ({"metric": "accuracy", "at_least": 0.9}, "Allowed: evaluate.<metric>, bias.<metric>"),
        ({"metric": "evaluate.", "at_least": 0.9}, "not a metric"),
        ({"metric": "evaluate.accuracy"}, "exactly one .*neither"),
        ({"metric": "evaluate.accuracy", "at_least": 0.9, "at_most": 1.0}, "exactly one .*both"),
        ({"metric": "evaluate.accuracy", "at_least": "0.9"}, "valid number"),
        ({"metric": "evaluate.accuracy", "at_least": True}, "valid number"),
        ({"metric": "evaluate.accuracy", "at_least": math.nan}, "finite"),
        ({"metric": "evaluate.accuracy", "atleast": 0.9}, "did you mean `at_least`"),
    ],
)
def test_a_rule_that_cannot_be_judged_is_refused_at_load(rule: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Params.model_validate({"rules": [rule]})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "at least 1 item"),
        (
            [{"metric": "drift.a", "at_least": 0}, {"metric": "drift.a", "at_least": 1}],
            "at_least more than once",
        ),
        (
            [{"metric": "drift.a", "at_least": 2}, {"metric": "drift.a", "at_most": 1}],
            "cannot be at least 2.0 and",
        ),
    ],
)
def test_rules_that_decide_nothing_are_refused_at_load(given: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Params.model_validate({"rules": given})


def test_a_mistake_names_its_key(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        "gate:\n  rules:\n    - {metric: evaluate.ece, at_most: 0.1}\n    - {metric: select.a, at_least: 1}\n"
    )
    with pytest.raises(ParamsError) as caught:
        read(path, {"gate": Params})
    assert caught.value.problems == [
        "gate.rules[1].metric: not a metric that the gate reads. Allowed: evaluate.<metric>, bias.<metric>, "
        "drift.<metric> (given: 'select.a')"
    ]


def test_the_default_rules_load(repository: Path) -> None:
    from components.params import load_yaml

    assert Params.model_validate(load_yaml(repository / "params.yaml")["gate"]).rules
