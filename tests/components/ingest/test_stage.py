"""The stage on real files: what it writes, that counts reconcile, that broken files change nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import numpy as np
import odd_images
import pandas as pd
import pytest

from components import contracts
from components.contracts import InputError
from components.ingest import stage
from components.job import Job

MakeJob = Callable[..., Job]


def run(job: Job, source: Any, data: str = "data") -> dict[str, float]:
    job.clear()
    return stage.run(stage.Params.model_validate({"source": source, "data": data}), job)


def manifest(job: Job) -> pd.DataFrame:
    return contracts.read_table(job.building / "manifest.parquet")


def quarantine(job: Job) -> pd.DataFrame:
    return contracts.read_table(job.building / "quarantine.parquet")


def all_bytes(job: Job) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(job.building.rglob("*")) if p.is_file()}


def test_every_odd_file_is_used_and_every_broken_one_has_its_reason(make_job: MakeJob, tmp_path: Path) -> None:
    odd, broken = odd_images.odd(), odd_images.broken()
    for name, content in [(n, o.content) for n, o in odd.items()] + [(n, c) for n, (c, _) in broken.items()]:
        path = tmp_path / "data" / ("a" if len(name) % 2 else "b") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "data/a/read me.txt").write_text("x")
    job = make_job("ingest")
    metrics = run(job, "image_folder")
    assert metrics["num_seen"] == len(odd) + len(broken) + 1 == metrics["num_used"] + metrics["num_quarantined"]
    assert {Path(i).name for i in manifest(job)["id"]} == set(odd)
    aside = quarantine(job)
    told = {Path(i).name: reason for i, reason in zip(aside["id"], aside["reason"])}
    assert told == {name: reason for name, (_, reason) in broken.items()} | {"read me.txt": "not_an_image_file"}
    assert contracts.read_json(job.building / "summary.json")["reasons"]["truncated_or_corrupt"] > 20


def test_broken_files_among_them_leave_the_rows_of_the_good_ones_as_they_are(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job("ingest")
    data = factories.image_folder(tmp_path / "data", per_label=30)
    run(job, "image_folder")
    clean = manifest(job)
    rng = np.random.default_rng(0)
    num_bad = 0
    for name, (content, _) in odd_images.broken().items():
        if rng.random() < 0.3:
            (data / str(rng.choice(factories.SHAPES[:3])) / f"{rng.integers(100)}_{name}").write_bytes(content)
            num_bad += 1
    metrics = run(job, "image_folder")
    assert num_bad >= 9
    assert metrics["num_quarantined"] == num_bad
    pd.testing.assert_frame_equal(manifest(job), clean)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_same_bytes_each_time_whatever_the_threads(make_job: MakeJob, tmp_path: Path, threads: int) -> None:
    factories.image_folder(tmp_path / "data", per_label=6)
    (tmp_path / "data/circle/broken.png").write_bytes(b"no image")
    job = make_job("ingest")
    run(job, "image_folder")
    first = all_bytes(job)
    other = make_job("ingest", threads=threads)
    run(other, "image_folder")
    assert all_bytes(other) == first


def test_a_table_and_a_folder_give_the_same_rows(make_job: MakeJob, tmp_path: Path) -> None:
    data = factories.image_folder(tmp_path / "data", per_label=4)
    job = make_job("ingest")
    run(job, "image_folder")
    expected = manifest(job)
    paths = sorted(p.relative_to(data).as_posix() for p in data.rglob("*.png"))
    lines = ["path,label", *(f"{p},{p.split('/')[0]}" for p in reversed(paths))]
    (data / "t.csv").write_text("\n".join(lines))
    run(job, {"name": "table", "file": "t.csv"})
    pd.testing.assert_frame_equal(manifest(job), expected)


def test_rows_that_a_source_set_aside_and_files_that_are_gone_are_counted(make_job: MakeJob, tmp_path: Path) -> None:
    data = factories.image_folder(tmp_path / "data", per_label=2)
    rows = ["circle/000.png,NA,ann", "circle/001.png,,bob", "gone.png,x,ann", "too,many,fields,here", ".,x,y"]
    (data / "t.csv").write_text("path,label,who\n" + "\n".join(rows))
    job = make_job("ingest")
    metrics = run(job, {"name": "table", "file": "t.csv", "attributes": ["who"]})
    assert metrics == {"num_seen": 5, "num_used": 2, "num_quarantined": 3, "num_labels": 1}
    assert list(manifest(job)["label"]) == ["NA", None]
    assert list(manifest(job)["attribute.who"]) == ["ann", "bob"]
    assert contracts.read_json(job.building / "summary.json")["reasons"] == {
        "cannot_open": 1, "not_a_file": 1, "wrong_number_of_fields": 1,
    }  # fmt: skip


def test_mistakes_are_told_and_say_what_to_do(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job("ingest")
    with pytest.raises(InputError, match="nowhere is not there"):
        run(job, "image_folder", "nowhere")
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=r"no samples in data\. It expects a folder for each label"):
        run(job, "image_folder")
    (tmp_path / "data/a.png").write_text("no image")
    with pytest.raises(InputError, match=r"none of 1 samples can be used.*not_an_image"):
        run(job, "image_folder")


def test_golden_row_of_the_digits(make_job: MakeJob) -> None:
    job = make_job("ingest")
    (job.root / "data").mkdir()
    metrics = run(job, {"name": "sklearn_digits", "limit": 40})
    assert metrics == {"num_seen": 40, "num_used": 40, "num_quarantined": 0, "num_labels": 10}
    first = manifest(job).iloc[0]
    assert (first["id"], first["label"], first["input.path"]) == (
        "0000",
        "0",
        "artifacts/ingest/samples/0000.png",
    )
    assert first["property.brightness"] == pytest.approx(0.287194, abs=1e-6)


def test_labels_are_counted_one_by_one_where_samples_have_several(make_job: MakeJob, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = ["text,label", "one,a;b", "two,b;a", "three,(none)", "four,b", "five,"]
    (tmp_path / "data/t.csv").write_text("\n".join(rows))
    job = make_job("ingest", task="text_classification", decision="multi_label")
    metrics = run(job, {"name": "text_table", "file": "t.csv"})
    assert (metrics["num_used"], metrics["num_labels"]) == (5, 2)
    assert contracts.read_json(job.building / "summary.json")["labels"] == {"a": 2, "b": 3}
