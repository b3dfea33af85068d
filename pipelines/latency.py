"""How long two models take on this machine: each in processes of its own, by turns, as a ratio with its range."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from components import model_files
from components.contracts import InputError
from pipelines import processes, stopwatch

ROUNDS, SECONDS, BATCHES = 5, 1.0, (1, 16)
MAX_SECONDS = 60.0
"""For all rounds of one model together, its loading included."""
_SIZES = {"height": "height", "width": "width", "length": "max_tokens"}
"""Free dimension -> the key of preprocessing.json that limits it."""


def measure(
    a: Path, b: Path, threads: int, rounds: int = ROUNDS, seconds: float = SECONDS, batches: tuple[int, ...] = BATCHES,
    max_seconds: float = MAX_SECONDS,
) -> dict[str, Any]:  # fmt: skip
    """Of two bundles' folders. `ratio` is b over a in each round; below 1, b is faster.

    Each round runs one after the other, the first of them by turns, so that a machine that slows down favours none.

    Raises:
        InputError: a model cannot be run, or not within `max_seconds`.
    """
    found: dict[str, Any] = {"threads": threads, "rounds": rounds, "batches": {}}
    left = {"a": max_seconds, "b": max_seconds}
    for batch in batches:
        times: dict[str, list[float]] = {"a": [], "b": []}
        for number in range(rounds):
            for name, folder in (("a", a), ("b", b))[:: 1 if number % 2 == 0 else -1]:
                start = time.monotonic()
                times[name].append(_once(folder, threads, batch, seconds, left[name], max_seconds))
                left[name] -= time.monotonic() - start
        ratios = [after / before for before, after in zip(times["a"], times["b"])]
        found["batches"][str(batch)] = {
            "a_ms": statistics.median(times["a"]),
            "b_ms": statistics.median(times["b"]),
            "ratio": statistics.median(ratios),
            "ratio_low": min(ratios),
            "ratio_high": max(ratios),
        }
    return found


def _once(folder: Path, threads: int, batch: int, seconds: float, left: float, most: float) -> float:
    model = (folder / "model.onnx").resolve()
    model_files.check(model, model_files.MODEL, key="bundle")
    words = [str(model), str(threads), str(batch), json.dumps(sizes(folder)), str(seconds)]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "OMP_", "MKL_"))}
    program = [sys.executable, "-I", str(Path(stopwatch.__file__).resolve()), *words]
    try:
        code, out, complaint = processes.quietly(program, folder, environment=kept, seconds=max(left, 0.001))
    except TimeoutError:
        raise InputError(
            f"{model} was stopped: measuring a model may take {most:g} s in all, and at batch {batch} this one was not "
            "done by then. It is too slow to be compared here; `diff` without --measure tells the rest"
        ) from None
    if code:
        raise InputError(f"{model} cannot be run: {(complaint.splitlines() or ['no word'])[-1]}")
    return float(json.loads(out)["median_ms"])


def sizes(folder: Path) -> dict[str, int]:
    """Sizes of free dimensions, from what the bundle's preprocessing gives at most."""
    try:
        how = json.loads((folder / "preprocessing.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(how, dict):
        raise InputError(f"{folder / 'preprocessing.json'} is not as a bundle has it: it holds no keys")
    return {free: how[key] for free, key in _SIZES.items() if isinstance(how.get(key), int)}
