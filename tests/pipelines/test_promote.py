"""Promotion, rollback and what is live, with small real signed releases."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import promotable
import pytest

from components.contracts import InputError, Refused, read_json, write_table
from components.export import blessing
from components.lineage import hash_file
from pipelines import blessings, pointer, records
from pipelines.promote import deployed, live, promote, rollback


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the release 1.0.0, and its user's key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    promotable.own_key(tmp_path / "config")
    root = promotable.project(tmp_path / "project")
    released(root, "1.0.0")
    return root


def released(root: Path, version: str, **made: Any) -> Path:
    folder = promotable.release(root, version, **made)
    promotable.commit(root, version)
    return folder


def up(root: Path, which: str | None = None, because: str = "", **more: Any) -> list[str]:
    return promote(root, which, more.pop("environment", None), more.pop("key", None), because, **more)


def back(root: Path, to: str | None = None) -> list[str]:
    return rollback(root, None, None, "it was worse", to)


def now(root: Path) -> pointer.Pointer:
    found = pointer.read(root, "production")
    assert found is not None
    return found


def test_the_newest_release_goes_live_and_who_when_and_why_is_told(root: Path) -> None:
    released(root, "1.2.0")
    released(root, "1.10.0")
    told = up(root, because="asked for by the shop")
    assert "production: net 1.10.0 is live" in told
    found = live(root, full=True)
    assert found is not None
    assert (found.environment, found.name, found.version) == ("production", "net", "1.10.0")
    assert found.folder == root / "releases/net-1.10.0"
    assert found.digest == hash_file(found.folder / "attestation.dsse.json")
    assert (root / "deployed/production").resolve() == found.folder
    told_there = read_json(root / "deployed/production.json")
    assert told_there["because"] == "asked for by the shop"
    assert told_there["bundle"] == "releases/net-1.10.0"
    assert told_there["previous"] is None
    record = records.history(root)[0]
    assert (record.flow, record.state, record.id) == ("promote", "done", told_there["run"])
    assert record.trigger.cause == "asked for by the shop"
    assert told_there["by"] == record.trigger.who != ""


def test_what_lies_in_artifacts_does_not_matter(root: Path) -> None:
    assert not (root / "artifacts").exists()
    up(root)
    assert now(root).live.version == "1.0.0"


def test_environments_are_apart(root: Path) -> None:
    up(root, environment="staging")
    released(root, "1.1.0")
    up(root)
    assert [line.split()[:3] for line in deployed(root, False)[1:]] == [
        ["production", "net", "1.1.0"], ["staging", "net", "1.0.0"],
    ]  # fmt: skip
    for wrong in ("../x", "Big", "", "a" * 70):
        with pytest.raises(InputError, match="--environment"):
            pointer.checked(wrong)


# --- refused ---


def tampered(folder: Path) -> None:
    (folder / "model.onnx").write_text("another model")


def unsigned(folder: Path) -> None:
    (folder / "attestation.dsse.json").unlink()


def linked(folder: Path) -> None:
    folder.rename(folder.with_name("aside"))
    folder.symlink_to("aside")


def with_a_link(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "model.onnx")
    (folder / "model.onnx").symlink_to("../model.onnx")


def replayed(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("net-1.0.0"), folder)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (tampered, r"model\.onnx: other bytes"),
        (unsigned, "the bundle is not signed"),
        (linked, "is a link, and what it leads to may change"),
        (with_a_link, r"model\.onnx: a link or a device"),
        (replayed, r"net-1\.1\.0: what was signed is net-1\.0\.0"),
    ],
)
def test_what_does_not_hold_never_goes_live(harm: Callable[[Path], None], why: str, root: Path) -> None:
    up(root)
    before = (root / "deployed/production.json").read_bytes()
    harm(released(root, "1.1.0"))
    with pytest.raises(Refused, match=why):
        up(root, "1.1.0")
    assert (root / "deployed/production.json").read_bytes() == before
    assert records.history(root)[0].state == "refused"


def test_a_bundle_of_another_key_is_refused(root: Path, tmp_path: Path) -> None:
    released(root, "1.1.0", key=1)
    with pytest.raises(Refused, match="signed by another key, or edited"):
        up(root)
    other = promotable.own_key(tmp_path / "other", key=1)
    up(root, key=other)
    assert now(root).live.version == "1.1.0"


def test_an_older_version_is_refused_unless_it_is_meant(root: Path) -> None:
    released(root, "1.1.0")
    up(root)
    with pytest.raises(Refused, match=r"1\.0\.0 is older than 1\.1\.0.*pipelines rollback"):
        up(root, "1.0.0")
    up(root, "1.0.0", allow_older=True)
    assert now(root).live.version == "1.0.0"
    promotable.release(root, "9.0.0", name="other")
    with pytest.raises(Refused, match="other is another name"):
        up(root, "releases/other-9.0.0")


def _without(stage: str) -> dict[str, Any]:
    told = promotable.evaluation()
    return {**told, "verdicts": [one for one in told["verdicts"] if one["stage"] != stage]}


def _with(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    told = promotable.evaluation()
    change(told)
    return told


def _rules(told: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    return next(one["rules"] for one in told["verdicts"] if one["stage"] == stage)


UNBLESSED = {
    "data: the bundle holds no verdict of validate": _without("validate"),
    "quality: the bundle holds no verdict of gate": _without("gate"),
    "infra: the bundle holds no verdict of export": _without("export"),
    "quality: gate judged by no rule": _with(lambda t: _rules(t, "gate").clear()),
    "quality: no rule of the gate judged groups": _with(lambda t: _rules(t, "gate").pop()),
    "quality: no rule of the gate judged quality": _with(lambda t: _rules(t, "gate").pop(0)),
    "quality: no group was measured": _with(lambda t: t.pop("groups")),
    "data: duplicates: it did not pass": _with(lambda t: _rules(t, "validate")[0].update(passed=False)),
    "data: validate did not pass": _with(lambda t: t["verdicts"][0].update(passed=False)),
    f"infra: no rule '{blessings.QUERIED}'": _with(lambda t: _rules(t, "export")[0].update(name="size")),
    "infra: model.onnx was asked 60 real test samples": _with(lambda t: t["parity"]["shipped"].update(num_samples=60)),
    "infra: parity of embedding: 0.1 is not within": _with(
        lambda t: t["parity"]["float32"]["outputs"].update(embedding={"relative": 0.1})
    ),
    "infra: that the ONNX file decides as": _with(lambda t: t["parity"]["float32"].update(flips=1)),
    "infra: model.onnx was asked no real test samples": _with(lambda t: t.pop("parity")),
    "data: evaluation.json cannot be read": _with(lambda t: t.update(verdicts="all passed")),
    "data: the bundle holds no verdict": {},
}  # fmt: skip


@pytest.mark.parametrize("why", UNBLESSED)
def test_a_blessing_that_is_missing_was_not_given(why: str, tmp_path: Path) -> None:
    found = blessings.read(promotable.bundle(tmp_path / "bundle", told=UNBLESSED[why]), min_queries=100)
    problems = [f"{one.name}: {line}" for one in found for line in one.problems]
    assert any(line.startswith(why) for line in problems), problems
    sound = blessings.read(promotable.bundle(tmp_path / "bundle"), min_queries=100)
    assert [(one.name, one.problems) for one in sound] == [("data", ()), ("quality", ()), ("infra", ())]


@pytest.mark.parametrize("stage", blessings.STAGES.values())
def test_what_is_not_blessed_never_goes_live_not_even_the_first(stage: str, root: Path) -> None:
    released(root, "1.1.0", told=_without(stage))
    with pytest.raises(Refused, match=rf"net 1\.1\.0 is not blessed:\n  - \w+: the bundle holds no verdict of {stage}"):
        up(root)
    assert live(root) is None
    assert not (root / "deployed").exists()


def test_the_rule_of_the_infra_blessing_is_the_one_that_export_writes() -> None:
    rule, _ = blessing.load_and_query(Path("none"), 1, [], np.zeros(0), "label")
    assert rule.name == blessings.QUERIED
    assert blessing.NUM_SAMPLES >= 100, "the number that promote.min_queries asks for by default"


def test_a_small_project_may_say_how_many_queries_are_enough(root: Path) -> None:
    few = _with(lambda t: t["parity"]["shipped"].update(num_samples=60))
    released(root, "1.1.0", told=few)
    promotable.set_operation(root, "min_queries: 100", "min_queries: 50")
    up(root)
    assert now(root).live.version == "1.1.0"


def test_a_model_that_does_not_answer_here_is_refused(root: Path) -> None:
    released(root, "1.1.0", predict="import sys\nsys.exit('error: example/1.png: cat, expected dog')\n")
    with pytest.raises(Refused, match=r"net-1\.1\.0 does not load and answer here(.|\n)*cat, expected dog"):
        up(root)
    folder = promotable.bundle(root.parent / "private")
    shutil.rmtree(folder / "example")
    from pipelines import trial

    with pytest.raises(Refused, match="does not load"):
        trial.answers(folder)  # no examples, and its model is no ONNX file


# --- against the live one ---


@pytest.mark.parametrize(("accuracy", "passes"), [(0.96, True), (0.94, True), (0.93, False), (0.80, False)])
def test_it_may_not_lose_more_than_max_loss(accuracy: float, passes: bool, root: Path) -> None:
    up(root)
    released(root, "1.1.0", told=promotable.evaluation(accuracy))
    if passes:
        told = "\n".join(up(root))
        assert f"accuracy {accuracy - 0.95:+.4f} [" in told
        assert "by the two recorded intervals, of the same test split" in told
        return
    with pytest.raises(
        Refused, match=r"loses more than promote.max_loss, 0\.01, to the live one: accuracy -0\."
    ) as why:
        up(root)
    assert ("; by the interval it may be less" in str(why.value)) == (accuracy == 0.93)
    promotable.set_operation(root, "max_loss: 0.01", "max_loss: null")
    assert "not asked" in "\n".join(up(root))


def test_accuracy_that_was_not_recorded_is_no_reason_to_pass(root: Path) -> None:
    up(root)
    released(root, "1.1.0", told=_with(lambda t: t["quality"]["shipped"].clear()))
    with pytest.raises(Refused, match=r"cannot be compared.*not measured on both sides"):
        up(root)


def _tables(root: Path, right: np.ndarray, ids: list[str]) -> dict[str, Any]:
    """Tables of a run whose test split has these samples, of which those were labelled rightly; its provenance."""
    accepted = pd.DataFrame({"id": ids, "sha256": [f"{i:0>64}" for i in ids], "label": "cat", "split": "test"})
    said = pd.DataFrame({"run": "main", "id": ids, "split": "test", "label": "cat"})
    said["predicted"] = np.where(right, "cat", "dog")
    outputs = {}
    for path, table in (("validate/accepted.parquet", accepted), ("evaluate/predictions.parquet", said)):
        place = root / "artifacts" / path
        write_table(place, table)
        outputs[f"artifacts/{path}"] = hash_file(place)
    return {"stages": {"evaluate": {"inputs": {}, "outputs": outputs, "parents": {}, "code": []}}}


def test_it_is_paired_on_the_samples_of_both_test_splits_where_their_tables_are_at_hand(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import contest

    rng = np.random.default_rng(0)
    old, new = rng.random(400) < 0.9, rng.random(400) < 0.95
    made = {}
    for version, right, first in (("2.0.0", old, 0), ("2.1.0", new, 100)):
        told = promotable.evaluation(float(right.mean()))
        ids = [str(i) for i in range(first, first + 400)]
        released(root, version, told=told, **_tables(root, right, ids))
        shutil.copytree(root / "artifacts", root.parent / version)
        made[version] = right
    monkeypatch.setattr(contest, "_places", lambda root, side, path: [
        root.parent / v / path.removeprefix("artifacts/") for v in made
    ])  # fmt: skip
    up(root, "2.0.0")
    told = "\n".join(up(root, "2.1.0"))
    assert "paired on the 300 samples that were in both test splits" in told
    assert f"accuracy {(new[:300].mean() - old[100:].mean()):+.4f} [" in told
    monkeypatch.setattr(contest, "MIN_SHARED", 301)
    back(root)
    assert "by the two recorded intervals" in "\n".join(up(root, "2.1.0"))


def test_the_tables_of_an_older_release_come_from_dvcs_cache(tmp_path: Path) -> None:
    from made_by_hand import Project, bundle

    from pipelines import contest
    from pipelines.diff import Side

    made, folders = Project(tmp_path / "project"), [bundle(tmp_path / str(i), weight=i) for i in (1, 2)]
    outs = [made.run(folder, {sample: sample}) for folder, sample in zip(folders, "ab")]
    for one in outs:
        made.commit(one)
    for folder, one in zip(folders, outs):
        md5 = one[contest.ACCEPTED]
        found = list(contest._places(made.root, Side(folder, ""), contest.ACCEPTED))
        assert found == [made.cache / md5[:2] / md5[2:]]
    assert outs[0][contest.ACCEPTED] != outs[1][contest.ACCEPTED]


def test_a_live_one_that_does_not_hold_cannot_be_compared_with(root: Path) -> None:
    up(root)
    released(root, "1.1.0")
    tampered(root / "releases/net-1.0.0")
    with pytest.raises(
        Refused, match=r"1\.0\.0 is live and is to be compared, but does not hold(.|\n)*roll back first"
    ):
        up(root)


# --- back ---


def test_going_back_goes_further_each_time(root: Path) -> None:
    for version in ("1.1.0", "1.2.0"):
        up(root)
        released(root, version)
    up(root)
    assert back(root)[0] == "production: net 1.1.0 is live again; net 1.2.0 is not any more"
    assert (root / "deployed/production").resolve() == root / "releases/net-1.1.0"
    back(root)
    assert now(root).live.version == "1.0.0"
    with pytest.raises(InputError, match=r"nothing was live in production before net 1\.0\.0"):
        back(root)
    changes = [(one["what"], one["version"], one["from"]) for one in now(root).history]
    assert changes == [
        ("rolled_back", "1.0.0", "1.1.0"), ("rolled_back", "1.1.0", "1.2.0"),
        ("promoted", "1.2.0", "1.1.0"), ("promoted", "1.1.0", "1.0.0"), ("promoted", "1.0.0", ""),
    ]  # fmt: skip
    assert records.history(root)[1].state == "done"
    assert records.history(root)[1].flow == "rollback"


def test_nothing_was_promoted_so_nothing_is_rolled_back(root: Path) -> None:
    with pytest.raises(InputError, match="nothing was promoted to production"):
        back(root)
    assert live(root) is None
    assert deployed(root, False)[0].startswith("Nothing is live yet")


def test_a_bundle_that_does_not_hold_is_not_gone_back_to_and_the_next_is_named(root: Path) -> None:
    for version in ("1.1.0", "1.2.0"):
        up(root)
        released(root, version)
    up(root)
    tampered(root / "releases/net-1.1.0")
    with pytest.raises(Refused, match=r"1\.1\.0.*does not hold(.|\n)*other bytes(.|\n)*rollback --to 1\.0\.0"):
        back(root)
    assert now(root).live.version == "1.2.0"
    back(root, to="1.0.0")
    assert now(root).live.version == "1.0.0"
    with pytest.raises(InputError, match=r"before net 1\.0\.0"):
        back(root, to="1.1.0")


def test_it_goes_back_from_one_that_is_gone(root: Path) -> None:
    up(root)
    shutil.rmtree(released(root, "1.1.0") if up(root) else root)
    released(root, "1.2.0")
    up(root, "1.2.0")
    shutil.rmtree(root / "releases/net-1.2.0")
    with pytest.raises(Refused, match=r"net 1\.2\.0, is not what went live(.|\n)*is not there"):
        live(root)
    back(root)
    assert live(root, full=True) is not None


# --- the pointer ---


def test_the_live_one_is_verified_quickly_or_in_full(root: Path) -> None:
    up(root)
    tampered(root / "releases/net-1.0.0")
    assert live(root) is not None, "asked quickly, only the attestation is looked at"
    with pytest.raises(Refused, match="other bytes"):
        live(root, full=True)
    shutil.rmtree(root.parent / "config")
    with pytest.raises(Refused, match="other bytes than what was signed"):
        live(root, full=True)
    assert "no: model.onnx: other bytes" in deployed(root, False)[1]
    assert json.loads(deployed(root, True)[0])[0]["problems"]


def test_another_bundle_under_the_same_name_is_not_the_live_one(root: Path) -> None:
    up(root)
    shutil.rmtree(root / "releases/net-1.0.0")
    promotable.release(root, "1.0.0", told=promotable.evaluation(0.99))
    with pytest.raises(Refused, match="its attestation is not the one that went live"):
        live(root)


def test_a_link_that_a_crash_left_behind_is_put_right_by_whoever_reads(root: Path) -> None:
    up(root)
    link = root / "deployed/production"
    for harm in ("gone", "elsewhere"):
        link.unlink()
        if harm == "elsewhere":
            link.symlink_to("../releases/net-0.0.1")
        live(root)
        assert link.resolve() == root / "releases/net-1.0.0"
    link.unlink()
    link.mkdir()
    released(root, "1.1.0")
    assert any("is a folder and no link" in line for line in up(root))
    assert now(root).live.version == "1.1.0", "the pointer is the truth"


@pytest.mark.parametrize(
    "edit",
    [
        lambda told: told.update(bundle="../elsewhere"),
        lambda told: told.update(version="../../x-1.0.0"),
        lambda told: told.update(environment="staging"),
        lambda told: told.update(sha256="0"),
        lambda told: told.pop("older"),
        lambda told: told.update(name=3),
    ],
)
def test_a_pointer_that_was_edited_is_not_followed(edit: Callable[[dict[str, Any]], Any], root: Path) -> None:
    up(root)
    path = root / "deployed/production.json"
    told = read_json(path)
    edit(told)
    path.write_text(json.dumps(told))
    for ask in (lambda: live(root), lambda: up(root), lambda: back(root)):
        with pytest.raises(InputError, match="is not a pointer as promote writes it"):
            ask()
    assert "is not a pointer" in deployed(root, False)[1]


def test_a_full_disk_after_the_swap_is_told_and_undoes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    up(root)
    released(root, "1.1.0")
    monkeypatch.setattr(Path, "symlink_to", _full)
    told = "\n".join(up(root))
    assert "production: net 1.1.0 is live" in told
    assert "the link deployed/production could not follow (No space left on device)" in told
    assert "git tag net#production#2" in told
    assert records.history(root)[0].state == "done"
    assert (root / "deployed/production").resolve().name == "net-1.0.0"
    assert "net 1.1.0" in deployed(root, False)[1], "that the link is behind does not matter to who only reads"
    monkeypatch.undo()
    deployed(root, False)
    assert (root / "deployed/production").resolve().name == "net-1.1.0"


def _full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_where_nothing_can_be_written_what_is_live_is_told_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(root)
    (root / "deployed/production").unlink()

    def read_only(self: Path, *given: Any, **more: Any) -> Any:
        if given and set(given[0]) & set("wax+"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return open(self, *given, **more)

    monkeypatch.setattr(Path, "open", read_only)
    found = live(root)
    assert found is not None
    assert found.version == "1.0.0"
    assert "net 1.0.0" in deployed(root, False)[1]


def test_going_back_asks_nothing_of_the_settings_but_the_name(root: Path) -> None:
    up(root)
    released(root, "1.1.0")
    promotable.set_operation(root, "max_retrainings: 4", "max_retrainings: many")
    up(root)
    promotable.set_operation(root, "max_loss: 0.01", "max_loss: lots")
    with pytest.raises(InputError, match=r"promote\.max_loss"):
        up(root)
    assert back(root)[0].startswith("production: net 1.0.0 is live again")
    promotable.set_operation(root, "environment: production", "environment: Production!")
    with pytest.raises(InputError, match=r"Name it: --environment NAME\. These have a live bundle: production"):
        back(root)
    (root / "infra/operations.yaml").write_text("promote: [")
    with pytest.raises(InputError, match="nothing was live in production before"):
        rollback(root, "production", None, "")
    assert "net 1.0.0" in deployed(root, False)[1]


def test_before_there_is_a_key_or_a_release_it_is_said_what_comes_first(root: Path) -> None:
    shutil.rmtree(root.parent / "config")
    with pytest.raises(InputError, match=r"python -m pipelines keygen(.|\n)*--key PUBLIC\.pem"):
        up(root)
    with pytest.raises(InputError, match="nothing was promoted to production"):
        back(root)
    shutil.rmtree(root / "releases")
    with pytest.raises(InputError, match=r"holds no release yet\. `python -m pipelines release` makes one"):
        up(root)


def test_history_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointer, "MOST_OLDER", 3)
    monkeypatch.setattr(pointer, "MOST_HISTORY", 5)
    found = None
    for i in range(9):
        entry = pointer.Entry("net", f"1.{i}.0", "0" * 64, "", "", "", "")
        found = pointer.promoted(found, "production", entry)
    assert found is not None
    pointer.write(root, found) if (root / "deployed").mkdir() is None else None
    assert pointer.read(root, "production") == found
    assert [one.version for one in found.older] == ["1.7.0", "1.6.0", "1.5.0"]
    assert len(found.history) == 5


def test_what_is_live_already_is_told_and_nothing_is_changed(root: Path) -> None:
    up(root)
    before = (root / "deployed/production.json").read_bytes()
    assert any("is live already, since" in line for line in up(root))
    assert (root / "deployed/production.json").read_bytes() == before


# --- which one, and git ---


def test_a_release_is_named_by_version_or_folder(root: Path, tmp_path: Path) -> None:
    released(root, "1.1.0")
    up(root, "1.0.0")
    up(root, "releases/net-1.1.0")
    assert now(root).live.version == "1.1.0"
    for wrong in ("2.0.0", "nothing", "releases", str(tmp_path)):
        with pytest.raises(InputError):
            up(root, wrong)
    shutil.copytree(root / "releases/net-1.1.0", tmp_path / "net-1.1.0")
    with pytest.raises(InputError, match="does not lie in releases/"):
        up(root, str(tmp_path / "net-1.1.0"))
    with pytest.raises(InputError, match="no release 3"):
        up(root, "3.0.0")


def test_gto_reads_the_stages(root: Path) -> None:
    import gto.api

    up(root)
    released(root, "1.1.0")
    assert "  git tag net#production#2; push it with `git push origin net#production#2`" in up(root)
    up(root, environment="staging")

    def shown() -> dict[str, str]:
        rows = gto.api.show(str(root), "net")
        return {stage["stage"]: row["version"] for row in rows for stage in row["stages"]} if rows else {}

    assert shown() == {"production": "v1.1.0", "staging": "v1.1.0"}
    back(root)
    assert shown()["production"] == "v1.0.0"
    gto.api.assign(str(root), "net", "production", version="v1.1.0", force=True)
    stages = promotable.call(root, "tag", "--list", "net#*").split()
    assert set(stages) == {*(f"net#production#{i}" for i in (1, 2, 4, 5)), "net#staging#3"}, "theirs goes on from ours"


def test_what_git_refuses_undoes_nothing_and_is_mended_the_next_time(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    promotable.call(root, "config", "--unset", "user.email")
    assert any(line.startswith("  not told in git: ") and "user.email" in line for line in up(root))
    assert now(root).live.version == "1.0.0"
    promotable.call(root, "config", "user.email", "test@localhost")
    assert any("git tag net#production#1" in line for line in up(root))
    (root / ".git").rename(root / "no-git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(root.parent))
    promotable.release(root, "1.1.0")
    assert any("not told in git" in line for line in up(root))


# --- the command line ---


def _worked() -> float:
    """Seconds of processor time of all children that ended."""
    told = resource.getrusage(resource.RUSAGE_CHILDREN)
    return told.ru_utime + told.ru_stime


def test_rollback_takes_less_than_two_seconds_and_refusals_end_with_3(root: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(promotable.REPOSITORY)}
        command = [sys.executable, "-m", "pipelines", *words]
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

    assert call("promote", "--because", "first").returncode == 0
    folder = released(root, "1.1.0")
    assert call("promote").returncode == 0
    began, worked = time.perf_counter(), _worked()
    done = call("rollback", "--because", "complaints")
    took, worked = time.perf_counter() - began, _worked() - worked
    assert done.returncode == 0, done.stderr
    assert "net 1.0.0 is live again" in done.stdout
    assert worked < 2
    busy = os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)
    assert took < 2 or busy, "unless others work on this machine"
    assert call("rollback").returncode == 2
    tampered(folder)
    done = call("promote", "1.1.0")
    assert (done.returncode, done.stdout) == (3, "")
    assert "model.onnx: other bytes" in done.stderr
    assert "net 1.0.0" in call("deployed").stdout
