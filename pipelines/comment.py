"""`python -m pipelines comment`: a run, and what differs from another commit, as a comment for a pull request.

Everything is markdown, so that it shows without anything being hosted: tables, a curve that GitHub and GitLab draw by
themselves (mermaid), bars of characters. Names come from data, which anybody may have made: they are shown as text,
whatever they hold. infra/ci/post.py posts the file, and by its first line finds the comment that it replaces.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.contracts import InputError, read_json, write_atomic
from components.params import load_yaml
from pipelines import dag, dvc_cli, history
from pipelines.differences import difference, lower_is_better
from pipelines.markdown import fenced, listed, number, plain, signed, table
from pipelines.summary import summarise

LONGEST = 60_000
"""GitHub takes 65,536 characters."""
BAR = 20
_ENDS = ("_low", "_high")


def comment(root: Path, base: str | None, out: Path | None, links: Sequence[str] = ()) -> list[str]:
    """Write the comment to `out`, or give it back as lines. `links`: TITLE=URL, such as of the job's artifact.

    Raises:
        InputError: no such commit, or a link that is none.
    """
    text = compose(root, base, [_link(one) for one in links])
    if out is None:
        return text.splitlines()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, text.encode())
    return [f"{out}: {len(text)} characters"]


def compose(root: Path, base: str | None, links: Sequence[tuple[str, str]] = ()) -> str:
    """All of it.

    Raises:
        InputError: `base` names no commit.
    """
    line = dag.load(root)
    commit = _commit(root, base)
    stale = dvc_cli.stale(root)
    current = [s.name for s in line if s.name not in {*stale, *dvc_cli.needing(line, stale)}]
    name = str(load_yaml(root / "params.yaml").get("run", {}).get("name", root.name))
    parts = [
        f"<!-- graftline: {re.sub(r'[^A-Za-z0-9._-]', '-', name)} -->",
        f"### {plain(name)}: {_verdict(root, current)}",
        fenced(summarise(root)),
        _rules(root, current),
        _metrics(root, commit, current),
        _stages(root, commit, [s.name for s in line], current),
        _curve(root, current),
        _groups(root, current),
        _links(links),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n\n... cut here\n"


# --- its parts ---


def _verdict(root: Path, current: Sequence[str]) -> str:
    """The gate's word, or which stage stopped the run."""
    for stage in (s for s in ("gate", "validate") if s in current):
        verdict = _json(root / "artifacts" / stage / "verdict.json")
        if verdict and not verdict.get("passed"):
            failed = sum(not rule["passed"] for rule in verdict["rules"])
            return f"❌ refused by {stage}, {failed} of {len(verdict['rules'])} rules failed"
    names = [s.name for s in dag.load(root)]
    waiting = [name for name in names if name not in current]
    for name in waiting:
        status = _json(root / "reports" / name / "status.json")
        if status.get("exit_code"):
            return f"⚠️ {name} stopped: {plain(str(status.get('told', '')).splitlines()[0][:200])}"
    if waiting:
        return f"⚠️ not finished, {plain(', '.join(waiting))} would run"
    rules = _json(root / "artifacts" / "gate" / "verdict.json").get("rules", [])
    return f"✅ passed, {len(rules)} rule{'s' * (len(rules) != 1)}"


def _rules(root: Path, current: Sequence[str]) -> str:
    """The gate's rules with how far each value is from its limit."""
    found = _json(root / "artifacts" / "gate" / "verdict.json").get("rules", []) if "gate" in current else []
    rows = [
        ("✅" if one["passed"] else "❌", plain(one["name"]), number(one["value"]), number(one["limit"]),
         signed(one["margin"]))
        for one in sorted(found, key=lambda one: one["passed"])
    ]  # fmt: skip
    return table("**Rules**", ("", "rule", "value", "limit", "margin"), rows)


def _metrics(root: Path, commit: str, current: Sequence[str]) -> str:
    """Metrics of the commit and of this run, those that differ; first the ones that the gate looks at."""
    if not commit:
        return "No commit to compare with: this is the first, or its history is not here."
    before = {stage: _loads(_show(root, commit, f"artifacts/{stage}/metrics.json")) for stage in current}
    after = {stage: _json(root / "artifacts" / stage / "metrics.json") for stage in current}
    a, b = _flat(before), _flat(after)
    if not a:
        return f"{_short(commit)} holds no metrics to compare with."
    limits = _limits(root)
    names = sorted(a.keys() | b.keys(), key=lambda one: (one not in limits, one))
    rows = []
    for name in (n for n in names if not n.endswith(_ENDS) and a.get(n) != b.get(n)):
        told = difference(name, _interval(a, name), _interval(b, name))
        arrow = "↓" if lower_is_better(name) else "↑"
        rows.append((
            f"{plain(name)} {arrow}", number(a.get(name)), number(b.get(name)), signed(told["difference"]),
            _told(told), limits.get(name, ""),
        ))  # fmt: skip
    if not rows:
        return f"Every metric is as in {_short(commit)}."
    head = ("metric (↑ more is better)", _short(commit), "here", "change", "", "margin to the limit")
    return table("**Metrics**", head, rows)


def _told(told: Mapping[str, Any]) -> str:
    """Better, worse or not to be told, by the interval of the difference."""
    between = "" if told["low"] is None else f" ({signed(told['low'])} to {signed(told['high'])})"
    mark = {"better": "🟢 ", "worse": "🔴 "}.get(told["verdict"], "")
    return f"{mark}{told['verdict']}{between}"


def _limits(root: Path) -> dict[str, str]:
    """Metric -> how far it is from the gate's limit."""
    rules = _json(root / "artifacts" / "gate" / "verdict.json").get("rules", [])
    return {one["metric"]: signed(one.get("margin")) for one in rules if one.get("metric")}


def _stages(root: Path, commit: str, names: Sequence[str], current: Sequence[str]) -> str:
    """What this run did, and which stages' record differs from the commit's."""
    from pipelines import runs

    told = []
    record = next((one for one in runs.history(root) if one.flow == "train"), None)
    if record is not None:
        why = f" ({plain(record.trigger.kind)}{': ' + plain(record.trigger.cause) if record.trigger.cause else ''})"
        told.append(f"Ran{why}: {listed(record.ran)}; unchanged: {listed(n for n in current if n not in record.ran)}.")
    if commit:
        lock = root / "dvc.lock"
        then, now = _lock(_show(root, commit, "dvc.lock")), _lock(lock.read_text("utf-8") if lock.exists() else "")
        other = [n for n in names if then.get(n) != now.get(n)]
        told.append(f"Other in `dvc.lock` than in {_short(commit)}: {listed(other)}.")
    waiting = [n for n in names if n not in current]
    if waiting:
        told.append(f"Not made from what lies here: {listed(waiting)}.")
    return "\n".join(f"- {one}" for one in told)


def _curve(root: Path, current: Sequence[str]) -> str:
    """Validation accuracy by epoch, as mermaid."""
    rows = _csv(root / "artifacts" / "finetune" / "history.csv") if "finetune" in current else []
    values = [float(r["validation_accuracy"]) for r in rows if r.get("run") == "main" and r.get("validation_accuracy")]
    if len(values) < 2:
        return ""
    points = ", ".join(f"{value:.4f}" for value in values[:100])
    low = max(0.0, min(values) - 0.05)
    return "\n".join([
        "<details><summary>Validation accuracy while training</summary>", "", "```mermaid", "xychart-beta",
        f'  x-axis "epoch" 1 --> {min(len(values), 100)}', f'  y-axis "validation accuracy" {low:.2f} --> 1',
        f"  line [{points}]", "```", "</details>",
    ])  # fmt: skip


def _groups(root: Path, current: Sequence[str]) -> str:
    """Accuracy of each group as bars."""
    found = _json(root / "artifacts" / "bias" / "groups.json").get("groups", []) if "bias" in current else []
    told = []
    for one in found:
        accuracy = (one.get("measures") or {}).get("accuracy") or {}
        if accuracy.get("value") is None:
            continue
        bar = "█" * round(accuracy["value"] * BAR)
        between = f"{number(accuracy.get('low'))} to {number(accuracy.get('high'))}"
        name = plain(f"{one['grouping']}: {one['group']}") + (" (few)" if one.get("small") else "")
        told.append((name, f"`{bar:░<{BAR}}`", f"{accuracy['value']:.3f}", between, number(one["num"])))
    if not told:
        return ""
    shown = table("", ("group", "accuracy", "", "95 % interval", "samples"), told)
    return f"<details><summary>Accuracy of groups</summary>\n\n{shown}\n\n</details>"


def _links(links: Sequence[tuple[str, str]]) -> str:
    shown = [f"[{plain(title)}](<{url}>)" for title, url in links]
    told = "Pictures need a place that serves them; the whole report is a page of its own, kept with the job."
    return f"{' · '.join(shown)}\n\n<sub>{told}</sub>" if shown else f"<sub>{told}</sub>"


# --- reading ---


def _commit(root: Path, base: str | None) -> str:
    """Its hash; empty where nothing is asked for and there is none."""
    found = history.git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base or 'HEAD'}^{{commit}}")
    if base and not found:
        raise InputError(f"--base: this repository has no commit {base!r}; in CI fetch the whole history")
    return found[0] if found else ""


def _show(root: Path, commit: str, path: str) -> str:
    return "\n".join(history.git(root, "show", f"{commit}:./{path}"))


def _loads(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _csv(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))
    except OSError:
        return []


def _lock(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML, YAMLError

    try:
        found = YAML(typ="safe").load(text) if text else {}
    except YAMLError:
        return {}
    stages = found.get("stages") if isinstance(found, dict) else None
    return stages if isinstance(stages, dict) else {}


def _flat(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {
        f"{stage}.{name}": float(value)
        for stage, values in metrics.items()
        for name, value in values.items()
        if isinstance(value, int | float)
    }


def _interval(metrics: Mapping[str, float], name: str) -> dict[str, float | None]:
    return {key: metrics.get(name + end) for key, end in (("value", ""), ("low", "_low"), ("high", "_high"))}


def _link(text: str) -> tuple[str, str]:
    title, sign, url = text.partition("=")
    if not sign or not title or not re.fullmatch(r"https?://[^\s<>]+", url):
        raise InputError(f"--link: {text!r} is not TITLE=https://...")
    return title, url


def _short(commit: str) -> str:
    return f"`{commit[:8]}`"
