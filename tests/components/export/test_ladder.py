"""The ladder: figures worked out by hand, and the decision for every case."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_networks

from components import plugins
from components.contracts import InputError, Interval
from components.decisions import multi_label, single_label
from components.export import decision, ladder
from components.export.graph import Samples
from components.export.ladder import Loss, Rung


def rung(name: str, low: float = 0.0, flips: int = 0, why_not: str = "") -> Rung:
    loss = Loss(500, 0.9, Interval(low + 0.004, low, low + 0.008), flips, {})
    return Rung(name, why_not=why_not, place=Path("x") if not why_not else None, losses={"validation": loss})


def ms(**each: tuple[float, float]) -> dict[str, dict[str, float]]:
    return {name: {"1": one, "16": sixteen} for name, (one, sixteen) in each.items()}


def test_the_fastest_within_the_loss_ships() -> None:
    rungs = [rung("fp32"), rung("fp16", -0.001), rung("int8_static", -0.009)]
    found = decision.decide(rungs, ms(fp32=(10, 100), fp16=(8, 80), int8_static=(4, 30)), 0.01, 1.2, "auto")
    assert (found.variant, found.decided, found.measured) == ("int8_static", "measured", "int8_static")
    assert found.reasons["int8_static"] == (
        "ships: of those that lose at most 1 points of accuracy (95 % interval) and are at least 1.2 times as fast as "
        "fp32, the simplest of which no other is 1.2 times as fast"
    )
    assert found.reasons["fp16"] == found.reasons["fp32"] == decision.NOT_CHOSEN


def test_one_that_loses_too_much_never_ships_and_is_told() -> None:
    rungs = [rung("fp32"), rung("int8_static", -0.0101, flips=4)]
    found = decision.decide(rungs, ms(fp32=(10, 100), int8_static=(1, 10)), 0.01, 1.2, "auto")
    assert found.variant == "fp32"
    assert found.reasons["int8_static"] == (
        "on 500 validation samples it may lose 1 points of accuracy (4 labels flip); export.max_loss allows 1"
    )
    assert decision.decide(rungs, ms(fp32=(10, 100), int8_static=(1, 10)), 0.0102, 1.2, "auto").variant == "int8_static"


@pytest.mark.parametrize("faster", [(8.4, 10), (1, 84), (12, 120)], ids=["tie at batch 1", "tie at batch 16", "slower"])
def test_a_tie_goes_to_the_simpler(faster: tuple[float, float]) -> None:
    found = decision.decide([rung("fp32"), rung("fp16")], ms(fp32=(10, 100), fp16=faster), 0.01, 1.2, "auto")
    assert found.variant == "fp32"
    assert found.why == (
        "nothing else loses at most 1 points of accuracy (95 % interval) and is at least 1.2 times as fast"
    )
    assert found.reasons["fp16"] == decision.NOT_CHOSEN


@pytest.mark.parametrize(
    ("times", "ships"),
    [
        ({"fp16": (5, 50), "int8_static": (4.5, 45)}, "fp16"),  # a tie of two
        ({"fp16": (8.3, 83), "int8_static": (7.0, 70)}, "fp16"),  # the same, both just faster than float32
        ({"fp16": (8.4, 84), "int8_static": (7.0, 70)}, "int8_static"),  # the simpler one is not faster than float32
        ({"fp16": (5, 50), "int8_static": (4.1, 41)}, "int8_static"),
        ({"fp16": (5, 50), "int8_static": (2, 49)}, "fp16"),  # at batch 1 alone
        ({"fp16": (8.3, 83), "int8_dynamic": (7.0, 70), "int8_static": (6.0, 60)}, "int8_dynamic"),
    ],
)
def test_the_fastest_is_held_against_every_simpler_one(times: dict[str, tuple[float, float]], ships: str) -> None:
    rungs = [rung("fp32"), *map(rung, times)]
    assert decision.decide(rungs, ms(fp32=(10, 100), **times), 0.01, 1.2, "auto").variant == ships


def test_random_times_always_give_one_that_nothing_beats_clearly() -> None:
    rng, names = np.random.default_rng(0), ["fp32", "fp16", "int8_dynamic", "int8_static"]
    seen = set()
    for _ in range(2000):
        times = {name: tuple(rng.uniform(1, 3, 2)) for name in names}
        for least in (1.0, 1.2):
            ships = decision.decide([rung(n) for n in names], ms(**times), 0.01, least, "auto").variant
            seen.add(ships)
            ratios = {n: min(a / b for a, b in zip(times[ships], times[n])) for n in names}
            simpler = names[1 : names.index(ships)]
            assert not any(ratios[n] >= max(least, 1.0000001) for n in names if n != ships)
            fast = [n for n in simpler if min(a / b for a, b in zip(times["fp32"], times[n])) >= least]
            assert all(
                any(min(a / b for a, b in zip(times[n], times[m])) >= least for m in names if m != n) for n in fast
            )
    assert seen == {*names}


def test_reasons_hold_no_measured_time(tmp_path: Path) -> None:
    """Times on either side of every threshold that do not change who ships give the same bytes."""
    (tmp_path / "x").write_bytes(b"1")
    rungs = [rung("fp32"), rung("fp16"), rung("int8_static"), rung("bad", -0.5, 9), rung("none", why_not="not tried")]
    rungs = [replace(one, place=one.place and tmp_path / "x") for one in rungs]
    for pinned, ships in (("auto", "int8_static"), ("fp16", "fp16"), ("auto", "fp32")):
        best = 9.9 if ships == "fp32" else 4.0
        found = [
            decision.decide(rungs, ms(fp32=(10, 100), fp16=(t, 10 * t), int8_static=(b, 10 * b), bad=(1, 1)), 0.01,
                            1.2, pinned)
            for t, b in ((9.8, best), (best * 1.5, best), (12, best * 0.95), (40, best))
            if ships != "fp32" or t > 9
        ]  # fmt: skip
        assert {one.variant for one in found} == {ships}
        assert len({json.dumps(decision.record(rungs, one), default=vars) for one in found}) == 1


def test_a_pinned_one_ships_whatever_the_times_and_says_what_they_would_choose() -> None:
    rungs = [rung("fp32"), rung("fp16"), rung("int8_static", -0.5, 9)]
    slow = decision.decide(rungs, ms(fp32=(1, 1), fp16=(5, 5), int8_static=(1, 1)), 0.01, 1.2, "fp16")
    fast = decision.decide(rungs, ms(fp32=(9, 9), fp16=(5, 5), int8_static=(1, 1)), 0.01, 1.2, "fp16")
    assert (slow.variant, slow.decided, slow.measured, fast.measured) == ("fp16", "pinned", "fp32", "fp16")
    assert slow.reasons == fast.reasons
    assert slow.reasons["fp32"] == "not asked for: export.variant pins fp16"


@pytest.mark.parametrize("low", [-0.5, None])
def test_a_pinned_one_that_may_not_ship_is_refused(low: float | None) -> None:
    one = rung("fp16", why_not="not tried: it is small") if low is None else rung("fp16", low, 9)
    with pytest.raises(
        decision.VariantError, match=r"export\.variant pins fp16.*(small|lose 50)(.|\n)*export\.max_loss"
    ):
        decision.decide([rung("fp32"), one], ms(fp32=(1, 1), fp16=(1, 1)), 0.01, 1.2, "fp16")


def outputs(decided: list[Any]) -> dict[str, np.ndarray]:
    found = np.array(decided, np.int64)
    name = "label" if found.ndim == 1 else "labels"
    return {name: found, "probabilities": np.ones((len(found), 2)), "embedding": np.ones((len(found), 3))}


def test_losses_are_paired_against_float32() -> None:
    """Of six samples float32 has four right; the other one more, one less, and a wrong one wrong in another way."""
    truth = np.eye(3, dtype=bool)[[0, 0, 0, 0, 0, 0]]
    answers = {"fp32": outputs([0, 0, 0, 0, 1, 1]), "fp16": outputs([0, 0, 0, 1, 0, 2])}
    rungs = [Rung("fp32", place=Path("fp32")), Rung("gone", why_not="not made"), Rung("fp16", place=Path("fp16"))]
    found = ladder.measure(rungs, lambda place, split: answers[place.name], {"validation": truth}, single_label)
    assert found[1] == rungs[1]
    first, other = (found[i].losses["validation"] for i in (0, 2))
    assert (first.accuracy, first.flips, first.gain.value) == (pytest.approx(4 / 6), 0, 0.0)
    assert (other.accuracy, other.flips, other.gain.value) == (pytest.approx(4 / 6), 3, 0.0)
    assert other.gain.high == pytest.approx(-other.gain.low)
    assert other.gain.high == pytest.approx(1.959964 * np.sqrt(3) / 8)
    assert other.outputs["embedding"]["relative"] == 0


def test_flips_are_counted_in_batches_of_other_sizes() -> None:
    """One whose answers change where it is asked alone."""
    truth = np.eye(3, dtype=bool)[[0, 0, 0]]
    answers = {"fp32": outputs([0, 0, 1]), "fp16": outputs([0, 0, 1])}
    others = {1: (np.array([0, 2]), outputs([0, 2])), 7: (np.arange(3), outputs([0, 0, 1]))}
    rungs = [Rung(name, place=Path(name)) for name in answers]
    found = ladder.measure(
        rungs,
        lambda place, split: answers[place.name],
        {"validation": truth},
        single_label,
        lambda place, split: others,
    )
    assert found[0].losses["validation"].batches == {}
    loss = found[1].losses["validation"]
    assert loss.flips == 0
    assert loss.batches == {"1": {"num_samples": 2, "flips": 1}, "7": {"num_samples": 3, "flips": 0}}


def test_no_answer_in_time_ends_the_stage_and_concludes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Load on the machine must not decide what is written."""
    from components.export import trial

    onnx.save(tiny_networks.convolutions(), str(tmp_path / "fp16.onnx"))
    monkeypatch.setattr(trial, "MAX_SECONDS", 0)
    with pytest.raises(InputError, match="fp16 gave no answer"):
        ladder.costs([Rung("fp16", place=tmp_path / "fp16.onnx")], {}, 1, lambda text: None)


def test_of_several_labels_the_whole_set_counts() -> None:
    truth = np.array([[1, 0], [1, 1], [0, 0]], bool)
    answers = {"fp32": outputs([[1, 0], [1, 1], [0, 0]]), "fp16": outputs([[1, 0], [1, 0], [0, 0]])}
    rungs = [Rung(name, place=Path(name)) for name in answers]
    found = ladder.measure(rungs, lambda place, split: answers[place.name], {"validation": truth}, multi_label)
    assert (found[1].losses["validation"].flips, found[1].losses["validation"].accuracy) == (1, pytest.approx(2 / 3))


def test_outputs_that_are_not_finite_never_ship() -> None:
    truth = np.eye(3, dtype=bool)[[0, 0]]
    broken = {**outputs([0, 0]), "embedding": np.array([[np.nan], [1.0]])}
    answers = {"fp32": outputs([0, 0]), "fp16": broken}
    rungs = [Rung(name, place=Path(name)) for name in answers]
    found = ladder.measure(rungs, lambda place, split: answers[place.name], {"validation": truth}, single_label)
    decided = decision.decide(found, ms(fp32=(10, 10), fp16=(1, 1)), 1.0, 1.2, "auto")
    assert (decided.variant, decided.reasons["fp16"]) == ("fp32", "some of its outputs are not finite")


def test_rungs_are_built_or_say_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_networks.convolutions()
    batches = tiny_networks.batches(network)
    names = ("fp32", "int8_dynamic", "int8_static")
    choices = [plugins.choose("export.rungs", name) for name in names]
    monkeypatch.setattr(choices[2].load(), "made", lambda *rest: (onnx.ModelProto(), ""))
    found = ladder.build(network, choices, Samples(batches, batches, 2), lambda n: n, tmp_path, lambda text: None)
    assert [r.name for r in found] == [*names]
    assert found[0].size_mb == round((tmp_path / "fp32.onnx").stat().st_size / 1e6, 3)
    assert found[1].why_not.startswith("not tried: less than a fifth")
    assert found[2].why_not.startswith("not made: ONNX Runtime does not take it")
    assert (found[1].place, found[2].place, str(tmp_path) in found[2].why_not) == (None, None, False)


def test_processes_of_their_own_answer_and_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.export import blessing, runtime

    network = tiny_networks.convolutions()
    place = tmp_path / "fp32.onnx"
    onnx.save(network, str(place))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    feed = tiny_networks.batches(network)[0]
    rungs = [Rung("fp32", place=place), Rung("fp16", place=tmp_path / "broken.onnx"), Rung("none", why_not="no")]
    told, costs = ladder.costs(rungs, {1: {"pixels": feed["pixels"][:1]}, 16: feed}, 1, lambda text: None)
    assert told[1].why_not.startswith("in a process of its own it does not load")
    assert (str(tmp_path) in told[1].why_not, "broken.onnx" in told[1].why_not) == (False, True)
    assert set(costs) == {"fp32"}
    one = costs["fp32"]["latency_ms"]["1"]
    assert 0 < one["low"] <= one["median"] <= one["high"]
    assert one["median"] < costs["fp32"]["latency_ms"]["16"]["median"]
    assert 20 < costs["fp32"]["memory_mb"] < 400

    labels = runtime.ask(runtime.open_session(place, 1), feed)["label"]
    good, measured = blessing.load_and_query(place, 1, [feed], labels, "label")
    assert (good.passed, good.value, good.margin) == (True, 0.0, 0.0)
    assert "fewer than 100" in good.why
    many, _ = blessing.load_and_query(place, 1, [feed] * 7, np.tile(labels, 7), "label")
    assert (many.passed, many.why.endswith("when it was measured")) == (True, True)
    none, _ = blessing.load_and_query(place, 1, [], labels[:0], "label")
    assert (none.passed, none.value) == (False, None)
    assert measured["load_seconds"] > 0
    bad, _ = blessing.load_and_query(place, 1, [feed], (labels + 1) % 4, "label")
    assert (bad.passed, bad.value, bad.why) == (
        False, 16.0, "it loads and answers 16 test samples; 16 of the labels differ from those that this file gave "
        "when it was measured; the test split has fewer than 100 samples",
    )  # fmt: skip
    gone, _ = blessing.load_and_query(place, 1, [{"pixels": feed["pixels"][:, :1]}], labels, "label")
    assert (gone.passed, gone.value) == (False, None)
    assert "it fails" in gone.why


def test_a_process_that_dies_is_told(tmp_path: Path) -> None:
    from components.export import trial

    place = tmp_path / "fp32.onnx"
    onnx.save(tiny_networks.convolutions(), str(place))
    with trial.Trial(place, 1) as one:
        one._process.kill()
        with pytest.raises(trial.TrialError, match="its process ended"):
            one.answers([])


@pytest.mark.parametrize(("most", "passed"), [(2.0, True), (1.9, False), (None, True)])
def test_budgets_are_rules_and_measured_ones_tell_no_figure(most: float | None, passed: bool) -> None:
    from components.export import blessing

    rules = [
        *blessing.budget("max_size_mb", 2.0, most, "MB", stable=True),
        *blessing.budget("max_latency_ms", 2.0, most, "ms", stable=False),
    ]
    verdict = blessing.verdict(rules)
    assert (verdict.stage, verdict.passed, len(rules)) == ("export", passed, 0 if most is None else 2)
    if most is not None:
        assert (rules[0].value, rules[0].limit, rules[1].value, rules[1].margin) == (2.0, most, None, None)
        assert "2 ms (" not in rules[1].why.replace("2 ms (measured", "")
        assert "export.max_latency_ms" in rules[1].why


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    from components.export import picture

    costs = {name: {"latency_ms": {"1": {"low": at}}} for name, at in (("fp32", 4.0), ("fp16", 5.0))}
    place = tmp_path / "fp32.onnx"
    place.write_bytes(b"0" * 1000)
    rungs = [SimpleNamespace(**vars(rung(name)), size_mb=1.0) for name in costs]
    picture.draw(rungs, costs, "fp32", 0.01, tmp_path / "ladder.png")  # type: ignore[arg-type]
    assert (tmp_path / "ladder.png").read_bytes().startswith(b"\x89PNG")
