"""The difference of two bundles for people: first what it comes to, then tables of what differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

MOST = 15
"""Rows of a table; --json has all."""
_COLOURS = {"better": "green", "worse": "red", "equal": "dim", "no evidence": "dim", "small: not judged": "dim"}


def show(told: dict[str, Any], console: Console) -> None:
    """Print it."""
    a, b = told["a"]["title"], told["b"]["title"]
    console.print(f"[bold]A[/] {escape(a)}\n[bold]B[/] {escape(b)}\n")
    for line in summary(told):
        console.print(f"- {escape(line)}")
    rows = [_metric(one) for one in _metrics(told["metrics"]) if one["difference"]]
    _table(console, "Metrics (B minus A)", ("metric", "A", "B", "difference", "interval", "verdict"), rows)
    slices = sorted(told["slices"]["rows"], key=lambda one: (one["small"], one["difference"] or 0))
    rows = [(f"{one['grouping']}: {one['group']}", *_metric(one)) for one in slices if one["difference"]]
    _table(console, "Groups (B minus A)", ("group", "measure", "A", "B", "difference", "interval", "verdict"), rows)
    _table(console, "Graph", ("", "A", "B"), _graph(told["graph"]))
    if "latency" in told:
        _table(console, "Latency on this machine, ms", ("batch", "A", "B", "B / A", "range"), _latency(told["latency"]))
    for title, key in (
        ("Data", "data"),
        ("Params", "params"),
        ("Libraries", "libraries"),
        ("Environment", "environment"),
    ):
        _table(console, title, ("", "A", "B"), _changes(told[key]))
    _table(console, "Code (sha256)", ("file", "A", "B"), _changes(told["code"], short=True))
    _table(console, "Base weights", ("", "A", "B"), _changes(told["weights"]["base"]))


def summary(told: dict[str, Any]) -> list[str]:
    """What it comes to, in a few lines."""
    found = [_of_model(told), _of_quality(told), _of_groups(told), _of_data(told["data"])]
    for word, key in (("file of code", "code"), ("parameter", "params"), ("library", "libraries")):
        found.append(_count(told[key], word))
    base, (before, after) = told["weights"]["base"], told["weights"]["trained"]
    trained = "the same trained weights" if before == after else "other trained weights"
    found.append(f"{trained}, {'other' if _num(base) else 'the same'} base weights")
    for batch, one in (told.get("latency") or {}).get("batches", {}).items():
        found.append(_of_speed(batch, one))
    return found


def _of_model(told: dict[str, Any]) -> str:
    if told["same_model"]:
        return "the same model.onnx, byte for byte"
    before, after = told["size"]["model_bytes"]
    names = [one.get("variant") for one in (told["graph"]["a"], told["graph"]["b"])]
    variant = f", {names[0]} -> {names[1]}" if names[0] != names[1] else ""
    graph = f"{len(told['graph']['ops'])} operators differ in number" if told["graph"]["ops"] else "the same operators"
    return f"another model.onnx: {before / 1e6:.2f} -> {after / 1e6:.2f} MB{variant}, {graph}"


def _metrics(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what is told of the float32 network and is the same of model.onnx, because that is float32."""
    values = {one["metric"]: (one["a"]["value"], one["b"]["value"]) for one in rows}
    own = {f"evaluate.{name.removeprefix('shipped.')}": v for name, v in values.items() if name.startswith("shipped.")}
    return [one for one in rows if one["metric"] not in own or own[one["metric"]] != values[one["metric"]]]


def _of_quality(told: dict[str, Any]) -> str:
    rows = {one["metric"]: one for one in _metrics(told["metrics"])}
    own, before = _accuracy(rows.get("shipped.accuracy")), _accuracy(rows.get("evaluate.accuracy"))
    if not own:
        return "accuracy of model.onnx was not measured on both sides"
    return f"accuracy of model.onnx {own}" + (f"; of the float32 network {before}" if before else "")


def _accuracy(one: dict[str, Any] | None) -> str:
    if one is None or one["difference"] is None:
        return ""
    if one["difference"] == 0:
        return f"is {number(one['a']['value'])} in both"
    values = f"{number(one['a']['value'])} -> {number(one['b']['value'])}"
    return f"{values} ({_signed(one['difference'])}, {_span(one) or 'no interval'}): {one['verdict']}"


def _of_groups(told: dict[str, Any]) -> str:
    judged = [one for one in told["slices"]["rows"] if not one["small"]]
    counts = {word: sum(one["verdict"] == word for one in judged) for word in ("better", "worse")}
    rest = len(judged) - sum(counts.values())
    other = len(told["slices"]["only_a"]) + len(told["slices"]["only_b"])
    also = f"; {other} groups are in one of them only" if other else ""
    return (
        f"of {len(judged)} figures of groups {counts['worse']} are worse, {counts['better']} better, {rest} open{also}"
    )


def _of_data(data: dict[str, Any]) -> str:
    if data["same_splits"]:
        return "the same samples in the same splits"
    return "the same samples, split otherwise" if data["same_samples"] else "other samples"


def _of_speed(batch: str, one: dict[str, Any]) -> str:
    told = (
        f"at batch {batch} B takes {one['ratio']:.2f} of A's time ({one['ratio_low']:.2f} to {one['ratio_high']:.2f})"
    )
    clear = one["ratio_high"] < 1 or one["ratio_low"] > 1
    return told if clear else f"{told}: no evidence of a difference"


def _count(changed: dict[str, Any], word: str) -> str:
    num = _num(changed)
    plural = word.replace("library", "libraries").replace("file of", "files of")
    plural = plural + "s" if plural == "parameter" else plural
    if not num:
        return f"the same {plural}"
    names = [*changed["differ"], *changed["only_a"], *changed["only_b"]]
    shown = ", ".join(names[:4]) + (" and more" if num > 4 else "")
    return f"{num} {word if num == 1 else plural} {'differs' if num == 1 else 'differ'}: {shown}"


def _num(changed: dict[str, Any]) -> int:
    return len(changed["differ"]) + len(changed["only_a"]) + len(changed["only_b"])


def _metric(one: dict[str, Any]) -> tuple[str, ...]:
    values = (number(one["a"]["value"]), number(one["b"]["value"]), _signed(one["difference"]))
    verdict = "small: not judged" if one.get("small") else one["verdict"]
    return (one["metric"], *values, _span(one), verdict)


def _span(one: dict[str, Any]) -> str:
    return "" if one["low"] is None else f"{_signed(one['low'])} to {_signed(one['high'])}"


def _graph(graphs: dict[str, Any]) -> list[tuple[str, ...]]:
    a, b = graphs["a"], graphs["b"]
    rows: list[tuple[str, ...]] = [
        (key, in_line(a[key]), in_line(b[key])) for key in ("variant", "opsets", "weights") if a[key] != b[key]
    ]
    for key in ("inputs", "outputs"):
        if a[key] != b[key]:
            rows.append((key, *("; ".join(_node(one) for one in side[key]) for side in (a, b))))
    return rows + [(f"operator {name}", str(x), str(y)) for name, (x, y) in graphs["ops"].items()]


def _node(one: dict[str, Any]) -> str:
    return f"{one['name']} {one['dtype']}[{', '.join(map(str, one['shape']))}]"


def _latency(latency: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (batch, f"{one['a_ms']:.2f}", f"{one['b_ms']:.2f}", f"{one['ratio']:.2f}",
         f"{one['ratio_low']:.2f} to {one['ratio_high']:.2f}")
        for batch, one in latency["batches"].items()
    ]  # fmt: skip


def _changes(changed: dict[str, Any], short: bool = False) -> list[tuple[str, ...]]:
    def cell(value: Any) -> str:
        return str(value)[:12] if short else in_line(value)

    rows: list[tuple[str, ...]] = [(key, cell(a), cell(b)) for key, (a, b) in changed["differ"].items()]
    rows += [(key, "there", "-") for key in changed["only_a"]]
    return rows + [(key, "-", "there") for key in changed["only_b"]]


def _table(console: Console, title: str, columns: Sequence[str], rows: Iterable[tuple[str, ...]]) -> None:
    rows = list(rows)
    if not rows:
        return
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", header_style="dim")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name == columns[0])
    for row in rows[:MOST]:
        *start, last = (escape(cell) for cell in row)
        colour = _COLOURS.get(row[-1])
        table.add_row(*start, f"[{colour}]{last}[/]" if colour else last)
    if len(rows) > MOST:
        table.add_row(f"and {len(rows) - MOST} more (--json has all)")
    console.print(table)


def in_line(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "-"
    if value is None:
        return "-"
    return number(value) if isinstance(value, float) else str(value)


def number(value: float | None) -> str:
    """Four digits."""
    return "-" if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4g}"
