"""A linear head on a frozen network: the line, which computes features once, beside a loop that runs the network.

EfficientNet-Lite0 (packaged weights), digits at 64 px, 30 epochs (tests/plain_loop.py says what is equal). The clock
runs from building the network to the trained head, validation after every epoch included; decoded pixels are there.
`again` is a second run with unchanged data and network: its features come from the cache. The plain loop has torch as
it comes; the line is told with run.instruction_set `avx2` (the default, the same bits everywhere) and `native`.

    python tests/benchmarks/frozen.py [--rounds 5] [--samples 512] [--epochs 30] [--busy]

Ends with 1 where the line with `native` is less than 20 times as fast in some round, its accuracy on the test's digits
more than 0.2 points below the plain loop's in the mean, or a second run computes a feature. Takes about 10 minutes of
an idle machine (two cores).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import interleaved  # noqa: E402
from interleaved import Variant  # noqa: E402

GOAL, POINTS, RATE = 20.0, 0.2, 3e-3
WAYS = ("plain", "native", "native again", "avx2", "avx2 again")


def measure(way: str, samples: int, epochs: int, seed: int, root: Path) -> None:
    """One variant."""
    import plain_loop
    import torch

    torch.set_num_threads(interleaved.THREADS)
    kind, again = way.partition(" ")[0], way.endswith("again")
    strategy = {"name": "linear_probe", "epochs": epochs, "learning_rate": RATE}
    line = plain_loop.line_of(root, samples, strategy, seed, "avx2" if kind == "avx2" else "native")
    plain_loop.forget(root, "finetune", *([] if again or kind == "plain" else ["features"]))
    features = root / ".graftline" / "features"
    if kind == "plain":
        mean, scale = plain_loop.scale_of(line, each=True)
        with interleaved.timed() as timing:
            model, loss = plain_loop.plain(line, epochs, RATE, None, mean, scale)
        interleaved.tell(timing, accuracy=plain_loop.accuracy(model, line), loss=loss, computed=epochs)
        return
    before = set(features.glob("*.npy"))
    with interleaved.timed() as timing:
        done = plain_loop.by_line(line, strategy)
    computed = len(set(features.glob("*.npy")) - before)
    told = {"accuracy": plain_loop.accuracy(done.model, line), "loss": done.course.figures["validation_loss"]}
    interleaved.tell(timing, computed=computed, **told)


def main() -> int:
    """Every variant in turn; features of one round are not there in the next."""
    parser = interleaved.options(__doc__)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args()
    if given.variant:
        measure(given.variant, given.samples, given.epochs, given.seed, given.folder)
        return 0
    variants = [Variant(way, env={} if way == "plain" else interleaved.pinned(way.split()[0])) for way in WAYS]
    with tempfile.TemporaryDirectory() as place:
        words = ["--folder", place, "--samples", str(given.samples), "--epochs", str(given.epochs)]
        rounds = interleaved.compare(__file__, variants, given, words)
    rows = [["variant", "seconds", "times as fast", "accuracy, %", "loss on validation"]]
    for way in WAYS:
        told = [one[way] for one in rounds]
        rows.append([
            way, interleaved.ranged([t["seconds"] for t in told]),
            interleaved.ranged(interleaved.ratios(rounds, "plain", way), 1),
            interleaved.ranged([100 * t["accuracy"] for t in told]), interleaved.ranged([t["loss"] for t in told], 4),
        ])  # fmt: skip
    interleaved.show(f"A head on frozen features, {given.samples} digits, {given.epochs} epochs", rows, given)
    lost = {way: 100 * statistics.mean(o["plain"]["accuracy"] - o[way]["accuracy"] for o in rounds) for way in WAYS}
    print(", ".join(f"{way}: {-value:+.2f} points" for way, value in lost.items() if way != "plain"))
    return interleaved.verdict({
        f"native at least {GOAL:.0f} times as fast in every round": min(interleaved.ratios(rounds, "plain", "native"))
        >= GOAL,
        f"accuracy within {POINTS} points": max(lost.values()) <= POINTS,
        "a second run takes features from the cache": not any(o[f"{k} again"]["computed"] for o in rounds for k in
                                                              ("native", "avx2")),
    })  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
