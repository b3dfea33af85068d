"""The answers of an audit for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.params import flat
from pipelines import diff_tables
from pipelines.bundles import printable

_COLOURS = {"yes": "bold", "no": "dim", "not known": "yellow"}
SHOWN = 50
"""Versions in a table; --json has all."""


def shown(value: Any) -> str:
    """A text for the terminal: nothing in it is markup, and what cannot be printed is escaped."""
    return escape("\n".join(map(printable, str(value).split("\n"))))


def show_uses(told: dict[str, Any], console: Console) -> None:
    """Which models rest on something."""
    rows = told["versions"]
    counts = {word: sum(one["answer"] == word for one in rows) for word in _COLOURS}
    console.print(f"[bold]{shown(told['asked'])}[/], sha256 {', '.join(h[:16] for h in told['hashes'])}")
    console.print(
        f"{counts['yes']} of {len(rows)} models of this project rest on it; {counts['no']} do not; of "
        f"{counts['not known']} it cannot be told, because their files are not in DVC's cache.\n"
    )
    rows = [one for one in rows if one["answer"] != "no"] + [one for one in rows if one["answer"] == "no"]
    table = Table(header_style="dim")
    for name in ("model", "made", "rests on it", "as"):
        table.add_column(name, overflow="fold")
    for one in rows[:SHOWN]:
        as_what = "\n".join(one["as"]) or ("not here: " + ", ".join(one["not_held"]) if one["not_held"] else "")
        as_what = one["does_not_hold"] or as_what
        answer = f"[{_COLOURS[one['answer']]}]{one['answer']}[/]"
        table.add_row(shown(one["version"]), one["date"], answer, shown(as_what))
    if rows:
        console.print(table)
    if len(rows) > SHOWN:
        console.print(f"and {len(rows) - SHOWN} more (--json has all)")


def show_answers(told: dict[str, Any], console: Console) -> None:
    """Where one model comes from."""
    model = told["model"]
    made = f", first recorded {model['date']}" if model["date"] else ""
    console.print(f"[bold]{shown(model['title'])}[/]{made}\nmodel.onnx sha256 {model['model_sha256']}", soft_wrap=True)
    if not model["known_here"]:
        console.print("This project's artifacts, history and cache know no such model: the bundle speaks for itself.")
    console.print("\n[bold]Which data, code and weights made it?[/]")
    for line in _made_from(told["made_from"]):
        console.print(f"- {shown(line)}", soft_wrap=True)
    console.print("\n[bold]Why was it blessed?[/]")
    _blessed(told["blessed"], console)
    console.print("\n[bold]What changed since the one before?[/]")
    since = told["since"]
    if "difference" in since:
        console.print(f"The one before: {shown(since['previous'])}")
        for line in diff_tables.summary(since["difference"]):
            console.print(f"- {shown(line)}")
    else:
        console.print(shown(since["note"]))
    console.print("\n[bold]What was set aside?[/]")
    for line in _set_aside(told["set_aside"]):
        console.print(shown(line))


def as_dict(value: Any) -> dict[str, Any]:
    """Itself, or an empty one: what a bundle says need not be one."""
    return value if isinstance(value, dict) else {}


def _made_from(made: dict[str, Any]) -> list[str]:
    data, code, base = made["data"], made["code"], made["base_weights"]
    counts = ", ".join(
        f"{data[k]} {k.removeprefix('num_')}" for k in ("num_seen", "num_used") if data.get(k) is not None
    )
    splits = ", ".join(f"{split} {num}" for split, num in as_dict(data.get("splits")).items())
    where = code["commit"] or f"not known ({code['note'] or 'no reason given'})"
    clean = {True: ", nothing differs from it", False: f", but {', '.join(code['differing'][:5])} differ from it"}
    origin = ", ".join(f"{k} {base[k]}" for k in ("source", "repository", "revision", "package", "file") if base.get(k))
    return [
        f"data: {data.get('source') or 'source not told'}: {counts or 'counts not told'}; {splits}",
        f"manifest of all samples: sha256 {data['manifest_sha256']}",
        f"manifest of those accepted: sha256 {data['accepted_sha256']}",
        f"code: commit {where}{clean.get(code['clean'], '')}; {code['num_files']} files by hash",
        f"base weights: {origin or 'none'}, sha256 {base.get('sha256') or '-'}, licence "
        f"{base.get('licence') or 'not stated by owner'}",
        f"trained weights sha256 {made['trained_weights_sha256']}",
        f"libraries: requirements.lock sha256 {made['lock_sha256']}",
        f"arithmetic: {diff_tables.in_line(flat('', made['environment']))}",
    ]


def _blessed(verdicts: list[dict[str, Any]], console: Console) -> None:
    if not verdicts:
        console.print("No verdict is in the bundle, nor among the files of its run that are here.")
        return
    table = Table(header_style="dim")
    for name in ("verdict", "rule", "value", "limit", "margin", "holds"):
        table.add_column(name, overflow="fold")
    for verdict in verdicts:
        rules = verdict.get("rules") or [{"name": "(no rules)", "passed": verdict.get("passed")}]
        for rule in rules:
            cells = [diff_tables.number(rule.get(key)) for key in ("value", "limit", "margin")]
            holds = "yes" if rule.get("passed") is True else "[red]no[/]"
            table.add_row(shown(verdict.get("stage", "?")), shown(rule.get("name", "?")), *cells, holds)
    console.print(table)


def _set_aside(aside: dict[str, Any]) -> list[str]:
    if aside["num"] is None:
        return ["Not told by the bundle, and the run's files are not here."]
    reasons = ", ".join(f"{reason} {num}" for reason, num in as_dict(aside["reasons"]).items())
    lines = [f"{aside['num']} samples{': ' + reasons if reasons else ''}"]
    lines += [f"- {row['id']}: {row['reason']} {row['detail'] or ''}".rstrip() for row in aside["rows"]]
    told = [[str(f.get(key, "?")) for key in ("severity", "check", "num_samples")] for f in aside["findings"]]
    lines += [f"found: {severity}, {check}, {num} samples" for severity, check, num in told]
    return [*lines, *([aside["note"]] if aside.get("note") else [])]
