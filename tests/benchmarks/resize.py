"""What the resize inside the deployed graph costs and whether it is equal, beside Pillow and ONNX's own Resize.

    python tests/benchmarks/resize.py

Prints, for each size of image taken to 224x224, the median milliseconds of each, and how far ONNX's Resize (antialias,
exclude_outside=1) is from training's pixels; the graph's own is 0 by tests/components/graphs.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import onnx
import onnxruntime
from PIL import Image

from components.graphs import image_classification as graphs
from components.preprocessing import image_classification as pixels

SIDE, THREADS, CALLS = 224, 2, 7
SIZES = ((224, 224), (480, 640), (1000, 1000), (3000, 4000))
MODES = {"bilinear": 'mode = "linear"', "bicubic": 'mode = "cubic", cubic_coeff_a = -0.5'}


def session(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def by_onnx(mode: str) -> Any:
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        resize (uint8[n, 3, height, width] x) => (uint8[n, 3, {SIDE}, {SIDE}] y) {{
        sizes = Constant <value = int64[4] {{1, 3, {SIDE}, {SIDE}}}> ()
        y = Resize <{mode}, antialias = 1, exclude_outside = 1> (x, , , sizes)
        }}"""
    return session(onnx.parser.parse_model(text).SerializeToString())


def ms(call: Callable[[], Any]) -> float:
    call()
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    rng = np.random.default_rng(0)
    for interpolation, mode in MODES.items():
        how = pixels.Preprocessing(SIDE, SIDE, (0.5,) * 3, (0.5,) * 3, interpolation)
        graph, other = session(graphs.alone(asdict(how))), by_onnx(mode)
        for height, width in SIZES:
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            channels, picture = np.ascontiguousarray(image.transpose(2, 0, 1))[None], Image.fromarray(image)
            expected = pixels.fit(picture, how).astype(int)
            own = graph.run(None, {"image": image[None]})[0][0].transpose(1, 2, 0)
            gap = np.abs(other.run(None, {"x": channels})[0][0].transpose(1, 2, 0) - expected)
            assert np.array_equal(own, expected)
            times = (
                ms(lambda: graph.run(None, {"image": image[None]})),  # noqa: B023
                ms(lambda: pixels.fit(picture, how)),  # noqa: B023
                ms(lambda: other.run(None, {"x": channels})),  # noqa: B023
            )
            told = ", ".join(f"{name} {t:.1f} ms" for name, t in zip(("graph", "Pillow", "Resize"), times, strict=True))
            print(f"{interpolation} {width}x{height}: {told}; Resize differs in {(gap > 0).mean():.2%}, by {gap.max()}")


if __name__ == "__main__":
    main()
