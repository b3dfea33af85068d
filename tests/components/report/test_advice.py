"""Advice: each piece appears where its figure was planted, and names a key that exists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fabricated_run
import pytest

from components.contracts import read_json, write_json
from components.params import load_yaml
from components.report.advice import Advice, suggest
from components.report.facts import Facts, gather


def facts_of(root: Path) -> Facts:
    def locate(stage: str, name: str) -> Path:
        return root / "artifacts" / stage / name

    return gather(locate)


def change(root: Path, file: str, how: Callable[[Any], Any]) -> None:
    path = root / "artifacts" / file
    value = read_json(path)
    how(value)
    write_json(path, value)


def quiet(root: Path) -> None:
    """A run that leaves nothing to say but to hold what was reached."""
    change(root, "select/leaderboard.json", lambda v: v.update(prior_agrees=True))


def keys(root: Path) -> list[str]:
    return [a.key for a in suggest(facts_of(root), most=20)]


def verdict_of(reference: str, word: str) -> Callable[[Any], None]:
    def how(value: Any) -> None:
        next(c for c in value["comparisons"] if c["reference"] == reference)["verdict"] = word

    return how


PLANTED: dict[str, tuple[str, Callable[[Any], Any], str, str]] = {
    "forgot": (
        "evaluate/transfer.json",
        lambda v: v["forgetting"]["runs"][0].update(verdict="forgot"),
        "finetune.strategy",
        "nearer to the pretrained weights",
    ),
    "data refused": (
        "validate/verdict.json",
        lambda v: v.update(passed=False),
        "validate.checks",
        "mend the data",
    ),
    "negative transfer": (
        "evaluate/transfer.json",
        verdict_of("from_scratch", "negative transfer"),
        "select.candidates",
        "nearer",
    ),
    "probe did better": (
        "evaluate/transfer.json",
        verdict_of("frozen_probe", "negative transfer"),
        "finetune.strategy",
        "lp_ft",
    ),
    "no scratch run": (
        "evaluate/transfer.json",
        lambda v: v.update(comparisons=[]),
        "finetune.references",
        "from_scratch",
    ),
    "badly calibrated": (
        "evaluate/metrics.json",
        lambda v: v.update(ece=0.09),
        "finetune.label_smoothing",
        "0.05",
    ),
    "drifted": (
        "drift/drift.json",
        lambda v: v["embeddings"].update(drifted=True),
        "ingest.data",
        "like the current",
    ),
    "weak group": (
        "bias/groups.json",
        lambda v: v["gaps"][0].update(verdict="evidence of a gap"),
        "augment.policy",
        "trivial_augment",
    ),
    "weak named group": (
        "bias/groups.json",
        lambda v: v["gaps"][0].update(verdict="evidence of a gap", grouping="site"),
        "ingest.data",
        "add samples of",
    ),
    "prior disagrees": (
        "select/leaderboard.json",
        lambda v: v.update(prior_agrees=False),
        "select.candidates",
        "tf_efficientnet_lite1",
    ),
}


@pytest.mark.parametrize("case", sorted(PLANTED))
def test_a_planted_figure_gives_its_advice(tmp_path: Path, case: str) -> None:
    fabricated_run.make(tmp_path)
    quiet(tmp_path)
    file, how, key, told = PLANTED[case]
    before = suggest(facts_of(tmp_path), 20)
    change(tmp_path, file, how)
    new = [a for a in suggest(facts_of(tmp_path), 20) if a not in before]
    assert [a.key for a in new] == [key]
    assert told in new[0].do


def test_a_quiet_run_is_told_to_hold_what_it_reached(tmp_path: Path) -> None:
    fabricated_run.make(tmp_path)
    quiet(tmp_path)
    assert keys(tmp_path) == ["gate.rules"]
    assert "evaluate.accuracy_low at_least 0.92" in suggest(facts_of(tmp_path))[0].do


def test_a_loss_that_still_falls_asks_for_more_epochs(tmp_path: Path) -> None:
    fabricated_run.make(tmp_path, passed=False)
    advice = {a.key: a for a in suggest(facts_of(tmp_path), 20)}
    assert advice["finetune.strategy"].do == "raise epochs from 8 to 16"


def test_a_short_last_phase_is_no_sign_of_a_falling_loss(tmp_path: Path) -> None:
    fabricated_run.make(tmp_path, passed=False)
    path = tmp_path / "artifacts/finetune/history.csv"
    path.write_text(path.read_text().replace("main,full,8", "main,second,8").replace("main,full,7", "main,second,7"))
    assert "finetune.strategy" not in keys(tmp_path)


def test_overfitting_asks_for_a_stronger_policy(tmp_path: Path) -> None:
    fabricated_run.make(tmp_path)
    rows = ["run,phase,epoch,train_loss,validation_loss,validation_accuracy,learning_rate"]
    rows += [f"main,full,{i},{0.5 / i},{0.6 if i < 4 else 0.5 + i / 100},0.8,0.001" for i in range(1, 7)]
    (tmp_path / "artifacts/finetune/history.csv").write_text("\n".join(rows) + "\n")
    assert Advice(
        "augment.policy",
        "try {name: trivial_augment} instead of light",
        "at the best epoch the loss is 0.12 on training and 0.54 on validation samples",
    ) in suggest(facts_of(tmp_path), 20)


def test_too_few_test_samples_are_named_as_the_cause(tmp_path: Path) -> None:
    fabricated_run.make(tmp_path)
    rule = {
        "name": "evaluate.accuracy_low at least 0.95",
        "passed": False,
        "value": 0.93,
        "limit": 0.95,
        "margin": -0.02,
        "why": "",
    }
    change(tmp_path, "gate/verdict.json", lambda v: v.update(passed=False, rules=[rule]))
    assert keys(tmp_path)[0] == "validate.split"


def test_no_figures_no_advice() -> None:
    assert suggest(Facts({})) == []


def test_every_key_is_one_of_params(tmp_path: Path, repository: Path) -> None:
    params = load_yaml(repository / "params.yaml")
    seen = set()
    for i, (file, how, _, _) in enumerate(PLANTED.values()):
        for passed in (True, False):
            root = fabricated_run.make(tmp_path / f"{i}{passed}", passed=passed)
            change(root, file, how)
            seen |= set(keys(root))
    for key in seen:
        section, name = key.split(".")
        assert name in params[section], key
    assert len(seen) >= 8
