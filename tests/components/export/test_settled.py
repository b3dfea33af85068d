"""A model made again takes the variant that was decided, whatever the clock says now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.contracts import InputError
from components.export import decision, ladder

QUICK, SLOW = {"1": 1.0, "16": 1.0}, {"1": 9.0, "16": 9.0}


@pytest.fixture
def rungs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ladder.Rung]:
    """Two that may ship, of which times alone decide; their losses are not the matter here."""
    monkeypatch.setattr(decision, "_too_much", lambda rung, most: "loses too much" if rung.told == "bad" else "")
    (tmp_path / "x.onnx").write_bytes(b"")
    return [ladder.Rung(name, place=tmp_path / "x.onnx") for name in ("fp32", "fp16")]


def decided(rungs: list[ladder.Rung], quick: str, pinned: str = "auto") -> decision.Decision:
    return decision.decide(rungs, {r.name: QUICK if r.name == quick else SLOW for r in rungs}, 0.02, 1.2, pinned)


def test_other_times_do_not_change_a_recorded_decision(rungs: list[ladder.Rung]) -> None:
    recorded = decision.record(rungs, decided(rungs, "fp16"))
    now = decided(rungs, "fp32")
    assert (recorded["variant"], now.variant) == ("fp16", "fp32")
    again = decision.settle(now, rungs, 0.02, recorded)
    assert decision.record(rungs, again) == recorded, "byte for byte"
    assert again.measured == "fp32", "what measuring again would decide is kept"


def test_without_a_record_or_with_a_pin_nothing_is_settled(rungs: list[ladder.Rung]) -> None:
    now = decided(rungs, "fp32")
    assert decision.settle(now, rungs, 0.02, {}) == now
    pinned = decided(rungs, "fp32", pinned="fp32")
    assert decision.settle(pinned, rungs, 0.02, decision.record(rungs, decided(rungs, "fp16"))) == pinned


def test_a_recorded_variant_that_may_not_ship_here_is_not_taken(rungs: list[ladder.Rung]) -> None:
    recorded = decision.record(rungs, decided(rungs, "fp16"))
    worse = [rungs[0], ladder.Rung("fp16", told="bad", place=rungs[1].place)]
    now = decided(worse, "fp16")
    assert now.variant == "fp32"
    assert decision.settle(now, worse, 0.02, recorded) == now


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rungs": 3}, "rungs"),
        ({"rungs": [{"name": "fp32"}]}, "rungs"),
        ({"variant": None}, "variant"),
        ({"decided": "by hand"}, "neither measured nor pinned"),
    ],
)
def test_what_is_no_record_is_told(change: dict[str, Any], told: str, rungs: list[ladder.Rung]) -> None:
    recorded = decision.record(rungs, decided(rungs, "fp16"))
    assert decision.not_a_record(recorded) == ""
    assert told in decision.not_a_record({**recorded, **change})
    with pytest.raises(InputError, match="recorded decision of `export`"):
        decision.settle(decided(rungs, "fp32"), rungs, 0.02, {**recorded, **change})
    assert decision.not_a_record([]) == "it holds no keys"
