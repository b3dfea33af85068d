"""Tiny real data, made in code: images that a network can tell apart, and tables around them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "cross")


def shape_image(label: str, rng: np.random.Generator, size: int = 32) -> Image.Image:
    """A filled shape at a random place, size and colour on a random dark ground."""
    image = Image.new("RGB", (size, size), tuple(int(v) for v in rng.integers(0, 80, 3)))
    draw = ImageDraw.Draw(image)
    colour = tuple(int(v) for v in rng.integers(140, 256, 3))
    r = int(rng.integers(size // 5, size // 3))
    x, y = (int(v) for v in rng.integers(r + 1, size - r - 1, 2))
    if label == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif label == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), fill=colour)
    elif label == "triangle":
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
    else:
        draw.line((x - r, y, x + r, y), fill=colour, width=max(2, r // 2))
        draw.line((x, y - r, x, y + r), fill=colour, width=max(2, r // 2))
    return image


def image_folder(root: Path, per_label: int = 12, labels: tuple[str, ...] = SHAPES[:3], seed: int = 0) -> Path:
    """root/<label>/<n>.png, each image different."""
    rng = np.random.default_rng(seed)
    for label in labels:
        (root / label).mkdir(parents=True, exist_ok=True)
        for n in range(per_label):
            shape_image(label, rng).save(root / label / f"{n:03d}.png")
    return root


def manifest(root: Path, folder: Path, *, split: bool = False, seed: int = 0) -> pd.DataFrame:
    """What `ingest` (and with `split`, `validate`) writes about an image_folder below root."""
    from components.tasks import image_classification as task

    rows: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*.png")):
        where = path.relative_to(root).as_posix()
        seen = task.inspect({"path": where}, root)
        assert seen.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(
            {
                "id": path.relative_to(folder).as_posix(),
                "sha256": seen.sha256,
                "input.path": where,
                "label": path.parent.name,
                **{f"property.{k}": v for k, v in seen.properties.items()},
                "note": seen.note,
            }
        )
    table = pd.DataFrame(rows).sort_values("id").reset_index(drop=True)
    if split:
        order = np.random.default_rng(seed).permutation(len(table))
        names = np.array(["train"] * len(table), dtype=object)
        names[order[: len(table) // 4]] = "test"
        names[order[len(table) // 4 : len(table) // 2]] = "validation"
        table["split"] = names
    return table


WORDS = {
    "praise": ("good", "great", "fine", "lovely", "splendid"),
    "blame": ("bad", "poor", "awful", "dreadful", "broken"),
}
FILLERS = ("the", "food", "was", "and", "we", "thought", "service", "very", "today", "again", "table", "a", "it")


def sentence(label: str, rng: np.random.Generator) -> str:
    """Some fillers and some words that tell the label; no two alike."""
    words = [*rng.choice(FILLERS, int(rng.integers(3, 14))), *rng.choice(WORDS[label], int(rng.integers(1, 4)))]
    return " ".join(rng.permutation(words)).capitalize() + f" {rng.integers(10**6)}."


def text_manifest(per_label: int = 12, *, split: bool = False, seed: int = 0) -> pd.DataFrame:
    """What `ingest` (and with `split`, `validate`) writes about a table of texts with two labels."""
    from components.tasks import text_classification as task

    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(2 * per_label):
        label = sorted(WORDS)[number % 2]
        text = sentence(label, rng)
        seen = task.inspect({"text": text}, Path())
        rows.append(
            {
                "id": f"{number:05d}",
                "sha256": seen.sha256,
                "input.text": text,
                "label": label,
                **{f"attribute.{k}": v for k, v in seen.attributes.items()},
                **{f"property.{k}": v for k, v in seen.properties.items()},
                "note": "",
            }
        )
    table = pd.DataFrame(rows)
    if split:
        order = np.random.default_rng(seed).permutation(len(table))
        names = np.array(["train"] * len(table), dtype=object)
        names[order[: len(table) // 4]] = "test"
        names[order[len(table) // 4 : len(table) // 2]] = "validation"
        table["split"] = names
    return table


def tokenizer_json() -> str:
    """A tokenizer of whole words as BERT's: [CLS] text [SEP], lower case, [UNK] for words it does not know."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", *FILLERS, *(w for own in WORDS.values() for w in own)]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(tokenizer.to_str())


def text_preprocessing(max_tokens: int = 32) -> dict[str, Any]:
    """What a text backbone's `preprocessing` gives."""
    return {
        "max_tokens": max_tokens,
        "inputs": ["input_ids", "attention_mask"],
        "pad_id": 0,
        "unknown_id": 1,
        "files": {"tokenizer.json": tokenizer_json()},
    }
