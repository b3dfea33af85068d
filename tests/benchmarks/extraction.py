"""Features of a frozen network: the line's extraction beside plain eager float32, over three architectures.

Plain: the same weights, batches of 64, NCHW, float32, torch as it comes. The line: components.features.extract with
run.instruction_set `native` (channels_last, batch normalisation folded, bfloat16 where features stay alike); `avx2`,
whose bits are the same on every machine, is told beside it and nothing is promised for it. EfficientNet-Lite0 at 64 px
on the digits and MiniLM at 128 tokens have their packaged weights, and a linear probe on the features of each variant
is compared; ResNet-50 at 128 px has random ones, so of it only time and the features themselves are.

    python tests/benchmarks/extraction.py [--rounds 5] [--samples 1] [--busy]

`--samples 0.1` takes a tenth of the samples. Ends with 1 where the geometric mean of the ratios is below 1.8 in some
round, or the probe's accuracy differs by more than 0.2 points. Takes about 15 minutes of an idle machine (two cores).
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import interleaved  # noqa: E402
import ladder  # noqa: E402
from interleaved import Variant  # noqa: E402

GOAL, POINTS = 1.8, 0.2
RESNET = {"name": "timm", "model": "resnet50", "image_size": 128, "weights": {"source": "random"}}
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "EfficientNet-Lite0, 64 px": ("images", ladder.IMAGES, 1797),
    "ResNet-50, 128 px": ("images", RESNET, 512),
    "MiniLM, 128 tokens": ("texts", ladder.TEXTS, 512),
}
"""Title -> kind of samples, backbone, number of samples."""
WAYS = ("plain", "native", "avx2")


def samples_of(title: str, share: float, root: Path) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """The network, its feed, prepared rows, labels."""
    import torch

    from components import plugins
    from components.job import Job
    from components.model import Feed

    kind, spec, num = CASES[title]
    task, _, table_of, _ = ladder.CASES[kind]
    (root / kind).mkdir(parents=True, exist_ok=True)
    table = table_of(max(64, round(num * share)), root / kind)
    choice = plugins.choose("backbones", spec)
    how = choice.load().preprocessing(choice.params)
    torch.manual_seed(0)
    network = choice.load().build(choice.params, preprocessing=how).eval()
    feed = Feed.of(task, how)
    return network, feed, feed.prepare(table, Job.at(root), root / kind), table["label"].to_numpy()


def plain(network: Any, rows: np.ndarray, feed: Any) -> np.ndarray:
    """As anybody would write it."""
    import torch

    with torch.no_grad():
        starts = range(0, len(rows), 64)
        batches = (feed.collate(rows[at : at + 64]) for at in starts)
        return np.concatenate([network(*(torch.from_numpy(a) for a in batch)).numpy() for batch in batches])


def probe(features: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy on the second half of a linear classifier of the first."""
    from sklearn.linear_model import LogisticRegression

    half = len(features) // 2
    mean, deviation = features[:half].mean(axis=0), features[:half].std(axis=0)
    scaled = (features - mean) / np.maximum(deviation, 0.01 * deviation.max())
    fitted = LogisticRegression(C=0.1, max_iter=2000).fit(scaled[:half], labels[:half])
    return float(fitted.score(scaled[half:], labels[half:]))


def measure(title: str, way: str, share: float, root: Path) -> None:
    """One variant; its features lie in the folder afterwards."""
    import torch

    from components.features import extract as by_line

    torch.set_num_threads(interleaved.THREADS)
    network, feed, rows, labels = samples_of(title, share, root)
    cpu = torch.device("cpu")
    quiet = lambda items, *_: iter(items)  # noqa: E731

    def extract(some: np.ndarray) -> np.ndarray:
        return plain(network, some, feed) if way == "plain" else by_line(network, some, feed, cpu, quiet, "", way)

    for _ in range(2):
        extract(rows[:16])
    with interleaved.timed() as timing:
        features = extract(np.asarray(rows))
    np.save(root / f"{way}.npy", features)
    packaged = CASES[title][1]["weights"]["source"] == "package"
    told = {"accuracy": probe(features, labels)} if packaged else {}
    interleaved.tell(timing, **told)


def cosine(root: Path, way: str) -> float:
    """Smallest cosine between a sample's features and the plain ones, both less the plain mean."""
    first, other = (np.load(root / f"{name}.npy").astype(np.float64) for name in ("plain", way))
    one, two = first - first.mean(axis=0), other - first.mean(axis=0)
    return float((np.sum(one * two, axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)).min())


def main() -> int:
    """Every architecture in turn."""
    parser = interleaved.options(__doc__)
    parser.add_argument("--samples", type=float, default=1.0)
    parser.add_argument("--title", default="")
    given = parser.parse_args()
    if given.variant:
        measure(given.title, given.variant, given.samples, given.folder)
        return 0
    rows = [["architecture", "variant", "seconds", "times as fast", "probe, %", "least cosine"]]
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS[1:]}
    apart = []
    for title in CASES:
        variants = [Variant(way, env={} if way == "plain" else interleaved.pinned(way)) for way in WAYS]
        with tempfile.TemporaryDirectory() as place:
            words = ["--folder", place, "--samples", str(given.samples), "--title", title]
            rounds = interleaved.compare(__file__, variants, given, words)
            for way in WAYS:
                told = [one[way] for one in rounds]
                ratio = interleaved.ratios(rounds, "plain", way)
                accuracy = told[0].get("accuracy")
                rows.append([
                    title, way, interleaved.ranged([t["seconds"] for t in told]), interleaved.ranged(ratio),
                    "-" if accuracy is None else f"{100 * accuracy:.2f}", f"{cosine(Path(place), way):.5f}",
                ])  # fmt: skip
                if way != "plain":
                    found[way].append(ratio)
                    if accuracy is not None:
                        apart.append(abs(accuracy - rounds[0]["plain"]["accuracy"]) * 100)
    means = {way: [math.prod(of) ** (1 / len(of)) for of in zip(*ratios)] for way, ratios in found.items()}
    rows += [["geometric mean", way, "", interleaved.ranged(values), "", ""] for way, values in means.items()]
    interleaved.show("Features of a frozen network", rows, given)
    return interleaved.verdict({
        f"native, geometric mean at least {GOAL} in every round": min(means["native"]) >= GOAL,
        f"a probe on them as good within {POINTS} points": max(apart) <= POINTS,
    })  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
