"""The quality table in miniature: cells are measured once, and what is said of them is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pandas as pd
import pytest
from quality import cells, figures, sets
from quality.cells import Bench, Cell
from quality.sets import Set

BACKBONE = {"name": "timm", "model": "test_efficientnet", "image_size": 32, "weights": {"source": "random"}}
PAIR = [Cell("tiny", 0, "5", "linear_probe"), Cell("tiny", 0, "5", "full")]


def _shapes(folder: Path) -> pd.DataFrame:
    factories.image_folder(folder, 12)
    return factories.manifest(folder, folder)[["id", "sha256", "input.path", "label"]]


TINY = Set("tiny", sets.IMAGES, BACKBONE, _shapes, num_test=12, most=24, seen=30, epochs=(1, 2))


def _bench(place: Path) -> Bench:
    return Bench(place, known={"tiny": TINY})


def test_cells_are_measured_once_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.jsonl"
    assert cells.run_all(_bench(tmp_path), PAIR, file) == 0
    before = file.read_text()
    lines = [json.loads(text) for text in before.splitlines()]
    assert [one["strategy"] for one in lines] == ["linear_probe", "full"]
    assert lines[1]["options"]["epochs"] == 2
    assert lines[0]["num_train"] == 15
    assert lines[0]["num_test"] == 12

    cells.run_all(_bench(tmp_path), PAIR, file)
    assert file.read_text() == before

    file.write_text(before[:-20])  # as a kill leaves it
    cells.run_all(_bench(tmp_path), PAIR, file)
    found = cells.read(file)
    for one in lines:
        same = found["tiny", 0, "5", one["strategy"]]
        assert {k: same[k] for k in same if "seconds" not in k} == {k: one[k] for k in one if "seconds" not in k}

    said = figures.page(file)
    assert f"{100 * lines[0]['accuracy']:.1f} [" in said
    assert "The default (full)" in said
    assert not list((tmp_path / ".graftline/quality").glob("*"))
    assert "accuracy" in capsys.readouterr().out


def test_what_fails_costs_no_other_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.jsonl"
    missing = Set("gone", sets.IMAGES, BACKBONE, _unavailable, 12, 24, 30, (1, 2))
    bench = Bench(tmp_path, known={"tiny": TINY, "gone": missing})
    monkeypatch.setitem(cells.OPTIONS, "full", lambda epochs: {"epochs": 0})
    assert cells.run_all(bench, [Cell("gone", 0, "5", "full"), PAIR[1], PAIR[0]], file) == 1
    assert list(cells.read(file)) == [PAIR[0].key]
    assert "gone is left out: no network" in capsys.readouterr().out


def _unavailable(folder: Path) -> pd.DataFrame:
    raise sets.Unavailable("no network")


def test_test_rows_hang_on_the_seed_alone_and_shots_are_nested(tmp_path: Path) -> None:
    table = TINY.table(tmp_path)
    dealt = {size: sets.dealt(table, TINY, 0, size) for size in ("2", "5", sets.ALL)}
    rows = {size: {s: set(t["id"][t["split"] == s]) for s in ("train", "validation", "test")}
            for size, t in dealt.items()}  # fmt: skip
    assert rows["2"]["test"] == rows["5"]["test"] == rows[sets.ALL]["test"]
    assert rows["2"]["train"] < rows["5"]["train"] <= rows[sets.ALL]["train"]
    assert all(not (one["train"] | one["validation"]) & one["test"] for one in rows.values())
    assert all(not one["train"] & one["validation"] for one in rows.values())
    assert dealt["5"][dealt["5"]["split"] == "train"]["label"].value_counts().unique().tolist() == [5]
    other = sets.dealt(table, TINY, 1, "5")
    assert set(other["id"][other["split"] == "test"]) != rows["5"]["test"]


def test_the_most_telling_cells_come_first() -> None:
    found = cells.planned(["a", "b"], 2, ["5", "all", "16"], ["bss", "full", "linear_probe"])
    assert [(c.set, c.strategy) for c in found[:6]] == [(s, n) for s in "ab" for n in ("linear_probe", "full", "bss")]
    assert [c.shots for c in found[::6]] == ["16", "all", "5"] * 2
    assert [c.seed for c in found[::18]] == [0, 1]


def test_every_strategy_has_the_same_budget() -> None:
    from components import plugins

    for name in plugins.names("finetune.strategies"):
        choice = cells.chosen(name, 12, 0.1)
        if not hasattr(choice.load(), "phases"):  # auto trains by one of the others
            continue
        phases = choice.load().phases(choice.params)
        slow = sum(p.epochs for p in phases if not p.cached)
        assert slow in (0, 12), name
    assert cells.chosen("full", 12, 0.1).params.model_dump()["backbone_learning_rate"] == pytest.approx(1e-4)
    varied = cells.chosen("full@backbone_learning_rate=5e-4@epochs=3", 12, 0.1).params.model_dump()
    assert (varied["backbone_learning_rate"], varied["epochs"]) == (5e-4, 3)


def _line(strategy: str, seed: int, right: np.ndarray, shots: str = "16", name: str = "made") -> dict[str, Any]:
    return {"set": name, "seed": seed, "shots": shots, "strategy": strategy, "num_test": len(right),
            "right": np.packbits(right).tobytes().hex()}  # fmt: skip


def _written(place: Path, accuracies: dict[str, float], num: int = 400, seeds: int = 5) -> Path:
    """Lines of strategies that are right on the first rows of each seed's order, so better ones know all others do."""
    rng = np.random.default_rng(0)
    file = place / "made.jsonl"
    for seed in range(seeds):
        order = rng.permutation(num)
        for strategy, accuracy in accuracies.items():
            cells.add(file, _line(strategy, seed, order < round(num * accuracy)))
    return file


def test_intervals_and_differences_are_right(tmp_path: Path) -> None:
    file = _written(tmp_path, {"linear_probe": 0.7, "full": 0.8, "good": 0.85, "same": 0.8, "bad": 0.6})
    measured = figures.Measured(cells.read(file).values())
    place = ("made", "16")
    one = measured.of("full", place)
    assert one is not None
    assert one.value == pytest.approx(80)
    # Every seed has 320 of 400 right: only rows vary, as a binomial over 2,000 rows.
    assert (one.high - one.low) / 2 == pytest.approx(1.96 * 100 * np.sqrt(0.8 * 0.2 / 2000), rel=0.1)
    assert measured.best(place) == "full"
    gain = measured.gain("good", place, "full")
    assert gain is not None
    assert gain.value == pytest.approx(5)
    assert (gain.high - gain.low) / 2 == pytest.approx(1.96 * 100 * np.sqrt(0.05 * 0.95 / 2000), rel=0.1)
    assert "**good** helps: +5.00 points" in figures.verdict(measured, "good")
    assert "**bad** harms: -20.00 points" in figures.verdict(measured, "bad")
    assert "**same** gives nothing" in figures.verdict(measured, "same")


def test_few_seeds_that_differ_widen_the_interval(tmp_path: Path) -> None:
    pairs = [(s, np.arange(400) < 400 * share, np.zeros(400, bool)) for s, share in enumerate((0.6, 0.7, 0.8))]
    varied, alike = figures._estimate(pairs, "a"), figures._estimate([(s, pairs[1][1], b) for s, _, b in pairs], "a")
    assert varied is not None
    assert alike is not None
    assert varied.high - varied.low > 3 * (alike.high - alike.low)


@pytest.mark.parametrize(
    ("probe", "full", "other", "said"),
    [
        (0.7, 0.8, 0.8, "The default (full) keeps the promise."),
        (0.8, 0.7, 0.8, "breaks the promise; these keep it: linear_probe, lp_ft."),
        (0.7, 0.698, 0.8, "The default (full) keeps the promise."),
    ],
)
def test_the_rule_for_the_default(tmp_path: Path, probe: float, full: float, other: float, said: str) -> None:
    file = _written(tmp_path, {"linear_probe": probe, "full": full, "lp_ft": other}, num=500)
    assert said in figures.page(file)


def test_what_could_not_be_run_is_said(tmp_path: Path) -> None:
    file = _written(tmp_path, {"linear_probe": 0.7, "full": 0.8})
    cells.add(file, {"set": "made", "seed": 0, "shots": "16", "strategy": "lwf", "not_run": "no classifier"})
    assert "lwf was not run on made: no classifier" in figures.page(file)
