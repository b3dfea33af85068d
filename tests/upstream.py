"""What `export` and `handoff` read, made small: real images or texts, an untrained network, records by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import factories
import numpy as np
import tiny_language_models
import torch

from components import lineage, plugins
from components.contracts import Rule, RunRecord, Verdict, inputs_of, read_json, read_table, write_json, write_table
from components.job import Job
from components.model import Feed, TransferModel, save_run

if TYPE_CHECKING:
    import pandas as pd

TEMPERATURE = 1.7
EXPORT_NEEDS = ("validate", "finetune", "evaluate", "gate")
EXPORT = {
    "target": {"name": "onnx"}, "max_difference": {"probabilities": 1e-5, "embedding": 1e-5},
    "max_rounding": 8, "max_flips": 0, "rungs": [], "variant": "fp32", "max_loss": 0.01, "min_speedup": 1.2,
    "num_calibration": 64, "max_size_mb": None, "max_latency_ms": None, "max_memory_mb": None,
}  # fmt: skip
"""Params of the stage `export`: float32 alone, so that the same bytes come each time."""
QUALITY = {"num_bootstrap": 100, "level": 0.95, "num_bins": 10}
"""Params of the stage `evaluate`."""


def backbone_spec(model: str = "test_efficientnet", size: int = 32) -> dict[str, Any]:
    """A tiny timm network from random weights."""
    return {"name": "timm", "model": model, "image_size": size, "weights": {"source": "random"}}


def network(spec: dict[str, Any], num_labels: int, seed: int = 0) -> TransferModel:
    """Of images, in eval mode, with norm statistics and a head that are not the initial ones."""
    torch.manual_seed(seed)
    choice = plugins.choose("backbones", spec)
    model = TransferModel(choice.load().build(choice.params, pretrained=False), num_labels)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    size = spec["image_size"]
    _spread(model.eval(), torch.randn(32, 3, 1, 1) + 0.3 * torch.randn(32, 3, size, size))
    return model


@torch.inference_mode()
def _spread(model: TransferModel, *inputs: torch.Tensor) -> None:
    """A head that tells samples apart: logits of those inputs have mean 0 and deviation near 2."""
    features = model.backbone(*inputs)
    scale = 2 / (features.std(dim=0) * features.shape[1] ** 0.5 + 1e-6)
    model.head.weight.copy_(torch.randn_like(model.head.weight) * scale)
    model.head.bias.copy_(-model.head.weight @ features.mean(dim=0))


def before_export(root: Path, model: str = "test_efficientnet", size: int = 32, per_label: int = 28) -> None:
    """validate, finetune, evaluate and gate, as far as `export` reads them, of a run on images."""
    folder = factories.image_folder(root / "data", per_label)
    table = factories.manifest(root, folder, split=True)
    spec = backbone_spec(model, size)
    labels = tuple(sorted(set(table["label"])))
    choice = plugins.choose("backbones", spec)
    preprocessing = choice.load().preprocessing(choice.params)
    _publish(root, table, "image_classification", "single_label", spec, preprocessing, network(spec, len(labels)))


def before_text_export(
    root: Path, spec: dict[str, Any], table: pd.DataFrame | None = None, decision: str = "single_label"
) -> None:
    """The same of a run on texts; the table is a manifest with `split`."""
    table = factories.text_manifest(40, split=True) if table is None else table
    choice = plugins.choose("backbones", spec)
    preprocessing = choice.load().preprocessing(choice.params)
    torch.manual_seed(0)
    num_labels = len(plugins.load("decisions", decision).labels(table["label"]))
    model = TransferModel(choice.load().build(choice.params, preprocessing=preprocessing), num_labels).eval()
    feed = Feed.of("text_classification", preprocessing)
    _spread(model, *map(torch.from_numpy, feed.collate(feed.prepare(table.head(64), Job.at(root)))))
    _publish(root, table, "text_classification", decision, spec, preprocessing, model)


def _publish(
    root: Path, table: pd.DataFrame, task: str, decision: str, spec: dict[str, Any], preprocessing: dict[str, Any],
    model: TransferModel,
) -> None:  # fmt: skip
    write_table(root / "artifacts/ingest/manifest.parquet", table.drop(columns="split"))
    write_table(root / "artifacts/validate/accepted.parquet", table)
    write_json(root / "artifacts/validate/verdict.json", Verdict("validate", True))
    record = RunRecord(
        run="main",
        role="candidate",
        task=task,
        decision=decision,
        backbone=plugins.choose("backbones", spec).spec(),
        pretrained=True,
        strategy={"name": "full", "epochs": 2},
        labels=plugins.load("decisions", decision).labels(table["label"]),
        preprocessing=preprocessing,
        base_weights={"source": "package", "file": "tiny.pth", "sha256": "ab" * 32, "licence": "apache-2.0"},
        policy={"policy": {"name": "light"}, "seed": 17, "note": ""},
        epochs=2,
        best_epoch=1,
        num_samples_seen=84,
        inputs=inputs_of(table),
    )
    save_run(root / "artifacts/finetune/runs/main", model, record)
    write_json(root / "artifacts/evaluate/calibration.json", {"temperature": {"main": TEMPERATURE}})
    write_json(root / "artifacts/evaluate/quality.json", {"settings": QUALITY})
    judge(root, True)


def word_vectors(root: Path, max_tokens: int = 32) -> dict[str, Any]:
    """A backbone of texts: a small GloVe file with random vectors of the words that `factories` writes."""
    words = [*factories.FILLERS, *(word for own in factories.WORDS.values() for word in own), "."]
    vectors = np.random.default_rng(0).normal(size=(len(words), 8))
    lines = [f"{word} {' '.join(f'{v:.4f}' for v in row)}\n" for word, row in zip(words, vectors)]
    place = root / "tiny.glove.txt"
    place.write_text("".join(lines))
    weights = {"source": "file", "path": str(place), "sha256": lineage.hash_file(place)}
    return {"name": "word_vectors", "weights": weights, "max_tokens": max_tokens}


def tiny_bert(root: Path, max_tokens: int = 24) -> dict[str, Any]:
    """A backbone of texts whose features go through attention: what a token gives rests on all others."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=28, max_position_embeddings=64, initializer_range=0.2, **sizes)
    torch.manual_seed(0)
    folder = root / "tiny-bert"
    BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(factories.tokenizer_json())
    return {"name": "transformers", "max_tokens": max_tokens, "pooling": "cls", **tiny_language_models.pinned(folder)}


def judge(root: Path, passed: bool, metric: str = "") -> None:
    """The gate's verdict. The network is untrained, so by default its rule names no metric that may be judged again."""
    why = "" if passed else "0.4 is below 0.95"
    rule = Rule("evaluate.accuracy_low at least 0.3", passed, 0.4, 0.3, 0.1, why, metric, "at_least" if metric else "")
    write_json(root / "artifacts/gate/verdict.json", Verdict("gate", passed, (rule,)))


def export(root: Path, **settings: Any) -> dict[str, float]:
    """Run the stage `export` and publish what it made."""
    from components.export import stage

    params = {**EXPORT, **settings}
    job = Job.at(root, "export", stage.NEEDS)
    job.clear()
    metrics = stage.run(stage.Params.model_validate(params), job)
    write_json(job.out("metrics.json"), metrics)
    job.publish()
    return metrics


def test_rows(root: Path) -> Any:
    """The test split of the accepted manifest."""
    return rows_of(root, "test")


def rows_of(root: Path, split: str) -> Any:
    """A split of the accepted manifest."""
    table = read_table(root / "artifacts/validate/accepted.parquet")
    return table[table["split"] == split].reset_index(drop=True)


def odd_images(folder: Path, seed: int = 0) -> list[Path]:
    """Images of many modes and sizes, as they come in real folders."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    made = []
    for n, size in enumerate([32, 17, 64]):
        base = factories.shape_image(factories.SHAPES[n], rng, size)
        clear = base.convert("RGBA")
        clear.putalpha(Image.fromarray(rng.integers(0, 256, (size, size), dtype=np.uint8), "L"))
        deep = Image.fromarray(rng.integers(0, 65536, (size, size + n), dtype=np.uint16))
        variants = {
            "rgb.png": base,
            "grey.png": base.convert("L"),
            "rgba.png": clear,
            "palette.png": base.quantize(8),
            "deep.png": deep,
            "grey_alpha.png": clear.convert("LA"),
            "bilevel.png": base.convert("1"),
            "cmyk.jpg": base.convert("CMYK"),
            "lossy.jpg": base.resize((size + 9, size)),
        }
        for name, image in variants.items():
            image.save(folder / f"{n}_{name}")
            made.append(folder / f"{n}_{name}")
    turned = Image.Exif()
    turned[0x0112] = 6
    base.resize((40, 24)).save(folder / "turned.jpg", exif=turned)
    return [*made, folder / "turned.jpg"]


HANDOFF_UPSTREAM = (
    "ingest", "validate", "augment", "select", "finetune", "evaluate",
    "bias", "drift", "gate", "report", "export",
)  # fmt: skip


def before_handoff(root: Path, repository: Path, before: Callable[..., None] = before_export, **settings: Any) -> None:
    """All stages before `handoff`, with lineages that fit what lies there."""
    before(root, **settings)
    export(root)
    table = read_table(root / "artifacts/validate/accepted.parquet")
    labels = read_json(root / "artifacts/finetune/runs/main/run.json")["labels"]
    source = "image_folder" if "input.path" in table else "text_table"
    for path, record in _records(labels, len(table), source).items():
        write_json(root / "artifacts" / path, record)
    _predictions(root, labels)
    (root / "artifacts/report/index.html").write_text("<!doctype html><title>trial</title><p>All is well.", "utf-8")
    (root / "requirements.lock").write_text("numpy==2\n")
    write_lineages(root, repository)


def _predictions(root: Path, labels: list[str], dimensions: int = 6) -> None:
    """What `evaluate` writes about the validation and the test split, from random numbers."""
    import pandas as pd
    from safetensors.numpy import save_file

    rng = np.random.default_rng(5)
    accepted = read_table(root / "artifacts/validate/accepted.parquet").sort_values("id")
    parts, features = [], {}
    for split in ("test", "validation"):
        ids = accepted.loc[accepted["split"] == split, "id"]
        said = {"predicted": rng.choice(labels, len(ids)), "confidence": rng.uniform(0.5, 1, len(ids))}
        parts.append(pd.DataFrame({"run": "main", "id": ids, "split": split, **said}))
        features[split] = rng.normal(size=(len(ids), dimensions)).astype(np.float32)
    write_table(root / "artifacts/evaluate/predictions.parquet", pd.concat(parts))
    save_file(features, root / "artifacts/evaluate/embeddings.safetensors")


def interval(value: float) -> dict[str, float]:
    """With limits 0.02 around it."""
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "level": 0.95}


def _records(labels: list[str], num: int, source: str) -> dict[str, Any]:
    measures = (
        "accuracy",
        "balanced_accuracy",
        "precision_macro",
        "recall_macro",
        "f1_macro",
        "log_loss",
        "ece",
    )
    counts = {"num_seen": num + 1, "num_used": num, "num_quarantined": 1, "num_labels": len(labels)}
    finding = {
        "check": "duplicates",
        "severity": "warning",
        "message": "2 copies",
        "num_samples": 2,
        "samples": [],
    }
    groups = [
        {
            "grouping": "brightness",
            "group": g,
            "num": n,
            "small": n < 20,
            "measures": {"accuracy": interval(0.9)},
        }
        for g, n in (("dark", 30), ("bright", 12))
    ]
    gap = {
        "grouping": "brightness",
        "measure": "accuracy",
        "worst": "dark",
        "best": "bright",
        "gap": interval(0.05),
        "verdict": "no evidence",
    }
    gain = {
        "reference": "from_scratch", "reference_accuracy": interval(0.6), "gain": interval(0.3),
        "verdict": "helped", "num_samples_seen": 84, "note": "",
    }  # fmt: skip
    candidate = {
        "title": "test_efficientnet-random",
        "rank": 1,
        "excluded_because": "",
        "within_budget": True,
        "fit": {
            "coverage": 0.93,
            "truncated_share": 0.04,
            "unknown_share": 0.031,
            "tokens_mean": 11.5,
            "tokens_p95": 17,
        },
    }
    reasons = {"not_an_image" if source == "image_folder" else "empty_text": 1}
    return {
        "ingest/summary.json": {
            **counts, "source": {"name": source}, "reasons": reasons,
            "labels": dict.fromkeys(labels, num // len(labels)), "attributes": [], "notes": {},
        },
        "validate/findings.json": [finding],
        "select/chosen.json": {
            "backbone": backbone_spec(), "title": "test_efficientnet-random", "preprocessing": {},
            "pretrained": True, "why": "best mean rank | within budget", "runners_up": [],
        },
        "select/leaderboard.json": {"candidates": [candidate], "prior_agrees": None, "note": ""},
        "evaluate/quality.json": {
            "labels": labels,
            "settings": QUALITY,
            "runs": {"main": {"test": {m: interval(0.91) for m in measures}}},
            "per_label": [
                {"label": label, "num": 7, "precision": 0.9, "recall": 0.8, "f1": 0.85 - n / 10}
                for n, label in enumerate(labels)
            ],
        },
        "evaluate/transfer.json": {
            "comparisons": [gain], "headline": "Transfer helped by 0.30.",
            "forgetting": {
                "headline": "Some drift against the pretrained backbone.",
                "runs": [{"run": "main", "verdict": "some drift", "feature_cka": {"value": 0.71},
                          "feature_cosine": {"value": 0.83}}],
            },
            "label_efficiency": {
                "headline": "With 15% of the labels it does better.",
                "points": [{"run": "main_15", "of": "main", "share": 0.15, "num_train": 9,
                            "accuracy": {"value": 0.8, "low": 0.7, "high": 0.9}}],
            },
        },
        "bias/groups.json": {"groups": groups, "gaps": [gap], "headline": "Worst group: dark."},
        "drift/drift.json": {"reference": "train", "current": "test", "headline": "No drift seen."},
        **{f"{s}/metrics.json": {"num": 1.0} for s in HANDOFF_UPSTREAM if s != "export"},
    }  # fmt: skip


def write_lineages(root: Path, repository: Path) -> None:
    """As `pipelines.stage` writes them, from dvc.yaml and the code of the repository."""
    from pipelines import dag

    for stage in dag.load(repository):
        folder = root / "artifacts" / stage.name
        if stage.name not in HANDOFF_UPSTREAM:
            continue
        made = [o for o in stage.outs if (root / o).exists() and not o.endswith("lineage.json")]
        params = {stage.name: {}, "run": {"seed": 17}}
        if stage.name == "ingest":
            params["ingest"] = {"source": {"name": "image_folder"}, "data": str(root / "data")}
        record = lineage.record(root, stage.name, stage.deps, made, params, folder)
        record["code"] = lineage.hashes(repository, (d for d in stage.deps if d.startswith("components/")))
        write_json(folder / "lineage.json", record)
