"""The stage on a predictions table of the real format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from components.bias.stage import Params, run
from components.contracts import InputError, read_json, write_table

LABELS = ("cat", "dog", "eel")


def predictions(num: int = 240, dark_accuracy: float = 0.97, seed: int = 0) -> pd.DataFrame:
    """Two runs and two splits; only main on test may be read, the others are nonsense."""
    rng = np.random.default_rng(seed)
    brightness = rng.random(num)
    label = rng.integers(0, 3, num)
    right = rng.random(num) < np.where(brightness < 1 / 3, dark_accuracy, 0.97)
    guess = np.where(right, label, (label + 1) % 3)
    confidence = rng.uniform(0.8, 1, num)
    names = np.array(LABELS, object)
    rest = (1 - confidence) / 2
    sites = np.array(["north", "south", "east"], object)[np.minimum(rng.integers(0, 40, num) // 16, 2)]
    table = pd.DataFrame(
        {
            "run": "main", "id": [f"{i:04d}" for i in range(num)], "split": "test",
            "label": names[label], "predicted": names[guess], "confidence": confidence,
            **{f"probability.{n}": np.where(guess == i, confidence, rest) for i, n in enumerate(LABELS)},
            "attribute.site": sites, "property.brightness": brightness, "property.width": 8.0,
        }
    )  # fmt: skip
    table.loc[:4, "attribute.site"] = "west"
    others = [
        table.assign(run="from_scratch", predicted="cat"),
        table.assign(split="validation", predicted="cat"),
    ]
    return pd.concat([*others, table], ignore_index=True)


def section(**changes: Any) -> Params:
    given = {
        "attributes": ["site"], "properties": ["brightness", "width"],
        "measures": ["accuracy", "recall", "ece"],
        "min_group_size": 20, "num_bootstrap": 200, "num_permutations": 199, "level": 0.95,
    }  # fmt: skip
    return Params.model_validate({**given, **changes})


@pytest.fixture
def ran(tmp_path: Path, make_job: Callable[..., Any]) -> Callable[..., tuple[dict[str, float], dict[str, Any]]]:
    def do(
        table: pd.DataFrame, decision: str = "single_label", **changes: Any
    ) -> tuple[dict[str, float], dict[str, Any]]:
        write_table(tmp_path / "artifacts/evaluate/predictions.parquet", table)
        job = make_job("bias", ("evaluate",), decision=decision)
        metrics = run(section(**changes), job)
        return metrics, read_json(job.building / "groups.json")

    return do


def test_equal_groups_are_no_evidence(ran: Any) -> None:
    metrics, told = ran(predictions())
    assert "No evidence of a gap" in told["headline"]
    assert {g["verdict"] for g in told["gaps"]} == {"no evidence"}
    assert metrics["accuracy_gap"] > 0  # a gap is always there; that it means nothing is what the test says
    assert metrics["accuracy_gap_p_value"] > 0.05


def test_a_planted_gap_is_found_and_named(ran: Any) -> None:
    metrics, told = ran(predictions(dark_accuracy=0.7))
    worst = next(g for g in told["gaps"] if g["measure"] == "accuracy" and g["grouping"] == "brightness")
    assert worst["worst"].startswith("low")
    assert worst["verdict"] == "evidence of a gap"
    assert "Evidence of a gap: accuracy by brightness" in told["headline"]
    assert metrics["accuracy_gap_low"] > 0.05
    assert metrics["accuracy_gap_p_value"] <= 0.05


def test_figures_are_those_of_main_on_test(ran: Any) -> None:
    table = predictions(dark_accuracy=0.8)
    metrics, told = ran(table)
    main = table[(table["run"] == "main") & (table["split"] == "test")]
    right = main["label"] == main["predicted"]
    assert told["overall"]["accuracy"]["value"] == pytest.approx(right.mean())
    by_site = right.groupby(main["attribute.site"]).mean()
    for group in told["groups"]:
        if group["grouping"] == "site":
            assert group["measures"]["accuracy"]["value"] == pytest.approx(by_site[group["group"]])
    judged = [g["measures"]["accuracy"]["value"] for g in told["groups"] if not g["small"]]
    assert metrics["worst_group_accuracy"] == min(judged)


def test_small_groups_are_shown_and_not_judged(ran: Any) -> None:
    table = predictions()
    table.loc[table["attribute.site"] == "west", "predicted"] = "none of these"
    table.loc[table["attribute.site"] == "west", "label"] = "cat"
    metrics, told = ran(table)
    west = next(g for g in told["groups"] if g["group"] == "west")
    assert west["small"]
    assert west["num"] == 5
    assert west["measures"]["accuracy"]["value"] == 0
    assert metrics["num_small_groups"] == 1
    assert metrics["worst_group_accuracy"] > 0.9
    assert all("west" not in (g["worst"], g["best"]) for g in told["gaps"])


def test_a_higher_error_is_the_worse_group(ran: Any) -> None:
    metrics, told = ran(predictions(dark_accuracy=0.6))
    gap = next(g for g in told["gaps"] if g["measure"] == "ece" and g["grouping"] == "brightness")
    assert gap["worst"].startswith("low")
    assert metrics["worst_group_ece"] == max(g["measures"]["ece"]["value"] for g in told["groups"] if not g["small"])


def test_constant_properties_are_left_out_and_said(ran: Any) -> None:
    _, told = ran(predictions())
    assert told["skipped"] == [{"grouping": "width", "why": "width is 8 for every sample"}]


def test_without_groups_nothing_is_claimed(ran: Any) -> None:
    metrics, told = ran(predictions(), attributes=[], properties=["width"])
    assert metrics == {"num_groups": 0.0, "num_small_groups": 0.0}  # a rule on anything else then fails
    assert "no groups to compare" in told["headline"]
    metrics, told = ran(predictions(), min_group_size=1000)
    assert "worst_group_accuracy" not in metrics
    assert "so none was judged" in told["headline"]


def test_mistakes_are_told(ran: Any) -> None:
    with pytest.raises(InputError, match="There are: site"):
        ran(predictions(), attributes=["skin"])
    with pytest.raises(InputError, match="Labels: cat, dog, eel"):
        ran(predictions(), measures=[{"name": "selection_rate", "label": "cow"}])
    with pytest.raises(ValidationError, match="may be named once"):
        section(measures=["accuracy", "accuracy"])
    with pytest.raises(InputError, match=r"validate\.split\.test"):
        ran(predictions().query("split == 'validation'"))


def test_the_same_run_twice_gives_the_same_bytes(ran: Any, tmp_path: Path) -> None:
    place = tmp_path / "artifacts/.building/bias"
    both = []
    for _ in range(2):
        ran(predictions(dark_accuracy=0.9))
        both.append({p.name: p.read_bytes() for p in place.iterdir()})
    assert sorted(both[0]) == ["groups.csv", "groups.json"]
    assert both[0] == both[1]


def test_the_plot_has_all_samples_first_and_accuracy_whatever_is_measured(ran: Any, tmp_path: Path) -> None:
    _, told = ran(predictions(), measures=["recall"])
    plot = pd.read_csv(tmp_path / "artifacts/.building/bias/groups.csv")
    assert list(plot.columns) == ["group", "accuracy", "low", "high", "num"]
    assert plot["group"][0] == "all"
    assert len(plot) == 1 + len(told["groups"])
    assert (plot["low"] <= plot["accuracy"]).all()
    assert (plot["accuracy"] <= plot["high"]).all()


def test_a_label_within_a_set_counts(ran: Any) -> None:
    """`sport` alone in one of five predictions, and within a set in three more."""
    said = ["sport", "music;sport", "film;sport", "film;music;sport", "(none)"]
    table = pd.DataFrame(
        {
            "run": "main", "id": [f"{i:04d}" for i in range(200)], "split": "test", "label": "sport",
            "predicted": said * 40, "confidence": 0.9, "attribute.site": ["north"] * 100 + ["south"] * 100,
            **{f"probability.{n}": 0.5 for n in ("film", "music", "sport")},
        }
    )  # fmt: skip
    chosen = {"properties": [], "measures": [{"name": "selection_rate", "label": "sport"}, "recall", "accuracy"]}
    metrics, told = ran(table, "multi_label", **chosen)
    overall = {name: one["value"] for name, one in told["overall"].items()}
    assert overall == {"selection_rate_sport": 0.8, "recall": 0.8, "accuracy": 0.2}
    assert metrics["worst_group_selection_rate_sport"] == pytest.approx(0.8)
    with pytest.raises(InputError, match=r"Labels: film, music, sport$"):
        ran(table, "multi_label", **chosen | {"measures": [{"name": "selection_rate", "label": "film;sport"}]})
