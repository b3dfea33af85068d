"""Does the exported model give what the trained network gives?"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from components.contracts import Refused
from components.export import runtime
from components.export.network import SCALED, Deployed

Progress = Callable[[Iterable[Any], str, int], Iterator[Any]]
Collate = Callable[[np.ndarray], tuple[np.ndarray, ...]]
FeedOf = Callable[[np.ndarray], dict[str, np.ndarray]]
Outputs = dict[str, np.ndarray]

REFERENCE_BATCH = 16
BATCHES = (1, 7, 16)
"""One, an odd one, a usual one; the last batch of the odd and the usual one is a rest of another size."""
NUM_SINGLE = 64
"""At batch 1 so many samples, spread evenly over their lengths and places: it is the slow one."""


class ParityError(Refused):
    """The exported model differs from the trained one by more than params allow (exit code 3)."""


def eager(model: Deployed, rows: np.ndarray, collate: Collate, progress: Progress) -> Outputs:
    """What the trained network gives for prepared rows, by torch on the CPU."""

    @torch.inference_mode()
    def forward(part: np.ndarray) -> list[np.ndarray]:
        return [t.numpy() for t in model(*map(torch.from_numpy, collate(part)))]

    return _run(forward, rows, model.outputs, REFERENCE_BATCH, progress, "torch")


def exported(session: Any, rows: np.ndarray, feed: FeedOf, batch: int, progress: Progress) -> Outputs:
    """What the exported model gives for prepared rows."""
    outputs = tuple(n.name for n in session.get_outputs())

    def forward(part: np.ndarray) -> list[np.ndarray]:
        try:
            found = list(runtime.ask(session, feed(part)).values())
        except Exception as error:
            raise ParityError(f"the exported model fails on a batch of {len(part)}: {str(error)[:300]}") from error
        if any(len(one) != len(part) for one in found):
            raise ParityError(f"the exported model gives {[len(p) for p in found]} rows for a batch of {len(part)}")
        return found

    return _run(forward, rows, outputs, batch, progress, f"onnxruntime, batches of {batch}")


def _run(
    forward: Callable[[np.ndarray], list[np.ndarray]], rows: np.ndarray, outputs: tuple[str, ...], batch: int,
    progress: Progress, what: str,
) -> Outputs:  # fmt: skip
    starts = range(0, len(rows), batch)
    parts = [forward(rows[s : s + batch]) for s in progress(starts, f"parity, {what}", len(starts))]
    return {name: np.concatenate(column) for name, column in zip(outputs, zip(*parts))}


def flips(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Whose decision differs, bool [N]; decisions are [N] or [N, K]."""
    return np.asarray((found != expected).reshape(len(expected), -1).any(axis=1))


def compare(
    expected: Outputs, session: Any, rows: np.ndarray, feed: FeedOf, progress: Progress,
    lengths: np.ndarray | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Differences of each output (see `differences`) over all batch sizes, and the decisions that flipped; and the same
    by thirds of the samples' lengths, where they have one.

    The reference is one pass of torch at REFERENCE_BATCH, so that a difference by batch size or padding counts too.
    """
    decision = next(iter(expected))
    batches: dict[str, dict[str, float]] = {}
    flipped, worst = np.zeros(len(rows), dtype=bool), np.zeros(len(rows))
    scales = {name: scale_of(expected[name]) for name in SCALED}
    gaps: dict[str, list[np.ndarray]] = {name: [] for name in SCALED}
    for batch in BATCHES:
        chosen = asked(len(rows), batch, lengths)
        found = exported(session, rows[chosen], feed, batch, progress)
        wrong = flips(expected[decision][chosen], found[decision])
        flipped[chosen[wrong]] = True
        apart = [np.abs(found[name].astype(np.float64) - expected[name][chosen]) for name in SCALED]
        for name, gap in zip(SCALED, apart):
            gaps[name].append(gap.ravel())
        own = np.max([gap.max(axis=1) / scales[name] for name, gap in zip(SCALED, apart)], axis=0)  # NaN stays NaN
        worst[chosen] = np.maximum(worst[chosen], own)
        batches[str(batch)] = {
            "num_samples": len(chosen),
            "last_batch": len(chosen) % batch or min(batch, len(chosen)),
            "relative": up(float(own.max())),
            "flips": int(wrong.sum()),
        }
    outputs = {name: differences(np.concatenate(gaps[name]), scales[name]) for name in SCALED}
    return {
        "num_samples": len(rows),
        "flips": int(flipped.sum()),
        "batches": batches,
        "outputs": outputs,
        "lengths": _by_length(worst, flipped, lengths),
        **max(outputs.values(), key=lambda o: _order(o["relative"])),
    }


def asked(num: int, batch: int, lengths: np.ndarray | None) -> np.ndarray:
    """Indices of the samples that are asked at a batch size."""
    return _single(num, lengths) if batch == 1 else np.arange(num)


def _single(num: int, lengths: np.ndarray | None) -> np.ndarray:
    order = np.arange(num) if lengths is None else np.argsort(lengths, kind="stable")
    places = np.linspace(0, num - 1, min(num, NUM_SINGLE)).round().astype(int)
    return np.sort(order[places])


def _by_length(worst: np.ndarray, flipped: np.ndarray, lengths: np.ndarray | None) -> list[dict[str, float]]:
    if lengths is None:
        return []
    thirds = np.array_split(np.argsort(lengths, kind="stable"), 3)
    return [
        {
            "shortest": int(lengths[part].min()),
            "longest": int(lengths[part].max()),
            "num_samples": len(part),
            "relative": up(float(worst[part].max())),
            "flips": int(flipped[part].sum()),
        }
        for part in thirds
        if len(part)
    ]


def scale_of(values: np.ndarray) -> float:
    """The largest absolute value, over which differences are told."""
    return max(float(np.abs(values).max()), 1e-30)


def differences(gaps: np.ndarray, scale: float) -> dict[str, float]:
    """Of absolute differences: largest, mean, 99th percentile, and the first two over the scale, which is the largest
    absolute value of the output. Rounded up to two digits: an upper bound, and last bits do not change the file."""
    found = {"max_abs": gaps.max(), "mean_abs": gaps.mean(), "p99_abs": np.quantile(gaps, 0.99)}
    found |= {"relative": gaps.max() / scale, "mean_relative": gaps.mean() / scale}
    return {**{name: up(float(value)) for name, value in found.items()}, "scale": float(f"{scale:.4g}")}


def up(value: float) -> float:
    """Rounded up to two significant digits."""
    if not math.isfinite(value) or value == 0:
        return value
    digits = math.floor(math.log10(abs(value))) - 1
    return float(f"{math.ceil(value / 10**digits - 1e-9) * 10**digits:.2g}")


def _order(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def rounding(
    model: Deployed, expected: Outputs, session: Any, rows: np.ndarray, collate: Collate, feed: FeedOf,
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """The yardstick: how far torch in float32, and the exported model, are from torch in float64, each as the largest
    difference over the scale, on at most NUM_SINGLE samples. `torch` near `onnxruntime`: rounding alone.
    """
    chosen = _single(len(rows), None)
    double = (
        Deployed(copy.deepcopy(model.model), float(model.get_buffer("temperature")), model.decision).double().eval()
    )
    try:
        exact = eager(double, rows[chosen], lambda part: _doubled(collate(part)), progress)
    except RuntimeError:
        return {"why": "this network does not run in float64"}
    found = exported(session, rows[chosen], feed, REFERENCE_BATCH, progress)
    told: dict[str, Any] = {"num_samples": len(chosen), "outputs": {}}
    for name in SCALED:
        scale = scale_of(exact[name])
        each = {"torch": expected[name][chosen], "onnxruntime": found[name]}
        told["outputs"][name] = {who: up(float(np.abs(v - exact[name]).max() / scale)) for who, v in each.items()}
    return told


def _doubled(inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(a.astype(np.float64) if a.dtype == np.float32 else a for a in inputs)


def limits(max_difference: Mapping[str, float], max_rounding: float, yardstick: Mapping[str, Any]) -> dict[str, float]:
    """The largest relative difference that passes, by output: what params allow, or what rounding explains."""
    own = {name: told["torch"] for name, told in yardstick.get("outputs", {}).items()}
    return {name: max(most, up(max_rounding * own.get(name, 0.0))) for name, most in max_difference.items()}


def judge(parity: dict[str, Any], limits: Mapping[str, float], max_flips: int) -> None:
    """Stop here unless the exported model is the trained one.

    Raises:
        ParityError: with the output, the figure, its limit, and the keys that set the limits.
    """
    problems = [
        f"{name} differ by {found['relative']:.2g} of their scale {found['scale']:.3g}, at most "
        f"{found['max_abs']:.2g}; export.max_difference.{name} and export.max_rounding allow {limits[name]:.2g}"
        for name, found in parity["outputs"].items()
        if not found["relative"] <= limits[name]  # so that NaN fails
    ]
    if parity["flips"] > max_flips:
        problems.append(f"{parity['flips']} of {parity['num_samples']} labels flip; export.max_flips is {max_flips}")
    if problems:
        lines = "\n".join(f"  - {p}" for p in problems)
        raise ParityError(f"the exported model is not the trained one on the test split, so it is not kept:\n{lines}")
