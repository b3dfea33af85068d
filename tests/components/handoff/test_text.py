"""A bundle of a text run: the very ids and answers of the training code, wherever it runs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import odd_texts
import pandas as pd
import pytest
import torch
import upstream

from components import plugins
from components.contracts import read_json, read_table, write_json
from components.handoff import stage
from components.handoff.verify import BundleError
from components.job import Job
from components.model import Feed, load_run

Predict = Callable[..., Any]
FILES = {
    "SHA256SUMS", "annex_iv.md", "bom.cdx.json", "card.md", "example/1.txt", "example/2.txt", "example/3.txt",
    "evaluation.json",
    "example/expected.json", "labels.json", "ladder.json", "metrics.json", "model.onnx", "predict.py",
    "preprocessing.json", "preprocessing.py", "profile/embeddings.safetensors", "profile/outputs.parquet",
    "profile/profile.json", "profile/properties.parquet", "provenance.json", "report.html", "requirements.txt",
    "serving/kserve.yaml", "serving/triton/trial/config.pbtxt", "signature.json", "tokenizer.json", "verify.py",
}  # fmt: skip
READ_IDS = """
import json, sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import preprocessing
from pathlib import Path
reader = preprocessing.Reader(Path(sys.argv[1]))
found = []
for name in sys.argv[2:]:
    try:
        found.append(reader.read(preprocessing.from_file(Path(name))).tokens.ids.tolist())
    except preprocessing.Unreadable as problem:
        found.append(problem.reason)
print(json.dumps(found))
"""


@pytest.fixture
def bundle(finished_texts: Path, tmp_path: Path) -> Path:
    """A copy, as it arrives elsewhere."""
    return Path(shutil.copytree(finished_texts / "artifacts/handoff/bundle", tmp_path / "a bundle"))


def _handoff(root: Path, **params: Any) -> Path:
    job = Job.at(root, "handoff", stage.NEEDS)
    job.clear()
    given = {"licence": "", "contact": "", "examples": 3, "profile_samples": 40, "stated": {}, **params}
    metrics = stage.run(stage.Params.model_validate(given), job)
    job.publish()
    files = [p for p in (root / "artifacts/handoff/bundle").rglob("*") if p.is_file()]
    assert metrics["num_files"] == len(files)
    return root / "artifacts/handoff/bundle"


def _names(bundle: Path) -> set[str]:
    return {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}


def _by_training_code(root: Path, contents: list[bytes]) -> tuple[list[str | list[int]], np.ndarray, Any]:
    """Ids of each text or the reason that refused it; probabilities of those that were used; the run's record."""
    model, record = load_run(root / "artifacts/finetune/runs/main")
    task, decision = plugins.load("tasks", record.task), plugins.load("decisions", record.decision)
    seen: list[Any] = []
    used: list[str] = []
    for content in contents:
        try:
            task.inspect({"text": (text := content.decode())}, root)
            used.append(text)
            seen.append([])
        except UnicodeDecodeError:
            seen.append("invalid_utf8")
        except task.Unreadable as problem:
            seen.append(problem.reason)
    feed = Feed.of(record.task, record.preprocessing)
    rows = feed.prepare(pd.DataFrame({"input.text": used}), Job.at(root))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), 7):  # batches of another size than predict.py's
            parts.append(model(*map(torch.from_numpy, feed.collate(rows[start : start + 7]))).numpy())
    ids = iter(rows)
    told = [one if isinstance(one, str) else next(ids).tokens.ids.tolist() for one in seen]
    return told, decision.probabilities(np.concatenate(parts), upstream.TEMPERATURE), record


def _write(folder: Path, contents: list[bytes]) -> list[Path]:
    folder.mkdir()
    places = [folder / f"{number:03d}.txt" for number in range(len(contents))]
    for place, content in zip(places, contents):
        place.write_bytes(content)
    return places


def agree(root: Path, bundle: Path, folder: Path, predict: Predict, python: str = sys.executable) -> None:
    """200 held-out texts: the same ids, labels and probabilities, and the same ones refused for the same reason."""
    contents = odd_texts.held_out(200)
    places = _write(folder, contents)
    expected, probabilities, record = _by_training_code(root, contents)
    done = subprocess.run([python, "-c", READ_IDS, bundle, *places], cwd="/", capture_output=True, check=True)
    assert json.loads(done.stdout) == expected
    done = predict(bundle, *places, "--json", python=python)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert [row["file"] for row in told] == [str(place) for place in places]
    assert [row["error"].split(":")[0] if "error" in row else None for row in told] == [
        one if isinstance(one, str) else None for one in expected
    ]
    answered = [row for row in told if "error" not in row]
    assert len(answered) == len(probabilities) >= 185
    found = np.array([[row["probabilities"][label] for label in record.labels] for row in answered])
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
    assert [row["label"] for row in answered] == [record.labels[i] for i in probabilities.argmax(axis=1)]
    assert found.std(axis=0).max() > 0.05  # the texts are not all the same to it


@pytest.mark.parametrize("project", ["finished_texts", "finished_transformer"])
def test_it_gives_the_ids_and_answers_of_the_training_code(
    project: str, tmp_path: Path, predict: Predict, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(project)
    agree(root, root / "artifacts/handoff/bundle", tmp_path / "texts", predict)


@pytest.mark.parametrize("project", ["finished_texts", pytest.param("finished_minilm", marks=pytest.mark.slow)])
def test_so_does_it_in_a_clean_virtual_environment(
    project: str, tmp_path: Path, predict: Predict, clean_environment: Callable[[Path], str],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    root = request.getfixturevalue(project)
    bundle = Path(shutil.copytree(root / "artifacts/handoff/bundle", tmp_path / "a bundle"))
    python = clean_environment(bundle / "requirements.txt")
    for absent in ("torch", "transformers", "PIL", "pandas", "components"):
        done = subprocess.run([python, "-c", f"import {absent}"], cwd="/", capture_output=True, check=False)
        assert done.returncode != 0, absent
    checked = predict(bundle, "--check", python=python, cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    agree(root, bundle, tmp_path / "texts", predict, python)
    assert _names(bundle) == FILES


def test_the_bundle_holds_what_a_text_run_needs_and_no_more(finished_texts: Path) -> None:
    bundle = finished_texts / "artifacts/handoff/bundle"
    assert _names(bundle) == FILES
    spec = read_json(bundle / "preprocessing.json")
    digest = hashlib.sha256((bundle / "tokenizer.json").read_bytes()).hexdigest()
    assert spec.pop("inside")["why"]
    assert spec == {
        "files": {"tokenizer.json": digest}, "inputs": ["input_ids", "attention_mask"], "max_tokens": 32, "pad_id": 0,
        "reads": ["text"], "unknown_id": 1,
    }  # fmt: skip
    lines = (bundle / "requirements.txt").read_text().splitlines()
    assert lines == [f"{n}=={importlib.metadata.version(n)}" for n in ("numpy", "tokenizers", "onnxruntime")]
    before = {name: (bundle / name).read_bytes() for name in FILES}
    again = _handoff(finished_texts)
    assert before == {name: (again / name).read_bytes() for name in _names(again)}


def test_examples_are_real_test_texts(finished_texts: Path) -> None:
    bundle = finished_texts / "artifacts/handoff/bundle"
    test = upstream.test_rows(finished_texts).set_index("id")
    for example in read_json(bundle / "example/expected.json")["examples"]:
        assert (bundle / "example" / example["file"]).read_text() == test.loc[example["id"], "input.text"]


def test_the_signature_is_enough_to_call_the_model(finished_texts: Path) -> None:
    import onnxruntime

    bundle = finished_texts / "artifacts/handoff/bundle"
    told = read_json(bundle / "signature.json")
    ids, mask = told["inputs"]
    assert (ids["name"], ids["shape"], ids["dtype"]) == ("input_ids", ["batch", "length"], "int64")
    assert ids["range"] == [0, len(read_json(bundle / "tokenizer.json")["model"]["vocab"]) - 1]
    assert (ids["max_length"], mask["range"]) == (32, [0, 1])
    assert set(told["free_dimensions"]) == {"batch", "length"}
    given, wanted = told["example"]["in"], told["example"]["out"]
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    label, probabilities, _ = session.run(None, {n: np.array([given[n]]) for n in ("input_ids", "attention_mask")})
    assert label[0] == wanted["label"]
    np.testing.assert_allclose(probabilities[0], wanted["probabilities"], atol=1e-4)
    assert (bundle / given["file"]).is_file()


def test_the_card_speaks_of_texts(finished_texts: Path) -> None:
    card = (finished_texts / "artifacts/handoff/bundle/card.md").read_text()
    assert "image" not in card.replace("test_efficientnet", "").lower()
    for told in (
        'pipeline_tag: "text-classification"',
        "Labels one text with one of 2 labels.",
        "`predict.py` needs numpy, tokenizers, onnxruntime alone.",
        "how texts become the input (tokenizer.json beside them)",
        "| share of texts whose end is cut | 0.04 |",
        "| share of tokens that its vocabulary does not know | 0.031 |",
        "- What stands after the first 32 tokens of a text is not seen.",
        "python predict.py --text",
    ):
        assert told in card, told
    assert "not measured" not in card
    assert "{{" not in card


def test_private_samples_stay_at_home_and_are_checked_all_the_same(
    finished_texts: Path, tmp_path: Path, predict: Predict
) -> None:
    root = Path(shutil.copytree(finished_texts, tmp_path / "project"))
    secret = "John Smith,&nbsp;IBAN DE02 12"
    finding = {"check": "label_leak", "severity": "warning", "message": f"({secret})", "num_samples": 7, "samples": []}
    write_json(root / "artifacts/validate/findings.json", [finding])
    upstream.write_lineages(root, Path(__file__).parents[3])
    assert secret in (_handoff(root) / "card.md").read_text()
    bundle = _handoff(root, examples=0)
    left_out = {name for name in FILES if name.startswith("example/")} | {"report.html"}
    assert _names(bundle) == FILES - left_out
    assert "example" not in read_json(bundle / "signature.json")
    texts = set(upstream.test_rows(root)["input.text"])
    for name in _names(bundle):
        content = (bundle / name).read_text("utf-8", errors="replace")
        assert not any(text in content for text in texts), name
        assert "John Smith" not in content, name
    card = (bundle / "card.md").read_text()
    assert "There are no examples and no `report.html` here" in card
    assert "\n- warning, label_leak: 7 samples\n" in card
    done = predict(bundle, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "answers were not checked" in done.stdout
    record = read_json(root / "artifacts/export/export.json")
    record["examples"][1]["probabilities"] = record["examples"][1]["probabilities"][::-1]
    write_json(root / "artifacts/export/export.json", record)
    upstream.write_lineages(root, Path(__file__).parents[3])
    with pytest.raises(BundleError, match=r"example/2\.txt.*0\.0001 is allowed"):
        _handoff(root, examples=0)


def test_a_path_in_a_sample_or_a_vocabulary_is_not_ours(finished_texts: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(finished_texts, tmp_path / "project"))
    place = root / "artifacts/validate/accepted.parquet"
    table = read_table(place)
    table["input.text"] = f"the food was good in {root}/data and in {Path.home()}"
    table.to_parquet(place)
    shown = read_json(root / "artifacts/export/export.json")
    model, record = load_run(root / "artifacts/finetune/runs/main")
    feed = Feed.of(record.task, record.preprocessing)
    with torch.inference_mode():
        logits = model(*map(torch.from_numpy, feed.collate(feed.prepare(table[:1], Job.at(root))))).numpy()
    probabilities = plugins.load("decisions", "single_label").probabilities(logits, upstream.TEMPERATURE)[0]
    for example in shown["examples"]:
        example |= {"probabilities": list(probabilities), "predicted": record.labels[probabilities.argmax()]}
    write_json(root / "artifacts/export/export.json", shown)
    upstream.write_lineages(root, Path(__file__).parents[3])
    bundle = _handoff(root)
    assert str(root) in (bundle / "example/1.txt").read_text()


def test_pairs_and_several_labels(finished_pairs: Path, tmp_path: Path, predict: Predict) -> None:
    bundle = Path(shutil.copytree(finished_pairs / "artifacts/handoff/bundle", tmp_path / "bundle"))
    expected = read_json(bundle / "example/expected.json")["examples"]
    assert all(isinstance(example["predicted"], list) for example in expected)
    told = read_json(bundle / "signature.json")
    assert told["outputs"][0]["name"] == "labels"
    assert told["outputs"][0]["range"] == [0, 1]
    first = read_json(bundle / "example/1.json")
    assert told["example"]["out"]["labels"] == [int(n in expected[0]["predicted"]) for n in ("blame", "praise")]
    card = (bundle / "card.md").read_text()
    assert "Labels one text with any of 2 labels." in card
    assert "sigmoid(logits / 1.7)" in card
    (tmp_path / "pairs.jsonl").write_text(json.dumps(first) + "\n[]\n")
    done = predict(
        bundle, bundle / "example/1.json", "--text", first["text"], "--pair", first["pair"], "--lines",
        tmp_path / "pairs.jsonl", "--json",
    )  # fmt: skip
    assert done.returncode == 2
    rows = json.loads(done.stdout)
    assert "error" in rows.pop()
    for row in rows:
        assert row["labels"] == expected[0]["predicted"]
        for label, probability in expected[0]["probabilities"].items():
            assert row["probabilities"][label] == pytest.approx(probability, abs=1e-5)
    assert predict(bundle, "--check").returncode == 0
    shown = predict(bundle, bundle / "example/1.json").stdout
    assert f": [{', '.join(expected[0]['predicted'])}] " in shown


def test_a_model_refuses_what_it_was_not_trained_on(
    finished_pairs: Path, bundle: Path, tmp_path: Path, predict: Predict
) -> None:
    of_pairs = Path(shutil.copytree(finished_pairs / "artifacts/handoff/bundle", tmp_path / "pairs"))
    (tmp_path / "a.txt").write_text("the food")
    (tmp_path / "lines.jsonl").write_text('{"text": "the food"}\n{"text": "the food", "pair": ""}\n')
    told = predict(of_pairs, "a.txt", "--text", "the food", "--lines", "lines.jsonl", "--json", cwd=tmp_path)
    assert told.returncode == 2
    assert told.stderr.count("no_pair: this model compares two texts: give --pair") == 3
    assert [row.get("file", "text") for row in json.loads(told.stdout) if "error" not in row] == ["lines.jsonl"]
    assert "pair of texts of any length" in (card := (of_pairs / "card.md").read_text())
    assert 'predict.py --text "..." --pair' in card
    told = predict(bundle, "--text", "the food", "--pair", "the service")
    assert (told.returncode, told.stdout) == (2, "")
    assert "a_pair: this model reads one text" in told.stderr
    assert "--pair" not in (bundle / "card.md").read_text()


def test_texts_come_from_arguments_lines_and_standard_input(bundle: Path, tmp_path: Path, predict: Predict) -> None:
    lines = ["the food was good", "awful \U0001f600 service today", "the table was broken and poor " * 9]
    (tmp_path / "lines.txt").write_bytes("\r\n".join(lines).encode())
    one = json.loads(predict(bundle, "--json", *(part for line in lines for part in ("--text", line))).stdout)
    two = json.loads(predict(bundle, "--json", "--lines", "lines.txt", cwd=tmp_path).stdout)
    three = json.loads(predict(bundle, "--json", "--lines", "-", given="\n".join(lines)).stdout)
    assert [row.pop("text") for row in one] == lines
    assert [(row.pop("file"), row.pop("line")) for row in two] == [("lines.txt", n) for n in (1, 2, 3)]
    assert [(row.pop("file"), row.pop("line")) for row in three] == [("-", n) for n in (1, 2, 3)]
    assert one == two == three
    assert len({row["probabilities"]["blame"] for row in one}) == 3
    shown = predict(bundle, "--lines", "lines.txt", "--text", lines[2], "--top", "1", cwd=tmp_path).stdout.splitlines()
    assert shown[0].startswith("the table was broken")
    assert "…: " in shown[0]
    assert shown[1] == f"lines.txt:1: {one[0]['label']} {max(one[0]['probabilities'].values()):.4f}"


def test_a_line_that_cannot_be_read_is_told_and_the_others_labelled(
    bundle: Path, tmp_path: Path, predict: Predict
) -> None:
    (tmp_path / "lines.txt").write_bytes(b"the food\n\n \xc2\xa0\nbad\xff\nnul\0\nthe service\n")
    done = predict(bundle, "--lines", "lines.txt", "--lines", "lines.txt", cwd=tmp_path)
    assert done.returncode == 2
    assert [line.split(": ")[:2] for line in done.stderr.splitlines()] == [
        ["error", f"lines.txt:{n}"] for n in (2, 3, 4, 5)
    ]
    for told in ("2: empty_text", "3: empty_text: blanks only", "4: invalid_utf8: at byte 3", "5: nul_byte: at char"):
        assert told in done.stderr, told
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == ["lines.txt:1", "lines.txt:6"]
    lost = predict(bundle, "--lines", "nowhere.txt", "--text", "the food")
    assert (lost.returncode, len(lost.stdout.splitlines())) == (2, 1)
    assert lost.stderr == "error: nowhere.txt: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments", [[], ["--top", "0", "--text", "x"], ["--text", "x", "--text", "y", "--pair", "z"], ["--pair", "z"]]
)
def test_wrong_arguments_are_told(arguments: list[str], bundle: Path, predict: Predict) -> None:
    done = predict(bundle, *arguments)
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_that_cannot_show_it_is_no_fault(bundle: Path, predict: Predict) -> None:
    done = predict(bundle, "--text", "😀 food", "--text", " ", PYTHONIOENCODING="ascii")
    assert done.stdout.startswith("\\U0001f600 food: ")
    done = predict(bundle, "--text", "😀 food", "--json", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)[0]["text"] == "😀 food"


def test_the_order_of_answers_is_that_of_the_samples_whatever_their_lengths(
    finished_texts: Path, bundle: Path, predict: Predict
) -> None:
    contents = [content for content in odd_texts.held_out(120) if len(content) < 5000]
    expected, probabilities, record = _by_training_code(finished_texts, contents)
    lines = [
        c.replace(b"\r", b" ").replace(b"\n", b" ") for c, ids in zip(contents, expected) if not isinstance(ids, str)
    ]
    found = predict(bundle, "--lines", "-", "--json", given=b"\n".join(lines).decode())
    told = [[row["probabilities"][label] for label in record.labels] for row in json.loads(found.stdout)]
    np.testing.assert_allclose(told, probabilities, atol=1e-5)
    assert len({len(ids) for ids in expected}) > 10


@pytest.mark.parametrize("name", ["model.onnx", "labels.json", "preprocessing.json", "tokenizer.json"])
def test_a_broken_bundle_is_told(name: str, bundle: Path, predict: Predict) -> None:
    (bundle / name).write_bytes(b"{not this")
    done = predict(bundle, "--text", "the food")
    assert done.returncode == 1
    assert "this folder is not whole" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_sees_another_tokenizer(bundle: Path, predict: Predict) -> None:
    """Whoever changes the tokenizer, its hash and the checksums still has the golden examples against him."""
    from components.handoff.verify import write_checksums

    tokenizer = read_json(bundle / "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    turned = dict(zip(vocabulary, [*list(vocabulary.values())[:2], *list(vocabulary.values())[:1:-1]]))
    tokenizer["model"]["vocab"] = turned
    content = json.dumps(tokenizer).encode()
    (bundle / "tokenizer.json").write_bytes(content)
    spec = read_json(bundle / "preprocessing.json")
    spec["files"]["tokenizer.json"] = hashlib.sha256(content).hexdigest()
    write_json(bundle / "preprocessing.json", spec)
    (bundle / "SHA256SUMS").unlink()
    write_checksums(bundle)
    done = predict(bundle, "--check")
    assert done.returncode == 1
    assert "probabilities differ by" in done.stderr
