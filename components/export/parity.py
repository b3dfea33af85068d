"""Does the exported model give what the trained network gives? And how fast is it?"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from components.contracts import Refused
from components.export.network import SCALED, Deployed

Progress = Callable[[Iterable[Any], str, int], Iterator[Any]]
Collate = Callable[[np.ndarray], tuple[np.ndarray, ...]]
Outputs = dict[str, np.ndarray]

REFERENCE_BATCH = 16
BATCHES = (1, 7, 16)
"""One, an odd one, a usual one; the last batch of the odd and the usual one is a rest of another size."""
NUM_SINGLE = 64
"""At batch 1 so many samples, spread evenly: it is the slow one."""
TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


class ParityError(Refused):
    """The exported model differs from the trained one by more than params allow (exit code 3)."""


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """The model as it will be run: ONNX Runtime on the CPU with all its optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def interface(session: onnxruntime.InferenceSession) -> dict[str, list[dict[str, Any]]]:
    """Inputs and outputs with name, shape (the free dimension by its name) and dtype."""

    def told(nodes: Any) -> list[dict[str, Any]]:
        return [{"name": n.name, "shape": list(n.shape), "dtype": TYPES[n.type]} for n in nodes]

    return {"inputs": told(session.get_inputs()), "outputs": told(session.get_outputs())}


@torch.inference_mode()
def eager(model: Deployed, rows: np.ndarray, collate: Collate, progress: Progress) -> Outputs:
    """What the trained network gives for prepared rows, by torch on the CPU."""

    def forward(inputs: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        return [t.numpy() for t in model(*map(torch.from_numpy, inputs))]

    return _run(forward, model.outputs, rows, collate, REFERENCE_BATCH, progress, "torch")


def exported(
    session: onnxruntime.InferenceSession, rows: np.ndarray, collate: Collate, batch: int, progress: Progress
) -> Outputs:
    """What the exported model gives for prepared rows."""
    names = [n.name for n in session.get_inputs()]
    outputs = [n.name for n in session.get_outputs()]

    def forward(inputs: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        size = len(inputs[0])
        try:
            found = list(session.run(outputs, dict(zip(names, inputs))))
        except Exception as error:
            raise ParityError(f"the exported model fails on a batch of {size}: {str(error)[:300]}") from error
        if any(len(part) != size for part in found):
            raise ParityError(f"the exported model gives {[len(p) for p in found]} rows for a batch of {size}")
        return found

    return _run(forward, outputs, rows, collate, batch, progress, f"onnxruntime, batches of {batch}")


def _run(
    forward: Callable[[tuple[np.ndarray, ...]], list[np.ndarray]],
    outputs: Sequence[str], rows: np.ndarray, collate: Collate, batch: int, progress: Progress, what: str,
) -> Outputs:  # fmt: skip
    starts = range(0, len(rows), batch)
    parts = [forward(collate(rows[s : s + batch])) for s in progress(starts, f"parity, {what}", len(starts))]
    return {name: np.concatenate(column) for name, column in zip(outputs, zip(*parts))}


def compare(
    expected: Outputs,
    session: onnxruntime.InferenceSession,
    rows: np.ndarray,
    collate: Collate,
    progress: Progress,
) -> dict[str, Any]:
    """Largest, mean and 99th-percentile absolute difference of each output, and the labels that flipped.

    `scale` is the largest absolute value that torch gives for that output, `relative` = max_abs / scale. The
    reference is one pass of torch at REFERENCE_BATCH, so that a difference by batch size counts as one too.
    Every figure is rounded up to two digits: it stays an upper bound, and last bits do not change the file.
    """
    decision = next(iter(expected))
    batches: dict[str, dict[str, float]] = {}
    flipped = np.zeros(len(rows), dtype=bool)
    differences: dict[str, list[np.ndarray]] = {name: [] for name in SCALED}
    scales = {name: max(float(np.abs(expected[name]).max()), 1e-30) for name in SCALED}
    for batch in BATCHES:
        chosen = np.arange(len(rows))
        some = rows
        if batch == 1 and len(rows) > NUM_SINGLE:
            chosen = np.linspace(0, len(rows) - 1, NUM_SINGLE).round().astype(int)
            some = rows[chosen]
        found = exported(session, some, collate, batch, progress)
        wrong = (found[decision] != expected[decision][chosen]).reshape(len(chosen), -1).any(axis=1)
        flipped[chosen[wrong]] = True
        worst = 0.0
        for name in SCALED:
            gap = np.abs(found[name].astype(np.float64) - expected[name][chosen])
            differences[name].append(gap.ravel())
            worst = max(worst, float(gap.max()) / scales[name])
        last = len(chosen) % batch or min(batch, len(chosen))
        batches[str(batch)] = {
            "num_samples": len(chosen),
            "last_batch": last,
            "relative": _up(worst),
            "flips": int(wrong.sum()),
        }
    outputs = {name: _differences(np.concatenate(differences[name]), scales[name]) for name in SCALED}
    worst_output = max(outputs.values(), key=lambda o: _order(o["relative"]))
    return {
        "num_samples": len(rows),
        "flips": int(flipped.sum()),
        "batches": batches,
        "outputs": outputs,
        **worst_output,
    }


def _differences(gaps: np.ndarray, scale: float) -> dict[str, float]:
    found = {
        "max_abs": float(gaps.max()),
        "mean_abs": float(gaps.mean()),
        "p99_abs": float(np.quantile(gaps, 0.99)),
    }
    rounded = {name: _up(value) for name, value in found.items()}
    return {**rounded, "scale": float(f"{scale:.4g}"), "relative": _up(found["max_abs"] / scale)}


def _up(value: float) -> float:
    """Rounded up to two significant digits."""
    if not math.isfinite(value) or value == 0:
        return value
    digits = math.floor(math.log10(abs(value))) - 1
    return float(f"{math.ceil(value / 10**digits - 1e-9) * 10**digits:.2g}")


def _order(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def judge(parity: dict[str, Any], max_difference: float, max_flips: int) -> None:
    """Stop here unless the exported model is the trained one.

    Raises:
        ParityError: with the output, the figure, its limit, and the keys that set the limits.
    """
    problems = [
        f"{name} differ by {o['relative']:.2g} of their scale {o['scale']:.3g}, at most {o['max_abs']:.2g}; "
        f"export.max_difference allows {max_difference:.2g}"
        for name, o in parity["outputs"].items()
        if not o["relative"] <= max_difference  # so that NaN fails
    ]
    if parity["flips"] > max_flips:
        problems.append(f"{parity['flips']} of {parity['num_samples']} labels flip; export.max_flips is {max_flips}")
    if problems:
        lines = "\n".join(f"  - {p}" for p in problems)
        raise ParityError(f"the exported model is not the trained one on the test split, so it is not kept:\n{lines}")


@torch.inference_mode()
def latency(
    model: Deployed, session: onnxruntime.InferenceSession, rows: np.ndarray, collate: Collate
) -> dict[str, Any]:
    """Median milliseconds a batch, torch first, then ONNX Runtime, in this one process."""
    names = [n.name for n in session.get_inputs()]
    found: dict[str, Any] = {"torch_ms": {}, "onnxruntime_ms": {}}
    batches = {n: collate(rows[np.arange(n) % len(rows)]) for n in (1, 16)}
    for n, arrays in batches.items():
        tensors = [torch.from_numpy(a) for a in arrays]
        found["torch_ms"][str(n)] = _median_ms(partial(model, *tensors))
    for n, arrays in batches.items():
        feed = dict(zip(names, arrays))
        found["onnxruntime_ms"][str(n)] = _median_ms(partial(session.run, None, feed))
    return found


def _median_ms(call: Callable[[], Any], warm_up: int = 5, max_calls: int = 50, max_seconds: float = 2.0) -> float:
    for _ in range(warm_up):
        call()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 5 or (len(times) < max_calls and time.perf_counter() - start < max_seconds):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return round(statistics.median(times) * 1000, 3)
