"""How much is done with N samples: the split, the strategy, the size of the network's input, so that it ends in time.

Few samples: a linear probe. More: the whole network, as large and as long as MAX_SECONDS allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_SECONDS = 480
"""What training may take on two cores."""
SIZES = (64, 96, 128, 160, 192, 224)
"""Sides that networks pretrained on photographs make something of; smaller images are enlarged."""
LENGTHS = (32, 64, 128, 256)
"""Tokens that are read of a text; the packaged encoder knows no more than the last."""
_IMAGES_A_SECOND = 500
"""EfficientNet-Lite at 64 px, forward, two cores; with the square of the side less. Training costs four times that."""
_TOKENS_A_SECOND = 4000
"""MiniLM with six layers, forward, two cores. Training costs four times that."""


@dataclass(frozen=True)
class Plan:
    """How much is done with N samples."""

    shares: dict[str, float]
    num_train: int
    num_held: int
    """Samples of the smaller of validation and test."""
    strategy: dict[str, Any]
    size: int
    """Of the network's input: pixels of a side, or tokens."""
    batch_size: int
    minutes: float


def for_images(num: int, num_labels: int, side: int) -> Plan:
    """`side`: of a typical image, in pixels."""
    num_train, shares = split(num)
    few = _few(num_train, num_labels)
    steps = ((300, 15), (1500, 10), (5000, 6), (20_000, 4))
    epochs = 20 if few else next((e for most, e in steps if num_train < most), 2)

    def seconds(size: int) -> float:
        trained = num_train * epochs * (1 if few else 2)  # the run from scratch, and the main one
        return (4 * trained + 4 * num) / (_IMAGES_A_SECOND * (64 / size) ** 2)

    size = _largest(SIZES, side, seconds)
    strategy = {"name": "linear_probe" if few else "full", "epochs": epochs}
    return _plan(num, num_train, shares, strategy, size, seconds(size))


def for_texts(num: int, num_labels: int, typical: float, most: float) -> Plan:
    """`typical` and `most`: tokens of a typical text, and of all but the longest ones."""
    num_train, shares = split(num)
    steps = ((1500, 4), (5000, 3), (20_000, 2))
    epochs = next((e for most_samples, e in steps if num_train < most_samples), 1)

    def seconds(size: int, epochs: int = 0) -> float:
        passes = 4 * num + 4 * num_train * epochs * 2  # features; the run from scratch, and the main one
        return passes * min(typical, size) / _TOKENS_A_SECOND

    size = _largest(LENGTHS, round(most), seconds)
    if _few(num_train, num_labels) or seconds(size, epochs) > MAX_SECONDS:
        return _plan(num, num_train, shares, {"name": "linear_probe", "epochs": 30}, size, seconds(size))
    # 550 mails cut to 160 letters, 4 epochs, log loss on validation: 0.08 at 5e-5, 0.11 at 2e-5; with 0.02 for the
    # head 0.15 (commit 8029de8, 2026-11-21, one trial each).
    strategy = {"name": "full", "epochs": epochs, "backbone_learning_rate": 5e-5}
    return _plan(num, num_train, shares, strategy, size, seconds(size, epochs))


def split(num: int) -> tuple[int, dict[str, float]]:
    """Training samples, and the shares of the split."""
    test = 0.2 if num < 300 else 0.15 if num <= 20_000 else 0.1
    return round(num * (1 - 2 * test)), {"train": round(1 - 2 * test, 2), "validation": test, "test": test}


def _few(num_train: int, num_labels: int) -> bool:
    return num_train < 100 or num_train / num_labels < 4  # 8 a label and 100 labels: full 0.94, the probe 0.53


def _largest(sizes: tuple[int, ...], native: int, seconds: Callable[[int], float]) -> int:
    """The largest size that the samples fill and that ends in time."""
    enough = next((s for s in sizes if s >= native), sizes[-1])
    return max((s for s in sizes if s <= enough and seconds(s) <= MAX_SECONDS), default=sizes[0])


def _plan(
    num: int, num_train: int, shares: dict[str, float], strategy: dict[str, Any], size: int, seconds: float
) -> Plan:
    return Plan(
        shares=shares,
        num_train=num_train,
        num_held=round(num * shares["test"]),
        strategy=strategy,
        size=size,
        batch_size=32 if num_train >= 256 else 16 if num_train >= 96 else 8,
        minutes=1 + seconds / 60,
    )
