"""Sections about quality: metrics with intervals, confusion, labels, calibration, groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from components.contracts import Interval
from components.report import charts, formats
from components.report.blocks import (
    Block,
    Figure,
    Matrix,
    Prose,
    Row,
    Section,
    Side,
    Table,
    absent,
    folded,
    section,
    table,
)
from components.report.facts import Facts, interval, number

NUM_PAIRS = 50
"""Confused pairs that are listed at all."""
NUM_ROWS = 12
"""Rows of a long table before the others unfold."""
FLOAT32 = (
    "Every figure of this page is of the network as it was trained, in float32. What is exported may be a variant of "
    "it with fewer bits, measured by itself after this page is made: its own figures stand in the bundle's card.md."
)
_ORDER = ("accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "f1_macro", "log_loss", "ece")


def quality(facts: Facts) -> Section:
    """Every metric of the main run, test beside validation, and the accuracy of every run."""
    runs = facts.get("evaluate/quality.json", "runs", default={})
    test = runs.get("main", {}).get("test")
    if not test:
        return section("quality", "How good it is", absent("evaluate/quality.json"))
    held = runs["main"].get("validation", {})
    low = _floor(interval(raw) for metric, raw in test.items() if _is_quality(metric))
    rows = []
    for metric in sorted(test, key=lambda m: (_ORDER.index(m) if m in _ORDER else len(_ORDER), m)):
        one, other = interval(test[metric]), interval(held.get(metric))
        line = charts.strip(one, low, 1) if _is_quality(metric) else ""
        value = formats.figure(metric, one.value if one else None)
        cells = (
            formats.name(metric),
            value,
            formats.span(metric, one),
            line,
            formats.figure(metric, other.value if other else None),
        )
        rows.append(Row(cells))
    level = formats.level(interval(test.get("accuracy")))
    columns = ("metric", "> on test", f"> {level} interval", f"~ {100 * low:.0f} to 100 %", "> on validation")
    return section(
        "quality",
        "How good it is",
        table("The trained network; it was chosen on validation, so test is the honest column", columns, rows),
        Prose(FLOAT32, "quiet"),
        _every_run({name: one for name, one in runs.items() if name not in facts.fewer_labels()}),
    )


def _is_quality(metric: str) -> bool:
    return formats.is_share(metric) and metric != "ece"


def _floor(intervals: Iterable[Interval | None]) -> float:
    """Where a scale that ends at 100 % begins, so that the intervals can be told apart."""
    lows = [i.low for i in intervals if i is not None]
    return math.floor(10 * min([0.9, *lows])) / 10


def _every_run(runs: dict[str, Any]) -> Block | None:
    low = _floor(interval(r.get("test", {}).get("accuracy")) for r in runs.values())
    rows = []
    for run in sorted(runs, key=lambda r: (r != "main", r)):
        accuracy, f1, ece = (interval(runs[run].get("test", {}).get(m)) for m in ("accuracy", "f1_macro", "ece"))
        told = (formats.of("accuracy", accuracy), formats.span("accuracy", accuracy))
        drawn = charts.strip(accuracy, low, 1)
        cells = (formats.name(run), *told, drawn, formats.of("f1_macro", f1), formats.of("ece", ece))
        rows.append(Row(cells, "chosen" if run == "main" else ""))
    columns = (
        "run",
        "> accuracy",
        "> interval",
        f"~ {100 * low:.0f} to 100 %",
        "> F1, mean of labels",
        "> calibration error",
    )
    return table("Every run on the test split", columns, rows) if len(rows) > 1 else None


def confusion(facts: Facts, num_shown: int) -> Section:
    """Cell by cell for few labels, and the most confused pairs."""
    pairs = [(row["label"], row["predicted"]) for row in facts.rows("evaluate/confusion.csv")]
    title = "What is taken for what"
    if not pairs:
        return section("confusion", title, absent("evaluate/confusion.csv"))
    counted = Counter(pairs)
    stated = [str(label) for label in facts.rows("evaluate/quality.json", "labels")]
    texts = sorted({text for pair in pairs for text in pair})
    if stated and not set(texts) <= set(stated):  # a text that stands for several labels, or for none
        return section("confusion", title, *_each_label(facts, len(pairs)), *_most_confused(counted, NUM_ROWS))
    labels = stated or texts
    if len(labels) > num_shown:
        told = f"{len(labels)} labels are more than report.num_classes_shown ({num_shown}), so pairs are listed."
        return section("confusion", title, Prose(told, "quiet"), *_most_confused(counted, 2 * NUM_ROWS))
    counts = tuple(tuple(counted[(a, b)] for b in labels) for a in labels)
    matrix = Matrix("Test samples by true label (row) and predicted label (column)", tuple(labels), counts)
    return section("confusion", title, matrix, *_most_confused(counted, NUM_ROWS))


def _each_label(facts: Facts, num: int) -> tuple[Block | None, ...]:
    """Where a sample may have several labels: has it or not, decided for or not."""
    rows = []
    for one in facts.rows("evaluate/quality.json", "per_label"):
        has, decided, right = (one.get(k) for k in ("num", "num_decided", "num_right"))
        if has is None or decided is None or right is None:
            continue
        cells = (right, has - right, decided - right, num - has - decided + right)
        rows.append(Row((str(one["label"]), *(formats.plain(n) for n in cells))))
    told = "A sample may have several labels or none, so each label is a table of its own; pairs below are whole sets."
    columns = ("label", "> has it, decided", "> has it, not decided", "> has it not, decided", "> neither")
    shown = folded(table(f"{num} test samples, label by label", columns, rows), NUM_ROWS, "labels") if rows else ()
    return (Prose(told, "quiet"), *shown)


def _most_confused(counted: Counter[tuple[str, str]], shown: int) -> tuple[Block | None, ...]:
    totals = Counter({label: 0 for label, _ in counted})
    for (label, _), num in counted.items():
        totals[label] += num
    wrong = sorted(((n, a, b) for (a, b), n in counted.items() if a != b), key=lambda t: (-t[0], t[1], t[2]))
    rows = [
        Row((a, b, formats.plain(n), formats.percent(n / totals[a]), charts.bar(n / totals[a], "bad")))
        for n, a, b in wrong[:NUM_PAIRS]
    ]
    if not rows:
        return (Prose("No test sample was taken for another label.", "good"),)
    caption = f"Most confused pairs{f', {NUM_PAIRS} of {len(wrong)}' if len(wrong) > NUM_PAIRS else ''}"
    return folded(table(caption, ("label", "taken for", "> times", "> of the label", "~ share"), rows), shown, "pairs")


def labels(facts: Facts) -> Section:
    """Per label, the weakest first."""
    found = facts.rows("evaluate/quality.json", "per_label")
    found = sorted(found, key=lambda r: (r["f1"] is None, r["f1"] or 0, str(r["label"])))
    rows = []
    for one in found:
        figures = [formats.percent(one.get(m)) for m in ("precision", "recall", "f1")]
        drawn = charts.bar(one["f1"]) if one.get("f1") is not None else "no test samples"
        rows.append(Row((str(one["label"]), formats.plain(one.get("num")), *figures, drawn)))
    columns = ("label", "> test samples", "> precision", "> recall", "> F1", "~ F1")
    shown = folded(table("Weakest label first", columns, rows), NUM_ROWS, "labels")
    return section("labels", "Label by label", *(shown if rows else (absent("evaluate/quality.json"),)))


def calibration(facts: Facts) -> Section:
    """Whether 90 % sure is right nine times in ten."""
    bins = []
    for row in facts.rows("evaluate/reliability.csv"):
        at = [number(row.get(c)) for c in ("confidence", "accuracy", "num")]
        if at[0] is not None and at[1] is not None and at[2]:
            bins.append((at[0], at[1], int(at[2])))
    title = "Can its confidence be believed?"
    if not bins:
        return section("calibration", title, absent("evaluate/reliability.csv"))
    ece = interval(facts.get("evaluate/quality.json", "runs", "main", "test", "ece"))
    temperature = facts.get("evaluate/calibration.json", "temperature", "main")
    told = f"Calibration error {formats.percent(ece.value)} ({formats.span('ece', ece)}). " if ece else ""
    if temperature is not None:
        words = "was too sure of itself" if temperature > 1.05 else "was not sure enough" if temperature < 0.95 else ""
        told += f"Temperature {formats.plain(temperature)}, fitted on validation and applied here"
        told += f": the network {words} before." if words else "."
    rows = [Row((formats.percent(c), formats.percent(a), formats.points(a - c), formats.plain(n))) for c, a, n in bins]
    columns = ("> stated confidence", "> accuracy", "> difference, points", "> samples")
    caption = "A dot a bin, its area by its samples; below the diagonal the model is too sure"
    numbers = table("The bins", columns, rows)
    assert numbers is not None, "there are bins"
    side = Side((Figure(charts.reliability(bins), caption), numbers))
    return section("calibration", title, Prose(told) if told else None, side)


def groups(facts: Facts) -> Section:
    """Groups with intervals, small ones marked, and the gaps."""
    title = "Is it as good for every group?"
    found = facts.get("bias/groups.json")
    if found is None:
        return section("groups", title, absent("bias/groups.json"))
    rated = found.get("groups", [])
    smalls = sum(bool(g.get("small")) for g in rated)
    are = formats.count(smalls, "group is", "groups are")
    skipped = "; ".join(str(s.get("why")) for s in found.get("skipped", []))
    return section(
        "groups",
        title,
        Prose(str(found.get("headline") or "")),
        *folded(_rated_groups(rated, found.get("overall") or {}), 3 * NUM_ROWS, "groups"),
        Prose(f"{are} too small to be judged; marked, and left out of the gaps.", "quiet") if smalls else None,
        _gaps(found.get("gaps", [])),
        Prose(f"Not compared: {skipped}.", "quiet") if skipped else None,
    )


def _rated_groups(rated: list[dict[str, Any]], overall: dict[str, Any]) -> Table | None:
    measures = list(dict.fromkeys(m for g in rated for m in g.get("measures", {})))
    measures.sort(key=lambda m: m != "accuracy")
    if not measures:
        return None
    first, others = measures[0], measures[1:]
    whole = interval(overall.get(first))
    low = _floor(interval(g["measures"].get(first)) for g in rated)
    rows = []
    for one in rated:
        found = {m: interval(one["measures"].get(m)) for m in measures}
        small = bool(one.get("small"))
        mark, kind = whole.value if whole else None, "faint" if small else "s0"
        size = formats.plain(one.get("num")) + (" (small)" if small else "")
        told = (formats.of(first, found[first]), formats.span(first, found[first]))
        drawn = charts.strip(found[first], low, 1, mark, kind)
        more = [formats.of(m, found[m]) for m in others]
        rows.append(Row((f"{one['grouping']}: {one['group']}", size, *told, drawn, *more), "quiet" if small else ""))
    heads = ("group", "> samples", f"> {formats.name(first)}", "> interval", f"~ {100 * low:.0f} to 100 %")
    caption = "Groups" + ("; the line across is all samples together" if whole else "")
    return table(caption, (*heads, *(f"> {formats.name(m)}" for m in others)), rows)


def _gaps(gaps: list[dict[str, Any]]) -> Block | None:
    rows = []
    for one in gaps:
        gap = interval(one.get("gap"))
        name = f"{one['grouping']}, {formats.name(str(one['measure']))}"
        told = (formats.gain(gap), formats.gain_span(gap), formats.plain(one.get("adjusted_p_value")))
        word = str(one.get("verdict") or formats.NONE)
        cells = (name, word, *told, str(one.get("worst")), str(one.get("best")))
        rows.append(Row(cells, "" if word in (formats.NONE, "no evidence") else "warn"))
    columns = ("gap", "verdict", "> points", "> interval", "> p, adjusted", "worst", "best")
    return table("Best group less worst. Random groups have gaps too: p tells what chance gives", columns, rows)
