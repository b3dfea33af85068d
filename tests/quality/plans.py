"""Which cells the quality table has, by what options each is trained, and a digest of all that decides one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from quality import sets
from quality.sets import Set

from components import plugins
from components.finetune import stage
from components.plugins import Choice
from pipelines import plans as by_new

DEFAULT = "default"
"""The row of what a user gets who names nothing: section finetune of params.yaml with the strategy, epochs and batch
size that `python -m pipelines new` plans for so many samples."""
FIRST = ("linear_probe", "full", DEFAULT)
TELLING = ("16", sets.ALL, "5", "50")
"""In what order numbers of shots are measured, and strategies: the most telling first."""
SETS, SHOTS, SEEDS = ("digits", "mnist", "emoji", "spam"), ("5", "16", "50", sets.ALL), 5
"""The whole table: only what is measured in all of it says that a promise is kept."""
PROBE_EPOCHS = 30
"""Passes over cached features wherever a head is fitted on them: they cost next to nothing."""
ALONE = {"references": [], "label_shares": [], "processes": 1}
"""One run in one process, in every row."""
LOOP = {**ALONE, "batch_size": 16, "precision": "32", "patience": 1000}
"""What differs from params.yaml in every row but `default`. Nothing stops early: all see the same samples."""
BACKBONE_RATES = ("backbone_learning_rate", "backbone_learning_rates")
TRIED = (20, 50, 160, 500, 1000)
"""Training samples, of ten labels, at which a strategy's options are taken into the digest."""

Options = Callable[[int], dict[str, Any]]
OPTIONS: dict[str, Options] = {
    "linear_probe": lambda epochs: {"epochs": PROBE_EPOCHS},
    "gradual_unfreeze": lambda epochs: {
        "stage_epochs": max(1, epochs // 8),
        "epochs": max(1, epochs - 2 * max(1, epochs // 8)),
    },
    # Its race takes as much again as a cell at the most: it is dearer than the others.
    "auto": lambda epochs: {"min_steps": 1, "race_samples": 2000},
    "soup": lambda epochs: {"epochs": max(1, round(epochs / 3))},  # three members
}
"""Strategy -> its options for so many passes of the backbone, where they are more than `common` gives."""


@dataclass(frozen=True)
class Cell:
    """What is trained, on what."""

    set: str
    seed: int
    shots: str
    strategy: str

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What a line of the file is found by."""
        return (self.set, self.seed, self.shots, self.strategy)


def planned(names: Iterable[str], seeds: int, shots: Iterable[str], strategies: Iterable[str]) -> list[Cell]:
    """Every cell, the most telling first: of a seed 16 shots of all sets, and the plain ways before the others."""
    sizes = sorted(shots, key=lambda s: TELLING.index(s) if s in TELLING else len(TELLING))
    order = sorted(strategies, key=lambda s: (FIRST.index(s) if s in FIRST else len(FIRST), s))
    return [Cell(n, seed, size, s) for seed in range(seeds) for size in sizes for n in names for s in order]


def common(defaults: dict[str, Any], epochs: int, rate: float) -> dict[str, Any]:
    """Options that mean the same in every strategy that has them."""
    found: dict[str, Any] = {"epochs": epochs, "probe_epochs": PROBE_EPOCHS}
    if rate != 1.0:
        found |= {key: _scaled(defaults[key], rate) for key in BACKBONE_RATES if defaults.get(key)}
    return {key: value for key, value in found.items() if key in defaults}


def _scaled(rates: float | list[float], by: float) -> float | list[float]:
    return [float(f"{r * by:.3g}") for r in rates] if isinstance(rates, list) else float(f"{rates * by:.3g}")


def chosen(strategy: str, epochs: int, rate: float) -> Choice:
    """A strategy with the options that a cell gives it, and those behind its name: lp_ft@head_learning_rate=1e-3.

    Raises:
        ValueError: there is no such strategy, or it has no such option or not with this value.
    """
    name, *changes = strategy.split("@")
    given = plugins.load("finetune.strategies", name).Params
    defaults = {key: one.default for key, one in given.model_fields.items()}
    options = common(defaults, epochs, rate) | OPTIONS.get(name, lambda _: {})(epochs)
    options |= {key: json.loads(value) for key, _, value in (change.partition("=") for change in changes)}
    return plugins.choose("finetune.strategies", {"name": name, **options})


@dataclass(frozen=True)
class Training:
    """What a cell has to learn from."""

    samples: int
    labels: int
    given: Set

    def planned(self) -> dict[str, Any]:
        """What `python -m pipelines new` would write into section finetune."""
        total = next(n for n in range(self.samples, 3 * self.samples) if by_new.split(n)[0] >= self.samples)
        if self.given.task == "text_classification":
            tokens = int(self.given.backbone["max_tokens"])
            plan = by_new.for_texts(total, self.labels, tokens, tokens)
        else:
            plan = by_new.for_images(total, self.labels, int(self.given.backbone["image_size"]))
        return {"strategy": plan.strategy, "batch_size": plan.batch_size}


def trained_by(strategy: str, section: dict[str, Any], training: Training) -> stage.Params:
    """Section finetune of a cell."""
    if strategy == DEFAULT:
        return stage.Params.model_validate({**section, **ALONE, **training.planned()})
    epochs, rate = training.given.num_epochs(training.samples), training.given.rate
    return stage.Params.model_validate({**section, **LOOP, "strategy": chosen(strategy, epochs, rate).spec()})


def digest(strategy: str, given: Set, section: dict[str, Any], threads: int) -> str:
    """Of all that decides a row's cells beside the code: LOOP/SET/STRATEGY, each of which may be compared alone."""
    options = [trained_by(strategy, section, Training(num, 10, given)) for num in TRIED]
    loop = {**options[0].model_dump(mode="json", exclude={"strategy", *ALONE}), "threads": threads}
    data = {key: value for key, value in asdict(given).items() if key not in ("name", "make")}
    data |= {"validation": sets.VALIDATION, "min_validation": sets.MIN_VALIDATION}
    return "/".join(_hash(one) for one in (loop, data, [one.strategy.spec() for one in options]))


def _hash(found: Any) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]


def mistakes(names: list[str], seeds: int, shots: list[str], strategies: list[str], again: list[str]) -> list[str]:
    """What is wrong with what was asked for, in words; nothing: it can be measured."""
    found = []
    known = (DEFAULT, *plugins.names("finetune.strategies"))
    if wrong := sorted(set(names) - set(SETS)):
        found.append(f"--sets: no such sets: {', '.join(wrong)}. Known: {', '.join(SETS)}")
    if seeds < 1:
        found.append(f"--seeds: give 1 or more, not {seeds}")
    if wrong := [one for one in shots if one != sets.ALL and not (one.isascii() and one.isdigit() and int(one) > 0)]:
        found.append(f"--shots: {', '.join(map(repr, wrong))}: give numbers from 1, or {sets.ALL}")
    for key, asked in (("--strategies", strategies), ("--again", again)):
        if wrong := sorted({one for one in asked if one not in known and one.split("@")[0] not in known[1:]}):
            found.append(f"{key}: no such strategies: {', '.join(wrong)}. Known: {', '.join(known)}")
            continue
        for one in asked:
            try:
                if one != DEFAULT:
                    chosen(one, 1, 1.0)
            except ValueError as problem:  # also json's and pydantic's
                found.append(f"{key}: {one}: {' '.join(str(problem).split())}")
    return found


def part(given: str) -> tuple[int, int]:
    """Of "2/3": the second of three.

    Raises:
        ValueError: it is none.
    """
    number, slash, of = given.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"--part: {given!r}: give which share of how many, as 1/2")
    return int(number), int(of)
