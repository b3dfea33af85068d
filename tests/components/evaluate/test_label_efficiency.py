"""The curve by share of the labels, and what is said of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components import quality
from components.contracts import RunRecord
from components.evaluate import label_efficiency
from components.paired import paired_gain

NUM = 200
RIGHT = {"main": 0.95, "main_15": 0.9, "main_50": 0.93, "from_scratch": 0.6, "from_scratch_15": 0.3,
         "from_scratch_50": 0.4}  # fmt: skip


def record(run: str) -> RunRecord:
    share = float(run.rpartition("_")[2]) / 100 if run[-1].isdigit() else 1.0
    return RunRecord(
        run, "reference", "image_classification", "single_label", {}, True, {}, ("a", "b"), {},
        label_share=share, num_train=round(share * 400),
    )  # fmt: skip


def table(right: dict[str, float]) -> pd.DataFrame:
    parts = []
    for run, share in right.items():
        predicted = np.where(np.arange(NUM) < share * NUM, "a", "b")
        parts.append(pd.DataFrame({"run": run, "id": np.arange(NUM), "label": "a", "predicted": predicted}))
    return pd.concat(parts)


def curve(right: dict[str, float]) -> dict[str, object]:
    figures = {run: {"test": {"accuracy": quality.wilson(round(r * NUM), NUM, 0.95)}} for run, r in right.items()}
    return label_efficiency.curve(table(right), figures, {run: record(run) for run in right}, 0.95)


def test_points_are_ordered_and_gains_are_paired_at_each_share() -> None:
    found = curve(RIGHT)
    points = [(p["of"], p["share"], p["num_train"], p["accuracy"].value) for p in found["points"]]  # type: ignore[attr-defined]
    assert points[:3] == [("main", 0.15, 60, 0.9), ("main", 0.5, 200, 0.93), ("main", 1.0, 400, 0.95)]
    assert [p[1] for p in points[3:]] == [0.15, 0.5, 1.0]
    gains = found["gains"]
    assert [g["share"] for g in gains] == [0.15, 0.5, 1.0]  # type: ignore[attr-defined]
    ours, theirs = (np.arange(NUM) < share * NUM for share in (0.9, 0.3))
    assert gains[0]["gain"] == paired_gain(ours, theirs, 0.95)  # type: ignore[index]


def test_it_says_with_how_many_labels_random_weights_are_beaten() -> None:
    assert "With 15% of the labels (60) it does better" in str(curve(RIGHT)["headline"])
    later = RIGHT | {"main_15": 0.5}
    assert "With 50% of the labels (200) it does better" in str(curve(later)["headline"])
    never = RIGHT | {"main": 0.6, "main_15": 0.5, "main_50": 0.55}
    assert "No share of the labels" in str(curve(never)["headline"])


@pytest.mark.parametrize("runs", [("main",), ("main", "from_scratch")])
def test_not_asked_for_is_said_and_the_curve_has_its_right_end(runs: tuple[str, ...]) -> None:
    right = {run: RIGHT[run] for run in runs}
    found = curve(right)
    assert found["points"] == []
    assert "finetune.label_shares" in str(found["headline"])
    figures = {run: {"test": {"accuracy": quality.wilson(round(r * NUM), NUM, 0.95)}} for run, r in right.items()}
    rows = label_efficiency.rows(figures, {run: record(run) for run in runs})
    assert [(r["run"], r["share"]) for r in rows] == [(run, 1.0) for run in runs]
    assert tuple(rows[0]) == label_efficiency.COLUMNS


def test_without_random_weights_no_gain_is_claimed() -> None:
    told = str(curve({run: RIGHT[run] for run in ("main", "main_15")})["headline"])
    assert "it reaches 90.0 %, with all 95.0 %" in told
    assert "no from_scratch" in told
