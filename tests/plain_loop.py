"""Training as anybody would write it with timm and torch, and the same run by the line: what benchmarks compare.

Both train EfficientNet-Lite0 (packaged weights) on the digits at 64 px, from the same decoded pixels, in batches of the
same size in the same order, at the same rates with the same schedule, and judge on validation after every epoch. The
plain loop is float32, NCHW, torch as it comes, and runs the whole network in every step. Heavy: import it in a process
that trains.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks import ladder
from torch import nn

from components import params, plugins
from components.finetune import stage
from components.finetune.batches import cuts
from components.finetune.runs import Line, Trained
from components.job import Job

ROOT = Path(__file__).parents[1]
BATCH, DECAY, WARMUP, LONGEST = 32, 0.01, 0.1, 1.0


def line_of(root: Path, num: int, strategy: dict[str, Any], seed: int, instruction_set: str) -> Line:
    """`num` training digits, half as many for validation, all others for the test; pixels decoded."""
    images = root / "images"
    images.mkdir(parents=True, exist_ok=True)
    table = ladder.images(1797, images)
    table["input.path"] = [f"images/{name}" for name in table["input.path"]]
    table["split"] = ["train"] * num + ["validation"] * (num // 2) + ["test"] * (len(table) - num - num // 2)
    choice = plugins.choose("backbones", ladder.IMAGES)
    chosen = {"backbone": choice.spec(), "preprocessing": choice.load().preprocessing(choice.params)}
    section = params.load_yaml(ROOT / "params.yaml")["finetune"]
    own = {"strategy": strategy, "references": [], "batch_size": BATCH, "patience": 1000, "weight_decay": DECAY,
           "warmup": WARMUP, "max_gradient_norm": LONGEST, "precision": "auto", "label_smoothing": 0.0}  # fmt: skip
    job = Job.at(root, "finetune", seed=seed, instruction_set=instruction_set)
    table = table.sort_values("id")
    line = Line(
        stage.Params.model_validate({**section, **own}), job, chosen, {"policy": {"name": "identity"}, "seed": seed},
        table,
    )  # fmt: skip
    line.tables["test"] = table[table["split"] == "test"]
    line.rows["test"] = line.feed.prepare(line.tables["test"], job)
    line.lengths["test"] = None
    return line


def by_line(line: Line, strategy: dict[str, Any]) -> Trained:
    """One run of `finetune`, nothing kept from an earlier one but what is cached by content."""
    choice = plugins.choose("finetune.strategies", strategy)
    return line.train("main", choice.spec(), choice.load().phases(choice.params), pretrained=True)


def forget(root: Path, *kinds: str) -> None:
    """Checkpoints and caches of earlier rounds."""
    for kind in kinds:
        shutil.rmtree(root / ".graftline" / kind, ignore_errors=True)


class Plain(nn.Module):
    """A timm network without its classifier, and a linear layer on features of about unit scale."""

    def __init__(self, backbone: nn.Module, mean: torch.Tensor, scale: torch.Tensor, num_labels: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(len(mean), num_labels)
        self.mean, self.scale = mean, scale
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.head((self.backbone(pixels) - self.mean) / self.scale)
        return logits


def scale_of(line: Line, *, each: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of pretrained features, as the line's head has them; a gift to the plain loop, not timed."""
    network, some = _backbone(line).eval(), line.rows["train"][: None if each else 256]
    with torch.no_grad():
        found = torch.cat([network(_inputs(line, some[at : at + 64])) for at in range(0, len(some), 64)]).double()
    mean, deviation = found.mean(dim=0), found.std(dim=0, correction=0)
    if not each:
        mean, deviation = torch.zeros_like(mean), torch.full_like(mean, float(deviation.square().mean().sqrt()))
    return mean.float(), deviation.clamp_min(1e-6 * float(deviation.max())).float()


def plain(
    line: Line, epochs: int, head_rate: float, backbone_rate: float | None, mean: torch.Tensor, scale: torch.Tensor
) -> tuple[Plain, float]:
    """The network of the best epoch and its loss on validation; without `backbone_rate` the backbone is frozen."""
    torch.manual_seed(line.settings.seed)
    model = Plain(_backbone(line), mean, scale, len(line.labels))
    groups: list[dict[str, Any]] = [{"params": list(model.head.parameters()), "lr": head_rate}]
    if backbone_rate is None:
        model.backbone.requires_grad_(False)
    else:
        groups.append({"params": list(model.backbone.parameters()), "lr": backbone_rate})
    optimiser = torch.optim.AdamW(groups, weight_decay=DECAY)
    rates = [group["lr"] for group in groups]
    targets = {part: torch.from_numpy(_targets(line, part)) for part in ("train", "validation")}
    at, best, kept = 0, math.inf, {}
    for epoch in range(epochs):
        batches = cuts(len(targets["train"]), None, None, BATCH, line.settings.seed, epoch)
        model.train()
        model.backbone.eval()  # of it only normalisation has two modes, and its statistics stay, as in the line
        for batch in batches:
            share = _share(at, epochs * len(batches))
            for group, rate in zip(optimiser.param_groups, rates):
                group["lr"] = rate * share
            logits = model(_inputs(line, line.rows["train"][np.sort(batch)]))
            loss = nn.functional.cross_entropy(logits, targets["train"][torch.from_numpy(np.sort(batch))])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), LONGEST)
            optimiser.step()
            loss.item()  # every loop looks at it
            at += 1
        logits = torch.cat(list(answers(model, line, "validation")))
        judged = float(nn.functional.cross_entropy(logits, targets["validation"]))
        if judged < best:
            best, kept = judged, {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(kept)
    return model, best


@torch.no_grad()
def answers(model: nn.Module, line: Line, part: str) -> Iterator[torch.Tensor]:
    """Logits, batch by batch."""
    model.eval()
    rows = line.rows[part]
    for at in range(0, len(rows), BATCH):
        yield model(_inputs(line, rows[at : at + BATCH]))


def accuracy(model: nn.Module, line: Line) -> float:
    """On the test's digits, which nobody trained on."""
    found = torch.cat(list(answers(model, line, "test"))).argmax(dim=1)
    return float((found == torch.from_numpy(_targets(line, "test"))).float().mean())


def _backbone(line: Line) -> nn.Module:
    choice = plugins.choose("backbones", line.chosen["backbone"])
    network: nn.Module = choice.load().build(choice.params, preprocessing=line.feed.preprocessing)
    return network


def _inputs(line: Line, rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(line.feed.collate(rows)[0])


def _targets(line: Line, part: str) -> np.ndarray:
    found: np.ndarray = line.decision.targets(line.tables[part]["label"], line.labels)
    return found


def _share(step: int, steps: int) -> float:
    first = max(1, round(WARMUP * steps))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, steps - first)))
