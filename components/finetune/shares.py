"""Runs on a part of the training labels, so that it can be told how many of them transfer saves."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from components import samples
from components.contracts import RunRecord
from components.finetune.phases import Phase

if TYPE_CHECKING:
    from components.finetune.runs import Line

T = TypeVar("T")
GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, lie evenly: so do the roundings of many small classes."""


def kept(classes: Sequence[str], contents: Sequence[str], share: float, seed: int, *, each: bool) -> np.ndarray:
    """Which samples make up a share of each class, bool [N]; a smaller share is a part of a larger one.

    Within a class samples stand in the order of a hash of (seed, content). `each`: every class keeps one at least;
    without it, where classes are many and small (sets of labels), the shares hold over all of them together.
    """
    members: defaultdict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(classes):
        members[one].append(place)
    places = np.empty(len(classes))
    for rank, one in enumerate(sorted(members)):
        ordered = sorted(members[one], key=lambda i: (samples.keyed_seed(seed, "label share", contents[i]), i))
        offset = 0.0 if each else (rank * GOLDEN + GOLDEN) % 1
        places[ordered] = (np.arange(len(ordered)) + offset) / len(ordered)
    return np.asarray(places < share - 1e-9)


def part(line: Line, share: float) -> Line:
    """The same line with so many of its training samples; validation, labels and all settings stay."""
    if share == 1:
        return line
    table = line.tables["train"]
    single = line.decision.OUTPUT == "label"
    taken = kept(list(table["label"]), list(table["sha256"]), share, line.job.run.seed, each=single)
    own = copy.copy(line)
    own.tables = {**line.tables, "train": table[taken]}
    own.rows = {**line.rows, "train": line.rows["train"][taken]}
    lengths = line.lengths["train"]
    own.lengths = {**line.lengths, "train": None if lengths is None else lengths[taken]}
    own.settings = replace(line.settings, patience=math.ceil(line.settings.patience / share))
    return own


def each(line: Line, parts: Sequence[float], plans: Mapping[str, T]) -> Iterator[tuple[float, Line, tuple[str, T]]]:
    """Every plan on all samples, then on each part of them."""
    for share in (1.0, *parts):
        given = part(line, share)
        for plan in plans.items():
            yield share, given, plan


def named(run: str, share: float) -> str:
    """main_15"""
    return run if share == 1 else f"{run}_{round(100 * share)}"


def as_long(phases: list[Phase], share: float) -> list[Phase]:
    """As many steps of fewer samples: else a run on few labels would be one that hardly trained."""
    return phases if share == 1 else [replace(p, epochs=math.ceil(p.epochs / share)) for p in phases]


def told(record: RunRecord, line: Line, share: float) -> RunRecord:
    """The record with what the run was given."""
    num = len(line.tables["train"])
    if share == 1:
        return replace(record, num_train=num)
    note = f"{share:.0%} of the training samples, so many more epochs that the steps are about those of all of them"
    return replace(record, num_train=num, label_share=share, note="; ".join(filter(None, (record.note, note))))
