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
    splits = read_table(job.source("validate", "accepted.parquet"))["split"].value_counts()
    chosen = read_json(job.source("select", "chosen.json"))
    leaderboard = read_json(job.source("select", "leaderboard.json"))
    groups = read_json(job.source("bias", "groups.json"))
    sight, decision = plugins.load("preprocessing", record.task), plugins.load("decisions", record.decision)
    filled = {"num": len(record.labels), "noun": sight.NOUN, "temperature": export["temperature"]}
    answer = {name: text.format(**filled) for name, text in decision.WORDS.items()}
    words = sight.words(record.preprocessing, record.inputs)
    made = "fine-tuned" if transferred(record) else "trained from random weights"
    return {
        "name": job.run.name,
        "description": f"Labels one {sight.NOUN} with {answer['answer']}. {chosen['title']}, {made} "
        f"by `{record.strategy['name']}`.",
        "sample": {"noun": sight.NOUN, "requires": ["numpy", *sight.REQUIRES, "onnxruntime"], **words},
        "files": sight.FILES,
        "decision": {"output": decision.OUTPUT, **answer},
        "fit": _fit(leaderboard, chosen["title"], words["fit"]),
        "seed": job.run.seed,
        "labels": record.labels,
        "record": vars(record),
        "base_weights": base_weights(record),
        "export": export,
        "chosen": chosen,
        "leaderboard": leaderboard,
        "data": read_json(job.source("ingest", "summary.json")),
        "splits": {name: int(splits.get(name, 0)) for name in SPLITS},
        "findings": read_json(job.source("validate", "findings.json")),
        "quality": _quality(read_json(job.source("evaluate", "quality.json")), record.run),
        "transfer": read_json(job.source("evaluate", "transfer.json")),
        "groups": {
            **groups,
            "num_small": sum(bool(group["small"]) for group in groups["groups"]),
            "shown": _shown_groups(groups["groups"]),
        },
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


def evaluation(told: dict[str, Any]) -> dict[str, Any]:
    """What the card shows, for programs to read: without ids, paths or content of samples."""
    data, record = told["data"], told["record"]
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
        "quality": told["quality"]["test"],
        "per_label": told["quality"]["per_label"],
        "transfer": told["transfer"],
        "groups": {name: told["groups"].get(name) for name in ("groups", "gaps", "headline")},
        "drift": {name: told["drift"].get(name) for name in ("columns", "embeddings", "headline")},
        "verdicts": told["verdicts"],
    }  # fmt: skip


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


def _quality(quality: dict[str, Any], run: str) -> dict[str, Any]:
    test = quality["runs"][run]["test"]
    accuracy = test["accuracy"]
    return {
        "headline": f"Accuracy on the test split: {accuracy['value']:.4f}, "
        f"{accuracy['level']:.0%} interval {accuracy['low']:.4f} to {accuracy['high']:.4f}.",
        "level": f"{accuracy['level']:.0%}",
        "test": test,
        "weakest": weakest(quality["per_label"]),
        "per_label": quality["per_label"],
    }


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
