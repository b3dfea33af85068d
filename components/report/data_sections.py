"""Sections about the data and the record: drift, data, augmentation, lineage, limits, what to try next."""

from __future__ import annotations

from collections import Counter
from typing import Any

from markupsafe import Markup

from components.report import charts, formats
from components.report.advice import suggest
from components.report.blocks import (
    Block,
    More,
    Picture,
    Points,
    Prose,
    Row,
    Section,
    absent,
    folded,
    section,
    table,
)
from components.report.facts import STAGES, Facts

NUM_ROWS = 12
"""Rows of a long table before the others unfold."""


def drift(facts: Facts) -> Section:
    """Columns and embeddings, each with its share of the threshold."""
    title = "Do the current data look like the training data?"
    found = facts.get("drift/drift.json")
    if found is None:
        return section("drift", title, absent("drift/drift.json"))
    rows = [_drift_row(str(c.get("column")), c) for c in found.get("columns", [])]
    if found.get("embeddings"):
        rows.append(_drift_row("embeddings", found["embeddings"]))
    columns = ("column", "outcome", "> score", "> p", "> threshold", "~ to the limit", "> samples", "note")
    sides = [f"{k}: {found[k]}" for k in ("reference", "current") if found.get(k)]
    strange = [
        Row((str(name), what, formats.plain(num)))
        for key, what in (("unreadable", "could not be read"), ("unknown_labels", "label not trained on"))
        for name, num in (found.get(key) or {}).items()
    ]
    return section(
        "drift",
        title,
        Prose(str(found.get("headline") or "")),
        Prose("; ".join(sides) + ".", "quiet") if sides else None,
        table(f"Reference against current data, {_detectors(found)}; the line is the limit", columns, rows),
        table("In the current data", ("which", "what", "> samples"), strange),
    )


def _detectors(found: dict[str, Any]) -> str:
    columns = sorted({str(c.get("detector")) for c in found.get("columns", [])})
    embeddings = (found.get("embeddings") or {}).get("detector")
    return f"columns by {', '.join(columns) or 'none'}, embeddings by {embeddings or 'none'}"


def _drift_row(name: str, one: dict[str, Any]) -> Row:
    measured = one.get("score") is not None or one.get("p_value") is not None
    moved = bool(one.get("drifted"))
    word = "not compared" if not measured else "drifted" if moved else "quiet"
    sizes = [formats.plain(one[k]) for k in ("num_reference", "num_current") if one.get(k) is not None]
    figures = [formats.plain(one.get(k)) for k in ("score", "p_value", "threshold")]
    share = one.get("share_of_threshold")
    drawn = charts.bar(share / 2, "warn" if moved else "s0", mark=0.5) if share is not None and measured else ""
    cells = (name, word, *figures, drawn, " / ".join(sizes), str(one.get("note") or ""))
    return Row(cells, "warn" if moved else "" if measured else "quiet")


def data(facts: Facts) -> Section:
    """Counts, what was set aside, findings, splits, labels."""
    summary = facts.get("ingest/summary.json")
    if summary is None:
        return section("data", "The data", absent("ingest/summary.json"))
    seen, used, aside = (formats.plain(summary.get(k)) for k in ("num_seen", "num_used", "num_quarantined"))
    told = f"{seen} samples seen = {used} used + {aside} set aside; {summary.get('num_labels')} labels."
    source = formats.spec(summary.get("source"))
    counts = Counter({str(k): int(v) for k, v in (summary.get("labels") or {}).items()})
    most = max(counts.values(), default=1)
    labels = [Row((k, formats.plain(n), charts.bar(n / most))) for k, n in counts.most_common()]
    reasons = [Row((str(k), formats.plain(v))) for k, v in (summary.get("reasons") or {}).items()]
    notes = [Row((str(k), formats.plain(v))) for k, v in (summary.get("notes") or {}).items()]
    return section(
        "data",
        "The data",
        Prose(f"{told} Source: {source}."),
        _splits(facts),
        table(
            "Set aside, by reason (rows in artifacts/ingest/quarantine.parquet)",
            ("reason", "> samples"),
            reasons,
        ),
        _findings(facts),
        table("Read with a note", ("note", "> samples"), notes[:NUM_ROWS]),
        *folded(table("Samples a label", ("label", "> samples", "~ of the largest"), labels), NUM_ROWS, "labels"),
    )


def _splits(facts: Facts) -> Block | None:
    names = {"train": "learned from", "validation": "choosing and calibrating", "test": "judging"}
    numbers = {s: facts.metric(f"validate.num_{s}") for s in names}
    rows = [Row((s, use, formats.plain(numbers[s]))) for s, use in names.items() if numbers[s] is not None]
    return table("Splits", ("split", "used for", "> samples"), rows)


def _findings(facts: Facts) -> Block | None:
    found = facts.get("validate/findings.json")
    if found is None:
        return absent("validate/findings.json")
    if not found:
        return Prose("No check of the data found anything.", "good")
    rows = []
    for one in sorted(found, key=lambda f: (f.get("severity") != "error", str(f.get("check")))):
        some = ", ".join(str(s) for s in list(one.get("samples") or [])[:5])
        cells = (
            str(one.get("check")),
            str(one.get("severity")),
            str(one.get("message")),
            formats.plain(one.get("num_samples")),
            some,
        )
        rows.append(Row(cells, "bad" if one.get("severity") == "error" else "warn"))
    return table("What the checks found", ("check", "severity", "finding", "> samples", "for example"), rows)


def augmentation(facts: Facts, preview: bytes | None) -> Section:
    """The policy and its preview."""
    title = "What training samples were turned into"
    policy = facts.get("augment/policy.json")
    if policy is None:
        return section("augmentation", title, absent("augment/policy.json"))
    told = f"Policy: {formats.spec(policy.get('policy'))}. {policy.get('note') or ''}".strip()
    kept = facts.metric("finetune.labels_kept_by_policy")
    if kept is not None:
        told += f". By the frozen probe {formats.percent(kept)} of the samples that it knows keep their label."
    alt = "Training samples, one a row: the original first, then versions of it as training sees them."
    shown: Block = absent("augment/preview.png")
    if preview is not None:
        shown = Picture(preview, alt, "First column: the original. The others: the same sample, augmented.")
    return section("augmentation", title, Prose(told), shown)


def lineage(facts: Facts) -> Section:
    """Per stage: hashes of what it read, ran and wrote. Shortened; the whole stands in the title of each."""
    made = {s: found for s in STAGES if (found := facts.get(f"{s}/lineage.json")) is not None}
    if not made:
        return section("lineage", "Where it comes from", absent("ingest/lineage.json"))
    rows = []
    for stage, found in made.items():
        sizes = [formats.plain(len(found.get(k) or {})) for k in ("inputs", "code", "outputs")]
        parents = ", ".join(found.get("parents") or {}) or formats.NONE
        rows.append(Row((stage, *sizes, parents)))
    columns = ("stage", "> inputs", "> code files", "> outputs", "rests on")
    environments = [f.get("environment") or {} for f in made.values()]
    same = all(e == environments[0] for e in environments)
    told = (
        "All stages ran in the same environment." if same else "Not all stages ran in the same environment; see each."
    )
    shared = (More("Environment of all stages", tuple(_environment(environments[0]))),) if same else ()
    stages = [_stage_record(stage, found, with_environment=not same) for stage, found in made.items()]
    lacking = [s for s in STAGES if s not in made]
    return section(
        "lineage",
        "Where it comes from",
        Prose(f"{told} Hashes are SHA-256; the whole ones stand in artifacts/<stage>/lineage.json."),
        table("Stages", columns, rows),
        *stages,
        *shared,
        absent(*(f"{s}/lineage.json" for s in lacking)) if lacking else None,
    )


def _stage_record(stage: str, found: dict[str, Any], *, with_environment: bool) -> More:
    rows = [
        Row((str(path), kind, _hash(str(digest))))
        for kind, key in (
            ("output", "outputs"),
            ("input", "inputs"),
            ("code", "code"),
            ("parent's record", "parents"),
        )
        for path, digest in (found.get(key) or {}).items()
    ]
    settings = [Row((key, value)) for key, value in _flat(found.get("params") or {})]
    blocks = [
        table(f"Files of {stage}", ("path", "kind", "hash"), rows),
        table(f"Params of {stage}", ("key", "value"), settings),
        *(_environment(found.get("environment") or {}) if with_environment else ()),
    ]
    return More(f"{stage}: hashes and params", tuple(b for b in blocks if b is not None))


def _hash(digest: str) -> Markup:
    return Markup('<code title="{}">{}</code>').format(digest, formats.short(digest))


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Nested params as (dotted key, value)."""
    if isinstance(value, dict) and value:
        return [pair for k, v in value.items() for pair in _flat(v, f"{key}.{k}" if key else str(k))]
    if isinstance(value, list) and any(isinstance(v, dict) for v in value):
        return [pair for i, v in enumerate(value) for pair in _flat(v, f"{key}[{i}]")]
    told = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return [(key, told if told else formats.NONE)]


def _environment(found: dict[str, Any]) -> list[Block]:
    plain = {k: str(found[k]) for k in ("python", "system", "machine") if k in found}
    pins = {str(k): str(v) for k, v in (found.get("pins") or {}).items()}
    packages = {str(k): str(v) for k, v in (found.get("packages") or {}).items()}
    rows = [Row((k, v)) for k, v in (plain | packages | pins).items()]
    shown = table("Environment", ("what", "version or value"), rows)
    return [shown] if shown else []


def limits(facts: Facts) -> Section:
    """What the figures cannot say."""
    num = facts.metric("evaluate.num_test")
    seed = facts.get("evaluate/lineage.json", "params", "run", "seed")
    samples = f"{formats.plain(num)} test samples" if num else "the test samples"
    told = [
        f"The intervals tell how much {samples} can say. They do not tell how the figures move when "
        f"training is repeated: this is one run{f' with seed {seed}' if seed is not None else ''}.",
        "The test split comes from the same source as the training split. Samples from elsewhere can do "
        "worse; drift is seen only between the two sets that were compared.",
        "Groups are those that were named or measured. A group that nobody named is not judged, nor are "
        "combinations of groups.",
        "Labels were taken as they are. Where they are wrong, so are the figures.",
        "Transferability scores rank candidates without training them; only the chosen one was trained.",
        "The exported file is made after this page. Its parity with the trained network is in "
        "artifacts/export/export.json, and measured times are in reports/.",
    ]
    if facts.missing:
        told.append(f"Not made when this page was: {', '.join(facts.missing)}.")
    return section("limits", "What this page does not tell", Points(tuple(told)))


def next_steps(facts: Facts) -> Section:
    """What to try next, each with its key."""
    rows = [Row((a.key, a.do, a.why)) for a in suggest(facts)]
    shown = table(
        "One at a time; then `dvc repro` and `dvc metrics diff`",
        ("key of params.yaml", "try", "because"),
        rows,
    )
    return section(
        "next", "What to try next", shown or Prose("Nothing was measured that advice could rest on.", "quiet")
    )
