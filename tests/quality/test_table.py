"""The quality table in miniature: cells are measured once, and what is said of them is right."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pandas as pd
import pytest
from quality import cells, figures, plans, sets, table
from quality.cells import Bench
from quality.plans import Cell
from quality.sets import Set

from components import params
from components.finetune import advice, race, stage
from components.plugins import Choice

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
    assert "helps" not in said, "of one seed nothing is claimed"
    assert not list(tmp_path.glob(".graftline/quality*"))
    assert not list(tmp_path.glob("reports/*"))
    assert "accuracy" in capsys.readouterr().out


def test_what_fails_costs_no_other_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.jsonl"
    missing = Set("gone", sets.IMAGES, BACKBONE, _unavailable, 12, 24, 30, (1, 2))
    bench = Bench(tmp_path, known={"tiny": TINY, "gone": missing})
    monkeypatch.setitem(plans.OPTIONS, "full", lambda epochs: {"epochs": 0})
    assert cells.run_all(bench, [Cell("gone", 0, "5", "full"), PAIR[1], PAIR[0]], file) == 1
    assert list(cells.read(file)) == [PAIR[0].key]
    assert "gone is left out: no network" in capsys.readouterr().out
    assert "- gone could not be had: no network" in figures.page(file)


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
    found = plans.planned(["a", "b"], 2, ["5", "all", "16"], ["bss", "full", "linear_probe"])
    assert [(c.set, c.strategy) for c in found[:6]] == [(s, n) for s in "ab" for n in ("linear_probe", "full", "bss")]
    assert [c.shots for c in found[::6]] == ["16", "all", "5"] * 2
    assert [c.seed for c in found[::18]] == [0, 1]


def test_every_strategy_has_the_same_budget() -> None:
    from components import plugins

    for name in plugins.names("finetune.strategies"):
        choice = plans.chosen(name, 12, 0.1)
        if hasattr(choice.load(), "phases"):  # auto trains by one of the others: below
            assert _passes(choice) in (0, 12), name
    assert plans.chosen("full", 12, 0.1).params.model_dump()["backbone_learning_rate"] == pytest.approx(1e-4)
    varied = plans.chosen("full@backbone_learning_rate=5e-4@epochs=3", 12, 0.1).params.model_dump()
    assert (varied["backbone_learning_rate"], varied["epochs"]) == (5e-4, 3)


def _passes(choice: Choice) -> int:
    """Of the training samples through the backbone."""
    return sum(p.epochs for p in choice.load().phases(choice.params) if not p.cached)


@pytest.mark.parametrize("cost", ["as it races", "no race"])
def test_what_auto_takes_has_the_budget_of_the_others(
    tmp_path: Path, cost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = _bench(tmp_path)
    options = plans.trained_by("auto", bench.section, plans.Training(12, 3, TINY))
    dealt = sets.dealt(bench.table("tiny"), TINY, 0, "5")
    job = cells.Quiet.at(tmp_path, "quality", task=TINY.task, threads=1)
    line = bench.line(job, TINY, options, dealt)
    raced: list[Choice] = []

    def entrants(line: Any, choices: list[Choice], epochs: int, budget: int) -> race.Result:
        raced.extend(choices)
        assert epochs == 2
        return race.Result(choices[-1], "the last one", [])

    if cost == "no race":
        monkeypatch.setattr(race, "race", entrants)
    taken, _ = options.strategy.load().choose(options.strategy.params, line)
    for choice in (taken, *raced):
        assert _passes(choice) in (0, 2), choice
    facts = advice.given(line, 2, options.strategy.params.model_dump()["min_steps"], None)
    for name in {name for order in advice.ORDERS.values() for name in order}:
        expected = 0 if name == "linear_probe" else 2
        assert _passes(facts.choice(name)) == expected, name


def test_the_row_default_trains_as_new_plans_it() -> None:
    section = params.load_yaml(cells.HOME / "params.yaml")["finetune"]
    digits, spam = sets.SETS["digits"], sets.SETS["spam"]

    def planned(num: int, given: sets.Set = digits) -> dict[str, Any]:
        return plans.trained_by(plans.DEFAULT, section, plans.Training(num, 10, given)).model_dump(mode="json")

    few, some, many, texts = planned(50), planned(160), planned(1000), planned(160, spam)
    assert [one["strategy"]["name"] for one in (few, some, many, texts)] == ["linear_probe", "full", "full", "full"]
    assert [one["batch_size"] for one in (few, some, many)] == [8, 16, 32]
    assert some["strategy"]["epochs"] > many["strategy"]["epochs"]
    assert texts["strategy"]["backbone_learning_rate"] < some["strategy"]["backbone_learning_rate"]
    own = {"references", "label_shares", "processes", "strategy", "batch_size"}
    stated = stage.Params.model_validate(section).model_dump(mode="json")
    assert {k: v for k, v in some.items() if k not in own} == {k: v for k, v in stated.items() if k not in own}


def test_the_row_default_is_measured_in_its_own_batches(tmp_path: Path) -> None:
    line = _bench(tmp_path).run(Cell("tiny", 0, "5", plans.DEFAULT))
    assert line is not None
    assert (line["trained"], line["options"]["epochs"]) == ("linear_probe", 20)


CHANGES: list[Callable[[Bench], Any]] = [
    lambda bench: bench.section.update(weight_decay=0.5),
    lambda bench: bench.known.update(tiny=replace(TINY, num_test=9)),
    lambda bench: bench.known.update(tiny=replace(TINY, backbone={**BACKBONE, "image_size": 64})),
    lambda bench: setattr(bench, "threads", 2),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_cell_of_other_options_is_measured_anew(tmp_path: Path, change: Callable[[Bench], Any]) -> None:
    file = tmp_path / "out.jsonl"
    cells.run_all(_bench(tmp_path), PAIR[:1], file)
    other = _bench(tmp_path)
    change(other)
    cells.run_all(other, PAIR[:1], file)
    first, second = (json.loads(text) for text in file.read_text().splitlines())
    assert first["digest"] != second["digest"]
    assert other.run(PAIR[0], {k: v for k, v in second.items() if k != "digest"}) is not None, "none is another one"
    assert other.run(PAIR[0], second) is None


def test_loop_and_rules_of_options_are_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    section = params.load_yaml(cells.HOME / "params.yaml")["finetune"]

    def digests() -> list[str]:
        return [plans.digest(name, TINY, section, 1) for name in ("full", "soup", plans.DEFAULT)]

    before = digests()
    monkeypatch.setitem(plans.OPTIONS, "soup", lambda epochs: {"epochs": epochs})
    soup = digests()
    assert [a == b for a, b in zip(before, soup)] == [True, False, True]
    monkeypatch.setitem(plans.LOOP, "batch_size", 8)
    assert [a == b for a, b in zip(soup, digests())] == [False, False, True]


def test_lines_of_other_options_are_named_and_left_out(tmp_path: Path) -> None:
    file = _written(tmp_path, {"linear_probe": 0.7, "full": 0.8, "bss": 0.9, "ema": 0.6})
    right = np.arange(400) < 40
    for seed in (0, 1):
        cells.add(file, _line("bss", seed, right, digest="one/two/bss anew"))
    cells.add(file, {k: v for k, v in _line("ema", 7, right).items() if k != "digest"})
    kept, left = figures.current(cells.read(file).values())
    assert sorted(one["seed"] for one in kept if one["strategy"] == "bss") == [0, 1]
    assert left == {"bss": 3, "ema": 1}
    said = figures.page(file)
    assert "- bss: 3 cells are left out" in said
    assert "10.0 [" in said

    cells.add(file, _line("full", 0, right, digest="another loop/two/full"))
    assert figures.current(cells.read(file).values())[1] == {"linear_probe": 5, "full": 4, "bss": 5, "ema": 6}


def test_parts_do_not_remove_what_the_other_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = _bench(tmp_path)
    file = tmp_path / "out.jsonl"
    original = cells.Line.train

    def other_ends(self: Any, *given: Any, **named: Any) -> Any:
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 1)
            cells.run_all(bench, [], file)
        return original(self, *given, **named)

    monkeypatch.setattr(cells.Line, "train", other_ends)
    kept: list[bool] = []

    def forget(self: Any) -> None:
        kept.extend(folder.exists() for folder in self.kept)

    monkeypatch.setattr(cells.Line, "forget", forget)
    marker = tmp_path / ".graftline" / cells.Quiet.room() / "mine"
    marker.mkdir(parents=True)
    assert bench.run(Cell("tiny", 0, "5", "wise_ft")) is not None
    assert kept
    assert all(kept)
    assert marker.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--part", "x"], "--part: 'x'"),
        (["--part", "3/2"], "--part: '3/2'"),
        (["--part", "0/2"], "--part: '0/2'"),
        (["--shots", "sixteen"], "--shots: 'sixteen'"),
        (["--shots", "0"], "--shots: '0'"),
        (["--seeds", "0"], "--seeds"),
        (["--sets", "digit"], "no such sets: digit"),
        (["--strategies", "fall"], "no such strategies: fall"),
        (["--strategies", "default@epochs=3"], "no such strategies: default@epochs=3"),
        (["--strategies", "full@nope=3"], "full@nope=3: "),
        (["--strategies", "full@epochs=abc"], "full@epochs=abc: "),
        (["--strategies", "full@epochs=0"], "full@epochs=0: "),
        (["--again", "fall"], "--again: no such strategies: fall"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_before_anything_is_done(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.stage.pin", lambda run: None)
    monkeypatch.setattr(cells, "run_all", lambda *given: pytest.fail("it began"))
    monkeypatch.setattr("sys.argv", ["table.py", "--out", str(tmp_path / "o.jsonl"), "--place", str(tmp_path), *words])
    assert table.main() == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_whole_table_is_what_the_script_measures_by_itself() -> None:
    assert (table.SETS.split(","), table.SHOTS.split(",")) == (list(plans.SETS), list(plans.SHOTS))
    assert set(plans.SETS) == set(sets.SETS)


def _line(
    strategy: str, seed: int, right: np.ndarray, shots: str = "16", name: str = "made", digest: str = ""
) -> dict[str, Any]:
    return {"set": name, "seed": seed, "shots": shots, "strategy": strategy, "num_test": len(right),
            "digest": digest or f"one/two/{strategy}", "right": np.packbits(right).tobytes().hex()}  # fmt: skip


def _written(
    place: Path,
    accuracies: dict[str, float],
    num: int = 400,
    seeds: int = 5,
    places: tuple[tuple[str, str], ...] = (("made", "16"),),
) -> Path:
    """Lines of strategies that are right on the first rows of each seed's order, so better ones know all others do."""
    rng = np.random.default_rng(0)
    file = place / "made.jsonl"
    for name, shots in places:
        for seed in range(seeds):
            order = rng.permutation(num)
            for strategy, accuracy in accuracies.items():
                cells.add(file, _line(strategy, seed, order < round(num * accuracy), shots, name))
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


WHOLE = tuple((name, shots) for name in plans.SETS for shots in plans.SHOTS)


@pytest.mark.parametrize(
    ("probe", "full", "default", "said"),
    [
        (0.7, 0.8, 0.8, ("The default (as `new` plans it) keeps", "full at the table's budget keeps")),
        (0.8, 0.7, 0.8, ("The default (as `new` plans it) keeps", "full at the table's budget breaks")),
        (0.7, 0.8, 0.7, ("The default (as `new` plans it) breaks the promise in digits 5,", "full at the table's")),
        (0.7, 0.698, 0.7, ("The default (as `new` plans it) keeps", "full at the table's budget keeps")),
    ],
)
def test_the_rule_for_the_default(
    tmp_path: Path, probe: float, full: float, default: float, said: tuple[str, str]
) -> None:
    accuracies = {"linear_probe": probe, "full": full, plans.DEFAULT: default, "lp_ft": max(probe, full)}
    page = figures.page(_written(tmp_path, accuracies, num=500, places=WHOLE))
    assert all(one in page.splitlines()[-3 + i] for i, one in enumerate(said))
    assert "So far" not in page
    assert "lp_ft" in page.splitlines()[-1]


@pytest.mark.parametrize(
    ("places", "seeds", "said"),
    [
        (WHOLE[:3], 5, "So far, in 3 of 16 places, 5 of 5 seeds: The default (as `new` plans it) keeps the promise. "
                       "Not measured at all: mnist, emoji, spam."),
        (WHOLE, 4, "So far, in 16 of 16 places, 4 of 5 seeds: The default (as `new` plans it) keeps the promise."),
    ],
)  # fmt: skip
def test_a_scrap_of_the_table_keeps_no_promise(
    tmp_path: Path, places: tuple[tuple[str, str], ...], seeds: int, said: str
) -> None:
    accuracies = {"linear_probe": 0.7, "full": 0.8, plans.DEFAULT: 0.8}
    file = _written(tmp_path, accuracies, num=100, seeds=seeds, places=places)
    assert said in figures.page(file)
    cells.add(file, {"set": "spam", "unavailable": "npm is not there"})
    assert "- spam could not be had: npm is not there" in figures.page(file)


def test_what_could_not_be_run_is_said(tmp_path: Path) -> None:
    file = _written(tmp_path, {"linear_probe": 0.7, "full": 0.8})
    cells.add(file, {"set": "made", "seed": 0, "shots": "16", "strategy": "lwf", "digest": "one/two/lwf",
                     "not_run": "no classifier"})  # fmt: skip
    assert "lwf was not run on made: no classifier" in figures.page(file)
