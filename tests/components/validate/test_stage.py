"""The stage on real small tables: counts, verdicts, files, and that a refusal is a result and not a failure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from components.contracts import InputError, Verdict, read_json, read_record, read_table, write_json, write_table
from components.job import Job
from components.tasks import text_classification
from components.validate import stage

SPLIT = {"train": 0.7, "validation": 0.15, "test": 0.15}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("data")
    return factories.manifest(root, factories.image_folder(root / "data", 12))


def params(**more: Any) -> stage.Params:
    checks = [{"name": "labels"}, {"name": "duplicates"}, {"name": "leakage"}]
    return stage.Params.model_validate({"split": SPLIT, "min_labelled": 0.5, "checks": checks, **more})


def judge(job: Job, manifest: pd.DataFrame, counted: int | None = None, **more: Any) -> dict[str, float]:
    write_table(job.root / "artifacts/ingest/manifest.parquet", manifest)
    write_json(job.root / "artifacts/ingest/summary.json", {"num_used": len(manifest) if counted is None else counted})
    return stage.run(params(**more), job)


def result(job: Job) -> tuple[pd.DataFrame, pd.DataFrame, list[dict[str, Any]], Verdict]:
    return (
        read_table(job.out("accepted.parquet")), read_table(job.out("set_aside.parquet")),
        read_json(job.out("findings.json")), read_record(Verdict, job.out("verdict.json")),
    )  # fmt: skip


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job("validate", stage.NEEDS)


def test_clean_data_passes_without_a_finding(job: Job, clean: pd.DataFrame) -> None:
    metrics = judge(job, clean)
    accepted, aside, findings, verdict = result(job)
    assert verdict.passed
    assert findings == []
    assert [r.name.split(":")[0] for r in verdict.rules] == [
        "expectations", "split", "labels", "duplicates", "leakage",
    ]  # fmt: skip
    assert metrics["num_accepted"] == metrics["num_rows"] == 36
    assert metrics["num_train"] + metrics["num_validation"] + metrics["num_test"] == 36
    assert metrics["num_expectations"] == 27
    assert list(accepted.columns) == [*clean.columns, "split"]
    assert list(accepted["id"]) == sorted(accepted["id"])
    assert aside.empty
    pd.testing.assert_frame_equal(accepted.drop(columns="split"), clean)


def test_every_fault_is_told_and_the_counts_reconcile(job: Job, clean: pd.DataFrame) -> None:
    table = clean.copy()
    table.loc[0, "label"] = None
    table.loc[1, "label"] = "  "
    table.loc[5, "sha256"] = table.loc[30, "sha256"]  # a circle and a triangle with the same bytes
    table.loc[8, "property.brightness"] = 1.5
    table.loc[9, "property.num_bytes"] = float("inf")
    table.loc[10, "property.width"] = None
    table.loc[11, "sha256"] = "not a hash"
    metrics = judge(job, table)
    accepted, aside, findings, verdict = result(job)
    assert not verdict.passed
    assert metrics["num_accepted"] + metrics["num_set_aside"] == metrics["num_rows"] == 36
    assert len(accepted) == 34
    assert list(aside["reason"]) == ["no_label", "no_label"]
    told = {f["message"]: f for f in findings}
    by_property = {m.split("`")[1]: f for m, f in told.items() if f["check"] == "expectations"}
    assert set(by_property) == {"property.brightness", "property.num_bytes", "property.width", "sha256"}
    assert by_property["property.brightness"]["samples"] == [table.loc[8, "id"]]
    conflict = next(f for f in findings if f["check"] == "duplicates")
    assert sorted(conflict["samples"]) == sorted([table.loc[5, "id"], table.loc[30, "id"]])
    failed = {r.name for r in verdict.rules if not r.passed}
    assert failed == {"expectations", "duplicates"}
    assert metrics["num_errors"] == sum(f["severity"] == "error" for f in findings) == 5


@pytest.mark.parametrize("column", ["label", "sha256", "note", "id"])
def test_a_column_that_is_not_there_refuses_and_does_not_crash(job: Job, clean: pd.DataFrame, column: str) -> None:
    judge(job, clean.drop(columns=column))
    _, _, findings, verdict = result(job)
    assert not verdict.passed
    assert any(f"no column `{column}`" in f["message"] for f in findings)


def test_one_id_for_two_samples_refuses(job: Job, clean: pd.DataFrame) -> None:
    table = clean.copy()
    table.loc[1, "id"] = table.loc[0, "id"]
    judge(job, table)
    accepted, aside, findings, verdict = result(job)
    assert not verdict.passed
    assert list(aside["reason"]) == ["id_twice"]
    assert accepted["id"].is_unique
    assert any("stands for one sample only" in f["message"] for f in findings)


def test_rows_that_ingest_did_not_count_refuse(job: Job, clean: pd.DataFrame) -> None:
    judge(job, clean, counted=40)
    assert "40 samples that ingest counted" in result(job)[3].refusal()


def test_too_few_labelled_samples_refuse_and_the_key_is_named(job: Job, clean: pd.DataFrame) -> None:
    table = clean.copy()
    table.loc[:6, "label"] = None
    judge(job, table, min_labelled=0.9, checks=[])
    assert "validate.min_labelled" in result(job)[3].refusal()
    judge(job, table, min_labelled=0.8, checks=[])
    assert result(job)[3].passed


def test_no_label_at_all_and_one_label_only_refuse(job: Job, clean: pd.DataFrame) -> None:
    judge(job, clean.assign(label=None))
    accepted, _, findings, verdict = result(job)
    assert accepted.empty
    assert not verdict.passed
    assert any("no sample has a label" in f["message"] for f in findings)
    judge(job, clean.assign(label="cat"))
    assert "one label only (cat)" in result(job)[3].refusal()


def test_same_bytes_each_time(job: Job, clean: pd.DataFrame) -> None:
    files = ("accepted.parquet", "set_aside.parquet", "findings.json", "verdict.json")
    shuffled = clean.sample(frac=1, random_state=3).reset_index(drop=True)
    shuffled.loc[3, "label"] = None
    found = []
    for table in (shuffled, shuffled, shuffled.sample(frac=1, random_state=4)):
        judge(job, table)
        found.append([job.out(name).read_bytes() for name in files])
    assert found[0] == found[1] == found[2]


def test_another_seed_gives_another_split(job: Job, clean: pd.DataFrame, make_job: Callable[..., Job]) -> None:
    judge(job, clean)
    first = result(job)[0]["split"]
    other = make_job("validate", stage.NEEDS, seed=18)
    judge(other, clean)
    assert not first.equals(result(other)[0]["split"])


def test_the_pages_load_nothing_from_elsewhere_and_keep_what_they_say(job: Job, clean: pd.DataFrame) -> None:
    table = clean.copy()
    table.loc[8, "property.brightness"] = 1.5
    judge(job, table)
    judge(job, table)  # pages of the first run are gone
    folder = job.report("data_docs/index.html").parent
    pages = {p.relative_to(folder).parts[0]: p.read_text("utf-8") for p in folder.rglob("*.html")}
    assert sorted(pages) == ["expectations", "index.html", "validations"]
    assert len(list(folder.rglob("*.html"))) == 3
    for text in pages.values():
        assert "<script" not in text
        assert 'src="http' not in text
        assert 'stylesheet" href="http' not in text
        assert "</style>" in text
    assert "26 of 27 expectations hold" in pages["index.html"]
    assert "1.5" in pages["validations"]
    assert "Failed" in pages["validations"]
    assert str(job.root) not in "".join(pages.values())


def test_people_are_told_in_at_most_ten_lines(
    job: Job, clean: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    table = clean.copy()
    for row in range(9):
        table.loc[row, "label"] = f"circel{'abcdefghi'[row]}"
    table.loc[20, "label"] = None
    table.loc[21, "property.brightness"] = 2.0
    judge(job, table)
    told = capsys.readouterr().err.splitlines()
    assert len(told) <= 10
    assert told[0] == "validate: 35 of 36 samples, 12 labels: 26 train, 5 validation, 4 test"
    assert "refused" in told[-1]
    severities = [line.split(": ")[1].split(",")[0] for line in told if "error," in line or "warning," in line]
    assert severities == sorted(severities)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"split": {**SPLIT, "train": 0.8}}, "train \\+ validation \\+ test must be 1, but is 1.1"),
        ({"split": {**SPLIT, "test": 0.0}}, "split.test"),
        ({"split": {"train": 0.7, "validation": 0.3}}, "split.test"),
        ({"checks": [{"name": "label"}]}, "did you mean `labels`"),
        ({"checks": [{"name": "labels", "min_per_labels": 3}]}, "did you mean `min_per_label`"),
        ({"min_labelled": 2}, "min_labelled"),
    ],
)
def test_a_mistake_in_params_names_its_key(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        params(**wrong)


def test_an_unknown_group_lists_the_known_ones(job: Job, clean: pd.DataFrame) -> None:
    table = clean.assign(**{"attribute.studio": "a"})
    with pytest.raises(InputError, match=r"validate\.split\.group.*'patient'.*Known: studio"):
        judge(job, table, split={**SPLIT, "group": "patient"})


TEXT_CHECKS = [
    {"name": n} for n in ("labels", "duplicates", "leakage", "text_quality", "near_duplicates", "label_leak")
]
TOPICS = {"sea": "tide wave salt ship", "hill": "stone slope goat path", "town": "street tram shop roof"}


@pytest.fixture
def mails() -> pd.DataFrame:
    """300 short texts of three labels, as `ingest` gives them: a word of the topic in most, and honest ones around."""
    rng = np.random.default_rng(0)
    common = [
        f"{a}{b}" for a in ("ba", "ke", "lo", "mi", "nu", "po") for b in ("ra", "st", "zo", "ng", "ve", "lt", "ck")
    ]
    rows = []
    for n in range(300):
        label = list(TOPICS)[n % 3]
        chosen = [*rng.choice(common, 30), *rng.choice(TOPICS[label].split(), 2)]
        text = " ".join(str(word) for word in rng.permutation(chosen))
        seen = text_classification.inspect({"text": text}, Path())
        properties = {f"property.{k}": v for k, v in seen.properties.items()}
        rows.append(
            {"id": f"{n:03d}", "sha256": seen.sha256, "input.text": text, "label": label, **properties, "note": ""}
        )
    return pd.DataFrame(rows)


def say(table: pd.DataFrame, row: int, text: str) -> None:
    table.loc[row, "input.text"] = text
    table.loc[row, "sha256"] = hashlib.sha256(text.encode()).hexdigest()


def test_clean_texts_pass_all_checks(job: Job, mails: pd.DataFrame) -> None:
    judge(job, mails, checks=TEXT_CHECKS)
    accepted, _, findings, verdict = result(job)
    assert findings == []
    assert verdict.passed
    assert list(accepted["input.text"]) == list(mails["input.text"])


def test_the_faults_of_texts_are_told_each_by_its_check(job: Job, mails: pd.DataFrame) -> None:
    say(mails, 0, mails["input.text"][1])  # the same text, as sea and as hill
    say(mails, 3, mails["input.text"][6] + " indeed")
    say(mails, 9, "caf\u00c3\u00a9 <br> " + mails["input.text"][9])
    for row in range(2, 300, 3):
        say(mails, row, f"[T] {mails['input.text'][row]}")
    judge(job, mails, checks=TEXT_CHECKS)
    _, _, findings, verdict = result(job)
    told = sorted((f["check"], f["severity"]) for f in findings)
    assert told == [
        ("duplicates", "error"), ("label_leak", "warning"), ("near_duplicates", "warning"), ("text_quality", "warning"),
        ("text_quality", "warning"),
    ]  # fmt: skip
    assert {r.name for r in verdict.rules if not r.passed} == {"duplicates"}
    assert "1 content(s) with different labels (000 is `sea` = 001 is `hill`); keep the right one" in verdict.refusal()
    leak = next(f["message"] for f in findings if f["check"] == "label_leak")
    assert "label `town` away" in leak
    assert "`[t]` in" in leak


def test_findings_about_texts_are_the_same_bytes_each_time(job: Job, mails: pd.DataFrame) -> None:
    for row in range(5, 60, 5):
        say(mails, row, mails["input.text"][0] + f" {row}")
    found = []
    for table in (mails, mails, mails.sample(frac=1, random_state=4)):
        judge(job, table, checks=TEXT_CHECKS)
        found.append([job.out(name).read_bytes() for name in ("findings.json", "verdict.json", "accepted.parquet")])
    assert len(result(job)[2]) > 1
    assert found[0] == found[1] == found[2]


def test_a_check_of_texts_over_images_is_a_mistake_in_params(job: Job, clean: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"validate\.checks: text_quality .* has input\.path"):
        judge(job, clean, checks=[{"name": "text_quality"}])


def test_the_shares_hold_where_most_sets_of_labels_occur_once(make_job: Callable[..., Job]) -> None:
    rng = np.random.default_rng(1)
    held = [[f"label {k}" for k in np.flatnonzero(rng.random(10) < 0.4)] for _ in range(200)]
    table = factories.text_manifest(100).assign(label=[";".join(own) or "(none)" for own in held])
    assert table["label"].nunique() > 100
    job = make_job("validate", stage.NEEDS, task="text_classification", decision="multi_label")
    metrics = judge(job, table)
    assert metrics["num_labels"] == 10
    for name, share in SPLIT.items():
        assert metrics[f"num_{name}"] / 200 == pytest.approx(share, abs=0.025)
