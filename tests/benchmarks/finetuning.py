"""Full fine-tuning: the line beside a plain float32 loop.

EfficientNet-Lite0 (packaged weights), digits at 64 px, strategy `full` with its rates (tests/plain_loop.py says what is
equal). The clock runs from building the network to the best epoch's weights, validation after every epoch included.
The plain loop has torch as it comes; the line is told with run.instruction_set `native`, and with `avx2`, the default,
whose bits are the same on every machine. Every round has a seed of its own.

    python tests/benchmarks/finetuning.py [--rounds 5] [--samples 512] [--epochs 3] [--busy]

Ends with 1 where the line with `native` is less than 1.5 times as fast in some round, or its mean loss on validation
differs from the plain loop's by more than the plain loop's standard deviation over the seeds. Takes about 10 minutes
of an idle machine (two cores).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import interleaved  # noqa: E402
from interleaved import Variant  # noqa: E402

GOAL, HEAD_RATE, BACKBONE_RATE = 1.5, 3e-3, 1e-3
WAYS = ("plain", "native", "avx2")


def measure(way: str, samples: int, epochs: int, seed: int, root: Path) -> None:
    """One variant."""
    import plain_loop
    import torch

    torch.set_num_threads(interleaved.THREADS)
    strategy = {"name": "full", "epochs": epochs, "learning_rate": HEAD_RATE, "backbone_learning_rate": BACKBONE_RATE}
    line = plain_loop.line_of(root, samples, strategy, seed, "avx2" if way == "avx2" else "native")
    plain_loop.forget(root, "finetune")
    if way == "plain":
        mean, scale = plain_loop.scale_of(line, each=False)
        with interleaved.timed() as timing:
            model, loss = plain_loop.plain(line, epochs, HEAD_RATE, BACKBONE_RATE, mean, scale)
        interleaved.tell(timing, accuracy=plain_loop.accuracy(model, line), loss=loss)
        return
    with interleaved.timed() as timing:
        done = plain_loop.by_line(line, strategy)
    told = {"accuracy": plain_loop.accuracy(done.model, line), "loss": done.course.figures["validation_loss"]}
    interleaved.tell(timing, **told)


def main() -> int:
    """Every variant in turn."""
    parser = interleaved.options(__doc__)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    if given.variant:
        measure(given.variant, given.samples, given.epochs, given.seed, given.folder)
        return 0
    variants = [Variant(way, env={} if way == "plain" else interleaved.pinned(way)) for way in WAYS]
    with tempfile.TemporaryDirectory() as place:
        words = ["--folder", place, "--samples", str(given.samples), "--epochs", str(given.epochs)]
        rounds = interleaved.compare(__file__, variants, given, words)
    rows = [["variant", "seconds", "times as fast", "accuracy, %", "loss on validation"]]
    losses = {way: [one[way]["loss"] for one in rounds] for way in WAYS}
    for way in WAYS:
        told = [one[way] for one in rounds]
        rows.append([
            way, interleaved.ranged([t["seconds"] for t in told]),
            interleaved.ranged(interleaved.ratios(rounds, "plain", way)),
            interleaved.ranged([100 * t["accuracy"] for t in told]), interleaved.ranged(losses[way], 4),
        ])  # fmt: skip
    interleaved.show(f"Full fine-tuning, {given.samples} digits, {given.epochs} epochs", rows, given)
    noise = statistics.stdev(losses["plain"]) if len(rounds) > 1 else float("inf")
    apart = abs(statistics.mean(losses["native"]) - statistics.mean(losses["plain"]))
    return interleaved.verdict({
        f"native at least {GOAL} times as fast in every round": min(interleaved.ratios(rounds, "plain", "native"))
        >= GOAL,
        f"mean loss within the noise of seeds ({apart:.4f} apart, {noise:.4f} allowed)": apart <= noise,
    })  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
