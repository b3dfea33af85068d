"""Median milliseconds of one call of an ONNX model, as a program: `stopwatch.py MODEL THREADS BATCH SIZES SECONDS`.

It is run in a process of its own, so that nothing that the caller loaded is in its way. SIZES is JSON: free dimension
-> size. Inputs are made up: ones for whole numbers, so that ids and masks are valid, the same random numbers else.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(uint8)": "uint8",
    "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(bool)": "bool",
}  # fmt: skip
OTHER = 64
"""Size of a free dimension that nobody named."""


def main(model: str, threads: int, batch: int, sizes: dict[str, int], seconds: float) -> None:
    """Prints the median and how many calls it is of."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rng, feed = np.random.default_rng(0), {}
    for node in session.get_inputs():
        free = [batch if i == 0 else sizes.get(str(n), OTHER) for i, n in enumerate(node.shape)]
        shape = [n if isinstance(n, int) else free[i] for i, n in enumerate(node.shape)]
        kind = np.dtype(TYPES[node.type])
        if kind == np.uint8:
            feed[node.name] = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            values = np.ones(shape) if kind.kind in "ib" else rng.standard_normal(shape)
            feed[node.name] = values.astype(kind)
    for _ in range(5):
        session.run(None, feed)
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - before)
    json.dump({"median_ms": 1000 * statistics.median(times), "num_calls": len(times)}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]), float(sys.argv[5]))
