"""Every augmentation policy: keeps shape and kind, draws only from the numbers it is given, spares evaluation."""

from __future__ import annotations

import hashlib
from typing import Any

import factories
import numpy as np
import pytest

from components import plugins, samples

NAMES = plugins.names("augment.policies")
# Golden: the first 12 hex digits of SHA-256 over 20 augmented pictures. A policy without one fails at collection.
GOLDEN = {"identity": "8087a8b4480c", "light": "d17eac84dbc6", "trivial_augment": "023d3e0e2157"}
assert set(GOLDEN) == set(NAMES), f"policies without a golden row: {set(NAMES) ^ set(GOLDEN)}"


def policy(name: str) -> Any:
    choice = plugins.choose("augment.policies", name)
    return choice.load().build(choice.params)


def rows(height: int = 32, width: int = 32) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.asarray(factories.shape_image(s, rng, 48).resize((width, height))) for s in factories.SHAPES]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(32, 32), (17, 40), (1, 1), (2, 90)])
def test_shape_and_type_are_kept_and_the_row_is_not_written_to(name: str, size: tuple[int, int]) -> None:
    change = policy(name)
    for row in rows(*size):
        row.setflags(write=False)  # a memory map that is read is not writable either
        for epoch in range(30):
            found = change(row, samples.keyed_rng(1, epoch, "a"))
            assert (found.shape, found.dtype) == (row.shape, np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_same_key_same_bytes_and_another_epoch_another_picture(name: str) -> None:
    change, row = policy(name), rows()[0]
    pictures = [change(row, samples.keyed_rng(1, epoch, "a")).tobytes() for epoch in range(20)]
    np.random.default_rng(5).random(100)  # foreign draws do not matter
    assert pictures == [change(row, samples.keyed_rng(1, epoch, "a")).tobytes() for epoch in range(20)]
    distinct = len(set(pictures))
    assert distinct == 1 if name == "identity" else distinct >= 12


@pytest.mark.parametrize("name", [n for n in NAMES if n != "identity"])
def test_mean_brightness_is_kept_on_average(name: str) -> None:
    """A policy that darkened or whitened everything would shift training against evaluation."""
    change = policy(name)
    before = np.mean([r.mean() for r in rows()])
    after = np.mean(
        [change(r, samples.keyed_rng(1, e, str(i))).mean() for e in range(100) for i, r in enumerate(rows())]
    )
    assert after == pytest.approx(before, rel=0.25)


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_names_its_tasks(name: str) -> None:
    module = plugins.load("augment.policies", name)
    assert set(module.TASKS) <= set(plugins.names("tasks"))
    assert module.TASKS


@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str) -> None:
    digest = hashlib.sha256()
    for epoch in range(20):
        digest.update(policy(name)(rows()[1], samples.keyed_rng(7, epoch, "golden")).tobytes())
    assert digest.hexdigest()[:12] == GOLDEN[name]
