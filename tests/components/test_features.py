"""Features of frozen networks: faster ways are taken only where they give what float32 gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from components import features
from components.model import Feed

CPU = torch.device("cpu")


class Plain:
    """Rows are inputs."""

    @staticmethod
    def collate(rows: np.ndarray, preprocessing: dict[str, Any]) -> tuple[np.ndarray, ...]:
        del preprocessing
        return (rows,)

    @staticmethod
    def lengths(rows: np.ndarray) -> None:
        del rows


FEED = Feed(Plain, {})  # type: ignore[arg-type]


def quiet(items: Iterable[Any], what: str, total: int) -> Iterator[Any]:
    del what, total
    return iter(items)


@pytest.fixture
def network() -> nn.Module:
    """Its normalisation does something, so that folding it wrongly is seen."""
    torch.manual_seed(0)
    found: nn.Module = timm.create_model("test_efficientnet", pretrained=False, num_classes=0).eval()
    for module in found.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return found


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(features.MANY, 3, 32, 32)).astype(np.float32)


def extract(network: nn.Module, rows: np.ndarray, instruction_set: str) -> np.ndarray:
    return features.extract(network, rows, FEED, CPU, quiet, "", instruction_set)


def infer(network: nn.Module, rows: np.ndarray) -> np.ndarray:
    return features.infer(network, rows, FEED, CPU, quiet, "")


def test_pinned_to_avx2_features_are_those_of_the_network_to_the_bit(network: nn.Module, rows: np.ndarray) -> None:
    np.testing.assert_array_equal(extract(network, rows, "avx2"), infer(network, rows))


def test_folded_normalisation_changes_nothing_but_roundings(
    network: nn.Module, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "has_bfloat16", lambda: False)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    found = extract(network, rows, "native")
    expected = infer(network, rows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items()), "the network itself stays"
    folded = features._folded(network, [torch.from_numpy(rows[:2])])
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules()), "all of them could be folded"


def test_a_way_that_changes_features_is_not_taken(
    network: nn.Module, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    other = timm.create_model("test_efficientnet", pretrained=False, num_classes=0)
    monkeypatch.setattr(features, "_folded", lambda *_: other)
    expected = infer(network, rows)
    np.testing.assert_array_equal(extract(network, rows, "native"), expected)


def test_bfloat16_is_taken_where_features_stay_alike(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "has_bfloat16", lambda: True)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8))
    found, expected = extract(network, rows, "native"), infer(network, rows)
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected), "bfloat16 has 8 bits"
    np.testing.assert_allclose(found, expected, atol=0.02 * float(np.abs(expected).max()))


def test_extraction_gives_the_same_bytes_again(network: nn.Module, rows: np.ndarray) -> None:
    assert extract(network, rows, "native").tobytes() == extract(network, rows, "native").tobytes()


def test_kept_features_are_read_again_and_can_be_written_into_without_harm(tmp_path: Path) -> None:
    network, computed = nn.Linear(3, 2), []

    def found(instruction_set: str = "avx2") -> np.ndarray:
        def compute() -> np.ndarray:
            computed.append(instruction_set)
            return np.ones((2, 3), np.float32)

        return features.cached_features(network, "samples", tmp_path, compute, instruction_set)

    first = found()
    first[:] = 5
    assert found().max() == 1
    found("native")
    assert computed == ["avx2", "native"], "two ways do not share features"
