"""A policy that destroys what the label rests on is seen; one that changes nothing keeps every label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import factories
import numpy as np
import pytest
import torch
from torch import nn

from components import plugins, samples
from components.finetune.batches import Data
from components.finetune.label_keeping import BATCH, MOST, label_keeping
from components.preprocessing.text_classification import Text

CPU = torch.device("cpu")
DECISION = plugins.load("decisions", "single_label")


class BrightMiddle(nn.Module):
    """A probe that is right by hand: label 1 where the red channel's mean is above 100."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        red = pixels[:, 0].mean(dim=(1, 2))
        return torch.stack([100 - red, red - 100], dim=1)


def pictures(num: int = 120) -> Data:
    rng = np.random.default_rng(0)
    targets = np.arange(num) % 2
    rows = np.stack([np.asarray(factories.shape_image("circle", rng, 16)) // 8 + np.uint8(180 * t) for t in targets])
    rows.setflags(write=False)

    def collate(some: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.ascontiguousarray(some.transpose(0, 3, 1, 2), dtype=np.float32),)

    return Data(rows, targets.astype(np.int64), tuple(f"s{i:04d}" for i in range(num)), collate)


def policy(name: str, **options: Any) -> Any:
    choice = plugins.choose("augment.policies", {"name": name, **options})
    return choice.load().build(choice.params)


def keeping(data: Data, vary: Any, seed: int = 7) -> Any:
    return label_keeping(data, vary, BrightMiddle(), DECISION, seed, CPU)


def test_identity_keeps_every_label() -> None:
    found = keeping(pictures(), policy("identity"))
    assert (found.rate, found.num, found.changed) == (1.0, 120, ())


def test_a_policy_that_keeps_what_the_label_rests_on_keeps_labels_and_one_that_destroys_it_does_not() -> None:
    assert keeping(pictures(), policy("light")).rate == 1.0
    dark = keeping(pictures(), lambda row, rng: np.zeros_like(row))
    assert dark.rate == pytest.approx(0.5)
    assert len(dark.changed) == 10
    assert {int(i[1:]) % 2 for i in dark.changed} == {1}
    turned = keeping(pictures(), lambda row, rng: 255 - row)
    assert turned.rate == 0.0


def test_the_rate_is_the_share_that_was_planted() -> None:
    data = pictures(400)
    found = keeping(data, lambda row, rng: 255 - row if rng.random() < 0.3 else row)
    planted = [samples.keyed_rng(7, 0, i).random() < 0.3 for i in data.ids]
    assert found.rate == pytest.approx(1 - np.mean(planted))
    assert found.changed == tuple(i for i, p in zip(data.ids, planted) if p)[:10]


def test_only_what_the_probe_decides_rightly_is_asked() -> None:
    data = pictures()
    wrong = replace(data, targets=np.where(np.arange(120) < 30, 1 - data.targets, data.targets))
    assert keeping(wrong, policy("identity")).num == 90
    none = keeping(replace(data, targets=1 - data.targets), policy("identity"))
    assert (none.rate, none.num, none.changed) == (None, 0, ())


def test_at_most_500_are_asked_by_a_hash_of_their_ids_and_rows_stay_as_they_are() -> None:
    data = pictures(700)
    before = data.rows.copy()
    asked: list[Any] = []

    def vary(row: Any, rng: Any) -> Any:
        asked.append(row)
        return row

    assert keeping(data, vary).num == MOST
    assert len(asked) == MOST
    assert MOST % BATCH, "the last batch is a small one"
    np.testing.assert_array_equal(data.rows, before)
    dark = keeping(data, lambda row, rng: row * 0)
    assert dark == keeping(data, lambda row, rng: row * 0)
    assert dark.changed != keeping(data, lambda row, rng: row * 0, seed=8).changed


def test_texts_are_asked_in_the_same_way() -> None:
    rows = np.empty(60, dtype=object)
    rows[:] = [Text(f"{'free offer' if i % 2 else 'our meeting'} number {i}") for i in range(60)]

    def collate(some: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.array([[float("free" in row.text)] for row in some], dtype=np.float32),)

    class Probe(nn.Module):
        def forward(self, free: torch.Tensor) -> torch.Tensor:
            return torch.cat([0.5 - free, free - 0.5], dim=1)

    data = Data(rows, np.arange(60) % 2, tuple(map(str, range(60))), collate)

    def rate(vary: Any) -> float | None:
        return label_keeping(data, vary, Probe(), DECISION, 1, CPU).rate

    assert rate(policy("identity")) == 1.0
    assert rate(policy("eda", deletion=0, swap=0.2)) == 1.0  # order is nothing to this probe
    assert rate(policy("eda", deletion=0.5, swap=0)) == pytest.approx(0.75, abs=0.12)
    assert rows[0] == Text("our meeting number 0")


def test_dropout_is_off() -> None:
    class Dropped(BrightMiddle):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return super().forward(pixels)

    found = label_keeping(pictures(), policy("identity"), Dropped().train(), DECISION, 7, CPU)
    assert found.rate == 1.0
