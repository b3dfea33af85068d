"""The whole line on texts with several labels each: real stages, real DVC; small word vectors made here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
import upstream
from projects import make_project, sh

from components.contracts import read_json, read_table


def corpus(place: Path, num: int = 240) -> None:
    """JSON lines: a text with words of praise, of blame, of both or of neither, and a list of which."""
    rng = np.random.default_rng(5)
    kinds = [[], ["praise"], ["blame"], ["blame", "praise"]]
    place.parent.mkdir(parents=True)
    with place.open("w", encoding="utf-8") as table:
        for number in range(num):
            labels = kinds[number % 4]
            words = [*rng.choice(factories.FILLERS, int(rng.integers(3, 10)))]
            words += [str(w) for label in labels for w in rng.choice(factories.WORDS[label], 2)]
            text = f"{' '.join(rng.permutation(words)).capitalize()} {number}."
            table.write(json.dumps({"text": text, "label": labels, "desk": "ab"[number // 4 % 2]}) + "\n")
        table.write('{"text": " ", "label": []}\n')
        table.write('{"text": "not labelled"}\n')


def small(values: Any, vectors: dict[str, Any]) -> None:
    values["run"] |= {"name": "meals", "task": "text_classification", "decision": "multi_label"}
    values["ingest"] = {
        "source": {"name": "text_table", "text": "text", "label": "label", "attributes": ["desk"]},
        "data": "data/meals.jsonl",
    }
    values["augment"]["policy"] = {"name": "eda"}
    values["select"]["candidates"] = [
        {**vectors, "trainable": True},
        {**vectors, "trainable": True, "encoder": "mean_max"},
    ]
    values["finetune"]["strategy"] = {
        "name": "full", "epochs": 15, "learning_rate": 0.05, "backbone_learning_rate": 0.05
    }  # fmt: skip
    values["finetune"]["references"] = ["frozen_probe"]
    values["evaluate"]["num_bootstrap"] = values["bias"]["num_bootstrap"] = 100
    values["bias"] |= {"attributes": ["desk", "script"], "properties": ["num_words"]}
    values["gate"]["rules"] = [
        {"metric": "evaluate.accuracy", "at_least": 0.5},
        {"metric": "bias.worst_group_accuracy", "at_least": 0.0},
        {"metric": "drift.num_columns", "at_least": 3},
    ]
    values["export"] |= {"variant": "fp32", "rungs": []}  # what a measured time decides may differ between two runs


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts") / "meals"
    folder.mkdir()
    vectors = upstream.word_vectors(folder)
    vectors["weights"]["path"] = "tiny.glove.txt"
    corpus(folder / "data/meals.jsonl")
    make_project(folder, lambda values: small(values, vectors))
    sh(folder, "python", "-m", "pipelines", "repro")
    return folder


def test_counts_reconcile_and_reasons_are_told(project: Path) -> None:
    summary = read_json(project / "artifacts/ingest/summary.json")
    assert (summary["num_seen"], summary["num_used"], summary["reasons"]) == (242, 241, {"empty_text": 1})
    assert (summary["num_labels"], summary["labels"]) == (2, {"blame": 120, "praise": 120})
    accepted = read_table(project / "artifacts/validate/accepted.parquet")
    assert len(accepted) == 240
    assert set(accepted["label"]) == {"(none)", "praise", "blame", "blame;praise"}
    assert read_json(project / "artifacts/validate/metrics.json")["num_labels"] == 2


def test_each_label_is_measured_over_all_samples(project: Path) -> None:
    quality = read_json(project / "artifacts/evaluate/quality.json")
    assert quality["labels"] == ["blame", "praise"]
    test = read_table(project / "artifacts/validate/accepted.parquet").query("split == 'test'")
    has = {row["label"]: row["num"] for row in quality["per_label"]}
    assert has == {label: int(test["label"].str.contains(label).sum()) for label in ("blame", "praise")}
    metrics = read_json(project / "artifacts/evaluate/metrics.json")
    page = (project / "artifacts/report/index.html").read_text()
    assert "has it, not decided" in page
    assert 'class="matrix"' not in page
    assert metrics["accuracy"] > 0.8  # of four sets; chance is 1/4
    assert metrics["f1_macro"] > 0.8


def test_the_tokenizers_facts_stand_in_the_leaderboard(project: Path) -> None:
    for one in read_json(project / "artifacts/select/leaderboard.json")["candidates"]:
        assert one["scores"]["coverage"] == pytest.approx(one["fit"]["coverage"], abs=1e-6)
        assert 0 < one["fit"]["unknown_share"] < 0.5  # the number at the end of each text
        assert one["fit"]["truncated_share"] == 0


def test_groups_are_those_of_the_source_and_of_the_text(project: Path) -> None:
    groups = read_json(project / "artifacts/bias/groups.json")
    assert {g["grouping"] for g in groups["groups"]} == {"desk", "num_words"}
    assert [s["grouping"] for s in groups["skipped"]] == ["script"]  # all are latin


def test_the_bundle_answers_in_another_folder(project: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(project / "artifacts/handoff/bundle", tmp_path / "bundle")
    check = sh(bundle, sys.executable, "predict.py", "--check")
    assert "ok: files and examples" in check.stdout
    texts = ["The food was good and splendid.", "The service was awful and poor.", "We thought the table was a table."]
    asked = [part for text in texts for part in ("--text", text)]
    told = json.loads(sh(bundle, sys.executable, "predict.py", "--json", *asked).stdout)
    assert [one["labels"] for one in told] == [["praise"], ["blame"], []]
    for name in ("card.md", "predict.py", "signature.json"):
        assert "image" not in (bundle / name).read_text(), name


def test_nothing_runs_twice(project: Path) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "pipelines", "status"], cwd=project, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0
    assert {line.split()[1] for line in again.stdout.splitlines() if line.strip()} == {"unchanged"}
