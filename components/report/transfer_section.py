"""The section about transfer: whether it helped, how many labels it saves, and what was forgotten for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.contracts import Interval
from components.report import charts, formats
from components.report.blocks import Block, Figure, Prose, Row, Section, Side, Table, absent, section, table
from components.report.facts import Facts, interval

VERDICT_TONES = {"helped": "good", "no evidence": "warn", "negative transfer": "bad"}
FORGETTING_TONES = {"nothing changed": "good", "gained": "good", "forgot": "bad", "strong drift": "warn"}


def transfer(facts: Facts) -> Section:
    """Main against its references on the same test samples; the curve by share of the labels; what it forgot."""
    found = facts.get("evaluate/transfer.json")
    if found is None:
        return section("transfer", "Did transfer help?", absent("evaluate/transfer.json"))
    return section(
        "transfer",
        "Did transfer help?",
        Prose(str(found.get("headline") or "")),
        _references(found.get("comparisons", [])),
        Prose(
            "helped: the whole interval is above zero; negative transfer: below; no evidence: it holds zero.",
            "quiet",
        ),
        *_label_efficiency(found.get("label_efficiency") or {}),
        *_forgetting(found.get("forgetting") or {}),
    )


def _references(comparisons: list[dict[str, Any]]) -> Table | None:
    gains = [g for c in comparisons if (g := interval(c.get("gain"))) is not None]
    reach = max([0.01, *(max(abs(g.low), abs(g.high)) for g in gains)])
    rows = []
    for one in comparisons:
        gain, theirs = interval(one.get("gain")), interval(one.get("reference_accuracy"))
        word = str(one.get("verdict", ""))
        name = formats.name(str(one.get("reference")))
        note = "; ".join(str(one[key]) for key in ("what", "note") if one.get(key))
        told = (formats.of("accuracy", theirs), formats.gain(gain), formats.gain_span(gain))
        drawn = charts.strip(gain, -reach, reach, mark=0)
        seen = formats.plain(one.get("num_samples_seen"))
        cells = (name, word, *told, drawn, seen, note)
        rows.append(Row(cells, VERDICT_TONES.get(word, "")))
    columns = (
        "reference",
        "verdict",
        "> its accuracy",
        "> gain, points",
        "> interval",
        "~ less | more",
        "> samples seen",
        "note",
    )
    return table("The trained network against references of equal budget, on the same test samples", columns, rows)


def _label_efficiency(found: dict[str, Any]) -> list[Block]:
    points = found.get("points") or []
    if not points:
        return [Prose(str(found["headline"]), "quiet")] if found.get("headline") else []
    runs = list(dict.fromkeys(str(p["of"]) for p in points))
    curves = charts.curves([_series(run, points) for run in runs], "Accuracy by share of the labels",
                           "training labels, %", "accuracy on test", share=True)  # fmt: skip
    gains = {(g["reference"], g["share"]): interval(g.get("gain")) for g in found.get("gains") or []}
    rows = [_point(p, gains.get((p["of"], p["share"]))) for p in points]
    columns = ("run", "> labels", "> samples", "> accuracy", "> interval", "> main better by, points", "> interval")
    numbers = table("The same test samples for all", columns, rows)
    assert numbers is not None, "there are points"
    names = tuple(formats.name(run) for run in runs)
    figure = [Figure(curves, "Accuracy on the test split by share of the training labels", names)] if curves else []
    return [Prose(str(found.get("headline") or "")), Side((*figure, numbers))]


def _series(run: str, points: Sequence[dict[str, Any]]) -> charts.Series:
    own = [(p.get("share"), interval(p.get("accuracy"))) for p in points if p["of"] == run]
    return charts.Series(run, tuple((100 * share, a.value) for share, a in own if share is not None and a is not None))


def _point(point: dict[str, Any], gain: Interval | None) -> Row:
    accuracy = interval(point.get("accuracy"))
    told = (formats.percent(point.get("share"), 0), formats.plain(point.get("num_train")))
    more = ("", "") if gain is None else (formats.gain(gain), formats.gain_span(gain))
    cells = (
        formats.name(str(point["of"])),
        *told,
        formats.of("accuracy", accuracy),
        formats.span("accuracy", accuracy),
    )
    return Row((*cells, *more), "chosen" if point.get("run") == "main" else "")


def _forgetting(found: dict[str, Any]) -> list[Block]:
    if not found.get("headline"):
        return []
    rows = [_forgotten(one) for one in found.get("runs") or []]
    columns = (
        "run", "what was forgotten", "> old task before", "> after", "> points", "> interval",
        "> old answers changed", "> interval", "> divergence, nats", "> CKA", "> interval", "> cosine",
    )  # fmt: skip
    num = formats.plain(found.get("num_samples"))
    shown = table(f"Against the pretrained backbone, on the {num} test samples", columns, rows)
    told = (
        "CKA and cosine: similarity of the features before and after, 1 where nothing changed. Old answers: those of "
        "the classifier that the backbone was pretrained with. A run from random weights never had them: a yardstick."
    )
    blocks: list[Block | None] = [Prose(str(found["headline"])), shown, Prose(told, "quiet") if shown else None]
    return [block for block in blocks if block is not None]


def _forgotten(row: dict[str, Any]) -> Row:
    def value(name: str, kind: str) -> str:
        found = interval(row.get(name))
        return "" if found is None else formats.figure(kind, found.value)

    def span(name: str, kind: str) -> str:
        found = interval(row.get(name))
        return "" if found is None else formats.span(kind, found)

    loss, word = interval(row.get("forgetting")), str(row.get("verdict") or "")
    gain = None if loss is None else Interval(-loss.value, -loss.high, -loss.low, loss.level)
    task = (value("source_accuracy_before", "accuracy"), value("source_accuracy_after", "accuracy"))
    lost = ("", "") if gain is None else (formats.gain(gain), formats.gain_span(gain))
    old = (value("source_answers_changed", "accuracy"), span("source_answers_changed", "accuracy"))
    alike = (value("feature_cka", ""), span("feature_cka", ""), value("feature_cosine", ""))
    cells = (formats.name(str(row.get("run"))), word, *task, *lost, *old, value("source_kl", ""), *alike)
    return Row(cells, FORGETTING_TONES.get(word, ""))
