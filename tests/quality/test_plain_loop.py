"""The plain loop that benchmarks compare the line with does the same: else its time would say nothing."""

from __future__ import annotations

from pathlib import Path

import plain_loop
import pytest
import torch
from benchmarks import ladder

BACKBONE = {"name": "timm", "model": "test_efficientnet", "image_size": 32, "weights": {"source": "random"}}


@pytest.mark.parametrize(
    ("strategy", "backbone_rate"),
    [
        ({"name": "full", "epochs": 1, "learning_rate": 3e-3, "backbone_learning_rate": 1e-3}, 1e-3),
        ({"name": "linear_probe", "epochs": 1, "learning_rate": 3e-3}, None),
    ],
)
def test_it_comes_to_the_same_loss_as_the_line(
    strategy: dict[str, object], backbone_rate: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ladder.images
    monkeypatch.setattr(ladder, "IMAGES", BACKBONE)
    monkeypatch.setattr(ladder, "images", lambda num, root: images(240, root))
    line = plain_loop.line_of(tmp_path, 128, strategy, 17, "avx2")
    monkeypatch.setattr(plain_loop, "_backbone", lambda line: line.network().backbone)  # random: by the line's seed
    mean, scale = plain_loop.scale_of(line, each=backbone_rate is None)
    model, loss = plain_loop.plain(line, 1, 3e-3, backbone_rate, mean, scale)
    done = plain_loop.by_line(line, strategy)
    assert loss == pytest.approx(done.course.figures["validation_loss"], abs=1e-3)
    assert plain_loop.accuracy(model, line) == pytest.approx(plain_loop.accuracy(done.model, line), abs=0.05)
    untrained = torch.log(torch.tensor(float(len(line.labels))))
    assert abs(loss - float(untrained)) > 0.01, "it learned, so a loop that does nothing would be seen"
