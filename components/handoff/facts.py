"""What the card and the Annex IV view tell, gathered from the files of the stages."""

from __future__ import annotations

from typing import Any

from components import plugins
from components.contracts import SPLITS, RunRecord, read_json, read_table
from components.job import Job

NUM_WEAKEST = 5
MOST_GROUPS = 40


def collect(job: Job, record: RunRecord, export: dict[str, Any]) -> dict[str, Any]:
    """Values by the names that card.md.j2 uses."""
    chosen = read_json(job.source("select", "chosen.json"))
    leaderboard = read_json(job.source("select", "leaderboard.json"))
    float32 = _float32(read_json(job.source("evaluate", "quality.json")), record.run)
    return {
        "name": job.run.name,
        **_in_words(record, export, chosen, leaderboard),
        "seed": job.run.seed,
        "labels": record.labels,
        "record": vars(record),
        "base_weights": base_weights(record),
        "export": export,
        "chosen": chosen,
        "leaderboard": leaderboard,
        **_data(job),
        "shipped": shipped(export, float32),
        "float32": float32,
        "transfer": read_json(job.source("evaluate", "transfer.json")),
        "groups": _groups(read_json(job.source("bias", "groups.json"))),
        "drift": read_json(job.source("drift", "drift.json")),
        "verdicts": [
            read_json(job.source("validate", "verdict.json")),
            read_json(job.source("gate", "verdict.json")),
            read_json(job.source("export", "verdict.json")),
        ],
        "ladder": read_json(job.source("export", "variants") / "ladder.json"),
        "cost": _of(leaderboard, chosen["title"], "cost"),
        "device": job.run.device,
    }


def _in_words(
    record: RunRecord, export: dict[str, Any], chosen: dict[str, Any], leaderboard: dict[str, Any]
) -> dict[str, Any]:
    """What the task and the decision say of the model."""
    sight, decision = plugins.load("preprocessing", record.task), plugins.load("decisions", record.decision)
    filled = {"num": len(record.labels), "noun": sight.NOUN, "temperature": export["temperature"]}
    answer = {name: text.format(**filled) for name, text in decision.WORDS.items()}
    words = sight.words(record.preprocessing, record.inputs)
    made = "fine-tuned" if transferred(record) else "trained from random weights"
    return {
        "description": f"Labels one {sight.NOUN} with {answer['answer']}. Made from {chosen['title']}, {made} "
        f"by the strategy `{record.strategy['name']}`.",
        "sample": {"noun": sight.NOUN, "requires": ["numpy", *sight.REQUIRES, "onnxruntime"], **words},
        "files": sight.FILES,
        "decision": {"output": decision.OUTPUT, **answer},
        "fit": _fit(leaderboard, chosen["title"], words["fit"]),
    }


def _data(job: Job) -> dict[str, Any]:
    splits = read_table(job.source("validate", "accepted.parquet"))["split"].value_counts()
    return {
        "data": read_json(job.source("ingest", "summary.json")),
        "splits": {name: int(splits.get(name, 0)) for name in SPLITS},
        "findings": read_json(job.source("validate", "findings.json")),
    }


def shipped(export: dict[str, Any], float32: dict[str, Any]) -> dict[str, Any]:
    """Of the very file that is handed over: its figures and their `headline`, its own `limits`, and whether it
    computes in float32 (`exact`), so that what is known of the network alone holds for it too; `of` says of what that
    is known, where it does not."""
    own = export["shipped"]
    exact = own["variant"] == "fp32"
    title = "model.onnx" if exact else f"model.onnx ({own['variant']})"
    headline = f"Accuracy of {title} on the {own['split']} split: {_with_interval(own['measures']['accuracy'])}."
    if not exact:
        headline += f" The float32 network that it was made from: {_with_interval(float32['test']['accuracy'])}."
    return {
        **own,
        "exact": exact,
        "title": title,
        "headline": headline,
        "level": f"{own['measures']['accuracy']['level']:.0%}",
        "limits": export.get("limits") or [],
        "of": "" if exact else " of the float32 network",
    }


def evaluation(told: dict[str, Any]) -> dict[str, Any]:
    """What the card shows, for programs to read: without ids, paths or content of samples."""
    data, record, own = told["data"], told["record"], told["shipped"]
    counts = ("num_seen", "num_used", "num_quarantined", "num_labels")
    return {
        "data": {
            **{name: data.get(name) for name in counts},
            "source": data["source"]["name"], "reasons": data.get("reasons", {}), "labels": data.get("labels", {}),
            "splits": told["splits"],
            "findings": [{k: one[k] for k in ("check", "severity", "num_samples")} for one in told["findings"]],
        },
        "training": {
            "backbone": told["chosen"]["title"], "why": told["chosen"].get("why"),
            **{name: record[name] for name in ("strategy", "epochs", "best_epoch", "num_samples_seen", "base_weights")},
        },
        "variant": own["variant"],
        "quality": {"shipped": own["measures"], "float32": told["float32"]["test"]},
        "parity": {"shipped": own["parity"], "float32": told["export"]["parity"]},
        "limits": own["limits"],
        "not_judged_again": own.get("not_judged_again", []),
        "of_float32": [] if own["exact"] else ["per_label", "transfer", "groups", "drift"],
        "per_label": told["float32"]["per_label"],
        "transfer": told["transfer"],
        "groups": {name: told["groups"].get(name) for name in ("groups", "gaps", "headline")},
        "drift": {name: told["drift"].get(name) for name in ("columns", "embeddings", "headline")},
        "verdicts": told["verdicts"],
    }  # fmt: skip


def metrics(measures: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Measures with their intervals as flat metrics: name, name_low, name_high."""
    ends = {"value": "", "low": "_low", "high": "_high"}
    flat = {n + end: one.get(key) for n, one in measures.items() for key, end in ends.items()}
    return {name: float(value) for name, value in flat.items() if value is not None}


def _of(leaderboard: dict[str, Any], title: str, key: str) -> dict[str, Any]:
    """What the leaderboard says of one candidate."""
    found: dict[str, Any] = next((c.get(key) or {} for c in leaderboard["candidates"] if c["title"] == title), {})
    return found


def _shown_groups(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every group with its first measure; where there are very many, the worst of those that are judged."""
    rows = []
    for one in groups:
        measures = one.get("measures") or {}
        name = next(iter(measures), "")
        value = measures.get(name) or {}
        rows.append({**one, "measure": name, **{k: value.get(k) for k in ("value", "low", "high")}})
    if len(rows) <= MOST_GROUPS:
        return rows
    judged = [row for row in rows if not row["small"] and row["value"] is not None]
    return sorted(judged, key=lambda row: (row["value"], row["grouping"], str(row["group"])))[:MOST_GROUPS]


def _fit(leaderboard: dict[str, Any], chosen: str, words: dict[str, str]) -> dict[str, Any]:
    """What `select` measured of the chosen one's preprocessing on the training samples, in words."""
    measured = _of(leaderboard, chosen, "fit")
    return {told: measured.get(name) for name, told in words.items()}


def _groups(found: dict[str, Any]) -> dict[str, Any]:
    small = sum(bool(group["small"]) for group in found["groups"])
    return {**found, "num_small": small, "shown": _shown_groups(found["groups"])}


def _float32(quality: dict[str, Any], run: str) -> dict[str, Any]:
    """What was measured of the trained network, before it was written in any other way."""
    return {
        "test": quality["runs"][run]["test"],
        "weakest": weakest(quality["per_label"]),
        "per_label": quality["per_label"],
    }


def _with_interval(one: dict[str, Any]) -> str:
    return f"{one['value']:.4f}, {one['level']:.0%} interval {one['low']:.4f} to {one['high']:.4f}"


def weakest(per_label: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The labels with the lowest F1, ties by name."""
    measured = [row for row in per_label if row.get("f1") is not None]
    return sorted(measured, key=lambda row: (row["f1"], str(row["label"])))[:NUM_WEAKEST]


def transferred(record: RunRecord) -> bool:
    """Whether training started from pretrained weights."""
    return record.pretrained and record.base_weights.get("source") != "random"


def base_weights(record: RunRecord) -> str:
    """Where the pretrained weights came from, in one line."""
    told = record.base_weights
    if not transferred(record) or not told:
        return "none: trained from random weights"
    keys = ("source", "repository", "revision", "package", "file", "sha256")
    parts = [f"{key} {told[key]}" for key in keys if told.get(key)]
    return ", ".join([*parts, f"licence {told.get('licence') or 'not stated by owner'}"])
