"""The section about training: the curves of every run, and the numbers behind them."""

from __future__ import annotations

from typing import Any

from components.report import charts, formats
from components.report.blocks import (
    Block,
    Figure,
    More,
    Points,
    Prose,
    Row,
    Section,
    Side,
    Table,
    absent,
    section,
    table,
)
from components.report.facts import Facts, number

_HISTORY = {
    "run": "run", "phase": "phase", "epoch": "> epoch", "train_loss": "> train loss",
    "validation_loss": "> validation loss", "validation_accuracy": "> validation accuracy",
    "validation_precision": "> precision", "validation_recall": "> recall", "validation_f1": "> F1",
    "learning_rate": "> learning rate",
}  # fmt: skip
"""Columns of finetune/history.csv, those of them that are there."""


def training(facts: Facts) -> Section:
    """Curves of every run."""
    history = facts.rows("finetune/history.csv")
    if not history:
        return section("training", "How training went", absent("finetune/history.csv"))
    runs = list(dict.fromkeys(row["run"] for row in history))
    runs.sort(key=lambda r: r != "main")
    accuracy = [_series(r, facts.epochs(r), "validation_accuracy") for r in runs]
    losses = [_series(f"main, {w}", facts.epochs(), f"{w}_loss") for w in ("train", "validation")]
    names = tuple(formats.name(r) for r in runs)
    drawn = charts.curves(accuracy, "Accuracy by epoch", "epoch", "accuracy on validation", share=True)
    lost = charts.curves(losses, "Loss by epoch", "epoch", "loss")
    figures = [
        Figure(drawn, "Accuracy on the validation split, every run", names) if drawn else None,
        Figure(lost, "Loss of the main run", ("training", "validation")) if lost else None,
    ]
    known = [c for c in _HISTORY if c in history[0]]
    rows = [Row(tuple(_cell(row, c) for c in known)) for row in history]
    numbers = Table("Every epoch; precision, recall and F1 are means of the labels", _titles(known), tuple(rows))
    told = f"{_best_epoch(facts)}{_padding(facts)}".strip()
    return section(
        "training",
        "How training went",
        *_advice(facts),
        Prose(told) if told else None,
        Side(tuple(f for f in figures if f is not None)),
        More("The numbers behind the curves", (numbers,)),
    )


def _titles(known: list[str]) -> tuple[str, ...]:
    return tuple(_HISTORY[c] for c in known)


def _advice(facts: Facts) -> list[Block]:
    """How the strategy was found, where it was not named."""
    found = facts.get("finetune/advice.json", default={})
    if not found.get("asked"):
        return []
    headline = str(found.get("headline") or "")
    reasons = tuple(str(reason) for reason in found.get("reasons") or [])
    race = found.get("race") or {}
    blocks: list[Block] = [Prose(f"{headline}."), Points(reasons)] if reasons else [Prose(f"{headline}.")]
    rows = [_entrant(number, one) for number, rung in enumerate(race.get("rungs") or [], 1) for one in rung]
    columns = ("strategy", "> round", "> validation accuracy", "> validation loss")
    raced = table(f"The race between strategies, judged on validation: {race.get('why')}", columns, rows)
    return [*blocks, *([raced] if raced is not None else [Prose(str(race["why"]), "quiet")] if race.get("why") else [])]


def _entrant(number: int, one: dict[str, Any]) -> Row:
    accuracy, loss = formats.percent(one.get("validation_accuracy")), formats.plain(one.get("validation_loss"))
    return Row((formats.spec(one.get("strategy")), formats.plain(number), accuracy, loss))


def _cell(row: dict[str, str], column: str) -> str:
    value = number(row.get(column)) if column not in ("run", "phase") else None
    return formats.name(row.get(column) or "") if value is None else formats.plain(value)


def _series(name: str, epochs: list[dict[str, str]], column: str) -> charts.Series:
    """Epochs are counted through the phases of a run."""
    values = ((float(i), number(row.get(column))) for i, row in enumerate(epochs, start=1))
    return charts.Series(name, tuple((x, y) for x, y in values if y is not None))


def _padding(facts: Facts) -> str:
    ratio = facts.metric("finetune.computed_over_real_length")
    return "" if ratio is None else f" Batches are of about one length: {formats.percent(ratio - 1)} is padding."


def _best_epoch(facts: Facts) -> str:
    epochs = facts.epochs()
    last = epochs[-1].get("phase") if epochs else None  # a phase goes on from the best of the one before it
    numbered = [(i, row) for i, row in enumerate(epochs, start=1) if row.get("phase") == last]
    losses = [(v, i) for i, row in numbered if (v := number(row.get("validation_loss"))) is not None]
    if not losses:
        return ""
    strategy = formats.spec(facts.setting("finetune.strategy") or {})
    by = f" Strategy: {strategy}." if strategy else ""
    kept = min(losses)[1]
    return f"The weights of epoch {kept} of {len(epochs)} were kept: the lowest loss on validation.{by}"
