"""Mixup and CutMix: a sample of a batch and another one of it become one, and the loss that of both, by their shares.

Drawn for the batch as a whole by (seed, epoch, batch), so several processes mix what one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from components import samples
from components.contracts import InputError

Array = np.ndarray


@dataclass(frozen=True)
class Mix:
    """How the samples of a batch, or of a part of it, are mixed."""

    partners: Array
    """int [n]: the other sample of each."""
    share: float
    """Of the sample's own in the mixture, at least 1/2: a mixture is named by what most of it is."""
    box: tuple[slice, slice] | None
    """CutMix: rows and columns of the image that are the partner's. None: Mixup, all of the image is of both."""
    own_inside: bool = False
    """The box is the sample's own, and what is around it the partner's: it is more than half of the image."""

    def part(self, which: Array | slice) -> Mix:
        """The same for some of the samples."""
        return replace(self, partners=self.partners[which])

    def apply(self, own: Array, other: Array) -> Array:
        """Mixed network inputs float32 [n, channels, height, width]."""
        if self.box is None:
            return np.asarray(self.share * own + (1 - self.share) * other, dtype=own.dtype)
        inside, around = (own, other) if self.own_inside else (other, own)
        mixed = around.copy()
        mixed[:, :, self.box[0], self.box[1]] = inside[:, :, self.box[0], self.box[1]]
        return mixed


def draw(num: int, mixup: float, cutmix: float, sides: tuple[int, int], seed: int, epoch: int, batch: int) -> Mix:
    """For a batch of `num` samples, `partners` by place in the batch; `sides` are the images' height and width.

    The share is of Beta(alpha, alpha): Zhang et al., mixup, ICLR 2018, equation 1; Yun et al., CutMix, ICCV 2019,
    section 3.1. Where both are asked for, each batch takes one of them, by a fair coin. Where less than half of the
    mixture would be the sample's own, the two change places: pairs are drawn at random, so that changes only which of
    them is called the sample.
    """
    rng = samples.keyed_rng(seed, epoch, f"mixing of batch {batch}")
    partners = rng.permutation(num)
    cut = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    alpha = cutmix if cut else mixup
    drawn = float(rng.beta(alpha, alpha))
    if not cut:
        return Mix(partners, max(drawn, 1 - drawn), None)
    height, width = sides
    half = np.sqrt(1 - drawn) / 2 * np.array([height, width])
    centre = rng.integers(0, [height, width])
    low = np.clip(np.round(centre - half), 0, [height, width]).astype(int)
    high = np.clip(np.round(centre + half), 0, [height, width]).astype(int)
    area = int(np.prod(high - low)) / (height * width)
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    return Mix(partners, max(area, 1 - area), box, own_inside=area > 0.5)


def must_be_images(inputs: Sequence[Array], task: str) -> None:
    """Raises InputError where a network's inputs are no images [N, channels, height, width]."""
    if [one.ndim for one in inputs] != [4]:
        raise InputError(f"finetune.mixup and finetune.cutmix mix images, and run.task is {task}: set both to 0")
