"""The page of the monitor: what was found, what was done about it, and how it went over the last looks.

It is drawn as the report of a run is, by the same templates: one file, no script, nothing loaded from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.contracts import Verdict
from components.report import charts, formats, page
from components.report.blocks import Block, Figure, Points, Prose, Row, Section, Table
from components.report.model_sections import Banner, Card

MOVED = (
    ("share_of_columns", "columns that differ"),
    ("accuracy", "accuracy"),
    ("mean_confidence", "mean confidence"),
    ("share_unreadable", "cannot be read"),
)
"""What the picture over the last looks shows: metric -> its name."""
NUM_LOOKS = 60


def render(told: dict[str, Any], verdict: Verdict, past: Sequence[dict[str, Any]]) -> str:
    """`told` is monitor.json, `past` the lines of history.jsonl, the oldest first."""
    return page.drawn(
        {
            "name": told["project"],
            "task": f"monitor of {told['bundle']['title']}",
            "banner": _banner(told, verdict),
            "first_step": None,
            "cards": _cards(told["metrics"], told["recorded_accuracy"]),
            "sections": [_rules(verdict), _columns(told), _looks(past), _data(told)],
        }
    )


def _banner(told: dict[str, Any], verdict: Verdict) -> Banner:
    failed = tuple((one.name, one.why) for one in verdict.rules if not one.passed)
    done = f" {told['done']}" if told["done"] else ""
    if verdict.passed:
        return Banner("As it was", "good", f"{told['headline']}{done}")
    return Banner("Not as it was", "bad", f"{told['headline']}{done}", failed)


def _cards(metrics: dict[str, float], recorded: float | None) -> list[Card]:
    of = metrics.get
    compared = f"of {formats.plain(of('num_columns'))} compared" if "num_columns" in metrics else "not compared"
    network = {1.0: "drifted", 0.0: "as before"}.get(of("embeddings_drifted", -1.0), "not measured")
    p_value = f"p = {formats.plain(of('embeddings_p_value'), 2)}" if "embeddings_p_value" in metrics else ""
    before = f"{formats.percent(recorded)} when it was made" if recorded is not None else ""
    span = f"{formats.percent(of('accuracy_low'))} to {formats.percent(of('accuracy_high'))}; {before}"
    labels = f"{formats.plain(of('num_labelled'))} samples have a label"
    return [
        Card("New samples", formats.plain(of("num_new")), f"{formats.plain(of('num_unreadable'))} cannot be read"),
        Card("Columns that differ", formats.plain(of("num_columns_drifted")), compared),
        Card("What the network sees", network, p_value, "bad" if network == "drifted" else ""),
        Card("Accuracy on them", formats.percent(of("accuracy")), span if "accuracy" in metrics else labels),
        Card("Mean confidence", formats.percent(of("mean_confidence")), "as the model states it"),
        Card("Age of the model", _days(of("days_since_trained")), _live(of("days_live"))),
    ]


def _days(value: float | None) -> str:
    return formats.NONE if value is None else formats.count(round(value), "day")


def _live(value: float | None) -> str:
    return "not promoted" if value is None else f"live for {formats.count(round(value), 'day')}"


def _rules(verdict: Verdict) -> Section:
    rows = tuple(
        Row(
            (one.name, "holds" if one.passed else "failed", formats.plain(one.value), one.why),
            "" if one.passed else "bad",
        )
        for one in verdict.rules
    )
    table = Table("Rules of `monitor.rules` in infra/operations.yaml", ("rule", "verdict", "> value", "why"), rows)
    return Section("rules", "Rules", (table,))


def _columns(told: dict[str, Any]) -> Section:
    rows = []
    for one in sorted(told["columns"], key=lambda c: (-c["share_of_threshold"], c["column"])):
        word = "differs" if one["drifted"] else one["note"] or "as before"
        strip = charts.bar(one["share_of_threshold"] / 2, "bad" if one["drifted"] else "s0", 0.5)
        counts = f"{one['num_reference']} {one['reference']}, {one['num_current']} new"
        rows.append(Row((one["column"], word, formats.plain(one["score"], 2), strip, counts), "bad" * one["drifted"]))
    heads = ("column", "verdict", "> adjusted p", "~ to the threshold (middle)", "samples")
    whole = told["embeddings"]
    blocks: list[Block] = [Table("Each quantity, new samples against the reference profile", heads, tuple(rows))]
    if not rows:
        blocks = [Prose(told["why_not"] or "Nothing was compared.", "warn")]
    if whole:
        network = "differ" if whole["drifted"] else whole["note"] or "are as before"
        blocks.append(Prose(f"The network's features, as a whole, {network} (`{whole['detector']}`)."))
    if told["picture"]:
        blocks.append(Prose(f"The detector's own page lies beside this one: {told['picture']}.", "quiet"))
    return Section("columns", "What differs", tuple(blocks))


def _looks(past: Sequence[dict[str, Any]]) -> Section:
    judged = [one for one in past if one.get("metrics")][-NUM_LOOKS:]
    series = []
    for metric, name in MOVED:
        points = tuple(
            (float(n), one["metrics"][metric]) for n, one in enumerate(judged, 1) if metric in one["metrics"]
        )
        if points:
            series.append(charts.Series(name, points))
    blocks: list[Block] = []
    if len(judged) > 1 and series:
        drawing = charts.curves(series, "Over the last looks", "look", "share", share=True)
        caption = f"The last {len(judged)} looks that judged something; the newest is on the right."
        blocks.append(Figure(drawing, caption, tuple(one.name for one in series)))
    rows = tuple(
        Row(
            (
                _when(one["at"]), one["state"], formats.plain(one.get("num_new")), one["bundle"],
                formats.percent(one["metrics"].get("share_of_columns")), one["told"],
            ),
            "bad" if one["state"] == "drift" else "",
        )
        for one in reversed(judged[-12:])
    )  # fmt: skip
    heads = ("look", "found", "> new samples", "live model", "> columns that differ", "told")
    return Section("looks", "The last looks", (*blocks, Table("The newest first", heads, rows)))


def _when(at: str) -> str:
    return f"{at[:16].replace('T', ' ')} UTC"


def _data(told: dict[str, Any]) -> Section:
    points = [
        f"Judged: {formats.count(told['metrics']['num_new'], 'new sample')} of `{told['data']}`.",
        f"New means: {told['new_means']}.",
        f"The live model: {told['bundle']['title']} ({told['bundle']['checked']}).",
        *(f"Cannot be read: {formats.count(num, 'sample')}, {why}." for why, num in told["unreadable"].items()),
        *(f"A label it does not know: {label} ({num})." for label, num in told["unknown_labels"].items()),
        *([f"{formats.count(told['num_arriving'], 'file')} still on the way."] if told["num_arriving"] else []),
    ]
    return Section("data", "What was looked at", (Points(tuple(points)),))
