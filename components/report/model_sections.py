"""Sections about the model: verdict, headline figures, what was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.report import formats
from components.report.blocks import Prose, Row, Section, Table, absent, section, table
from components.report.facts import Facts, group_accuracy, interval
from components.report.transfer_section import VERDICT_TONES


@dataclass(frozen=True)
class Card:
    """A headline figure."""

    title: str
    value: str
    note: str
    tone: str = ""


@dataclass(frozen=True)
class Banner:
    """What the gate decided, in one look."""

    word: str
    tone: str
    text: str
    failed: tuple[tuple[str, str], ...] = ()
    """(rule, why)"""


def banner(facts: Facts) -> Banner:
    """The verdict of the gate, or that there is none."""
    verdict = facts.get("gate/verdict.json")
    if verdict is None:
        return Banner("No verdict", "warn", "The gate has not judged this run, so nothing may be shipped from it.")
    rules = verdict["rules"]
    if verdict["passed"]:
        told = f"All {formats.count(len(rules), 'rule')} hold." if len(rules) > 1 else "The one rule holds."
        return Banner("Passed", "good", told)
    failed = tuple((str(r["name"]), str(r["why"])) for r in rules if not r["passed"])
    told = f"{len(failed)} of {formats.count(len(rules), 'rule')} failed. Nothing is exported from this run."
    return Banner("Refused", "bad", told, failed)


def rules(facts: Facts) -> Section:
    """Every rule with its margin."""
    rows = []
    for rule in facts.rows("gate/verdict.json", "rules"):
        word = "holds" if rule["passed"] else "failed"
        margin = rule["margin"]
        told = formats.NONE if margin is None else f"{margin:+.3g}".replace("-", "−")
        value = "not measured" if rule["value"] is None else formats.plain(float(rule["value"]))
        cells = (str(rule["name"]), word, value, formats.plain(rule["limit"]), told)
        rows.append(Row(cells, "" if rule["passed"] else "bad"))
    shown = table(
        "Margin: how far on the right side of the limit",
        ("rule", "outcome", "> measured", "> limit", "> margin"),
        rows,
    )
    return section("rules", "Rules and margins", shown or absent("gate/verdict.json"))


def cards(facts: Facts) -> list[Card]:
    """The headline figures that there are."""
    found = [
        _accuracy(facts),
        _transfer(facts),
        _worst_group(facts),
        _calibration(facts),
        _drift(facts),
        _backbone(facts),
    ]
    return [card for card in found if card is not None]


def _accuracy(facts: Facts) -> Card | None:
    accuracy = facts.accuracy()
    if accuracy is None:
        return None
    num = facts.metric("evaluate.num_test")
    told = f"{formats.span('accuracy', accuracy)} ({formats.level(accuracy)} interval)"
    return Card(
        "Test accuracy",
        formats.percent(accuracy.value),
        f"{told}, {formats.plain(num)} samples" if num else told,
    )


def _transfer(facts: Facts) -> Card | None:
    against = facts.comparison("from_scratch")
    gain = interval(against.get("gain"))
    if gain is None:
        return None
    told = f"points, {formats.gain_span(gain)}, over the same network from random weights"
    word = str(against.get("verdict", ""))
    return Card("Gain by transfer", formats.points(gain.value), f"{told}: {word}", VERDICT_TONES.get(word, ""))


def _worst_group(facts: Facts) -> Card | None:
    group = facts.worst_group()
    accuracy = group_accuracy(group)
    if accuracy is None:
        return None
    told = f"{group['grouping']}: {group['group']}; {formats.span('accuracy', accuracy)}, {group['num']} samples"
    return Card("Worst group", formats.percent(accuracy.value), told)


def _calibration(facts: Facts) -> Card | None:
    ece = facts.metric("evaluate.ece")
    told = "mean distance between stated confidence and accuracy"
    return None if ece is None else Card("Calibration error", formats.percent(ece), told)


def _drift(facts: Facts) -> Card | None:
    drift = facts.get("drift/drift.json", default={})
    columns = [c for c in drift.get("columns", []) if c.get("score") is not None]
    if not columns:
        return None
    moved = sum(bool(c.get("drifted")) for c in columns)
    embeddings = drift.get("embeddings") or {}
    told = "embeddings not compared"
    if embeddings.get("drifted") is not None:
        told = "embeddings drifted" if embeddings["drifted"] else "embeddings did not"
    tone = "warn" if moved or embeddings.get("drifted") else ""
    return Card("Drift", f"{moved} of {len(columns)}", f"columns drifted; {told}", tone)


def _backbone(facts: Facts) -> Card | None:
    title = facts.get("select/chosen.json", "title")
    if title is None:
        return None
    rows = facts.rows("select/leaderboard.json", "candidates")
    cost = next((c.get("cost") or {} for c in rows if c.get("title") == title), {})
    units = {"parameters_millions": "million parameters", "gmacs": "GMACs a sample"}
    told = ", ".join(f"{formats.plain(cost[k], 3)} {unit}" for k, unit in units.items() if cost.get(k) is not None)
    return Card("Backbone", str(title), told)


def choice(facts: Facts) -> Section:
    """The chosen backbone, why, and the leaderboard."""
    chosen = facts.get("select/chosen.json")
    if chosen is None:
        return section("choice", "What was chosen", absent("select/chosen.json"))
    board = facts.get("select/leaderboard.json", default={})
    agrees = {
        True: "The published accuracies favour the same candidate.",
        False: "The published accuracies favour another candidate.",
    }
    note = str(board.get("note") or agrees.get(board.get("prior_agrees"), ""))
    return section(
        "choice",
        "What was chosen",
        Prose(facts.choice()),
        _leaderboard(board, str(chosen.get("title"))),
        Prose(note, "quiet") if note else None,
    )


def _leaderboard(board: dict[str, Any], chosen: str) -> Table | None:
    candidates = sorted(board.get("candidates", []), key=lambda c: (c.get("rank") is None, c.get("rank") or 0))
    scores = list(dict.fromkeys(s for c in candidates for s in c.get("scores") or {}))
    costs = list(dict.fromkeys(s for c in candidates for s in c.get("cost") or {}))
    fitted = list(dict.fromkeys(s for c in candidates for s in c.get("fit") or {} if s not in scores))
    rows = []
    for one in candidates:
        excluded = str(one.get("excluded_because") or "")
        outcome = "chosen" if one.get("title") == chosen else excluded or "runner-up"
        values = [formats.plain((one.get("scores") or {}).get(s)) for s in scores]
        prior = formats.percent(one.get("prior"))
        fits = [formats.figure(f, (one.get("fit") or {}).get(f)) for f in fitted]
        paid = [formats.plain((one.get("cost") or {}).get(c), 3) for c in costs]
        rank = formats.plain(one.get("mean_rank"))
        tone = "chosen" if outcome == "chosen" else "quiet" if excluded else ""
        rows.append(Row((str(one.get("title")), outcome, rank, *values, *fits, prior, *paid), tone))
    heads = [
        *(f"> {formats.name(s)}" for s in scores),
        *(f"> {formats.name(f)}" for f in fitted),
        "> published top-1",
        *(f"> {formats.name(c)}" for c in costs),
    ]
    caption = "Candidates, best first; a mean rank of 1 is first by every score"
    return table(caption, ("candidate", "outcome", "> mean rank", *heads), rows)
