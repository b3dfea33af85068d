"""The stage on real small files: a tiny network's own predictions and embeddings, and folders of images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance
from pydantic import ValidationError

from components.contracts import InputError, Refused, RunRecord, Verdict, read_json, write_json, write_table
from components.drift.stage import OWN_TEST, Params, run

LABELS = ("circle", "square", "triangle")
NEEDS = ("evaluate", "finetune", "validate")
BACKBONE = {"name": "timm", "model": "test_byobnet", "image_size": 32, "weights": {"source": "random"}}


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as `validate`, `finetune` and `evaluate` leave it."""
    import torch
    from safetensors.numpy import save_file

    from components import plugins
    from components.model import Feed, TransferModel, infer, save_run
    from components.tasks import image_classification as task

    root = tmp_path_factory.mktemp("line")
    table = factories.manifest(root, factories.image_folder(root / "data", 60), split=True)
    choice = plugins.choose("backbones", BACKBONE)
    preprocessing = choice.load().preprocessing(choice.params)
    torch.manual_seed(0)
    model = TransferModel(choice.load().build(choice.params, pretrained=False), 3)
    torch.nn.init.normal_(model.head.weight)
    record = RunRecord(
        "main", "candidate", "image_classification", "single_label", choice.spec(), False, {}, LABELS, preprocessing
    )
    parts, embeddings = [], {}
    for split in ("test", "validation"):
        own = table[table["split"] == split].reset_index(drop=True)
        rows = task.prepare(own, preprocessing, root, _folder(root / "cache"), 2, lambda items, *_: iter(items))
        embeddings[split] = infer(
            model.backbone,
            rows,
            Feed(task, preprocessing),
            torch.device("cpu"),
            lambda i, *_: iter(i),
            "",
        )
        with torch.inference_mode():
            if split == "test":  # centred logits, so that every label is predicted
                model.head.bias.copy_(-model.head.weight @ torch.from_numpy(embeddings[split]).mean(0))
            shares = torch.softmax(model.head(torch.from_numpy(embeddings[split])).double() / 2.0, 1).numpy()
        own["predicted"] = np.array(LABELS, object)[shares.argmax(1)]
        parts.append(own.assign(run="main", confidence=shares.max(1)))
    save_run(root / "artifacts/finetune/runs/main", model, record)
    write_table(root / "artifacts/validate/accepted.parquet", table)
    _folder(root / "artifacts/evaluate")
    write_table(root / "artifacts/evaluate/predictions.parquet", pd.concat(parts, ignore_index=True))
    write_json(root / "artifacts/evaluate/calibration.json", {"temperature": {"main": 2.0}})
    save_file(embeddings, root / "artifacts/evaluate/embeddings.safetensors")
    return root


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def section(**changes: Any) -> Params:
    given = {
        "current": {"data": OWN_TEST},
        "columns": {"name": "ks"},
        "embeddings": {"name": "permutation_mmd", "num_permutations": 199, "alpha": 0.01},
    }
    return Params.model_validate({**given, **changes})


@pytest.fixture
def ran(line: Path) -> Callable[..., tuple[dict[str, float], dict[str, Any]]]:
    from components.job import Job

    def do(**changes: Any) -> tuple[dict[str, float], dict[str, Any]]:
        job = Job.at(line, "drift", NEEDS)
        job.clear()
        metrics = run(section(**changes), job)
        return metrics, read_json(job.building / "drift.json")

    return do


def darker(line: Path, name: str, factor: float) -> dict[str, Any]:
    """The test split's images, made darker, as a folder of class folders."""
    table = pd.read_parquet(line / OWN_TEST)
    for path in table[table["split"] == "test"]["input.path"]:
        place = line / name / Path(path).relative_to("data")
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(line / path) as image:
            ImageEnhance.Brightness(image).enhance(factor).save(place)
    return {"data": name, "source": {"name": "image_folder"}}


def test_the_own_test_split_shows_no_drift(ran: Any) -> None:
    metrics, told = ran()
    assert metrics["num_columns_drifted"] == 0
    assert metrics["share_of_columns"] == 0
    assert metrics["embeddings_drifted"] == 0
    assert metrics["embeddings_p_value"] > 0.01
    assert metrics["num_current"] == 45
    assert told["headline"].startswith("0 of 7 columns of the test split differ")
    by_name = {c["column"]: c for c in told["columns"]}
    assert by_name["brightness"]["reference"] == "train"
    assert by_name["brightness"]["num_reference"] == 90
    assert by_name["confidence"]["reference"] == "validation"
    assert by_name["confidence"]["num_reference"] == 45
    assert by_name["width"]["note"] == "no drift: 32.0 on both sides"
    assert by_name["width"]["score"] is None
    assert "true label" not in by_name


def test_the_same_samples_from_a_folder_give_what_evaluate_gave(ran: Any, line: Path) -> None:
    here, told_here = ran()
    there, told_there = ran(current=darker(line, "same", 1.0))
    for key in ("embeddings_score", "embeddings_p_value"):
        assert there[key] == pytest.approx(here[key], rel=1e-3)
    scores = [{c["column"]: c["p_value"] for c in t["columns"]} for t in (told_here, told_there)]
    assert scores[1]["predicted label"] == pytest.approx(scores[0]["predicted label"])
    assert scores[1]["confidence"] == pytest.approx(scores[0]["confidence"], rel=1e-3)
    assert "true label" in scores[1]  # every sample has one


def test_a_planted_drift_is_found_and_named(ran: Any, line: Path) -> None:
    metrics, told = ran(current=darker(line, "dark", 0.3))
    assert {c["column"] for c in told["columns"] if c["drifted"]} >= {"brightness", "contrast"}
    assert metrics["share_of_columns"] > 0.2
    assert metrics["embeddings_drifted"] == 1
    assert "columns of dark differ" in told["headline"]
    assert "have drifted" in told["headline"]
    plot = pd.read_csv(line / "artifacts/.building/drift/columns.csv")
    assert list(plot.columns) == ["column", "share_of_threshold", "score", "drifted"]
    assert plot["share_of_threshold"].is_monotonic_decreasing
    assert ((plot["share_of_threshold"] >= 1) == plot["drifted"]).all()


def test_unreadable_samples_and_unknown_labels_are_counted(ran: Any, line: Path) -> None:
    current = darker(line, "mixed", 1.0)
    (line / "mixed/circle/broken.png").write_bytes(b"nothing")
    _folder(line / "mixed/hexagon")
    Image.new("RGB", (32, 32), (200, 10, 10)).save(line / "mixed/hexagon/0.png")
    metrics, told = ran(current=current)
    assert told["unreadable"] == {"not_an_image": 1}
    assert metrics["num_unreadable"] == 1
    assert metrics["num_current"] == 46
    assert told["unknown_labels"] == {"hexagon": 1}


def test_a_source_that_makes_its_samples_leaves_nothing_behind(ran: Any, line: Path) -> None:
    current = {"data": "data", "source": {"name": "sklearn_digits", "limit": 40}}
    metrics, _ = ran(current=current)
    assert metrics["num_current"] == 40
    assert metrics["embeddings_drifted"] == 1
    assert sorted(p.name for p in (line / "artifacts/.building/drift").iterdir()) == [
        "columns.csv",
        "drift.json",
    ]
    assert not list((line / ".graftline/drift").rglob("*.png"))


def test_too_few_samples_are_not_measured(ran: Any, line: Path) -> None:
    _folder(line / "few/circle")
    for n in range(3):
        Image.new("RGB", (32, 32), (n, 10, 10)).save(line / f"few/circle/{n}.png")
    metrics, told = ran(current={"data": "few", "source": {"name": "image_folder"}})
    assert metrics == {"num_current": 3.0, "num_unreadable": 0.0, "num_columns": 0.0}
    assert "were not compared: 45 against 3 samples" in told["headline"]


def test_the_same_run_twice_gives_the_same_bytes_also_with_evidently(ran: Any, line: Path) -> None:
    both = []
    for _ in range(2):
        ran(columns={"name": "evidently_columns"})
        both.append({p.name: p.read_bytes() for p in (line / "artifacts/.building/drift").iterdir()})
    assert sorted(both[0]) == ["columns.csv", "drift.json"]
    assert both[0] == both[1]
    assert (line / "reports/drift/evidently.html").stat().st_size > 100_000


def test_mistakes_are_told(ran: Any, line: Path) -> None:
    with pytest.raises(InputError, match=r"drift\.current\.data: nowhere is not there"):
        ran(current={"data": "nowhere", "source": {"name": "image_folder"}})
    _folder(line / "empty/circle")
    with pytest.raises(InputError, match=r"drift\.current\.data: empty: no samples"):
        ran(current={"data": "empty", "source": {"name": "image_folder"}})
    (_folder(line / "bad/circle") / "0.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"none of 1 samples can be used: \{'not_an_image': 1\}"):
        ran(current={"data": "bad", "source": {"name": "image_folder"}})


def test_params_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"needs `source: \{name: \.\.\.\}`, one of: .*image_folder"):
        section(current={"data": "new"})
    with pytest.raises(ValidationError, match="takes no `source`"):
        section(current={"data": OWN_TEST, "source": {"name": "image_folder"}})
    with pytest.raises(
        ValidationError, match=r"ks does not compare embeddings\. Those that do: classifier_two_sample, perm"
    ):
        section(embeddings="ks")
    with pytest.raises(ValidationError, match="permutation_mmd does not compare columns"):
        section(columns="permutation_mmd")
    assert json.loads(section().model_dump_json())["current"] == {"data": OWN_TEST, "source": None}


def test_data_that_validate_refused_is_not_compared(ran: Any, line: Path) -> None:
    verdict = line / "artifacts/validate/verdict.json"
    write_json(verdict, Verdict("validate", False))
    try:
        with pytest.raises(Refused):
            ran()
    finally:
        verdict.unlink()


@pytest.mark.parametrize(
    ("pairs", "told"), [(True, "text of each .* on text, text_pair"), (False, "text, text_pair of")]
)
def test_current_samples_must_be_what_the_model_was_trained_on(tmp_path: Path, pairs: bool, told: str) -> None:
    import upstream

    from components import plugins
    from components.contracts import InputError
    from components.drift import sides
    from components.job import Job

    table = factories.text_manifest(20, split=True)
    if pairs:
        table["input.text_pair"] = table["input.text"].to_numpy()[::-1]
    upstream.before_text_export(tmp_path, upstream.word_vectors(tmp_path), table)
    (tmp_path / "now.csv").write_text("text,second,label\nthe food was good,,praise\nthe bad table,the food,blame\n")
    job = Job.at(tmp_path, "drift", NEEDS, task="text_classification")

    def found(**options: Any) -> sides.Side:
        source = plugins.choose("ingest.sources", {"name": "text_table", **options})
        return sides.found("now.csv", source, job)

    fitting: dict[str, Any] = {"text_pair": "second"} if pairs else {}
    assert len(found(**fitting).outputs) == 2
    with pytest.raises(InputError, match=rf"drift\.current\.source: text_table gives {told}"):
        found(**({} if pairs else {"text_pair": "second"}))
