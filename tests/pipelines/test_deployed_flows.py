"""What the flows of infra/prefect/prefect.yaml have in common: they know what started them, and leave a record."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import served

from components.contracts import InputError
from components.params import load_yaml
from pipelines import promote as promotions
from pipelines import records, retrain
from pipelines.triggers import Trigger

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pipelines" / "flows").mkdir(parents=True)
    served.prepare(tmp_path)
    (tmp_path / "params.yaml").write_text("run: {name: mini}\n")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def started(root: Path) -> list[tuple[str, str, str, str]]:
    """Flow, trigger, cause, state of each run, the newest first."""
    return [(one.flow, one.trigger.kind, one.trigger.cause, one.state) for one in records.history(root)]


@pytest.mark.parametrize(
    ("known", "kind", "who"),
    [
        ({"auto_scheduled": True}, "schedule", "Prefect"),
        ({"created_by": SimpleNamespace(type="AUTOMATION", display_value="on data")}, "event", "on data"),
        ({"created_by": SimpleNamespace(type="USER", display_value="ann")}, "hand", "ann"),
        ({}, "hand", "Prefect"),
    ],
)
def test_what_prefect_knows_of_a_deployments_run(
    known: dict[str, Any], kind: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.flows import origin

    flow_run = {"deployment_id": "one", "auto_scheduled": False, "created_by": None, **known}
    monkeypatch.setattr(origin, "_flow_run", lambda: SimpleNamespace(**flow_run))
    found = origin.trigger("", "")
    assert (found.kind, found.who) == (kind, who)
    told = origin.trigger("data", "new files")
    assert (told.kind, told.cause) == ("data", "new files")


def test_a_kind_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.flows import origin

    with pytest.raises(InputError, match=r"trigger: 'full moon' is none. Known: hand, schedule"):
        origin.trigger("full moon", "")
    monkeypatch.setenv("GRAFTLINE_TRIGGER", "schedule: every night")
    assert origin.trigger("", "").kind == "schedule"


def test_a_backtest_asks_for_the_date_and_is_given_what_the_file_says() -> None:
    from pipelines.flows.backtest import backtest

    schema = backtest.parameters
    (given,) = [
        one["parameters"]
        for one in load_yaml(REPOSITORY / "infra/prefect/prefect.yaml")["deployments"]
        if one["entrypoint"].endswith(":backtest")
    ]
    assert schema.required == ["date"]
    assert set(given) == set(schema.properties) - {"date", "trigger", "cause"}
    assert {name: value for name, value in given.items() if schema.properties[name].get("default") != value} == {}


def test_flows_leave_a_record_with_what_started_them(
    project: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.flows import backtest, prune

    wishes: list[Any] = []
    monkeypatch.setattr(backtest, "replay", lambda root, wish: wishes.append(wish) or 0)
    page = str(project)
    assert backtest.backtest("day", page, trigger="data", cause="a test", return_state=True).is_completed()
    assert backtest.backtest("", page, return_state=True).name == "Mistake"
    assert backtest.backtest("day", page, trigger="full moon", return_state=True).name == "Mistake"
    assert [(one.date, one.period, one.max_cuts, one.min_train, one.min_judged, one.quick) for one in wishes] == [
        ("day", "month", 4, 100, 20, False)
    ]
    done = prune.prune(page, trigger="schedule", cause="weekly", return_state=True)
    assert "work and caches        nothing to remove" in done.message, "its own run is nobody's hindrance"
    assert started(project) == [
        ("prune", "schedule", "weekly", "done"), ("backtest", "hand", "", "mistake"),
        ("backtest", "data", "a test", "done"),
    ]  # fmt: skip
    assert records.history(project)[0].flow_run_id == str(done.state_details.flow_run_id)


def test_what_the_monitor_promotes_is_recorded_as_drifts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrain, "compared", lambda root: ["compared"])
    with pytest.raises(InputError):  # there is nothing to promote
        retrain.promoted(project, "darker", "the-monitors-run")
    with pytest.raises(InputError):
        promotions.promote(project, None, None, None, "by hand")
    hand, drift = records.history(project)
    assert (hand.flow, hand.trigger.kind) == ("promote", "hand")
    assert (drift.flow, drift.trigger) == ("promote", Trigger("drift", "monitor", "darker", "the-monitors-run"))
