"""Bundles and their history made by hand in milliseconds: what readers of bundles read, without a line that ran."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pandas as pd

from components.contracts import write_json, write_table
from components.handoff import provenance

GRAPH = """<ir_version: 10, opset_import: ["" : 20]>
tiny (float[batch, 4] pixels) => (float[batch, 2] probabilities)
<float[4, 2] w = {{{weight}, 0, 0, 1, 1, 0, 0, 1}}> {{
  scores = MatMul(pixels, w)
  probabilities = Softmax <axis = 1> (scores)
}}"""
PREDICT = """import pathlib, sys
print("labelled", *sys.argv[1:])
print("this is said aside", file=sys.stderr)
pathlib.Path("ran.txt").write_text("predict.py ran")
sys.exit(2 if "bad" in sys.argv else 0)
"""


def digest(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def interval(value: float, half: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "level": 0.95}


def bundle(folder: Path, weight: float = 1, **changes: Any) -> Path:
    """A bundle; `changes` are keys of `_told`."""
    told = _told() | changes
    folder.mkdir(parents=True)
    model = onnx.parser.parse_model(GRAPH.format(weight=weight))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "predict.py").write_text(PREDICT)
    write_json(folder / "preprocessing.json", {"height": 8, "width": 8})
    write_json(folder / "metrics.json", told["metrics"])
    write_json(folder / "evaluation.json", told["evaluation"])
    if told["ladder"]:
        write_json(folder / "ladder.json", told["ladder"])
    subjects = {p.name: digest(p.read_bytes()) for p in sorted(folder.iterdir())}
    origin = provenance.Provenance(
        name="tiny", commit=told["commit"], clean=True, differing=(), commit_note="", params=told["params"],
        environment={"python": "3.11", "packages": told["packages"]}, environments_that_differ={}, code=told["code"],
        stages={"ingest": {"inputs": {"data": told["data_sha256"]}, "outputs": {}, "parents": {}, "code": []}},
        base_weights=told["base_weights"],
        data={"manifest_sha256": told["manifest"], "accepted_sha256": told["accepted"]},
        weights_sha256=digest(f"trained {weight}"), lock_sha256=digest("lock"), subjects=subjects,
    )  # fmt: skip
    write_json(folder / "provenance.json", provenance.statement(origin))
    sums(folder)
    return folder


def _told() -> dict[str, Any]:
    groups = [
        {"grouping": "light", "group": g, "num": n, "small": n < 20, "measures": {"accuracy": interval(0.9)}}
        for g, n in (("dark", 40), ("bright", 60), ("odd", 5))
    ]
    rule = {"name": "evaluate.accuracy_low at least 0.8", "passed": True, "value": 0.88, "limit": 0.8, "margin": 0.08}
    return {
        "commit": "1" * 40,
        "params": {"run": {"seed": 17, "threads": 1}, "finetune": {"batch_size": 32}},
        "packages": {"torch": "2.13.0", "numpy": "2.4.0"},
        "code": {"components/model.py": digest("model"), "components/job.py": digest("job")},
        "base_weights": {"source": "package", "package": "tiny", "sha256": "ab" * 32, "licence": "apache-2.0"},
        "data_sha256": digest("the folder"),
        "manifest": digest("manifest"),
        "accepted": digest("accepted"),
        "ladder": {},
        "metrics": {"evaluate": {"accuracy": 0.9, "num_test": 100.0}, "bias": {"worst_group_accuracy": 0.85}},
        "evaluation": {
            "data": {
                "source": "image_folder", "num_seen": 102, "num_used": 100, "num_quarantined": 2, "num_labels": 2,
                "reasons": {"truncated": 2}, "labels": {"cat": 60, "dog": 40}, "splits": {"train": 70, "test": 30},
                "findings": [{"check": "duplicates", "severity": "warning", "num_samples": 3}],
            },
            "variant": "fp32",
            "quality": {
                "shipped": {"accuracy": interval(0.9), "ece": interval(0.03, 0.01)},
                "float32": {"accuracy": interval(0.9), "ece": interval(0.03, 0.01)},
            },
            "groups": {"groups": groups, "gaps": [], "headline": ""},
            "verdicts": [
                {"stage": "validate", "passed": True, "rules": []},
                {"stage": "gate", "passed": True, "rules": [{**rule, "why": "0.88 is at least 0.8"}]},
            ],
        },
    }  # fmt: skip


def sums(folder: Path) -> None:
    """SHA256SUMS over what lies there."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = [f"{digest(p.read_bytes())}  {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


class Project:
    """A git repository with DVC's cache, to which runs are added by hand."""

    def __init__(self, root: Path) -> None:
        """A new one, or the one that lies there."""
        self.root, self.cache = root, root / ".dvc" / "cache" / "files" / "md5"
        if root.exists():
            return
        (root / ".dvc").mkdir(parents=True)
        (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
        (root / ".gitignore").write_text("/artifacts\n/releases\n/.dvc/cache\n/.dvc/tmp\n")
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        command = ["git", *who, "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false", *words]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=True).stdout.strip()

    def put(self, content: bytes, suffix: str = "") -> str:
        """Into the cache; its md5."""
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
        place = self.cache / md5[:2] / md5[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return md5

    def run(self, made: Path, samples: dict[str, str], quarantined: dict[str, str] | None = None) -> dict[str, str]:
        """What DVC keeps of a run: the bundle in `made`, and tables of samples {id: content}. Output -> md5."""
        return {**self.tables(samples, quarantined), **self.bundled(made)}

    def bundled(self, made: Path) -> dict[str, str]:
        """A bundle's folder, into the cache."""
        listing = [
            {"md5": self.put(p.read_bytes()), "relpath": p.relative_to(made).as_posix()}
            for p in sorted(made.rglob("*")) if p.is_file()
        ]  # fmt: skip
        return {"artifacts/handoff/bundle": self.put(json.dumps(listing).encode(), ".dir")}

    def tables(self, samples: dict[str, str], quarantined: dict[str, str] | None = None) -> dict[str, str]:
        """The tables of samples, into the cache."""
        table = pd.DataFrame(
            {"id": list(samples), "sha256": [digest(c) for c in samples.values()], "label": "cat", "split": "train"}
        )
        rows = [{"id": i, "reason": r, "detail": ""} for i, r in (quarantined or {}).items()]
        tables = {
            "artifacts/ingest/manifest.parquet": table.drop(columns="split"),
            "artifacts/validate/accepted.parquet": table[table["id"] != "unlabelled"],
            "artifacts/ingest/quarantine.parquet": pd.DataFrame(rows, columns=["id", "reason", "detail"]),
        }
        outs = {}
        for path, one in tables.items():
            place = self.root / "table.parquet"
            write_table(place, one)
            outs[path] = self.put(place.read_bytes())
            place.unlink()
        return outs

    def lock(self, outs: dict[str, str]) -> None:
        """dvc.lock, written as DVC writes it."""
        from dvc.utils.serialize import dump_yaml

        stages: dict[str, Any] = {}
        for path, md5 in outs.items():
            stage = stages.setdefault(path.split("/")[1], {"cmd": "run", "deps": [], "outs": []})
            stage["deps"].append({"path": "components/job.py", "hash": "md5", "md5": "0" * 32, "size": 5})
            told = {"path": path, "hash": "md5", "md5": md5, "size": 7}
            stage["outs"].append({**told, "nfiles": 3} if md5.endswith(".dir") else told)
        dump_yaml(str(self.root / "dvc.lock"), {"schema": "2.0", "stages": stages})

    def commit(self, outs: dict[str, str], *tags: str) -> str:
        """A commit with that lock; its hash."""
        self.lock(outs)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", "a run")
        for tag in tags:
            self.git("tag", "--annotate", tag, "-m", tag)
        return self.git("rev-parse", "HEAD")

    def commits(self, many: list[dict[str, str]]) -> None:
        """One commit for each of those locks, by one call of git."""
        stream = []
        for number, outs in enumerate(many):
            self.lock(outs)
            text = (self.root / "dvc.lock").read_bytes()
            head = f"commit refs/heads/main\ncommitter t <t@localhost> {1_700_000_000 + 60 * number} +0000\ndata 1\nx\n"
            stream.append(head.encode() + b"M 100644 inline dvc.lock\ndata %d\n%s\n" % (len(text), text))
        command = ["git", "fast-import", "--quiet"]
        subprocess.run(command, cwd=self.root, input=b"".join(stream), capture_output=True, check=True)
