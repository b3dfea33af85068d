"""Which samples make a batch: each once, like with like in length, and still not of one label."""

from __future__ import annotations

import numpy as np
import pytest

from components.finetune.batches import computed_over_real, cuts, num_batches


def skewed(num: int, most: int = 512) -> np.ndarray:
    """Lengths as texts have them: median 55, a long tail, cut at `most`."""
    return np.clip(np.random.default_rng(3).lognormal(4, 1, num), 3, most).astype(int)


@pytest.mark.parametrize("num", [2, 3, 31, 33, 1000, 2049])
@pytest.mark.parametrize("differ", [True, False])
def test_every_sample_is_in_one_batch_and_no_batch_is_of_one(num: int, differ: bool) -> None:
    batches = cuts(num, skewed(num) if differ else None, np.arange(num) % 3, 16, 17, 0)
    assert sorted(np.concatenate(batches)) == list(range(num))
    sizes = {len(b) for b in batches}
    assert len(batches) == num_batches(num, 16)
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1


def test_batches_are_the_same_each_time_and_others_in_another_epoch() -> None:
    first, again, other = (cuts(500, skewed(500), None, 16, 17, epoch) for epoch in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other))


@pytest.mark.parametrize("batch_size", [16, 32])
def test_little_is_computed_for_padding_on_a_skewed_corpus(batch_size: int) -> None:
    lengths, labels = skewed(3000), np.arange(3000) % 2
    for epoch in range(3):
        bucketed = computed_over_real(lengths, cuts(3000, lengths, labels, batch_size, 17, epoch))
        assert 1 <= bucketed <= 1.10
    drawn = computed_over_real(lengths, cuts(3000, None, None, batch_size, 17, 0))
    to_the_longest = 3000 * lengths.max() / lengths.sum()
    assert drawn > 3.5
    assert to_the_longest > 5


def label_shares(lengths: np.ndarray | None, labels: np.ndarray) -> float:
    """Spread over batches of the share of label 1."""
    batches = [b for epoch in range(20) for b in cuts(len(labels), lengths, labels, 16, 17, epoch)]
    return float(np.std([labels[b].mean() for b in batches]))


@pytest.mark.parametrize("times_as_long", [1.0, 2.7, 10.0])
def test_batches_are_no_more_of_one_label_than_by_chance_though_one_has_the_longer_texts(times_as_long: float) -> None:
    labels = np.arange(2000) % 2
    lengths = np.where(labels == 1, skewed(2000) * times_as_long, skewed(2000)).astype(int)
    assert label_shares(lengths, labels) <= label_shares(None, labels)
    tied = [cuts(2000, lengths, None, 16, 17, epoch) for epoch in range(5)]  # what would be without kinds
    spread = float(np.std([labels[b].mean() for batches in tied for b in batches]))
    assert times_as_long == 1.0 or spread > 1.5 * label_shares(None, labels)


def test_where_one_label_has_the_longer_texts_it_still_saves() -> None:
    labels = np.arange(2000) % 2
    lengths = np.where(labels == 1, skewed(2000) * 2.7, skewed(2000)).astype(int)
    mixed = computed_over_real(lengths, cuts(2000, lengths, labels, 16, 17, 0))
    drawn = computed_over_real(lengths, cuts(2000, lengths * 0 + 1, labels, 16, 17, 0))
    assert mixed < 0.5 * drawn


def test_batches_are_mixed_though_labels_lie_in_blocks() -> None:
    labels = (np.arange(2000) >= 1000).astype(int)  # a table sorted by label
    equal = np.full(2000, 128)
    assert label_shares(equal, labels) <= label_shares(None, labels)
    assert label_shares(equal, np.arange(2000) // 20) <= 1.1 * label_shares(None, np.arange(2000) // 20)  # few of each


def test_batches_come_in_no_order_of_length() -> None:
    lengths = skewed(2000)
    longest = [lengths[b].max() for b in cuts(2000, lengths, None, 16, 17, 0)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.25
