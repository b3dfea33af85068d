"""The stage where samples have several labels: texts, a tiny network, and current data from a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pandas as pd
import pytest
import upstream

from components.contracts import read_json
from components.drift import stage
from components.evaluate import stage as evaluate
from components.job import Job

Ran = Callable[[str], tuple[dict[str, float], dict[str, Any]]]
DECIDED = {"task": "text_classification", "decision": "multi_label"}
SETS = [["blame"], ["praise"], ["blame", "praise"], []]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as `validate`, `finetune` and `evaluate` leave it; half of the training samples have both labels."""
    root = tmp_path_factory.mktemp("line")
    table = factories.text_manifest(80, split=True)
    table["label"] = [";".join(SETS[n % 4]) or "(none)" for n in range(len(table))]
    table.loc[table.index % 4 < 2, "label"] = "blame;praise"
    upstream.before_text_export(root, upstream.word_vectors(root), table, "multi_label")
    job = Job.at(root, "evaluate", evaluate.NEEDS, **DECIDED)
    job.clear()
    no_proxy = evaluate.SourceProxy(data=evaluate.NO_PROXY)
    evaluate.run(evaluate.Params(num_bootstrap=100, level=0.95, num_bins=10, source_proxy=no_proxy), job)
    for file in job.building.iterdir():
        place = root / "artifacts/evaluate" / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
    return root


@pytest.fixture
def ran(line: Path) -> Ran:
    def do(data: str) -> tuple[dict[str, float], dict[str, Any]]:
        given = {
            "current": {"data": data, "source": {"name": "text_table", "text": "text", "label": "label"}},
            "columns": {"name": "ks"},
            "embeddings": {"name": "permutation_mmd", "num_permutations": 99, "alpha": 0.01},
        }
        job = Job.at(line, "drift", stage.NEEDS, **DECIDED)
        job.clear()
        return stage.run(stage.Params.model_validate(given), job), read_json(job.building / "drift.json")

    return do


def write(place: Path, labels: list[str]) -> str:
    rng = np.random.default_rng(9)
    rows = [{"text": factories.sentence("praise", rng), "label": label} for label in labels]
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place.name


def true_label(told: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in told["columns"] if c["column"] == "true label")
    return found


def test_the_order_in_which_labels_are_written_is_no_drift(ran: Ran, line: Path) -> None:
    labels = list(pd.read_parquet(line / "artifacts/validate/accepted.parquet").query("split == 'train'")["label"])
    other = ["praise; blame" if label == "blame;praise" else label for label in labels]
    assert labels.count("blame;praise") > 30
    for given in (labels, other):
        _, told = ran(write(line / "current.jsonl", given))
        assert true_label(told)["p_value"] == pytest.approx(1)
        assert told["unknown_labels"] == {}
    _, told = ran(write(line / "current.jsonl", ["praise"] * 60))
    assert true_label(told)["drifted"]


def test_a_new_set_of_known_labels_is_not_unknown_and_a_new_label_is_counted(ran: Ran, line: Path) -> None:
    _, told = ran(write(line / "current.jsonl", ["blame", "praise", "praise;new", "new;newer", "(none)"] * 4))
    assert told["unknown_labels"] == {"new": 8, "newer": 4}


def test_a_sample_that_nobody_labelled_has_not_the_empty_set(ran: Ran, line: Path) -> None:
    _, told = ran(write(line / "current.jsonl", ["blame", "", "  "] * 8))
    assert "true label" not in {c["column"] for c in told["columns"]}
