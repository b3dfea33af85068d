"""Samples in batches: which, in what order, and what of each is whose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from components import samples
from components.finetune import mixing
from components.finetune.mixing import Mix

if TYPE_CHECKING:
    from components.finetune.loop import Settings
    from components.finetune.team import Team

Array = np.ndarray
POOL = 64
"""Batches whose samples are sorted by length together."""
MANY = 64
"""So many samples of a kind in a pool have an order of their own."""


@dataclass(frozen=True)
class Data:
    """One split, ready to be batched."""

    rows: Array
    """Prepared rows of the task, or features [N, D] in a cached phase."""
    targets: Array
    """int64 [N], or what the decision has instead."""
    ids: tuple[str, ...]
    collate: Callable[[Array], tuple[Array, ...]]
    augment: Callable[[Array, np.random.Generator], Array] | None = None
    lengths: Array | None = None
    """int [N] where rows differ in length: like is then batched with like."""
    kinds: Array | None = None
    """int [N]: what a batch should be a mixture of though its rows are of one length: labels."""
    mixed: bool = False
    """Samples are images to be trained on, so Mixup and CutMix apply where they are asked for."""


class Batch(NamedTuple):
    """This process's part of a batch."""

    inputs: tuple[Array, ...]
    places: Array
    """int [n]: which samples they are."""
    num: int
    """Samples of the whole batch."""
    mix: Mix | None = None
    """Mixup or CutMix, which the inputs have had; partners are samples, as places are."""

    def pieces(self, num: int) -> list[Batch]:
        """The same in `num` pieces of nearly equal size."""
        if num == 1:
            return [self]
        cuts = np.array_split(np.arange(len(self.places)), num)
        return [
            Batch(tuple(a[cut] for a in self.inputs), self.places[cut], self.num, self.mix and self.mix.part(cut))
            for cut in cuts
        ]


def num_batches(num_samples: int, batch_size: int) -> int:
    """Batches are of nearly equal size: a rest of one sample would have no statistics of its own."""
    return max(1, min(math.ceil(num_samples / batch_size), num_samples // 2))


def cuts(
    num_samples: int, lengths: Array | None, kinds: Array | None, batch_size: int, seed: int, epoch: int
) -> list[Array]:
    """Which samples make up each batch of an epoch, in the order of training.

    Where samples differ in length, POOL batches' worth at a time are sorted by it (ties as they were drawn) and
    the batches shuffled. Where long texts are of one label, that alone would make batches of one label, which
    train badly: so each kind is sorted by itself, and its shortest go with the others' shortest.
    """
    rng = samples.keyed_rng(seed, epoch, "order of samples")
    batches = np.array_split(rng.permutation(num_samples), num_batches(num_samples, batch_size))
    if lengths is None:
        return batches
    found: list[Array] = []
    for start in range(0, len(batches), POOL):
        group = batches[start : start + POOL]
        pool = np.concatenate(group)
        pool = pool[np.argsort(_places(lengths[pool], None if kinds is None else kinds[pool]), kind="stable")]
        found += np.split(pool, np.cumsum([len(batch) for batch in group])[:-1])
    return [found[i] for i in rng.permutation(len(found))]


def _places(lengths: Array, kinds: Array | None) -> Array:
    """Where each sample stands in the order of length, 0 to 1; of a kind with MANY samples, in that of its kind."""

    def places(values: Array) -> Array:
        return np.asarray((np.argsort(np.argsort(values, kind="stable"), kind="stable") + 0.5) / len(values))

    found = places(lengths)
    for kind in [] if kinds is None else np.unique(kinds):
        own = np.flatnonzero(kinds == kind)
        if len(own) >= MANY:
            found[own] = places(lengths[own])
    return found


def computed_over_real(lengths: Array, batches: list[Array]) -> float:
    """What the network computes, padding included, over what the samples hold."""
    return sum(len(b) * int(lengths[b].max()) for b in batches) / int(lengths.sum())


def batches(data: Data, settings: Settings, epoch: int, threads: int, team: Team) -> Iterator[Batch]:
    """Of each batch of an epoch this process's part."""
    found = cuts(len(data.rows), data.lengths, data.kinds, settings.batch_size, settings.seed, epoch)
    team.check_batches(found)

    def inputs(cut: Array) -> tuple[Array, ...]:
        rows = data.rows[np.sort(cut)][np.argsort(np.argsort(cut))]  # a memory map likes rising indices
        if data.augment is not None:
            rngs = (samples.keyed_rng(settings.seed, epoch, data.ids[i]) for i in cut)
            rows = np.stack([data.augment(row, rng) for row, rng in zip(rows, rngs)])
        return data.collate(rows)

    mixes = data.mixed and bool(settings.mixup or settings.cutmix)
    sides = data.collate(data.rows[:1])[0].shape[2:] if mixes else (0, 0)

    def make(numbered: tuple[int, Array]) -> Batch:
        number, batch = numbered
        if mixes:
            return mixed(number, batch)
        cut = team.part(batch)
        return Batch(inputs(cut), cut, len(batch))

    def mixed(number: int, batch: Array) -> Batch:
        mix = mixing.draw(len(batch), settings.mixup, settings.cutmix, sides, settings.seed, epoch, number)
        own = team.part(np.arange(len(batch)))
        other = mix.partners[own]
        needed = np.unique(np.concatenate([own, other]))  # partners may be of another process's part
        (pixels,) = inputs(batch[needed])
        pixels = mix.apply(pixels[np.searchsorted(needed, own)], pixels[np.searchsorted(needed, other)])
        return Batch((pixels,), batch[own], len(batch), replace(mix, partners=batch[other]))

    return samples.in_threads(make, enumerate(found), threads)
