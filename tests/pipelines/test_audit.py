"""`python -m pipelines audit`: data, code, weights; which models used a file; why blessed; what changed; set aside."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import made_by_hand
import pytest
from made_by_hand import Project, digest

from components.contracts import InputError, Refused
from pipelines import locks, versions
from pipelines.__main__ import main
from pipelines.audit import audit

SECONDS = 2.0
"""Each answer over 1,000 models, of which the caller's machine may take twice as long when busy."""


@pytest.fixture(scope="session")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Three models in history: the first two of the same data, the third without sample b; the last one at hand."""
    folder = tmp_path_factory.mktemp("audited")
    made = Project(folder / "project")
    told = made_by_hand._told()
    first = made_by_hand.bundle(folder / "first", weight=1)
    samples = {"a": "A", "b": "B", "unlabelled": "U"}
    made.commit(made.run(first, samples, {"q": "truncated", "r": "truncated"}), "tiny@v1.0.0")
    changed = {**told["params"], "finetune": {"batch_size": 64}}
    made.commit(made.run(made_by_hand.bundle(folder / "second", weight=2, params=changed), samples))
    third = made_by_hand.bundle(folder / "third", weight=3, params=changed, base_weights={"source": "random"})
    made.commit(made.run(third, {"a": "A", "c": "C"}), "tiny@v2.0.0")
    shutil.copytree(third, made.root / "artifacts/handoff/bundle")
    shutil.copytree(first, made.root / "releases/tiny-1.0.0")
    return made


@pytest.fixture
def project(_project: Project, tmp_path: Path) -> Project:
    """A copy that a test may change."""
    return Project(Path(shutil.copytree(_project.root, tmp_path / "project")))


def _asked(project: Project, capsys: pytest.CaptureFixture[str], **words: Any) -> dict[str, Any]:
    given = {"bundle": None, "file": None, "weights": None, **words}
    assert audit(project.root, as_json=True, **given) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def _answers(told: dict[str, Any]) -> list[str]:
    return [one["answer"] for one in told["versions"]]


def test_models_are_found_in_history_at_hand_and_released(project: Project) -> None:
    known = versions.gather(project.root)
    assert len(known.found) == 3
    newest, middle, oldest = known.found
    assert newest.root == project.root
    assert newest.names == ("tiny@v2.0.0",)
    assert oldest.names == ("tiny@v1.0.0", "releases/tiny-1.0.0")
    assert middle.names == ()
    assert known.before(newest) is middle
    assert known.before(middle) is oldest
    assert known.before(oldest) is None


def test_which_models_used_a_file(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    place = project.root / "sample.png"
    for content, expected in (
        ("A", ["yes"] * 3),
        ("B", ["no", "yes", "yes"]),
        ("C", ["yes", "no", "no"]),
        ("Z", ["no"] * 3),
    ):
        place.write_text(content)
        told = _asked(project, capsys, file="sample.png")
        assert _answers(told) == expected, content
    place.write_text("B")
    told = _asked(project, capsys, file="sample.png")
    assert told["versions"][1]["as"] == [f"sample used in the split train: b, label cat (sha256 {digest('B')[:12]})"]


def test_a_sample_that_was_read_and_not_used_is_told_apart(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _asked(project, capsys, file=digest("U"))  # by its hash: the file is gone
    assert _answers(told) == ["no", "yes", "yes"]
    assert told["versions"][1]["as"][0].startswith("sample read, not used: unlabelled")


def test_a_text_is_found_by_what_ingest_makes_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path / "project")
    project.commit(project.run(made_by_hand.bundle(tmp_path / "one"), {"1": "a mail\nof two lines"}))
    (project.root / "mail.txt").write_bytes(b"\xef\xbb\xbfa mail\r\nof two lines  \n")
    assert _answers(_asked(project, capsys, file="mail.txt")) == ["yes"]


def test_a_folder_of_data_and_code_are_found_as_inputs(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    told = _asked(project, capsys, file=digest("the folder"))
    assert told["versions"][0]["as"] == ["input of ingest: data"]
    assert _asked(project, capsys, file=digest("job"))["versions"][2]["as"] == ["code: components/job.py"]


def test_which_models_rest_on_weights(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    told = _asked(project, capsys, weights="ab" * 8)
    assert _answers(told) == ["no", "yes", "yes"]
    assert told["versions"][2]["as"] == ["base weights"]
    told = _asked(project, capsys, weights=digest("trained 3"))
    assert _answers(told) == ["yes", "no", "no"]
    assert told["versions"][0]["as"] == ["trained weights"]


def test_what_the_cache_lost_is_not_called_a_no(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    middle = versions.gather(project.root).found[1]
    for path in ("artifacts/validate/accepted.parquet", "artifacts/ingest/manifest.parquet"):
        middle.object(middle.outs[path]).unlink()
    told = _asked(project, capsys, file=digest("B"))
    assert _answers(told) == ["no", "not known", "not known"]  # the oldest has the same manifest
    assert told["versions"][1]["not_held"] == [
        "artifacts/validate/accepted.parquet", "artifacts/ingest/manifest.parquet"
    ]  # fmt: skip
    assert audit(project.root, None, digest("B"), None, as_json=False) == 0
    assert "it cannot be told" in capsys.readouterr().out


def test_which_data_code_and_weights_made_a_model(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    told = _asked(project, capsys)
    assert told["model"]["title"].startswith("tiny@v2.0.0, at hand, ")
    made = told["made_from"]
    assert made["data"]["manifest_sha256"] == digest("manifest")
    assert made["data"]["num_used"] == 100
    assert (made["code"]["commit"], made["code"]["clean"], made["code"]["num_files"]) == ("1" * 40, True, 2)
    assert made["base_weights"] == {"source": "random"}
    assert made["lock_sha256"] == digest("lock")


def test_why_it_was_blessed(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    told = _asked(project, capsys)["blessed"]
    assert [one["stage"] for one in told] == ["validate", "gate"]
    rule = told[1]["rules"][0]
    assert (rule["value"], rule["limit"], rule["margin"], rule["passed"]) == (0.88, 0.8, 0.08, True)


def test_what_changed_since_the_one_before(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    since = _asked(project, capsys, bundle="tiny@v2.0.0")["since"]
    assert since["difference"]["weights"]["base"]["only_a"]
    assert not since["difference"]["params"]["differ"]
    assert _asked(project, capsys, bundle="tiny@v1.0.0")["since"]["previous"] is None
    middle = versions.gather(project.root).found[1].commit
    since = _asked(project, capsys, bundle=middle)["since"]
    assert since["previous"].startswith("tiny@v1.0.0, releases/tiny-1.0.0")
    assert since["difference"]["params"]["differ"] == {"finetune.batch_size": [32, 64]}


def test_what_was_set_aside_and_why(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    aside = _asked(project, capsys, bundle="releases/tiny-1.0.0")["set_aside"]
    assert (aside["num"], aside["reasons"]) == (2, {"truncated": 2})
    assert [row["id"] for row in aside["rows"]] == ["q", "r"]
    assert aside["findings"][0]["check"] == "duplicates"


def test_a_strangers_bundle_speaks_for_itself(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = made_by_hand.bundle(tmp_path / "other", weight=9)
    told = _asked(project, capsys, bundle=str(other))
    assert not told["model"]["known_here"]
    assert told["blessed"][1]["rules"]
    assert told["set_aside"]["rows"] == []
    assert "is not here" in told["set_aside"]["note"]
    assert audit(project.root, str(other), None, None, as_json=False) == 0
    assert "know no such model" in " ".join(capsys.readouterr().out.split())


def _claims(folder: Path, other: Path) -> None:
    """The provenance of the other one, and sums that hold: a lie that no hash gives away but the model's own."""
    shutil.copyfile(other / "provenance.json", folder / "provenance.json")
    made_by_hand.sums(folder)


def test_a_claimed_hash_is_not_believed(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    liar = made_by_hand.bundle(tmp_path / "liar", weight=9)
    _claims(liar, project.root / "releases/tiny-1.0.0")
    with pytest.raises(Refused, match=r"liar does not hold(?s:.*)'model\.onnx differs', against its own provenance"):
        audit(project.root, str(liar), None, None, as_json=True)
    shutil.copytree(liar, project.root / "releases/liar-1.0.0")
    told = _asked(project, capsys, file=digest("B"))
    assert _answers(told) == ["no", "yes", "yes", "not known"]
    assert told["versions"][2]["version"].startswith("tiny@v1.0.0, releases/tiny-1.0.0, ")
    assert told["versions"][3]["version"] == "releases/liar-1.0.0"
    assert "model.onnx is not the one" in told["versions"][3]["does_not_hold"]
    assert audit(project.root, None, digest("B"), None, as_json=False) == 0
    assert "is not the one that its provenance.json" in " ".join(capsys.readouterr().out.split())
    assert main(["audit", str(liar)]) == 3


def test_what_lies_at_hand_and_was_changed_is_told(project: Project) -> None:
    (project.root / "artifacts/handoff/bundle/metrics.json").write_text("{}")
    with pytest.raises(Refused, match="at hand does not hold"):
        audit(project.root, None, None, None, as_json=True)


def test_versions_are_matched_by_all_their_bytes_and_never_by_nothing(project: Project, tmp_path: Path) -> None:
    """One with the model of the first release, and another card, is another version."""
    for name in ("one-1.0.0", "two-1.0.0"):
        place = project.root / "releases" / name
        shutil.copytree(project.root / "releases/tiny-1.0.0", place)
        (place / "card.md").write_text(name)
        (place / "model.onnx").unlink()
    known = versions.gather(project.root)
    assert [one.names for one in known.found[3:]] == [("releases/one-1.0.0",), ("releases/two-1.0.0",)]
    assert known.found[2].names == ("tiny@v1.0.0", "releases/tiny-1.0.0")
    sealed = project.root / "releases/tiny-1.0.0/attestation.dsse.json"
    sealed.write_text("a signature is no file of the line's bundle")
    assert versions.gather(project.root).found[2].names == ("tiny@v1.0.0", "releases/tiny-1.0.0")


@pytest.mark.parametrize("content", ["{", "[1]", '{"subject": [3]}', '"\\ud800"', "\x00", "folder"])
def test_a_bad_release_is_left_out_and_told(
    content: str, project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = project.root / "releases/bad-1.0.0/provenance.json"
    place.parent.mkdir()
    if content == "folder":
        place.mkdir()
    else:
        place.write_text(content)
    monkeypatch.chdir(project.root)
    assert main(["audit", "--file", digest("B"), "--json"]) == 0
    told = capsys.readouterr()
    assert _answers(json.loads(told.out)) == ["no", "yes", "yes"]
    assert told.err.startswith("releases/bad-1.0.0 is left out: ")


def test_a_table_that_is_none_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = versions.gather(project.root).found[0]
    newest.object(newest.outs["artifacts/validate/accepted.parquet"]).write_text("no table")
    with pytest.raises(InputError, match="is not the table that a run wrote"):
        audit(project.root, None, digest("B"), None, as_json=True)


@pytest.mark.parametrize("value", [[3], 3, {"verdicts": [3]}, {"verdicts": [{"stage": "gate", "passed": True}]}])
def test_garbage_in_a_bundle_that_holds_is_no_fault(
    value: Any, project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_by_hand.bundle(tmp_path / "odd", weight=8, evaluation=value)
    code = main(["audit", str(made)])
    told = capsys.readouterr()
    assert code == (0 if isinstance(value, dict) and isinstance(value["verdicts"][0], dict) else 2)
    assert "Traceback" not in told.err


def test_without_git_it_is_told(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = str(made_by_hand.bundle(tmp_path / "made"))
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("PATH", str(tmp_path))
    for words in (["audit"], ["diff", "HEAD", made], ["predict", "--unsigned", "HEAD", "a.png"]):
        assert main(words) == 2, words
        assert capsys.readouterr().err == (
            "git is needed for this, and is not installed here or not on the PATH\n"
        )  # fmt: skip


def test_a_model_at_hand_that_no_commit_holds_is_told(project: Project, tmp_path: Path) -> None:
    shutil.rmtree(project.root / "artifacts/handoff/bundle")
    shutil.copytree(made_by_hand.bundle(tmp_path / "new", weight=7), project.root / "artifacts/handoff/bundle")
    known = versions.gather(project.root)
    assert len(known.found) == 4
    assert (known.found[0].title, known.found[0].commit) == ("at hand", "")


def test_people_get_all_five_answers(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(project.root, None, None, None, as_json=False) == 0
    told = capsys.readouterr().out
    for question in ("made it?", "Why was it blessed?", "What changed since the one before?", "What was set aside?"):
        assert question in told


@pytest.mark.parametrize(
    "words",
    [
        ["--file", "nowhere.png"],
        ["--file", ""],
        ["--file", "releases"],
        ["--file", "/dev/zero"],
        ["--file", "x" * 300],
        ["--file", "~no-such-user/x"],
        ["--weights", ""],
        ["--weights", "xyz"],
        ["--weights", "ab"],
        ["nobody"],
        ["--file", "ab12"],
    ],
)
def test_a_mistake_is_told_without_a_traceback(
    words: list[str], project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    assert main(["audit", *words]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_project_without_models_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has made no model yet"):
        audit(Project(tmp_path / "empty").root, None, None, None, as_json=True)


def test_the_lock_is_read_as_yaml_reads_it(project: Project) -> None:
    from ruamel.yaml import YAML

    text = (project.root / "dvc.lock").read_text()
    stages = YAML(typ="safe").load(text)["stages"]
    assert locks.outs_of(text) == {o["path"]: o["md5"] for s in stages.values() for o in s["outs"]}


@pytest.mark.slow
def test_a_thousand_models_are_answered_in_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten manifests of 2,000 samples, 1,000 bundles."""
    project = Project(tmp_path / "project")
    tables = [project.tables({f"{k}-{i}": f"{k}/{i}" for i in range(2000)}) for k in range(10)]
    locks = []
    for number in range(1000):
        made = made_by_hand.bundle(tmp_path / "made", weight=number)
        locks.append({**tables[number // 100], **project.bundled(made)})
        shutil.rmtree(made)
    project.commits(locks)
    for words in ({"file": digest("3/7")}, {"weights": "ab" * 32}, {"bundle": "main"}):
        start = time.perf_counter()
        told = _asked(project, capsys, **words)
        took = time.perf_counter() - start
        with capsys.disabled():
            print(f"\n{words}: {took:.2f} s")
        assert took <= 2 * SECONDS
        if "file" in words:
            assert _answers(told).count("yes") == 100
