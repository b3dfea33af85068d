"""Parts of the labels: nested, stratified, the same each time, and runs on them of about as many steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_training import digests, params, run, upstream
from training import source_head

from components.contracts import RunRecord, read_record
from components.finetune import runs, shares
from components.finetune.phases import Phase, head_only
from components.job import Job

CLASSES = ["a"] * 40 + ["b"] * 13 + ["c"] * 2
CONTENTS = [f"{i:04d}" for i in range(len(CLASSES))]


def taken(share: float, seed: int = 17) -> np.ndarray:
    return shares.kept(CLASSES, CONTENTS, share, seed, each=True)


def test_a_smaller_share_is_a_part_of_a_larger_one_and_every_class_has_its_part() -> None:
    found = [taken(share) for share in (0.15, 0.3, 0.5)]
    assert not (found[0] & ~found[1]).any()
    assert not (found[1] & ~found[2]).any()
    counts = [Counter(np.array(CLASSES)[one]) for one in found]
    assert counts == [{"a": 6, "b": 2, "c": 1}, {"a": 12, "b": 4, "c": 1}, {"a": 20, "b": 7, "c": 1}]


def test_neither_order_nor_paths_decide_and_the_seed_does() -> None:
    order = np.random.default_rng(0).permutation(len(CLASSES))
    shuffled = shares.kept([CLASSES[i] for i in order], [CONTENTS[i] for i in order], 0.3, 17, each=True)
    assert {CONTENTS[i] for i in order[shuffled]} == {c for c, t in zip(CONTENTS, taken(0.3)) if t}
    assert (taken(0.3, 1) != taken(0.3, 2)).any()


def test_many_sets_of_labels_do_not_set_the_share() -> None:
    found = shares.kept([f"set {i}" for i in range(300)], [str(i) for i in range(300)], 0.15, 17, each=False)
    assert 40 <= found.sum() <= 50


def test_runs_on_a_share_have_about_as_many_steps() -> None:
    phases = [Phase("probe", 4, head_only(0.1), cached=True), Phase("full", 1, head_only(0.1))]
    assert [p.epochs for p in shares.as_long(phases, 0.15)] == [27, 7]
    assert shares.as_long(phases, 1) == phases


@pytest.mark.parametrize("wrong", [[0.0], [1.0], [0.155], [0.5, 0.3], [0.3, 0.3]])
def test_shares_that_make_no_sense_are_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="give "):
        params(label_shares=wrong)


def test_that_the_strategy_was_chosen_on_all_labels_is_said(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    upstream(tmp_path)
    auto = {"name": "auto", "epochs": 1, "min_steps": 1, "race_samples": 0}
    _, job = run(make_job, tmp_path, strategy=auto, references=[], label_shares=[0.5])
    notes = [read_record(RunRecord, job.building / f"runs/{name}/run.json").note for name in ("main", "main_50")]
    assert ["chosen on all labels: auto took" in note for note in notes] == [False, True]


def test_every_run_is_made_of_each_share_too(
    tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream(tmp_path)
    monkeypatch.setattr(runs.Line, "source_head", lambda self: source_head(8))
    given: dict[str, Any] = {"strategy": {"name": "linear_probe", "epochs": 2}, "references": ["frozen_probe"]}
    metrics, job = run(make_job, tmp_path, **given, label_shares=[0.5])
    made = digests(job.building)
    assert "runs/source_head.safetensors" in made
    main, half = (read_record(RunRecord, job.building / f"runs/{name}/run.json") for name in ("main", "main_50"))
    assert (main.label_share, half.label_share, half.role) == (1.0, 0.5, "reference")
    assert main.num_train // 2 <= half.num_train <= main.num_train // 2 + 3
    assert half.epochs == 4
    assert half.labels == main.labels
    assert "50% of the training samples" in half.note
    assert set(pd.read_csv(job.building / "history.csv")["run"]) == {"main", "frozen_probe"}
    assert set(pd.read_csv(job.building / "runs/main_50/history.csv")["run"]) == {"main_50"}
    assert metrics["num_samples_seen_main_50"] == 4 * half.num_train
    assert digests(run(make_job, tmp_path, **given, label_shares=[0.5])[1].building) == made
    whole = digests(run(make_job, tmp_path, **given)[1].building)
    assert {k: v for k, v in made.items() if "_50" not in k and k != "metrics.json"} == whole
