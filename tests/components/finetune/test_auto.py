"""`auto`: what it measures against the definition, the rule of thumb, the race, and the stage that resolves it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import digests, params, upstream
from torch import nn

from components import plugins
from components.contracts import read_json
from components.finetune import advice, race, stage
from components.finetune.advice import Facts
from components.finetune.race import Ran
from components.job import Job
from components.model import TransferModel
from pipelines import dag

ROOT = Path(__file__).parents[3]
AUTO = {"name": "auto", "epochs": 2, "min_steps": 1}
SHORT: dict[str, Any] = {"references": [], "patience": 1}
FACTS = Facts(80, 10, 8.0, 5, 0.75, 0.8, 0.1, None)


def refitted(rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Leave-one-out answers of ridge regression with an intercept, by fitting once for every sample."""
    scaled = (rows - rows.mean(0)) / rows.std(0)
    found = []
    for i in range(len(rows)):
        kept = np.arange(len(rows)) != i
        x, y = scaled[kept], targets[kept]
        x = np.column_stack([x, np.ones(len(x))])
        penalty = np.eye(x.shape[1]) * advice.RIDGE * rows.shape[1]
        penalty[-1, -1] = 0  # the intercept is free
        found.append(np.append(scaled[i], 1) @ np.linalg.solve(x.T @ x + penalty, x.T @ y))
    return np.array(found)


@pytest.mark.parametrize("num_features", [4, 60])
def test_what_is_held_is_the_accuracy_of_as_many_fits_as_samples(num_features: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    truth = np.eye(3, dtype=bool)[labels]
    rows = (
        rng.normal(size=(40, num_features))
        + 3 * rng.normal(size=(3, num_features))[labels] * (rng.random(40) < 0.8)[:, None]
    )
    accuracy = (refitted(rows, truth.astype(float)).argmax(1) == labels).mean()
    base = np.bincount(labels).max() / 40
    assert 0 < accuracy < 1
    assert advice.held(rows.astype(np.float64), truth) == pytest.approx((accuracy - base) / (1 - base))


def test_what_is_held_of_several_labels_a_sample_is_of_each_label() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((60, 3)) < 0.4
    rows = np.column_stack([truth + rng.normal(0, 0.05, truth.shape), rng.normal(size=(60, 2))])
    assert advice.held(rows, truth) > 0.95
    assert advice.held(rng.normal(size=(60, 5)), truth) < 0.3


def test_features_that_know_nothing_hold_nothing_and_those_of_one_value_are_no_error() -> None:
    rng = np.random.default_rng(0)
    truth = np.eye(4, dtype=bool)[np.arange(80) % 4]
    assert advice.held(rng.normal(size=(80, 10)), truth) < 0.2
    assert advice.held(np.ones((80, 10)), truth) == 0
    assert advice.held(rng.normal(size=(8, 3)), np.ones((8, 1), dtype=bool)) == 0, "one label: nothing to guess"


def test_distance_is_the_divergence_of_normal_distributions() -> None:
    """Against torch.distributions, in two batches; 0 for data as the layer carries them."""
    network = nn.Sequential(nn.BatchNorm2d(3)).eval()
    norm = network[0]
    norm.running_mean = torch.tensor([0.0, 1.0, -2.0])
    norm.running_var = torch.tensor([1.0, 4.0, 0.25])
    given = torch.randn(40, 3, 5, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 1.0, 2.0]).view(
        1, 3, 1, 1
    )
    with advice.watched(network) as layers:
        network(given[:30])
        network(given[30:])
    channels = given.double().transpose(0, 1).flatten(1)
    own = torch.distributions.Normal(channels.mean(1), channels.std(1, correction=0))
    carried = torch.distributions.Normal(norm.running_mean.double(), norm.running_var.double().sqrt())
    expected = torch.distributions.kl_divergence(own, carried).median()
    assert advice.distance(layers) == pytest.approx(float(expected), rel=1e-4)
    assert not norm._forward_pre_hooks, "nothing is left on the network"
    with advice.watched(network) as layers:
        network(given * 0.5 + 5)
    far = advice.distance(layers)
    assert far > advice.distance(layers[:1]) - 1e-9 > float(expected)


def test_confidence_is_the_mean_of_the_greatest_probability() -> None:
    head = nn.Linear(2, 2, bias=False)
    head.weight.data = torch.eye(2)
    found = advice.confidence(head, np.array([[0.0, 0.0], [np.log(3), 0.0]], dtype=np.float32))
    assert found == pytest.approx((0.5 + 0.75) / 2)


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({}, "linear_probe"),
        ({"per_label": 120.0}, "full"),
        ({"distance": 0.3}, "full"),
        ({"distance": 0.3, "per_label": 120.0}, "full"),
        ({"distance": 0.3, "per_label": 120.0, "held": 0.99}, "linear_probe"),
        ({"distance": None}, "linear_probe"),
        ({"distance": None, "held": 0.3}, "full"),
        ({"distance": None, "held": 0.3, "num_samples": 20}, "linear_probe"),  # too few to tell
    ],
)
def test_the_rule_of_thumb(changed: dict[str, Any], first: str) -> None:
    found = advice.advise(Facts(**{**vars(FACTS), **changed}))
    assert found.order[0] == first
    assert found.reasons[-1].startswith(f"so {first}: ")
    assert len(set(found.order)) == len(found.order) >= 3, "two runners-up"


def test_uneven_labels_and_the_classifier_are_told() -> None:
    told = " ".join(advice.advise(Facts(**{**vars(FACTS), "balance": 0.2, "source_confidence": 0.5})).reasons)
    assert "uneven: the smallest label has 5, 20% of the mean one" in told
    assert "0.50 (told, not used)" in told


def test_every_case_has_an_order_and_dvc_knows_all_that_can_be_taken() -> None:
    assert advice.ORDERS.keys() == advice.WHY.keys()
    candidates = {name for order in advice.ORDERS.values() for name in order}
    declared = next(s for s in dag.load(ROOT) if s.name == "finetune").deps
    assert {f"components/finetune/strategies/{name}.py" for name in candidates} <= set(declared)


@pytest.mark.parametrize(
    ("paying", "budget", "epochs", "expected"),
    [
        (3, 13, 8, None),  # 3 of 2 and 2 of 4 epochs are 14
        (3, 14, 8, (2, 4)),
        (3, 27, 8, (3, 7)),
        (3, 1000, 8, (4, 8)),  # not longer than the run that it decides about
        (2, 12, 8, (2, 4)),
        (3, 4, 1, None),
        (3, 1000, 1, (1, 1)),
    ],
)
def test_how_long_the_runs_are_follows_from_the_budget(
    paying: int, budget: int, epochs: int, expected: tuple[int, int] | None
) -> None:
    found = race.rungs(paying, budget, epochs)
    assert found == expected
    if found:
        assert paying * found[0] + min(2, paying) * found[1] <= budget


def ran(name: str, right: list[int]) -> Ran:
    own = np.array(right, dtype=bool)
    return Ran(plugins.choose("finetune.strategies", name), 0.5, float(own.mean()), own)


def test_the_advised_one_is_left_only_beyond_the_noise() -> None:
    advised = ran("linear_probe", [1] * 5 + [0] * 5)
    assert race.decide(advised, ran("full", [1] * 6 + [0] * 4))[0] == 0  # 1 gained: as likely by chance
    taken, why = race.decide(advised, ran("full", [1] * 7 + [0] * 3))
    assert taken == 1
    assert why == (
        "race: full instead of the advised linear_probe: of 10 validation samples full has 2 right that linear_probe "
        "has not, and linear_probe 0 that full has not"
    )
    assert race.decide(advised, ran("full", [0] * 3 + [1] * 7))[0] == 0  # 5 gained, 3 lost
    assert race.decide(advised, advised)[0] == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A project, and what the stage wrote there by `auto`."""
    root = tmp_path_factory.mktemp("auto")
    upstream(root)
    stage.run(params(**SHORT, strategy=AUTO), job_of(Job, root))
    return root, digests(root / "artifacts/.building/finetune")


def job_of(kind: type[Job], root: Path) -> Job:
    job = kind.at(root, "finetune", stage.NEEDS, seed=17)
    job.clear()
    return job


def test_the_stage_trains_by_the_winner_and_tells_how_it_was_found(whole: tuple[Path, dict[str, bytes]]) -> None:
    root, written = whole
    told, record = json.loads(written["advice.json"]), json.loads(written["runs/main/run.json"])
    assert told["asked"]
    assert record["strategy"] == told["chosen"]
    assert record["strategy"]["name"] != "auto"
    assert told["headline"] in record["note"]
    assert record["strategy"]["name"] not in told["runners_up"]
    assert len(told["runners_up"]) == 2
    assert [len(rung) for rung in told["race"]["rungs"]] == [3, 2]
    assert told["facts"]["distance"] is not None, "the network has batch normalisation"
    assert {Path(name).parts[1] for name in written if name.endswith("run.json")} == {"main"}, "no run of the race"
    assert not [p for p in (root / ".graftline/finetune").rglob("*") if p.is_file()], "no checkpoint is left"


def test_main_is_what_naming_the_winner_gives(whole: tuple[Path, dict[str, bytes]]) -> None:
    root, written = whole
    taken = json.loads(written["advice.json"])["chosen"]
    job = job_of(Job, root)
    stage.run(params(**SHORT, strategy=taken), job)
    assert (job.building / "runs/main/weights.safetensors").read_bytes() == written["runs/main/weights.safetensors"]
    assert read_json(job.building / "advice.json") == {
        "asked": False,
        "chosen": taken,
        "headline": f"{taken['name']} was named in finetune.strategy; no advice was asked for",
    }


def test_a_killed_race_goes_on_to_the_same_bytes(whole: tuple[Path, dict[str, bytes]]) -> None:
    """Killed in its third short run of the network."""
    root, written = whole

    class Killed(BaseException):
        pass

    told: list[str] = []

    class Short(Job):
        def say(self, text: str) -> None:
            if "race_" in text and " epoch " in text and "probe" not in text:
                told.append(text)
                if len(told) == 3:
                    raise Killed

    with pytest.raises(Killed):
        stage.run(params(**SHORT, strategy=AUTO), job_of(Short, root))
    lines: list[str] = []

    class Listening(Job):
        def say(self, text: str) -> None:
            lines.append(text)

    stage.run(params(**SHORT, strategy=AUTO), job_of(Listening, root))
    assert len(told) == 3
    assert not set(told) & set(lines), "what had ended was not trained again"
    assert digests(root / "artifacts/.building/finetune") == written


def test_without_a_budget_the_advice_decides(whole: tuple[Path, dict[str, bytes]]) -> None:
    root, _ = whole
    job = job_of(Job, root)
    stage.run(params(**SHORT, strategy={**AUTO, "race_samples": 0}), job)
    told = read_json(job.building / "advice.json")
    assert told["chosen"]["name"] == told["order"][0]
    assert told["race"] == {"rungs": [], "why": f"no race was asked for; {told['order'][0]} by the advice"}
    assert "by the advice alone" in told["headline"]


def test_a_budget_that_is_too_small_is_told_with_what_it_takes() -> None:
    line: Any = SimpleNamespace(tables={"train": range(100)})
    entrants = [plugins.choose("finetune.strategies", name) for name in ("linear_probe", "wise_ft", "full")]
    found = race.race(line, entrants, 8, 1199)
    assert found.chosen.name == "linear_probe"
    assert found.why == "no race: it needs 1200 samples, race_samples is 1199; linear_probe by the advice"


def test_epochs_are_capped_where_steps_are_few_and_it_is_said(
    whole: tuple[Path, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert advice.capped(1000, 3, 3000) == ""
    told = "min_steps: 9000 would take 3000 epochs of 3 steps; 1000 are the most, 3000 steps"
    assert advice.capped(3000, 3, 9000) == told
    line: Any = SimpleNamespace(
        network=lambda: TransferModel(SmallNetwork(), 2), settings=SimpleNamespace(batch_size=32),
        team=SimpleNamespace(must_agree=lambda *_: None),
    )  # fmt: skip
    monkeypatch.setattr(advice, "measured", lambda *_: FACTS)
    found = advice.given(line, 8, 9000, None)
    assert found.epochs == 1000
    assert "min_steps: 9000 would take 3000 epochs" in found.capped
    assert [found.choice(name).spec()["epochs"] for name in ("full", "wise_ft", "llrd")] == [1000] * 3


class SmallNetwork(nn.Module):
    """Features as they are given."""

    num_features = 2


def test_a_cap_stands_in_the_advice(whole: tuple[Path, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    root, _ = whole
    monkeypatch.setattr(advice, "MOST_EPOCHS", 2)
    job = job_of(Job, root)
    stage.run(params(**SHORT, strategy={**AUTO, "min_steps": 1000, "race_samples": 0}), job)
    assert read_json(job.building / "advice.json")["reasons"][0].startswith("min_steps: 1000 would take ")


def test_options_reach_what_is_taken() -> None:
    given = advice.Given(FACTS, 12, 2e-4)
    assert given.choice("full").spec()["epochs"] == 12
    assert given.choice("wise_ft").spec()["backbone_learning_rate"] == 2e-4
    probe = plugins.choose("finetune.strategies", "linear_probe")
    assert given.choice("linear_probe").spec() == probe.spec()
    assert json.loads(json.dumps(advice.told(FACTS, advice.advise(FACTS), probe, {"rungs": []})))["runners_up"] == [
        "full",
        "wise_ft",
    ]
