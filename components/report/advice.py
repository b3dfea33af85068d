"""What to try next: each piece of advice names one key of params.yaml and the figure that it rests on.

One small function a piece, the most urgent first. A piece that has no figure to rest on is not given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.report.facts import Facts, interval, number

_STRONGER = {"identity": "light", "light": "trivial_augment"}


@dataclass(frozen=True)
class Advice:
    """One thing to try."""

    key: str
    """Of params.yaml."""
    do: str
    """What to set it to, as an order."""
    why: str
    """What was measured."""


def suggest(facts: Facts, most: int = 5) -> list[Advice]:
    """At most so many pieces, the most urgent first, one a key."""
    given: dict[str, Advice] = {}
    for look in _LOOKS:
        advice = look(facts)
        if advice is not None:
            given.setdefault(advice.key, advice)
    return list(given.values())[:most]


def _refused_data(facts: Facts) -> Advice | None:
    if facts.get("validate/verdict.json", "passed", default=True):
        return None
    errors = [f for f in facts.rows("validate/findings.json") if f.get("severity") == "error"]
    checks = sorted({str(e.get("check")) for e in errors})
    why = str(errors[0].get("message")) if errors else "the data were refused"
    return Advice("validate.checks", f"mend the data, or loosen {', '.join(checks) or 'the check'}", why)


def _not_measured(facts: Facts) -> Advice | None:
    names = [r["name"] for r in facts.rows("gate/verdict.json", "rules") if not r["passed"] and r["value"] is None]
    if not names:
        return None
    return Advice("gate.rules", "correct the metric's name, or remove the rule", f"not measured: {', '.join(names)}")


def _negative_transfer(facts: Facts) -> Advice | None:
    if facts.comparison("from_scratch").get("verdict") != "negative transfer":
        return None
    do = "add a backbone pretrained on nearer data, or give the present ones larger inputs (image_size, max_tokens)"
    return Advice("select.candidates", do, "training from random weights did better at the same budget")


def _probe_did_better(facts: Facts) -> Advice | None:
    if facts.comparison("frozen_probe").get("verdict") != "negative transfer":
        return None
    do = "try {name: lp_ft}, or {name: linear_probe}, which is cheaper"
    return Advice("finetune.strategy", do, "a linear head on the frozen backbone did better: training loses features")


def _still_learning(facts: Facts) -> Advice | None:
    epochs = facts.epochs()
    last_phase = [e for e in epochs if e.get("phase") == epochs[-1].get("phase")]
    losses = [v for e in last_phase if (v := number(e.get("validation_loss"))) is not None]
    if len(losses) < 3 or min(losses) < losses[-1]:
        return None
    wanted = facts.setting("finetune.strategy.epochs")
    more = f"raise epochs from {wanted} to {2 * wanted}" if isinstance(wanted, int) else "give it more epochs"
    return Advice("finetune.strategy", more, "the validation loss was still falling in the last epoch")


def _too_few_to_tell(facts: Facts) -> Advice | None:
    for rule in facts.rows("gate/verdict.json", "rules"):
        name = str(rule["name"])
        value = facts.metric("evaluate.accuracy")
        if rule["passed"] or rule["limit"] is None or "evaluate.accuracy_low" not in name or value is None:
            continue
        if value >= rule["limit"]:
            told = f"accuracy {value:.3f} is above {rule['limit']:g}, but so few test samples cannot show it"
            return Advice("validate.split", "raise the share of test, or bring more labelled samples", told)
    return None


def _overfitted(facts: Facts) -> Advice | None:
    ends = [(number(e.get("train_loss")), number(e.get("validation_loss"))) for e in facts.epochs()]
    pairs = [(t, v) for t, v in ends if t is not None and v is not None]
    if not pairs:
        return None
    train, held = min(pairs, key=lambda pair: pair[1])
    policy = facts.get("augment/policy.json", "policy", "name")
    if held - train < 0.1 or held < 2 * train or policy not in _STRONGER:
        return None
    why = f"at the best epoch the loss is {train:.2f} on training and {held:.2f} on validation samples"
    return Advice("augment.policy", f"try {{name: {_STRONGER[policy]}}} instead of {policy}", why)


def _low_accuracy(facts: Facts) -> Advice | None:
    failed = [r for r in facts.rows("gate/verdict.json", "rules") if not r["passed"] and r["value"] is not None]
    if not any("evaluate." in r["name"] and "ece" not in r["name"] for r in failed):
        return None
    do = "raise image_size or max_tokens of the candidates, or add a larger backbone"
    return Advice("select.candidates", do, "a rule about quality failed")


def _badly_calibrated(facts: Facts) -> Advice | None:
    ece = facts.metric("evaluate.ece")
    if ece is None or ece <= 0.05:
        return None
    why = f"stated confidence is off by {100 * ece:.1f} points on average"
    return Advice("finetune.label_smoothing", "try 0.05; more validation samples make the temperature surer", why)


def _weak_group(facts: Facts) -> Advice | None:
    gaps = [g for g in facts.rows("bias/groups.json", "gaps") if g.get("measure") == "accuracy"]
    certain = [(g, i) for g in gaps if g.get("verdict") != "no evidence" and (i := interval(g.get("gap"))) is not None]
    if not certain:
        return None
    gap, size = max(certain, key=lambda pair: pair[1].value)
    why = f"{gap['grouping']}: {gap['worst']} is {100 * size.value:.1f} points below {gap['best']}"
    policy = facts.get("augment/policy.json", "policy", "name")
    named = gap["grouping"] in (facts.setting("bias.attributes") or [])
    if named or policy not in _STRONGER:
        return Advice("ingest.data", f"add samples of {gap['worst']}", why)
    return Advice("augment.policy", f"try {{name: {_STRONGER[policy]}}} instead of {policy}", why)


def _forgot(facts: Facts) -> Advice | None:
    rows = facts.rows("evaluate/transfer.json", "forgetting", "runs")
    main: dict[str, Any] = next((row for row in rows if row.get("run") == "main"), {})
    lost = interval(main.get("forgetting"))
    if main.get("verdict") != "forgot" or lost is None:
        return None
    do = "try {name: wise_ft} or {name: l2_sp}, which stay nearer to the pretrained weights"
    return Advice("finetune.strategy", do, f"{100 * lost.value:.1f} points of accuracy on the old task were lost")


def _drifted(facts: Facts) -> Advice | None:
    drift = facts.get("drift/drift.json", default={})
    columns = [str(c["column"]) for c in drift.get("columns", []) if c.get("drifted")]
    embeddings = (drift.get("embeddings") or {}).get("drifted")
    if not columns and not embeddings:
        return None
    what = [*(["the embeddings"] if embeddings else []), *columns[:4]]
    return Advice(
        "ingest.data",
        "add labelled samples like the current ones and train again",
        f"drifted: {', '.join(what)}",
    )


def _prior_disagrees(facts: Facts) -> Advice | None:
    board = facts.get("select/leaderboard.json", default={})
    rated = [c for c in board.get("candidates", []) if c.get("prior") is not None]
    if board.get("prior_agrees") is not False or not rated:
        return None
    favourite = max(rated, key=lambda c: c["prior"])["title"]
    do = f"keep {favourite} alone for one run, and look at `dvc metrics diff`"
    return Advice(
        "select.candidates",
        do,
        f"the scores and the published accuracies disagree; the latter favour {favourite}",
    )


def _no_scratch_run(facts: Facts) -> Advice | None:
    if not facts.get("evaluate/transfer.json") or facts.comparison("from_scratch"):
        return None
    return Advice("finetune.references", "add from_scratch", "without it nobody can tell whether transfer helped")


def _tighten(facts: Facts) -> Advice | None:
    if not facts.get("gate/verdict.json", "passed", default=False):
        return None
    low = facts.metric("evaluate.accuracy_low")
    if low is None:
        return Advice("gate.rules", "add a rule about evaluate.accuracy_low", "no rule holds the quality")
    limits = [r["limit"] for r in facts.rows("gate/verdict.json", "rules") if "evaluate.accuracy_low" in r["name"]]
    why = f"the lower end of the interval is {low:.3f}"
    if limits and low - limits[0] < 0.01:
        return Advice("select.candidates", "add another backbone: a second opinion costs minutes", why)
    floor = int(low * 100) / 100
    return Advice("gate.rules", f"hold what was reached: evaluate.accuracy_low at_least {floor:g}", why)


_LOOKS: tuple[Callable[[Facts], Advice | None], ...] = (
    _refused_data, _not_measured, _negative_transfer, _probe_did_better, _still_learning, _too_few_to_tell,
    _overfitted, _low_accuracy, _badly_calibrated, _weak_group, _forgot, _drifted, _prior_disagrees, _no_scratch_run,
    _tighten,
)  # fmt: skip
