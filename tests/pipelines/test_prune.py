"""What prune removes and what it leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import miniature
import promotable
import pytest

from components.contracts import write_json
from pipelines import clones, contents, dvc_cli, history, pointer, prune, records, runs
from pipelines.promote import promote, rollback

DAY = 86_400.0


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with seven releases."""
    _at_home(tmp_path, monkeypatch)
    root = promotable.project(tmp_path / "project", git=False)
    promotable.set_operation(root, "keep_releases: 10", "keep_releases: 2")
    for i in range(7):
        promotable.release(root, f"1.{i}.0", tar=True)
    return root


def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    promotable.own_key(tmp_path / "config")


def there(root: Path) -> list[str]:
    return sorted(p.name.removeprefix("net-") for p in (root / "releases").iterdir() if p.is_dir())


def test_the_newest_releases_stay_and_what_is_live_or_within_reach_anywhere(root: Path) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0"):
        promote(root, version, None, None, "")
    promote(root, "1.0.0", "staging", None, "")
    told = prune.prune(root, dry_run=True)
    assert told[1].startswith("releases (releases/)   1 would go, 0.0 MB")
    assert len(there(root)) == 7
    assert len(list((root / "releases").glob("*.tar"))) == 7
    assert prune.prune(root, dry_run=False)[1].startswith("releases (releases/)   1 removed")
    assert there(root) == ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.5.0", "1.6.0"]
    assert sorted(p.stem for p in (root / "releases").glob("*.tar")) == [f"net-{v}" for v in there(root)]
    rollback(root, None, None, "")
    rollback(root, None, None, "")
    pointer.place(root, "staging").unlink()
    (root / "deployed/staging").unlink()
    prune.prune(root, dry_run=False)
    assert there(root) == ["1.0.0", "1.1.0", "1.5.0", "1.6.0"]


def test_nothing_is_removed_where_nobody_knows_what_is_live(root: Path) -> None:
    promote(root, "1.0.0", None, None, "")
    pointer.place(root, "production").write_text("{")
    assert "left as they are: deployed/production.json is not a pointer" in prune.prune(root, dry_run=False)[1]
    assert len(there(root)) == 7
    pointer.place(root, "production").unlink()
    prune.prune(root, dry_run=False)
    assert there(root) == ["1.0.0", "1.5.0", "1.6.0"], "the link is still there, and may be served"


def test_a_prune_that_was_killed_is_finished_by_the_next(root: Path) -> None:
    aside = root / "releases" / ".pruned-1-2"
    shutil.copytree(root / "releases/net-1.0.0", aside)
    prune.prune(root, dry_run=True)
    assert aside.is_dir()
    prune.prune(root, dry_run=False)
    assert not aside.exists()


def _aged(path: Path, days: float, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for one in (path, path.parent):
        os.utime(one, (time.time() - days * DAY,) * 2)
    return path


def test_work_and_caches_go_that_nobody_read_and_nothing_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = root / ".graftline"
    old = [_aged(top / "finetune/abc/step.safetensors", 20), _aged(top / "features/one", 20)]
    read = _aged(top / "finetune/def/step.safetensors", 20)
    os.utime(read, (time.time() - DAY, time.time() - 20 * DAY))
    kept = [
        read,
        _aged(top / "prefect/prefect.db", 20),
        _aged(top / "notices.jsonl", 20),
        _aged(top / "features/two", 2),
    ]
    before = sorted(top.rglob("*"))
    assert any("2 would go" in line for line in prune.prune(root, dry_run=True))
    assert sorted(p for p in top.rglob("*") if "lock" not in p.name) == [p for p in before if "lock" not in p.name]
    with runs.recorded(root, "train"):
        assert any("left as they are: the run 2" in line for line in prune.prune(root, dry_run=False))
    assert all(path.exists() for path in old)
    assert any("2 removed" in line for line in prune.prune(root, dry_run=False))
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in kept)
    assert (top / "runs").is_dir()


def test_every_cache_that_stages_share_is_known(repository: Path) -> None:
    import re

    texts = [path.read_text() for path in (repository / "components").rglob("*.py")]
    kinds = {kind for text in texts for kind in re.findall(r"job\.cache\(\"(\w+)\"\)", text)}
    assert kinds == set(prune.CACHES)


def test_records_are_bounded(root: Path) -> None:
    promotable.set_operation(root, "keep: 1000 ", "keep: 10 ")
    for _ in range(13):
        with runs.recorded(root, "train"):
            pass
    assert prune.prune(root, dry_run=True)[0].startswith("records of runs        3 would go")
    assert prune.prune(root, dry_run=False)[0].startswith("records of runs        3 removed")
    assert len(records.names(root)) == 10


# --- DVC's cache ---


@pytest.fixture
def finished(finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A line that ran three times, long ago: the first run has a tag, the second has none, the third is at hand."""
    _at_home(tmp_path, monkeypatch)
    shutil.copytree(promotable.REPOSITORY / "infra", finished_project / "infra", dirs_exist_ok=True)
    promotable.call(finished_project, "tag", "mini@v0.0.1")
    for before, after in (("Result", "Second"), ("Second", "Third")):
        miniature.turn_knob(finished_project, f"title: {before}", f"title: {after}")
        dvc_cli.repro(finished_project, "report")
        miniature.commit(finished_project)
    _age_cache(finished_project)
    return finished_project


def _age_cache(root: Path) -> None:
    for path in (root / ".dvc/cache/files").rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 20 * DAY,) * 2)


def pages(root: Path) -> set[str]:
    """What of the reports DVC's cache holds."""
    files = [p for p in clones.cache(root).joinpath("files").rglob("*") if p.is_file()]
    texts = [p.read_text("utf-8", "replace") for p in files]
    return {word for text in texts for word in ("Result", "Second", "Third", "Fourth") if f"<h1>{word}:" in text}


def _of_cache(told: list[str]) -> str:
    return next(line for line in told if line.startswith("DVC's cache"))


def test_every_committed_result_comes_back_after_a_prune(finished: Path) -> None:
    """Two branches and no tag, by the default; what nobody committed goes too, but only once it is old."""
    promotable.call(finished, "tag", "--delete", "mini@v0.0.1")
    promotable.call(finished, "branch", "other", "HEAD~2")
    tried = finished / "artifacts/report/index.html"
    for before, after in (("Third", "Fourth"), ("Fourth", "Third")):
        miniature.turn_knob(finished, f"title: {before}", f"title: {after}")
        dvc_cli.repro(finished, "report")
    assert tried.read_text().startswith("<h1>Third")
    told = _of_cache(prune.prune(finished, dry_run=False))
    assert "that no commit names are younger than 14 days" in told
    assert pages(finished) == {"Result", "Second", "Third", "Fourth"}
    _age_cache(finished)
    assert " removed, 0.0 MB" in _of_cache(prune.prune(finished, dry_run=False))
    assert pages(finished) == {"Result", "Second", "Third"}
    for commit, title in (("other", "Result"), ("-", "Third"), ("HEAD~1", "Second")):
        promotable.call(finished, "checkout", "-q", commit)
        done = miniature.call(finished, sys.executable, "-m", "dvc", "checkout")
        assert done.returncode == 0, done.stderr
        assert tried.read_text().startswith(f"<h1>{title}")


def test_tags_and_the_heads_of_branches_are_enough_where_that_is_said(finished: Path) -> None:
    promotable.set_operation(finished, "dvc_cache: commits", "dvc_cache: tags")
    promotable.call(finished, "branch", "other", "HEAD~1")
    prune.prune(finished, dry_run=False)
    assert pages(finished) == {"Result", "Second", "Third"}
    promotable.call(finished, "branch", "-D", "other")
    assert " would go, 0.0 MB" in _of_cache(prune.prune(finished, dry_run=True))
    assert pages(finished) == {"Result", "Second", "Third"}
    assert " removed, 0.0 MB" in _of_cache(prune.prune(finished, dry_run=False))
    assert pages(finished) == {"Result", "Third"}
    assert dvc_cli.stale(finished) == {}


def test_a_folder_that_is_young_keeps_what_it_lists(tmp_path: Path) -> None:
    cache = tmp_path / "files/md5"
    listed = cache / "ab" / "cdef"
    young = cache / "12" / "34.dir"
    write_json(young, [{"md5": "abcdef", "relpath": "x"}])
    assert list(contents._listed(young)) == [listed]


def test_dvcs_cache_keeps_what_other_projects_need_that_share_it(finished: Path, tmp_path: Path) -> None:
    clone = _clone(finished, tmp_path)
    assert list(clones.known(clones.cache(finished))) == [clone]
    assert f"is shared; the project that it lies in prunes it, {finished}" in _of_cache(_prune_in(clone))
    assert "kept for 1 more project that share it" in _of_cache(prune.prune(finished, dry_run=False))
    assert pages(finished) == {"Result", "Second", "Third"}


def _clone(finished: Path, tmp_path: Path) -> Path:
    """At the commit that nothing else in a project needs where `tags` are kept."""
    promotable.set_operation(finished, "dvc_cache: commits", "dvc_cache: tags")
    history.clone_project(finished, tmp_path / "clone")
    promotable.call(tmp_path / "clone", "checkout", "-q", "HEAD~1")
    return tmp_path / "clone"


def test_a_project_that_cannot_be_seen_now_loses_nothing(finished: Path, tmp_path: Path) -> None:
    clone = _clone(finished, tmp_path)
    clone.rename(tmp_path / "unmounted")
    told = _of_cache(prune.prune(finished, dry_run=False))
    assert f"left as it is: {clone} shares it and cannot be seen from here. If it is gone for good, delete /" in told
    assert pages(finished) == {"Result", "Second", "Third"}
    Path(told.rpartition("delete ")[2]).unlink()
    prune.prune(finished, dry_run=False)
    assert pages(finished) == {"Result", "Third"}


def test_whoever_shares_the_cache_by_hand_is_noted_at_the_first_turn(finished: Path, tmp_path: Path) -> None:
    clone = _clone(finished, tmp_path)
    clones.forget(clones.cache(finished), clone)
    assert not clones.known(clones.cache(finished))
    with dvc_cli.turn(clone), dvc_cli.turn(finished):
        assert list(clones.known(clones.cache(finished))) == [clone]


def test_a_cache_that_lies_in_no_project_is_left_alone(finished: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (finished / ".dvc/cache").rename(shared)
    (finished / ".dvc/config.local").write_text(f"[cache]\n    dir = {shared}\n")
    told = _of_cache(prune.prune(finished, dry_run=False))
    assert "is shared, and nobody knows all projects that use it. By hand: `dvc gc" in told
    assert pages(finished) == {"Result", "Second", "Third"}


def test_workspaces_of_runs_that_are_over_go_and_their_notes_too(finished: Path) -> None:
    top, cache = finished / ".graftline", clones.cache(finished)
    killed, kept, live = top / "sweep/killed", top / "backtest/2026-01", top / "sweep/live"
    for place in (killed, kept, live):
        place.parent.mkdir(parents=True, exist_ok=True)
        history.clone_project(finished, place)
    with dvc_cli.turn(live):
        for path in (path for place in (killed, live) for path in (place, *place.rglob("*"))):
            os.utime(path, (time.time() - 20 * DAY,) * 2, follow_symlinks=False)
        assert any(line.startswith("work and caches        1 would go") for line in prune.prune(finished, True))
        assert len(clones.known(cache)) == 3
        prune.prune(finished, False)
    assert (killed.exists(), kept.exists(), live.exists()) == (False, True, True)
    assert set(clones.known(cache)) == {kept, live}
    shutil.rmtree(kept)
    assert "kept for 1 more project" in _of_cache(prune.prune(finished, dry_run=True)), "it is surely gone"


def test_a_pointer_that_is_broken_stops_nothing_half_way(finished: Path) -> None:
    promotable.set_operation(finished, "dvc_cache: commits", "dvc_cache: tags")
    write_json(pointer.place(finished, "production"), {})
    told = prune.prune(finished, dry_run=False)
    assert "left as it is: deployed/production.json is not a pointer" in _of_cache(told)
    assert told[-1].startswith("flow runs in Prefect")
    assert pages(finished) == {"Result", "Second", "Third"}


def _prune_in(clone: Path) -> list[str]:
    shutil.copytree(promotable.REPOSITORY / "infra", clone / "infra", dirs_exist_ok=True)
    return prune.prune(clone, dry_run=False)


def test_dvcs_cache_is_left_where_what_is_live_has_no_tag(finished: Path) -> None:
    promotable.set_operation(finished, "dvc_cache: commits", "dvc_cache: tags")
    promotable.release(finished, "1.0.0")
    promote(finished, None, None, None, "")
    assert "no git tag names the commit of net 1.0.0" in _of_cache(prune.prune(finished, dry_run=False))
    assert pages(finished) == {"Result", "Second", "Third"}


def test_dvcs_cache_is_left_alone_where_it_is_said(finished: Path) -> None:
    promotable.set_operation(finished, "dvc_cache: commits", "dvc_cache: all")
    promotable.call(finished, "reset", "-q", "--soft", "HEAD~1")
    assert "left as it is (keep.dvc_cache: all)" in _of_cache(prune.prune(finished, dry_run=False))
    assert pages(finished) == {"Result", "Second", "Third"}


def test_it_waits_for_its_turn(root: Path) -> None:
    """A second process holds the project for a second."""
    hold = "import sys, time\nfrom pathlib import Path\nfrom pipelines import dvc_cli\n"
    hold += "with dvc_cli.turn(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(1)\n"
    command = [sys.executable, "-c", hold, str(root)]
    with subprocess.Popen(command, cwd=promotable.REPOSITORY, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        prune.prune(root, dry_run=False)
        assert other.poll() is not None or other.wait(5) == 0


# --- Prefect ---


def test_old_flow_runs_of_this_project_go_and_others_stay(
    root: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    from pipelines.flows import old_runs
    from pipelines.flows import promote as flows

    state = flows.promote(str(root), trigger="event", cause="a test", which="1.3.0", return_state=True)
    assert (state.name, state.message) == ("Completed", "production: net 1.3.0 is live")
    refused = flows.promote(str(root), which="1.0.0", return_state=True)
    assert refused.name == "Refused"
    assert "1.0.0 is older than 1.3.0" in refused.message
    assert flows.rollback(str(root), return_state=True).name == "Mistake"
    elsewhere = flows.rollback(str(root.parent), environment="production", return_state=True)
    told = [(one.flow, one.trigger.kind, one.state) for one in records.history(root)]
    assert told == [("rollback", "hand", "mistake"), ("promote", "hand", "refused"), ("promote", "event", "done")]
    ids = [one.state_details.flow_run_id for one in (state, refused)]
    assert records.history(root)[2].flow_run_id == str(ids[0])
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    told = prune.prune(root, dry_run=False)
    assert told[-1].startswith("flow runs in Prefect   nothing to remove")
    before = old_runs.remove(root, 0, dry_run=True)
    assert before == (3, "")
    with get_client(sync_client=True) as client:
        [artifact] = [a for a in client.read_artifacts() if a.flow_run_id == ids[0]]
        assert "production: net 1.3.0 is live" in artifact.data
        assert "Because: a test" in artifact.data
        num, note = old_runs.remove(root, 0, dry_run=False)
        assert num == 3
        assert "vacuumed" in note
        left = [one.id for one in client.read_flow_runs()]
        assert not set(ids) & set(left)
        assert elsewhere.state_details.flow_run_id in left
        assert not [a for a in client.read_artifacts() if a.flow_run_id in ids]


def test_a_command_line_tells_it(root: Path) -> None:
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(promotable.REPOSITORY)}
    command = [sys.executable, "-m", "pipelines", "prune", "--dry-run"]
    write_json(root / "x.json", {})
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "releases (releases/)   5 would go" in done.stdout
    assert len(there(root)) == 7
