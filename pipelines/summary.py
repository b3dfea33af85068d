"""What a run came to, in at most ten lines of plain text. Reads small files; loads nothing heavy.

Stages whose inputs are not what the stages before them wrote last are left out: after a stop half-way their
files are of an earlier run. The hashes in the stages' lineage decide that, not times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts import InputError, Interval, read_json
from components.report import formats
from components.report.advice import suggest
from components.report.facts import STAGES, Facts, gather, group_accuracy, interval
from pipelines import dag
from pipelines.bundles import BUNDLE

MOST = 10
_WORDS = {2: "a mistake in params or input", 3: "refused", 130: "interrupted"}


@dataclass(frozen=True)
class Stop:
    """The first stage that did not succeed."""

    stage: str
    code: int
    told: str


def summarise(root: Path) -> list[str]:
    """At most ten lines; says which stage stopped, where one did."""
    graph = _graph(root)
    order = list(graph)
    fresh = _fresh(root, graph)
    stop = _stopped(root, order, fresh)
    facts = gather(lambda stage, name: _locate(root, fresh, stage, name), (OSError, ValueError))
    refused = facts.get("gate/verdict.json", "passed") is False
    lines = [
        ("backbone", facts.choice()),
        ("accuracy", _accuracy(facts)),
        ("transfer", _transfer(facts)),
        ("worst group", _worst_group(facts)),
        ("drift", _drift(facts)),
        ("verdict", _verdict(facts)),
        ("stopped", "" if stop is None or (refused and stop.code == 3) else _stop(stop)),
        ("report", "artifacts/report/index.html" if "report" in fresh else ""),
        ("bundle", _bundle(root, fresh) if "handoff" in fresh else _no_bundle(refused)),
        ("next", _next(root, facts, order, fresh, stop)),
    ]
    return [_line(name, text) for name, text in lines if text][:MOST]


def _graph(root: Path) -> dict[str, tuple[str, ...]]:
    """Stage -> those that it reads, each after those."""
    try:
        return {stage.name: stage.parents for stage in dag.load(root)}
    except InputError:  # the mistake was told by whoever tried to run; the files can still be read
        return dict.fromkeys([*STAGES, "report", "export", "handoff"], ())


def _lineage(root: Path, stage: str) -> dict[str, Any]:
    try:
        found = read_json(root / "artifacts" / stage / "lineage.json")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _fresh(root: Path, graph: dict[str, tuple[str, ...]]) -> set[str]:
    """Stages that were made from what the stages before them wrote last."""
    lineages = {stage: _lineage(root, stage) for stage in graph}
    fresh: set[str] = set()
    for stage, parents in graph.items():
        read = {p: h for p, h in lineages[stage].get("inputs", {}).items() if p.startswith("artifacts/")}
        makers = {*parents, *(path.split("/")[1] for path in read)}
        written = {p: h for m in makers for p, h in lineages.get(m, {}).get("outputs", {}).items()}
        same = all(written.get(path, digest) == digest for path, digest in read.items())
        if lineages[stage] and same and makers <= fresh:
            fresh.add(stage)
    return fresh


def _stopped(root: Path, order: Sequence[str], fresh: set[str]) -> Stop | None:
    """A stage's own word on how it ended counts unless its outputs were made after that."""
    for stage in order:
        try:
            status = read_json(root / "reports" / stage / "status.json")
            code, started = status.get("exit_code"), float(status.get("started") or 0)
        except (OSError, ValueError, AttributeError):
            continue
        made = root / "artifacts" / stage / "lineage.json"
        if code and not (stage in fresh and made.exists() and made.stat().st_mtime > started):
            return Stop(stage, int(code), str(status.get("told") or ""))
    return None


def _locate(root: Path, fresh: set[str], stage: str, name: str) -> Path:
    path = root / "artifacts" / stage / name
    if stage not in fresh:
        raise FileNotFoundError(path)
    return path


def _accuracy(facts: Facts) -> str:
    accuracy = facts.accuracy()
    if accuracy is None:
        return ""
    num = facts.metric("evaluate.num_test")
    on = f" of {formats.plain(num)} test samples" if num else " of the test samples"
    return f"{formats.percent(accuracy.value)}{on} ({_between(accuracy)}, {formats.level(accuracy)} interval)"


def _between(one: Interval) -> str:
    return formats.span("accuracy", one)


def _transfer(facts: Facts) -> str:
    if not facts.get("evaluate/transfer.json"):
        return ""
    against = facts.comparison("from_scratch")
    gain = interval(against.get("gain"))
    if gain is None:
        return "not measured: no run from scratch to compare with"
    word, size = against.get("verdict"), f"{formats.gain(gain)} points against from_scratch"
    return f"{word}: {size} ({formats.gain_span(gain)})"


def _worst_group(facts: Facts) -> str:
    if not facts.get("bias/groups.json"):
        return ""
    group = facts.worst_group()
    accuracy = group_accuracy(group)
    if accuracy is None:
        return "not measured: no group is large enough to be judged"
    name = f"{group['grouping']}: {group['group']}"
    return f"{name}, {formats.percent(accuracy.value)} of {group['num']} ({_between(accuracy)})"


def _drift(facts: Facts) -> str:
    return str(facts.get("drift/drift.json", "headline", default=""))


def _verdict(facts: Facts) -> str:
    verdict = facts.get("gate/verdict.json")
    if verdict is None:
        return ""
    rules = verdict["rules"]
    failed = [f"{r['name']} ({_measured(r)})" for r in rules if not r["passed"]]
    if failed:
        return f"refused, {len(failed)} of {formats.count(len(rules), 'rule')} failed: {'; '.join(failed)}"
    return f"passed, {formats.count(len(rules), 'rule')}"


def _measured(rule: dict[str, Any]) -> str:
    return "not measured" if rule["value"] is None else f"is {formats.plain(float(rule['value']))}"


def _stop(stop: Stop) -> str:
    word = _WORDS.get(stop.code)  # of a fault the stage itself says that it is one
    return f"{stop.stage}, {word}: {stop.told}" if word else f"{stop.stage}: {stop.told}"


def _bundle(root: Path, fresh: set[str]) -> str:
    """Where it is; and where what ships is not the float32 network, whose accuracy is told above, what it is."""
    place = BUNDLE
    try:
        told = read_json(_locate(root, fresh, "export", "export.json"))["shipped"]
        variant, accuracy = str(told["variant"]), interval(told["measures"]["accuracy"])
    except (OSError, ValueError, KeyError, TypeError):
        return place
    if variant == "fp32":
        return place
    figure = f", whose own accuracy is {formats.percent(accuracy.value)} ({_between(accuracy)})" if accuracy else ""
    return f"{place}, ships {variant}{figure}"


def _no_bundle(refused: bool) -> str:
    return "none: nothing is exported from a refused run" if refused else ""


def _next(root: Path, facts: Facts, order: Sequence[str], fresh: set[str], stop: Stop | None) -> str:
    refused = facts.get("gate/verdict.json", "passed") is False
    if stop is not None and stop.code in (1, 2, 130) and not refused:
        mend = {2: "mend it, then ", 1: f"see reports/{stop.stage}, then "}.get(stop.code, "")
        return f"{mend}`dvc repro` goes on from {stop.stage}"
    for advice in suggest(facts, 1):
        if refused or all(stage in fresh for stage in order) or stop is not None:
            return f"{advice.key} in params.yaml: {advice.do} ({advice.why})"
    waiting = next((stage for stage in order if stage not in fresh), None)
    if waiting is None:
        return ""
    return f"`dvc repro` goes on from {waiting}" if (root / "artifacts").exists() else "`make run` runs the line"


def _line(name: str, text: str) -> str:
    """One line of at most 400 characters, for any terminal."""
    told = " ".join(text.replace("−", "-").replace("–", "-").split())
    return f"{name:<12} {told if len(told) <= 387 else told[:384] + '...'}"
