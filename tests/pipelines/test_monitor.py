"""The monitor on a real bundle: each new sample is judged once; a failed rule retrains, with its cause, in bounds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import monitored
import pytest
from ruamel.yaml import YAML

from components.contracts import InputError, Refused, read_json
from pipelines import looks, monitor, notices, operations, retrain, runs
from pipelines.triggers import Trigger

REPOSITORY = Path(__file__).parents[2]
RULES = [
    {"metric": "monitor.share_of_columns", "at_most": 0.3},
    {"metric": "monitor.embeddings_drifted", "at_most": 0},
]


@pytest.fixture(scope="session")
def _watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = monitored.images(tmp_path_factory)
    root = Path(shutil.copytree(made, tmp_path_factory.mktemp("watched") / "project", symlinks=True))
    for name in (
        "dvc.yaml",
        "params.yaml",
        "infra/operations.yaml",
        "infra/libraries.yaml",
        ".dvc/config",
        ".gitignore",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, root / name)
    edit(root / "params.yaml", lambda p: p["ingest"].update(source={"name": "image_folder"}, data="data"))
    settings = {"min_samples": 40, "columns": {"name": "ks"}, "rules": RULES}
    edit(root / "infra/operations.yaml", lambda o: o["monitor"].update(settings))
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


@pytest.fixture
def project(_watched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_watched, tmp_path / "project", symlinks=True))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    yaml = YAML()
    values = yaml.load(path)
    change(values)
    yaml.dump(values, path)


def set_up(root: Path, **settings: Any) -> None:
    edit(root / "infra/operations.yaml", lambda o: o["monitor"].update(settings))


def arrive(root: Path, num: int, seed: int, shifted: bool = False) -> None:
    monitored.more_images(root / "data", num, seed, shifted)


Drifted = Callable[[Path], looks.Looked]


class Training:
    """Stands in for the flow `train`, and leaves a record as it does."""

    def __init__(self, code: int = 0) -> None:
        self.code, self.triggers = code, list[Trigger]()

    def __call__(self, root: Path, trigger: Trigger) -> tuple[int, str]:
        self.triggers.append(trigger)
        with runs.recorded(root, "train", trigger) as run:
            run.end(self.code, "as told", ("ingest",))
        return self.code, "the gate refused" if self.code else ""


def test_nothing_new_waits_then_quiet_then_drift_and_each_sample_is_judged_once(project: Path) -> None:
    first = monitor.look(project)
    assert (first.state, first.num_new) == ("waiting", 0)
    assert "monitor.min_samples" in first.told
    arrive(project, 30, 1)
    assert monitor.look(project).num_new == 30
    arrive(project, 20, 2)
    quiet = monitor.look(project)
    assert (quiet.state, quiet.num_new, quiet.again) == ("quiet", 50, False)
    again = monitor.look(project)
    assert again == replace(quiet, again=True)
    arrive(project, 45, 3, shifted=True)
    drift = monitor.look(project)
    assert (drift.state, drift.num_new) == ("drift", 45), "the others were judged before"
    assert any("monitor.embeddings_drifted" in line for line in drift.failed)
    told = read_json(project / "reports/monitor/verdict.json")
    assert (told["stage"], told["passed"]) == ("monitor", False)
    assert [one["state"] for one in looks.past(project)] == ["quiet", "drift"]
    page = (project / "reports/monitor/index.html").read_text()
    assert "Not as it was" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_a_finding_stays_while_too_few_new_ones_arrive_and_goes_when_they_are_well(project: Path) -> None:
    arrive(project, 45, 3, shifted=True)
    drift = monitor.look(project)
    assert drift.state == "drift"
    arrive(project, 5, 4)
    kept = monitor.look(project)
    assert (kept.state, kept.again, kept.failed) == ("drift", True, drift.failed)
    arrive(project, 50, 5)
    assert monitor.look(project).state == "quiet"


def test_a_half_copied_file_is_looked_at_again_without_any_other_change(project: Path) -> None:
    place = project / "data" / "circle" / "half.png"
    place.write_bytes(b"\x89PNG\r\n\x1a\n half")
    assert "on the way" in monitor.look(project).told
    assert not monitor.look(project).again, "nothing changed, but a minute may have passed"
    old = time.time() - 3600
    os.utime(place, (old, old))
    assert "1 cannot be read" in monitor.look(project).told
    assert monitor.look(project).again


def test_a_bundle_that_does_not_verify_is_refused(project: Path) -> None:
    (project / "artifacts/handoff/bundle/labels.json").write_text("[]")
    with pytest.raises(Refused, match=r"labels\.json"):
        monitor.look(project)


def test_what_is_live_is_looked_at_and_refused_if_it_is_not_what_went_live(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signed

    from components.handoff import signing
    from components.lineage import hash_file
    from pipelines import pointer

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-keys"))
    made = project / "releases" / "digits-1.0.0"
    made.parent.mkdir()
    signing.seal(project / "artifacts/handoff/bundle", made, signed.private_key(), "digits", "1.0.0")
    digest = hash_file(made / "attestation.dsse.json")
    entry = pointer.Entry("digits", "1.0.0", digest, "2026-01-01T00:00:00+00:00", "me", "", "")
    with pointer.changing(project):
        pointer.write(project, pointer.promoted(None, "production", entry))
    arrive(project, 45, 1)
    looked = monitor.look(project)
    assert (looked.state, looked.bundle) == ("quiet", "digits 1.0.0 (production)")
    assert looks.past(project)[-1]["metrics"]["days_live"] > 0
    assert monitor.look(project).again
    (made / "labels.json").chmod(0o644)
    (made / "labels.json").write_text("[]")
    arrive(project, 1, 2)
    with pytest.raises(Refused, match=r"labels\.json"):
        monitor.look(project)


def test_data_that_are_not_there_and_no_model_are_told(project: Path) -> None:
    set_up(project, data="arrivals")
    with pytest.raises(InputError, match=r"monitor\.data: .*arrivals is not there"):
        monitor.look(project)
    set_up(project, data=None)
    shutil.rmtree(project / "artifacts/handoff")
    with pytest.raises(InputError, match="no model to look at"):
        monitor.look(project)


def test_a_lost_or_damaged_memory_costs_a_look_and_nothing_else(project: Path) -> None:
    arrive(project, 50, 2)
    first = monitor.look(project)
    (project / ".graftline/monitor/state.json").write_text("{")
    second = monitor.look(project)
    assert (first.state, second.state) == ("quiet", "waiting"), "what was judged is remembered beside it"
    shutil.rmtree(project / ".graftline/monitor")
    assert monitor.look(project).num_new == 50


# --- acting ---


@pytest.fixture(scope="session")
def _drifting(_watched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(_watched, tmp_path_factory.mktemp("drifting") / "project", symlinks=True))
    arrive(root, 45, 3, shifted=True)
    assert monitor.look(root).state == "drift"
    return root


@pytest.fixture
def drifted(_drifting: Path) -> Drifted:
    """Brings a project to where a look has found drift: with what that look left, so that it need not be repeated."""

    def bring(root: Path) -> looks.Looked:
        for name in ("data", ".graftline", "reports"):
            shutil.copytree(_drifting / name, root / name, dirs_exist_ok=True)
        looked = monitor.look(root)
        assert looked.again
        return looked

    return bring


def test_a_failed_rule_retrains_once_with_its_cause(project: Path, drifted: Drifted) -> None:
    looked, training = drifted(project), Training()
    code, told = monitor.act(project, looked, "the-run", False, training)
    assert code == 0
    assert told.startswith("Retrained, because ")
    (trigger,) = training.triggers
    assert (trigger.kind, trigger.who, trigger.run) == ("drift", "monitor", "the-run")
    assert "embeddings have drifted (p = " in trigger.cause
    assert "monitor.embeddings_drifted at most 0: 1 is above 0, by 1" in trigger.cause
    later = monitor.look(project)
    assert later.code == 0
    assert monitor.act(project, later, "another", False, training) == (0, told)
    assert len(training.triggers) == 1
    assert [one["event"] for one in notices.history(project)] == ["drift"]


def test_what_is_refused_is_told_and_stays_so(project: Path, drifted: Drifted) -> None:
    edit(project / "infra/operations.yaml", lambda o: o["notify"].update(on=["drift", "refused"]))
    looked, training = drifted(project), Training(3)
    code, told = monitor.act(project, looked, "a", False, training)
    assert (code, "the gate refused" in told) == (3, True)
    assert monitor.act(project, monitor.look(project), "b", False, training)[0] == 3
    assert len(training.triggers) == 1
    assert [one["event"] for one in notices.history(project)] == ["refused", "drift"]


def test_cool_down_and_limit_hold_back_and_pass(project: Path) -> None:
    settings = operations.read(project).monitor
    now = 2_000_000_000.0

    def record(hours: float, kind: str = "drift", state: str = "done", flow: str = "train") -> runs.Record:
        began = now - 3600 * hours
        return runs.Record(f"{hours}", flow, Trigger(kind), began, began + 60, state)

    assert monitor.held_back([], settings, now) == ""
    told = monitor.held_back([record(23)], settings, now)
    assert "cool_down_hours" in told
    assert "the next may begin 2033-05-18 04:34 UTC" in told
    assert monitor.held_back([record(25)], settings, now) == ""
    others = [record(1, "hand"), record(1, flow="monitor"), record(1, state="unchanged"), record(1, state="crashed")]
    assert monitor.held_back(others, settings, now) == "", "only retrainings for drift that came to an end cool down"
    four = [record(h) for h in (160, 120, 80, 40)]
    assert "max_retrainings" in monitor.held_back(four, settings, now)
    assert "2033-05-18 11:33 UTC" in monitor.held_back(four, settings, now), "a week after the first of them"
    assert monitor.held_back([record(170), *four[1:]], settings, now) == ""
    assert monitor.held_back([record(40, state="crashed"), *four[:3]], settings, now) != "", "the limit counts them"
    assert "4 retrainings" in monitor.held_back([], settings, now, [now - 3600 * h for h in (160, 120, 80, 40)])
    assert monitor.held_back([], settings, now, [now - 3600 * h for h in (170, 120, 80, 40)]) == "", "a week ago"


def test_a_resumed_retraining_cools_down_and_is_one_with_its_first_go() -> None:
    settings = operations.read(REPOSITORY).monitor
    now = 2_000_000_000.0
    died = runs.Record("died", "train", Trigger("drift"), now - 9000, now - 8000, "crashed")
    again = Trigger("resume", "monitor", "drift: the light has changed", "died")
    resumed = runs.Record("resumed", "train", again, now - 7000, now - 3600, "done", of="died")
    assert monitor.held_back([died], settings, now) == ""
    for records in ([resumed, died], [resumed]):  # the first one may be pruned
        assert "cool_down_hours" in monitor.held_back(records, settings, now)
    by_hand = replace(resumed, trigger=Trigger("resume", "me", "hand: drifting along", "other"), of="other")
    assert monitor.held_back([by_hand], settings, now) == ""
    one = settings.model_copy(update={"max_retrainings": 2, "cool_down_hours": 0})
    assert monitor.held_back([resumed, died], one, now) == "", "one retraining, in two goes"
    looked = runs.Record("looked", "monitor", Trigger("resume"), now - 7000, now - 3600, "done")
    inside = replace(resumed, of="", trigger=Trigger("resume"), within="looked")
    assert "cool_down_hours" in monitor.held_back([looked, inside], settings, now)
    circle = replace(resumed, id="died", of="resumed", within="")
    assert "cool_down_hours" in monitor.held_back([circle, replace(resumed, of="died")], settings, now), "ends, too"


def test_held_back_is_noticed_once_and_goes_on_when_it_may(
    project: Path, drifted: Drifted, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, training = drifted(project), Training()
    with runs.recorded(project, "train", Trigger("drift")) as run:
        run.end(0, "", ("ingest",))
    for _ in range(2):
        code, told = monitor.act(project, monitor.look(project), "x", False, training)
        assert code == 3
        assert "cool_down_hours" in told
    assert len(notices.history(project)) == 1
    later = time.time() + 25 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert monitor.act(project, monitor.look(project), "x", False, training)[0] == 0
    assert len(training.triggers) == 1
    assert looked.state == "drift"


def test_only_look_and_nothing_do_nothing(project: Path, drifted: Drifted) -> None:
    looked, training = drifted(project), Training()
    assert monitor.act(project, looked, "x", True, training) == (3, "A rule failed. Not retrained: only looked.")
    set_up(project, then="nothing")
    assert "monitor.then" in monitor.act(project, looked, "x", False, training)[1]
    assert training.triggers == []


def test_nothing_new_to_train_on_is_told_and_does_not_run(
    project: Path, drifted: Drifted, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import dvc_cli

    monkeypatch.setattr(dvc_cli, "stale", lambda root: {})
    looked, training = drifted(project), Training()
    assert "run on these data already" in monitor.act(project, looked, "x", False, training)[1]
    set_up(project, data="arrivals")
    told = monitor.why_held(project, replace(looked, data="arrivals"), operations.read(project).monitor, time.time())
    assert told == "ingest.data (data) holds nothing new. Label what lies in arrivals and put it there"
    assert training.triggers == []


def test_a_retraining_that_died_is_gone_on_with(
    project: Path, drifted: Drifted, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = drifted(project)

    def dies(root: Path, trigger: Trigger) -> tuple[int, str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        monitor.act(project, looked, "first", False, dies)
    again = monitor.look(project)
    assert (again.retraining, again.code) == ("first", None)
    training = Training()
    assert monitor.act(project, again, "second", False, training)[0] == 0
    assert len(training.triggers) == 1
    assert len(notices.history(project)) == 1


def test_one_that_takes_all_down_is_not_begun_for_ever_and_a_person_is_told(
    project: Path, drifted: Drifted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where it leaves no record."""
    drifted(project)
    begun: list[Trigger] = []

    def dies(root: Path, trigger: Trigger) -> tuple[int, str]:
        begun.append(trigger)
        raise KeyboardInterrupt

    most = operations.read(project).monitor.max_retrainings
    for _ in range(most):
        with pytest.raises(KeyboardInterrupt):
            monitor.act(project, monitor.look(project), "x", False, dies)
    for _ in range(3):
        code, told = monitor.act(project, monitor.look(project), "x", False, dies)
        assert (code, "max_retrainings" in told) == (3, True)
    assert len(begun) == most
    assert ["a person must look" in one["text"] for one in notices.history(project)] == [True, False]
    arrive(project, 45, 7, shifted=True)
    assert "max_retrainings" in monitor.act(project, monitor.look(project), "x", False, dies)[1], "another finding"
    later = time.time() + monitor.WEEK
    monkeypatch.setattr(time, "time", lambda: later)
    assert monitor.act(project, monitor.look(project), "x", False, Training())[0] == 0


@pytest.mark.parametrize("failure", [1, 2, 124])
def test_one_that_failed_is_tried_again_after_the_cool_down(
    project: Path, drifted: Drifted, monkeypatch: pytest.MonkeyPatch, failure: int
) -> None:
    drifted(project)
    training = Training(failure)
    first = monitor.go(project, train=training)
    assert (first[0], "Retraining failed" in first[1]) == (failure, True)
    for _ in range(2):
        code, told, _ = monitor.go(project, train=training)
        assert code == failure
        assert "cool_down_hours" in told
        assert "Retraining failed" in told
    assert len(training.triggers) == 1
    assert runs.history(project)[0].state == "unchanged"
    later = time.time() + 25 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    mended = Training()
    code, told, _ = monitor.go(project, train=mended)
    assert (code, told.startswith("Retrained, because")) == (0, True)
    assert len(mended.triggers) == 1
    assert monitor.go(project, train=mended)[:2] == (0, told)
    assert len(mended.triggers) == 1


def test_what_follows_is_gone_on_with_at_the_next_look_without_another_retraining(
    project: Path, drifted: Drifted, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import dvc_cli

    gone: list[str] = []
    in_the_way = [True]

    def after(root: Path, cause: str, run: str) -> list[str]:
        gone.append(run)
        if in_the_way:
            raise InputError("the work tree is not clean: notes.txt")
        return ["released", "promoted"]

    monkeypatch.setattr(retrain, "after", after)
    drifted(project)
    training = Training()
    assert monitor.go(project, train=training)[0] == 2
    monkeypatch.setattr(dvc_cli, "stale", lambda root: {})
    code, told, _ = monitor.go(project, train=training)
    assert (code, "notes.txt" in told, "what follows is not done" in told) == (2, True, True)
    assert [one["event"] for one in notices.history(project)] == ["refused", "drift"], "told once"
    in_the_way.clear()
    code, told, _ = monitor.go(project, train=training)
    assert (code, told.splitlines()[-1]) == (0, "promoted")
    assert (len(training.triggers), len(gone)) == (1, 3)
    assert monitor.go(project, train=training)[0] == 0
    assert len(gone) == 3


@pytest.mark.parametrize(("code", "event"), [(3, "refused"), (1, "fault")])
def test_how_a_retraining_ended_is_noticed_once(project: Path, drifted: Drifted, code: int, event: str) -> None:
    drifted(project)
    assert monitor.go(project, train=Training(code))[0] == code
    assert [one["event"] for one in notices.history(project)] == [event, "drift"]


def test_the_command_tells_records_and_exits_as_it_says(project: Path) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
        line = [sys.executable, "-m", "pipelines", "monitor", *words]
        return subprocess.run(line, cwd=project, env=environment, capture_output=True, text=True, check=False)

    done = command()
    assert done.returncode == 0, done.stderr
    assert "0 new samples" in done.stdout
    arrive(project, 45, 3, shifted=True)
    done = command("--only-look")
    assert done.returncode == 3, done.stderr
    assert "Not retrained: only looked." in done.stdout
    assert [(one.flow, one.code) for one in runs.history(project)] == [("monitor", 0), ("monitor", 0)], "it did its job"


def test_what_is_remembered_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "MOST_MARKS", 10)
    monkeypatch.setattr(looks, "MOST_LOOKS", 3)
    for n in range(8):
        looks.remember(tmp_path, f"bundle{n}" * 4, [f"{n}-{i}" for i in range(8)])
        looks.remember(tmp_path, f"bundle{n}" * 4, [f"{n}+{i}" for i in range(8)])
        looks.add(tmp_path, {"at": str(n), "metrics": {}})
    assert len(list((tmp_path / looks.FOLDER).glob("*.seen"))) == looks.MOST_BUNDLES
    kept = looks.seen(tmp_path, "bundle7" * 4)
    assert len(kept) == 10
    assert {f"7+{i}" for i in range(8)} <= kept, "the newest"
    assert [one["at"] for one in looks.past(tmp_path)] == ["5", "6", "7"]
    (tmp_path / looks.REPORTS / "history.jsonl").write_text('{"metrics": {}, "at": "x"}\nbroken\n[]\n')
    assert [one["at"] for one in looks.past(tmp_path)] == ["x"]


# --- as a flow ---


def test_the_flow_ends_in_states_that_say_what_was_found_and_leaves_artifacts(
    prefect_server: None, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    from pipelines.flows import monitor as flows

    training = Training()
    monkeypatch.setattr(flows, "_train", training)

    def run(**given: Any) -> Any:
        return flows.monitor(str(project), return_state=True, **given)

    assert run().name == "Waiting for samples"
    arrive(project, 45, 1)
    assert run().name == "No drift"
    arrive(project, 45, 3, shifted=True)
    held = run(only_look=True)
    assert (held.name, held.type.value) == ("Drift: held back", "COMPLETED")
    done = run(trigger="schedule", cause="every minute")
    assert (done.name, done.type.value) == ("Drift: retrained", "COMPLETED")
    (record, *_) = [one for one in runs.history(project) if one.flow == "monitor"]
    assert (record.trigger.kind, record.trigger.cause, record.code) == ("schedule", "every minute", 0)
    assert record.flow_run_id == str(done.state_details.flow_run_id)
    assert training.triggers[0].run == record.id
    with get_client(sync_client=True) as client:
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[done.state_details.flow_run_id]))
        left = {one.key: one for one in client.read_artifacts(artifact_filter=mine)}
    assert set(left) == {"digits-monitor", "digits-monitor-columns"}
    assert "Retrained, because" in left["digits-monitor"].data
    assert (project / "reports/monitor/index.html").as_uri() in left["digits-monitor"].data
    assert '"column": "brightness"' in left["digits-monitor-columns"].data
    assert run(trigger="full moon").name == "Mistake"
    (project / "artifacts/handoff/bundle/labels.json").write_text("[]")
    arrive(project, 1, 9)
    assert run().name == "Refused"


# --- afterwards ---


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "recorded"
    for name in ("dvc.lock", "artifacts/gate/metrics.json", "params.yaml", "infra/operations.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}\n")
    shutil.copy(REPOSITORY / "infra/operations.yaml", root / "infra")
    git(root.parent, "init", "--quiet", str(root))
    git(root, "config", "user.name", "test")
    git(root, "config", "user.email", "test@localhost")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "first")
    return root


def test_only_the_record_is_committed(repository: Path) -> None:
    assert "committed already" in retrain.commit(repository, "drift")
    (repository / "dvc.lock").write_text("new\n")
    (repository / "artifacts/bias").mkdir()
    (repository / "artifacts/bias/metrics.json").write_text("{}\n")
    (repository / "notes.txt").write_text("mine\n")
    told = retrain.commit(repository, "4 of 10 columns differ " + "far " * 40, "20330518T033320000000Z-abcdef")
    assert told.startswith("committed: Retrained: 4 of 10 columns differ")
    assert git(repository, "show", "--name-only", "--format=").split() == ["artifacts/bias/metrics.json", "dvc.lock"]
    body = git(repository, "log", "-1", "--format=%B")
    assert len(body.splitlines()[0]) <= retrain.TITLE
    assert "Run: 20330518T033320000000Z-abcdef" in body
    assert git(repository, "status", "--porcelain") == "?? notes.txt\n"


def test_other_changes_are_named_and_nothing_is_committed(repository: Path) -> None:
    (repository / "dvc.lock").write_text("new\n")
    (repository / "params.yaml").write_text("changed\n")
    with pytest.raises(InputError, match=r"other files differ: params\.yaml"):
        retrain.commit(repository, "drift")
    assert git(repository, "log", "--format=%s").split() == ["first"]
    git(repository, "checkout", "params.yaml")
    retrain.commit(repository, "drift")
    assert retrain.after(repository, "drift") == [], "monitor.then is train: it is left there"


@pytest.mark.parametrize(
    ("then", "steps"),
    [("nothing", []), ("train", []), ("release", ["release"]), ("promote", ["release", "compare", "promote"])],
)
def test_afterwards_goes_as_far_as_then_says(
    repository: Path, monkeypatch: pytest.MonkeyPatch, then: str, steps: list[str]
) -> None:
    from pipelines import promote, release

    done: list[str] = []

    def step(name: str) -> Callable[..., list[str]]:
        return lambda *given: done.append(name) or [name]  # type: ignore[func-returns-value]

    monkeypatch.setattr(release, "release", step("release"))
    monkeypatch.setattr(retrain, "compared", step("compare"))
    monkeypatch.setattr(promote, "promote", step("promote"))
    set_up(repository, then=then)
    git(repository, "commit", "--quiet", "--all", "-m", "settings")
    (repository / "dvc.lock").write_text("new\n")
    told = retrain.after(repository, "drift", "run")
    assert done == steps
    assert bool(steps) == (git(repository, "status", "--porcelain") == "")
    assert told[1:] == steps


def test_a_release_that_the_work_tree_stands_in_the_way_of_can_be_mended_and_is_made_once(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import release

    made: list[Path] = []

    def released(root: Path) -> list[str]:
        if git(root, "status", "--porcelain"):
            raise Refused("the work tree is not clean: notes.txt")
        made.append(root)
        return ["released"]

    monkeypatch.setattr(release, "release", released)
    set_up(repository, then="release")
    git(repository, "commit", "--quiet", "--all", "-m", "settings")
    (repository / "notes.txt").write_text("mine\n")
    with pytest.raises(InputError, match=r"not clean: notes\.txt"):
        retrain.after(repository, "drift")
    (repository / "notes.txt").unlink()
    assert retrain.after(repository, "drift")[1:] == ["released"]
    for place in ("artifacts/handoff/bundle", "releases/mini-0.1.0"):
        (repository / place).mkdir(parents=True)
        (repository / place / "SHA256SUMS").write_text("the same")
    git(repository, "tag", "mini@v0.1.0")
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "later")
    assert retrain.released(repository) == ["mini 0.1.0 is released already"]
    assert len(made) == 1
    (repository / "artifacts/handoff/bundle/SHA256SUMS").write_text("another")
    with pytest.raises(InputError, match="not clean"):
        retrain.released(repository)


def test_a_candidate_that_may_not_go_live_is_told_and_is_not_tried_again(
    project: Path, drifted: Drifted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(root: Path, cause: str, run: str) -> list[str]:
        raise Refused("it loses more than promote.max_loss")

    monkeypatch.setattr(retrain, "after", refuses)
    looked, training = drifted(project), Training()
    code, told = monitor.act(project, looked, "x", False, training)
    assert (code, "Retrained in vain" in told, "max_loss" in told) == (3, True, True)
    assert monitor.act(project, monitor.look(project), "y", False, training) == (3, told)
    assert len(training.triggers) == 1


def test_what_was_measured_of_these_two_decides_a_promotion(tmp_path: Path) -> None:
    import made_by_hand

    from components.contracts import write_json
    from components.lineage import hash_file
    from pipelines import contest

    old, new = (made_by_hand.bundle(tmp_path / name, weight) for name, weight in (("old", 1), ("new", 2)))
    models = {"candidate": hash_file(new / "model.onnx"), "live": hash_file(old / "model.onnx")}
    told = {
        "models": models,
        "num_compared": 150,
        "gain": {"value": 0.1, "low": 0.05, "high": 0.15},
        "note": "so it is",
    }
    write_json(tmp_path / retrain.COMPARISON, told)
    assert "paired on 150 samples of the new test split; so it is" in contest.held(tmp_path, new, old, 0.01)
    worse = {"value": -0.1, "low": -0.15, "high": -0.05}
    write_json(tmp_path / retrain.COMPARISON, {**told, "gain": worse})
    with pytest.raises(Refused, match="it loses more than"):
        contest.held(tmp_path, new, old, 0.01)
    for change in ({"models": {**models, "live": "0" * 64}}, {"num_compared": 99}, {"gain": {}}, {"gain": [1]}):
        write_json(tmp_path / retrain.COMPARISON, {**told, "gain": worse, **change})
        assert "recorded intervals" in contest.held(tmp_path, new, old, 0.01), "of others, or too few"
    (tmp_path / retrain.COMPARISON).write_text("[")
    assert "recorded intervals" in contest.held(tmp_path, new, old, 0.01)


def test_the_live_model_is_measured_on_the_new_test_split(project: Path) -> None:
    """Against itself there is no difference, and what it learnt from is left out."""
    from components.contracts import read_table
    from components.job import Job
    from components.monitoring.against_live import compare

    accepted = read_table(project / retrain.ACCEPTED)
    folder, job = project / "artifacts/handoff/bundle", Job.at(project, "monitor")
    num = int((accepted["split"] == "test").sum())
    found = compare(folder, folder, accepted, None, project, job)
    assert (found["num_compared"], found["gain"]["value"]) == (num, 0.0)
    assert found["gain"]["low"] < 0 < found["gain"]["high"]
    assert "may flatter" in found["note"]
    test = accepted.loc[accepted["split"] == "test", "sha256"]
    found = compare(folder, folder, accepted, frozenset(test[:20]), project, job)
    assert found["num_compared"] == num - 20
    assert "gain" not in compare(folder, folder, accepted, frozenset(test), project, job)
    known = retrain.learnt_from(project, folder)
    assert known is not None
    assert len(known) == len(accepted) - num
    json.dumps(found)
