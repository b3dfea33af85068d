"""Tuning: which keys, what is tried, what is given up, going on after a kill, and what is written into params.yaml."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import miniature
import numpy as np
import pytest
import training

from components import plugins
from components.contracts import InputError, read_json, write_json
from components.finetune import stage as finetune
from pipelines import operating_help, settings_text, stage, tune, tune_begun, tune_table, tuned_keys
from pipelines.parser import parser
from pipelines.tune import Ear, Hopeless, OutOfTime, best_until, search
from pipelines.tune_begun import Base
from pipelines.tune_study import DONE, FAILED, FOR_IMPORTANCE, RUNNING, STOPPED, Study, Trial
from pipelines.tuned_keys import Key

RATE = Key("finetune.strategy.learning_rate", 0.1, 1e-4, 1.0, log=True)
EPOCHS = Key("finetune.strategy.epochs", 4, 1, 8, whole=True)
NOW = {RATE.key: 0.1, EPOCHS.key: 4}


# --- which keys ---


def keys(*asked: str, strategy: dict[str, Any] | None = None) -> dict[str, Key]:
    section = cast(finetune.Params, stage.read_params(miniature.REPOSITORY)["finetune"])
    if strategy:
        section = section.model_copy(update={"strategy": plugins.choose("finetune.strategies", strategy)})
    return {one.short: one for one in tuned_keys.of(miniature.REPOSITORY, section, asked or None)}


def test_the_keys_follow_from_the_strategy() -> None:
    found = keys()
    assert set(found) == {"epochs", "learning_rate", "backbone_learning_rate", "weight_decay"}
    rate, epochs = found["backbone_learning_rate"], found["epochs"]
    assert (rate.log, rate.low, rate.high, rate.now) == (True, 1e-4, 1e-2, 1e-3)
    assert (epochs.whole, epochs.low, epochs.high, epochs.now) == (True, 1, 6, 3)


def test_every_strategy_has_keys_that_hold_at_both_ends() -> None:
    section = cast(finetune.Params, stage.read_params(miniature.REPOSITORY)["finetune"])
    seen = set()
    for name in plugins.names("finetune.strategies"):
        if name == "auto":
            continue
        choice = plugins.choose("finetune.strategies", name)
        for key, (field, now) in tuned_keys._fields(section.model_copy(update={"strategy": choice})):
            one = tuned_keys._by_itself(key, field, now)
            if one and key.startswith(tuned_keys.STRATEGY):
                seen.add(one.short)
                assert one.low < one.high, (name, key)
                assert one.low <= one.now <= one.high
                for value in (one.low, one.high):
                    choice.load().Params.model_validate({one.short: int(value) if one.whole else value})
    assert {"epochs", "learning_rate", "num_blocks", "decay"} <= seen


def test_an_average_s_decay_is_looked_for_by_its_distance_from_1() -> None:
    from pydantic.fields import FieldInfo

    one = tuned_keys._between("finetune.strategy.decay", FieldInfo(annotation=float), 0.99)
    assert (one.low, one.high) == (pytest.approx(0.9), pytest.approx(0.999))


def test_auto_has_nothing_to_tune() -> None:
    section = cast(finetune.Params, stage.read_params(miniature.REPOSITORY)["finetune"])
    auto = section.model_copy(update={"strategy": dataclasses.replace(section.strategy, name="auto")})
    with pytest.raises(InputError, match="auto chooses among strategies, and has no keys to tune"):
        tuned_keys.of(miniature.REPOSITORY, auto, None)


def test_keys_can_be_named_with_limits_of_their_own() -> None:
    found = keys("learning_rate=1e-5..1e-3", "finetune.batch_size=[16, 64]", "frozen_norm", "label_smoothing=0..0.2")
    rate = found["learning_rate"]
    assert (rate.key, rate.log, rate.low, rate.high) == ("finetune.strategy.learning_rate", True, 1e-5, 1e-3)
    assert found["batch_size"].choices == (16, 64)
    assert found["frozen_norm"].choices == (False, True)
    assert (found["label_smoothing"].log, found["label_smoothing"].low, found["label_smoothing"].high) == (
        False,
        0,
        0.2,
    )
    assert keys("schedule=[one_cycle, cosine]")["schedule"].choices == ("one_cycle", "cosine")
    assert keys("schedule")["schedule"].choices == ("cosine", "one_cycle")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("learning_rat", "no such key is tuned here. Known: strategy.epochs, strategy.learning_rate"),
        ("select.max_samples", "python -m pipelines sweep"),
        ("learning_rate=1", "give it as LOW..HIGH, numbers, such as"),
        ("learning_rate=2..1", "give it as LOW..HIGH"),
        ("epochs=1.5..3", "whole numbers"),
        ("learning_rate=1e-3..2", "learning_rate: .*less than or equal to 1"),
        ("batch_size=[16]", "at least two values"),
        ("batch_size=[16, 16]", "at least two values"),
        ("batch_size=[16, 1]", "(?s)batch_size.*given: 1"),
        ("batch_size=[16", "not valid YAML"),
        ("schedule=1..2", "it is no number"),
        ("precision", "no such key"),
        ("processes=1..2", "no such key"),
        ("batch_size=[auto, 32]", "what auto comes to is the machine's business"),
        ("references", "no such key"),
    ],
)
def test_mistakes_in_keys_are_told_before_anything_runs(asked: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        keys(asked)


def test_a_key_that_is_there_twice_is_told() -> None:
    with pytest.raises(InputError, match=r"finetune\.strategy\.epochs is there twice"):
        keys("epochs", "strategy.epochs=1..2")


COMMANDS = re.findall(
    r"^ *python -m pipelines (tune .*)$", (miniature.REPOSITORY / "README.md").read_text() + operating_help.TUNE, re.M
)


def test_the_commands_of_the_readme_and_the_help_are_found() -> None:
    assert len(COMMANDS) == 6


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_and_the_help_hold_for_the_params_that_are_shipped(command: str) -> None:
    options = parser().parse_args(shlex.split(command, comments=True))
    assert keys(*(options.keys or ()))
    tune._known(options.metric)


# --- what is tried ---


def loss(values: dict[str, Any]) -> float:
    """Best at a rate of 0.01; epochs matter little."""
    return float((math.log10(values[RATE.key]) + 2) ** 2 - 0.01 * values[EPOCHS.key])


def study(folder: Path, metric: str = "validation_loss") -> Study:
    return Study(folder, (RATE, EPOCHS), metric, 17)


def tried(own: Study, num: int, until: float = 60.0, clock: Callable[[], float] = lambda: 0.0) -> list[dict[str, Any]]:
    def attempt(trial: Trial) -> None:
        value = loss(trial.values)
        own.end(trial, DONE, figures={"validation_loss": value, "validation_accuracy": -value})

    search(own, attempt, until, num, clock)
    return [one.values for one in own.trials]


def test_the_first_trial_is_what_params_has_and_the_best_is_found(tmp_path: Path) -> None:
    own = study(tmp_path)
    values = tried(own, 18)
    assert values[0] == {RATE.key: 0.1, EPOCHS.key: 4}
    assert all(
        RATE.low <= one[RATE.key] <= RATE.high and EPOCHS.low <= one[EPOCHS.key] <= EPOCHS.high for one in values
    )
    assert own.best is not None
    assert 0.004 < own.best.values[RATE.key] < 0.025
    later = np.mean([abs(math.log10(one[RATE.key]) + 2) for one in values[12:]])
    assert later < 0.8 * np.mean([abs(math.log10(one[RATE.key]) + 2) for one in values[:6]]), "it learns"
    assert own.importance() == {}, "chance, of so few"
    tried(own, FOR_IMPORTANCE)
    found = own.importance()
    assert found[RATE.key] > found[EPOCHS.key]
    assert sum(found.values()) == pytest.approx(1, abs=1e-3)


def planted(folder: Path, seed: int, num: int) -> Study:
    """Trials of four keys at random, of which the first makes the loss, but for some noise."""
    four = tuple(Key(f"finetune.{name}", 0.5, 0.0, 1.0) for name in ("matters", "b", "c", "d"))
    own, rng = Study(folder, four, "validation_loss", seed), np.random.default_rng(seed)
    for number in range(num):
        values = {one.key: float(rng.random()) for one in four}
        value = (values["finetune.matters"] - 0.4) ** 2 + 0.02 * float(rng.standard_normal())
        own.trials.append(Trial(number, values, DONE, value, {"validation_loss": value}))
    return own


def test_what_matters_is_told_where_it_can_be_known(tmp_path: Path) -> None:
    assert planted(tmp_path, 0, FOR_IMPORTANCE - 1).importance() == {}
    ranked = [planted(tmp_path, seed, FOR_IMPORTANCE).importance() for seed in range(20)]
    assert sum(max(one, key=lambda key: one[key]) == "finetune.matters" for one in ranked) >= 19
    alone = Study(tmp_path, (RATE,), "validation_loss", 1)
    for number in range(FOR_IMPORTANCE):
        alone.trials.append(Trial(number, {RATE.key: 0.1 + number / 100}, DONE, float(number)))
    assert alone.importance() == {}, "one key alone has nothing to be held against"


@pytest.mark.parametrize(
    ("metric", "first", "best", "written"),
    [
        ("validation_loss", 0.500, 0.4951, False),
        ("validation_loss", 0.500, 0.4949, True),
        ("validation_loss", 0.500, 0.6, False),
        ("validation_accuracy", 0.900, 0.9009, False),
        ("validation_accuracy", 0.900, 0.901, True),
        ("validation_f1", 0.900, 0.950, True),
    ],
)
def test_a_small_gain_is_not_written(tmp_path: Path, metric: str, first: float, best: float, written: bool) -> None:
    own = study(tmp_path / "study", metric)
    for value in (first, best):
        trial = own.next()
        assert trial is not None
        own.end(trial, DONE, figures={metric: value})
    told, changes = tune_table.conclude(tmp_path, own, NOW)
    assert bool(changes) is written
    small = "less than 1 % of" if "loss" in metric else "less than 0.1 points"
    better = own.best is own.trials[1]
    assert any(small.replace("1 %", "1%") in line for line in told) is (better and not written)
    assert read_json(tmp_path / "reports/tune/tune.json")["winner"] == (1 if written else None)


def test_a_study_that_was_killed_tries_the_same_as_one_that_was_not(tmp_path: Path) -> None:
    whole = tried(study(tmp_path / "whole"), 10)
    tried(study(tmp_path / "killed"), 6)
    killed = study(tmp_path / "killed")
    begun = killed.next()
    assert begun is not None
    assert begun.state == RUNNING
    assert study(tmp_path / "killed").next() == begun, "what was under way is gone on with"
    assert tried(study(tmp_path / "killed"), 10) == whole
    assert tried(Study(tmp_path / "other", (RATE, EPOCHS), "validation_loss", 18), 10)[1:] != whole[1:]


def test_more_is_better_where_the_metric_is_no_loss(tmp_path: Path) -> None:
    own = study(tmp_path, "validation_accuracy")
    tried(own, 12)
    assert own.best is not None
    assert own.best.value == max(float(one.value or 0) for one in own.done)


def test_nothing_is_tried_twice_and_it_ends_where_nothing_is_new(tmp_path: Path) -> None:
    own = Study(tmp_path, (Key("finetune.batch_size", 32, choices=(16, 32, 64)),), "validation_loss", 1)
    search(own, lambda trial: own.end(trial, DONE, figures={"validation_loss": 1.0}), 60.0, None, lambda: 0.0)
    assert sorted(one.values["finetune.batch_size"] for one in own.trials) == [16, 32, 64]
    assert own.importance() == {}


def test_what_is_now_may_lie_beyond_what_was_asked_for(tmp_path: Path) -> None:
    own = Study(tmp_path, (Key(RATE.key, 0.5, 1e-4, 1e-2, log=True),), "validation_loss", 1)
    search(own, lambda t: own.end(t, DONE, figures={"validation_loss": t.values[RATE.key]}), 60.0, 8, lambda: 0.0)
    assert [one.values[RATE.key] <= 1e-2 for one in own.trials] == [False, *[True] * 7]


def test_a_trial_that_fails_does_not_end_the_study_and_is_kept_away_from(tmp_path: Path) -> None:
    own = study(tmp_path)

    def attempt(trial: Trial) -> None:
        rate = trial.values[RATE.key]
        if rate > 0.2:
            own.end(trial, FAILED, "the loss is nan")
        else:
            own.end(trial, DONE, figures={"validation_loss": math.nan if rate > 0.15 else loss(trial.values)})

    search(own, attempt, 60.0, 20, lambda: 0.0)
    failed = [one for one in own.trials if one.state == FAILED]
    assert failed
    assert all(one.value is None for one in failed)
    assert own.best is not None
    assert own.best.state == DONE
    assert sum(one.number >= 10 for one in failed) <= 3


def test_no_trial_is_begun_that_would_not_end_in_time(tmp_path: Path) -> None:
    own, now = study(tmp_path), [0.0]

    def attempt(trial: Trial) -> None:
        now[0] += 40.0
        own.end(trial, DONE, figures={"validation_loss": loss(trial.values)})

    search(own, attempt, 100.0, None, lambda: now[0])
    assert [one.seconds for one in own.trials] == [40.0, 40.0]


def test_what_is_out_of_time_is_gone_on_with(tmp_path: Path) -> None:
    own = study(tmp_path)

    def over(trial: Trial) -> None:
        raise OutOfTime

    search(own, over, 60.0, None, lambda: 0.0)
    assert [one.state for one in own.trials] == [RUNNING]
    assert [one.state for one in study(tmp_path).trials] == [RUNNING]
    tried(study(tmp_path), 2)
    assert [one.state for one in study(tmp_path).trials] == [DONE, DONE]


# --- what is given up ---


def heard(own: Study, trial: Trial, values: list[float], num: int = 4, *more: tuple[str, str, float]) -> None:
    """What a trial came to so far, of `num` epochs."""
    rows = [("main", "full", value) for value in values]
    live = own.path.parent / "live.csv"
    text = "run,phase,validation_loss\n" + "".join(f"{run},{phase},{value}\n" for run, phase, value in [*more, *rows])
    live.write_text(text)
    Ear(live, own, trial, [("full", num)], math.inf)("a line")


def ready(folder: Path) -> tuple[Study, Trial]:
    """Four trials that ended, and one that begins."""
    own = study(folder)
    for half in (0.5, 0.6, 0.4, 0.5):
        trial = own.next()
        assert trial is not None
        heard(own, trial, [0.9, half, 0.4])
        own.end(trial, DONE, figures={"validation_loss": half - 0.2})
    begun = own.next()
    assert begun is not None
    return own, begun


def test_a_trial_that_is_behind_the_others_is_given_up(tmp_path: Path) -> None:
    own, trial = ready(tmp_path)
    heard(own, trial, [2.0])
    with pytest.raises(Hopeless):
        heard(own, trial, [2.0, 1.9])
    assert trial.reports == {50: 1.9}
    again = study(tmp_path)
    with pytest.raises(Hopeless):  # it was killed before it could be given up
        heard(again, again.trials[4], [2.0, 1.9])
    own, trial = ready(tmp_path / "better")
    heard(own, trial, [0.4, 0.8, 0.3])
    assert trial.reports == {50: 0.4, 75: 0.3}
    heard(own, trial, [0.4, 0.8, 0.3, 0.1])
    assert set(study(tmp_path / "better").trials[4].reports) == {50, 75}, "at the end there is nothing to save"


def test_the_first_trial_is_never_given_up_and_search_goes_on_after_one_that_is(tmp_path: Path) -> None:
    own, trial = ready(tmp_path)
    assert not own.report(own.trials[0], {50: 99.0})

    def attempt(one: Trial) -> None:
        if one is trial:
            raise Hopeless
        own.end(one, DONE, figures={"validation_loss": 0.3})

    search(own, attempt, 60.0, 6, lambda: 0.0)
    assert [one.state for one in own.trials] == [DONE] * 4 + [STOPPED, DONE]
    assert own.best is not None
    assert own.best.number == 2


def test_other_runs_and_files_that_are_not_whole_say_nothing(tmp_path: Path) -> None:
    own, trial = ready(tmp_path)
    heard(own, trial, [], 4, ("main_15", "full", 9.0), ("main_15", "full", 9.0), ("from_scratch", "full", 9.0))
    for text in ("", "run,phase\nmain,full\n", "run,phase,validation_loss\nmain,full,\n"):
        (tmp_path / "live.csv").write_text(text)
        Ear(tmp_path / "live.csv", own, trial, [("full", 2)], math.inf)("a line")
    Ear(tmp_path / "not there", own, trial, [("full", 2)], math.inf)("a line")
    assert trial.reports == {}


def test_the_epochs_of_all_phases_count() -> None:
    phases = [("probe", 4), ("full", 4)]
    probe, full = [("probe", 0.9 - i / 10) for i in range(4)], [("full", 0.5), ("full", 0.8), ("full", 0.1)]
    assert best_until(probe[:3], phases, 1.0) == {}
    assert best_until(probe, phases, 1.0) == {50: pytest.approx(0.6)}
    assert best_until([*probe, *full[:2]], phases, 1.0) == {50: pytest.approx(0.6), 75: 0.5}
    early = best_until([*probe[:2], *full[:2]], phases, 1.0)
    assert early == {50: 0.5, 75: 0.5}, "a phase that stopped early counts as whole"
    same = [("all", 0.9), ("all", 0.7), ("all", 0.8), ("all", 0.2)]
    assert best_until(same, [("all", 2), ("all", 2)], -1.0) == {50: 0.9, 75: 0.9}, "more is better, and phases alike"


def test_the_time_is_over_at_the_next_word(tmp_path: Path) -> None:
    own = study(tmp_path)
    trial = own.next()
    assert trial is not None
    with pytest.raises(OutOfTime):
        Ear(tmp_path / "none", own, trial, [("full", 4)], time.monotonic() - 1)("finetune: anything")


def test_what_the_real_loop_writes_is_understood(tmp_path: Path) -> None:
    _, course = training.run("lp_ft", tmp_path, {"probe_epochs": 2, "epochs": 2})
    [live] = tmp_path.rglob("live.csv")
    assert live.relative_to(tmp_path) == Path(tune.LIVE.replace("finetune", "stage")), "a job in tests is called so"
    live.write_text(live.read_text().replace("lp_ft,", "main,"))
    own = study(tmp_path / "study")
    trial = own.next()
    assert trial is not None
    phases = tune._epochs(cast(Any, SimpleNamespace(strategy=plugins.choose("finetune.strategies", {
        "name": "lp_ft", "probe_epochs": 2, "epochs": 2}))))  # fmt: skip
    Ear(live, own, trial, phases, math.inf)("a line")
    losses = [row["validation_loss"] for row in course.history]
    assert trial.reports == {50: pytest.approx(min(losses[:2])), 75: pytest.approx(min(losses[:3]))}


# --- what is written ---

TEXT = """\
# head
finetune:
  strategy: {name: full, epochs: 3}   # which one
  references: [from_scratch]
  weight_decay: 0.01          # of AdamW
  licence: ""
  other: null   # stays
"""


def test_only_the_values_change() -> None:
    changes = {
        "finetune.strategy.epochs": 5, "finetune.strategy.learning_rate": 1e-5, "finetune.weight_decay": 0.0021,
    }  # fmt: skip
    expected = TEXT.replace("epochs: 3}", "epochs: 5, learning_rate: 1.0e-05}").replace("0.01 ", "0.0021 ")
    assert settings_text.with_values(TEXT, changes) == expected


def test_a_block_a_flow_and_an_empty_mapping_take_a_new_key() -> None:
    text = "a:\n  strategy:\n    name: full   # this one\n    more:\n      - 1\n  # about b\n  b: {}\n"
    given = settings_text.with_values(text, {"a.strategy.rate": 0.5, "a.b.c": True})
    assert given == text.replace("# this one\n", "# this one\n    rate: 0.5\n").replace("{}", "{c: true}")
    assert settings_text.with_values("a:\n  b: 1", {"a.c": "x"}) == "a:\n  b: 1\n  c: x"
    assert settings_text.with_values("a:\n  b:\n  - 1\nd: 2\n", {"a.c": 3}) == "a:\n  c: 3\n  b:\n  - 1\nd: 2\n"


def test_the_real_params_keep_their_text() -> None:
    text = (miniature.REPOSITORY / "params.yaml").read_text("utf-8")
    given = settings_text.with_values(text, {"finetune.strategy.decay_of_none": 0.5, "finetune.weight_decay": 0.02})
    pairs = [(a, b) for a, b in zip(text.splitlines(), given.splitlines()) if a != b]
    (strategy, new_strategy), (decay, new_decay) = pairs
    assert new_strategy == strategy.replace("}", ", decay_of_none: 0.5}")
    assert new_decay == decay.replace("weight_decay: 0.01", "weight_decay: 0.02")


def test_what_cannot_be_set_is_told() -> None:
    with pytest.raises(InputError, match="there is no strategy"):
        settings_text.with_values("a: 1\n", {"strategy.epochs": 2})
    shared = "x: &x {epochs: 1}\na: *x\nb: *x\n"
    with pytest.raises(InputError, match="set them by hand"):
        settings_text.with_values(shared, {"a.epochs": 2})


MERGED = "d: &d\n  name: full\nfinetune:\n  strategy:\n    <<: *d\n"
ASKED = "finetune:\n  strategy:\n    ? name\n    : full\n"
WHOLLY_MERGED = "d: &d\n  strategy: {name: full}\nfinetune:\n  <<: *d\n"


@pytest.mark.parametrize("text", [MERGED, ASKED, WHOLLY_MERGED])
def test_what_breaks_where_a_value_is_put_is_told(text: str) -> None:
    changes = {"finetune.strategy.epochs": 2, "finetune.strategy.learning_rate": 0.5}
    with pytest.raises(InputError, match="set them by hand"):
        settings_text.with_values(text, changes)


@pytest.mark.parametrize("text", [MERGED, ASKED, WHOLLY_MERGED])
def test_what_could_not_be_written_is_refused_before_anything_runs(text: str) -> None:
    with pytest.raises(InputError, match=r"params\.yaml: .*set them by hand\. --dry-run looks"):
        tune._writable(Base(text.encode(), {}, (RATE, EPOCHS)))
    tune._writable(Base(TEXT.encode(), {}, (RATE, EPOCHS, Key("finetune.schedule", "b", choices=("a", "b")))))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "1.0e-05"), (0.5, "0.5"), (True, "true"), (None, "null"), ("cosine", "cosine"), ("no", '"no"'),
        ("32", '"32"'), (3, "3"),
    ],
)  # fmt: skip
def test_values_are_written_so_that_every_yaml_reads_them(value: Any, text: str) -> None:
    import yaml

    assert settings_text.scalar(value) == text
    assert yaml.safe_load(text) == value


def test_the_table_tells_the_best_first_and_what_would_change(tmp_path: Path) -> None:
    own = study(tmp_path / "study")
    tried(own, 14)
    printed, changes = tune_table.conclude(tmp_path, own, NOW)
    assert own.best is not None
    assert changes == {k: v for k, v in own.best.values.items() if v != NOW[k]}
    again, left = tune_table.conclude(tmp_path, own, own.best.values)
    assert (left, "params.yaml has its values already." in again) == ({}, True)
    assert printed[1].split()[:2] == [str(own.best.number), "done"]
    assert any(text.startswith("0 ") for text in printed), "what params.yaml has is always shown"
    assert any("The test split was not looked at" in text for text in printed)
    rows = (tmp_path / "reports/tune/trials.csv").read_text().splitlines()
    assert len(rows) == 15
    assert rows[0].startswith("trial,state,validation_loss,validation_accuracy,seconds,finetune.strategy.learning_rate")
    assert read_json(tmp_path / "reports/tune/tune.json")["winner"] == own.best.number


# --- the whole command, on a project in miniature ---

FINETUNE = '''
"""A loss that is least at a rate of 0.01."""
import math, sys, time
from typing import Annotated
from components import params
from components.contracts import InputError
from components.plugins import Choice, Family
NEEDS = ("ingest",)
class Params(params.Params):
    strategy: Annotated[Choice, Family("finetune.strategies")]
    references: list[str]
    weight_decay: float
    pause: float
def run(params, job):
    own = params.strategy.params
    assert params.references == [] or job.root.name != "work"
    value = (math.log10(own.learning_rate) + 2) ** 2 + 0.1
    for epoch in range(own.epochs):
        time.sleep(params.pause)
        with job.report("live.csv").open("a") as live:
            live.write("" if epoch else "run,phase,validation_loss\\n")
            live.write(f"main,toy,{value + 1 - epoch / own.epochs}\\n")
        print(f"finetune: main toy epoch {epoch + 1}/{own.epochs}", file=sys.stderr, flush=True)
    job.out("weights.txt").write_text(str(own.learning_rate))
    return {"validation_loss_main": value, "validation_accuracy_main": 1 / (1 + value)}
'''
TOY = '''
"""A toy."""
from types import SimpleNamespace
from pydantic import Field
from components import params
class Params(params.Params):
    epochs: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=0.3, gt=0, le=1)
def phases(params):
    return [SimpleNamespace(name="toy", epochs=params.epochs)]
'''
SECTION = """
finetune:
  strategy: {name: toy, epochs: 4}  # toy alone
  references: [frozen]              # not for trials
  weight_decay: 0.0                 # of nothing
  pause: 0.0
"""


@pytest.fixture
def project(new_project: Path) -> Path:
    folder = new_project / "components"
    (folder / "finetune" / "strategies").mkdir(parents=True)
    (folder / "finetune" / "stage.py").write_text(FINETUNE.lstrip())
    (folder / "finetune" / "strategies" / "toy.py").write_text(TOY.lstrip())
    for name in ("samples.py", "finetune/live.py"):
        shutil.copy(miniature.REPOSITORY / "components" / name, folder / name)
    with (new_project / "params.yaml").open("a") as handle:
        handle.write(SECTION)
    with (new_project / "dvc.yaml").open("a") as handle:
        handle.write(
            "  finetune:\n    cmd: python -m pipelines.stage finetune\n    params: [finetune, run]\n    deps:\n"
            "      - artifacts/ingest/mean.json\n      - components/finetune/stage.py\n"
            "      - components/finetune/strategies/${finetune.strategy.name}.py\n"
            "    outs:\n      - artifacts/finetune/weights.txt\n      - artifacts/finetune/lineage.json\n"
            "    metrics:\n      - artifacts/finetune/metrics.json: {cache: false}\n"
        )
    miniature.commit(new_project)
    return new_project


def studied(project: Path) -> list[dict[str, Any]]:
    [path] = (project / tune.FOLDER).glob("*/study.json")
    found: list[dict[str, Any]] = read_json(path)["trials"]
    return found


def test_the_winner_is_written_and_a_kill_loses_nothing(project: Path) -> None:
    miniature.turn_knob(project, "pause: 0.0", "pause: 0.2")
    before = (project / "params.yaml").read_text()
    words = ("tune", "--minutes", "5", "--trials", "2", "--keys", "learning_rate=1e-3..1e-1")
    own = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words], cwd=project, env=miniature.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert own.stderr is not None
    for text in own.stderr:
        if "main toy epoch 3/4" in text:
            break
    own.send_signal(signal.SIGKILL)
    own.wait(timeout=20)
    own.stderr.close()
    [begun] = studied(project)
    assert (begun["state"], list(begun["reports"])) == ("running", ["50"])
    done = miniature.line(project, *words)
    assert done.returncode == 0, done.stderr
    assert "Taken up; trials that ended before: 0" in done.stderr
    trials = studied(project)
    assert [one["state"] for one in trials] == ["done"] * 2
    assert trials[0]["values"] == {"finetune.strategy.learning_rate": 0.3}
    assert trials[1]["value"] < trials[0]["value"], "any rate between these limits is better than what params.yaml has"
    rate = trials[1]["values"]["finetune.strategy.learning_rate"]
    new = f"strategy: {{name: toy, epochs: 4, learning_rate: {settings_text.scalar(rate)}}}  # toy alone"
    after = (project / "params.yaml").read_text()
    assert after == before.replace("strategy: {name: toy, epochs: 4}  # toy alone", new)
    assert f"Written into params.yaml:\n  finetune.strategy.learning_rate: {settings_text.scalar(rate)}" in done.stdout
    assert not (project / tune.FOLDER / tune.WORKSPACE).exists(), "nobody goes on there"
    assert not (project / "artifacts/finetune/weights.txt").exists(), "no trial ran in the project itself"
    assert miniature.call(project, "git", "status", "--porcelain").stdout.split() == ["M", "params.yaml"]


def test_params_that_were_changed_meanwhile_are_left_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = study(project / tune.FOLDER / "x")
    tried(own, 8)
    before = (project / "params.yaml").read_bytes()
    now = Base(before, {}, (RATE, EPOCHS))
    write_json(own.path.parent / tune_begun.SAME, [])
    assert tune._conclude(project, own, now, True) == 0
    assert (
        "--dry-run: nothing was written. For params.yaml:\n  finetune.strategy.learning_rate: "
        in capsys.readouterr().out
    )
    assert (project / "params.yaml").read_bytes() == before
    miniature.turn_knob(project, "pause: 0.0", "pause: 0.1")
    assert tune._conclude(project, own, now, False) == 2
    assert "params.yaml was changed since this began: nothing was written. For params.yaml:" in capsys.readouterr().out
    assert b"learning_rate" not in (project / "params.yaml").read_bytes()


def test_a_study_goes_on_after_its_winner_was_written(project: Path) -> None:
    words = ("tune", "--minutes", "5", "--keys", "learning_rate=1e-3..1e-1", "--trials")
    first = miniature.line(project, *words, "2")
    assert "Written into params.yaml:" in first.stdout, first.stderr
    [place] = (project / tune.FOLDER).glob("*/study.json")
    own = read_json(place)  # as it is where the time was over in the middle of a third one
    third = {"number": 2, "values": {RATE.key: 0.02}, "state": RUNNING, "reports": {}}
    write_json(place, {**own, "trials": [*own["trials"], third]})
    miniature.turn_knob(project, "# of nothing", "# a comment that came since")
    second = miniature.line(project, *words, "3")
    assert second.returncode == 0, second.stderr
    assert "Taken up; trials that ended before: 2" in second.stderr
    assert "(now 0.3)" in second.stderr, "what was there when it began"
    after = studied(project)
    assert after[:2] == own["trials"]
    assert (after[2]["values"], after[2]["state"]) == (third["values"], DONE)


def kept(project: Path) -> tuple[Base, Path]:
    """The study of the project's params, as if finetune read nothing."""
    bases = tune_begun.bases(project, project / tune.FOLDER, ["learning_rate"])
    return tune_begun.taken(bases, project / tune.FOLDER, "validation_loss", {"data": "1"})


def test_a_state_that_a_study_wrote_is_its_own_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = (miniature.REPOSITORY / "params.yaml").read_text("utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(shipped)
    base, place = kept(tmp_path)
    for rate in (0.001, 0.002):
        text = settings_text.with_values(path.read_text(), {"finetune.strategy.learning_rate": rate})
        tune_begun.writes(place, settings_text.parsed(text))
        assert kept(tmp_path)[1] == place, "a kill before it is written"
        path.write_text(text)
        again, there = kept(tmp_path)
        assert (there, again.keys) == (place, base.keys)
    path.write_text(shipped)
    assert kept(tmp_path)[1] == place
    path.write_text(settings_text.with_values(shipped, {"finetune.strategy.learning_rate": 0.004}))
    other = kept(tmp_path)[1]
    assert other != place
    path.write_text(settings_text.with_values(shipped, {"finetune.patience": 9}))
    assert kept(tmp_path)[1] not in (place, other)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--minutes", "0"), "give --minutes above 0"),
        (("--minutes", "1", "--trials", "1"), "--trials of at least 2"),
        (("--minutes", "1", "--keys", "rate"), "no such key is tuned here"),
        (
            ("--minutes", "1", "--metric", "validation_acuracy"),
            "finetune does not tell validation_acuracy. It tells: val",
        ),
    ],
)
def test_mistakes_of_the_command_line(words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.tune import Wish

    options = dict(zip(words[::2], words[1::2]))
    wish = Wish(
        float(options["--minutes"]),
        int(options["--trials"]) if "--trials" in options else None,
        (options["--keys"],) if "--keys" in options else None,
        options.get("--metric", "validation_loss"),
    )
    with pytest.raises(InputError, match=told):
        tune.tune(miniature.REPOSITORY, wish)


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.__main__ import main

    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    assert "\n  python -m pipelines tune --minutes 30" in capsys.readouterr().out
