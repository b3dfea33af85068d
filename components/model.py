"""The network that is trained: a backbone and a linear head, and how its runs are kept and read again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn

from components import model_files, plugins, samples
from components.contracts import RunRecord, put_files, read_record, with_files, write_atomic, write_json
from components.job import Job

if TYPE_CHECKING:
    import pandas as pd

FILES = "files"
"""Folder of a run that holds its preprocessing's files."""
Progress = Callable[[Iterable[Any], str, int], Iterator[Any]]


class Head(nn.Linear):
    """Features [N, D] -> logits [N, K]; while it trains, of features on a scale of about 1.

    Networks give features of very different sizes (the unit vectors of sentence-transformers have 0.05 an entry),
    and a learning rate fits one size only. `standardise` changes how the layer is written, not what it computes;
    `fold` writes it as a plain linear layer again.
    """

    mean: torch.Tensor | None = None
    scale: torch.Tensor | None = None

    def standardise(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        """From now on the weights are those of (features - mean) / scale; `mean` and `scale` are [D]."""
        assert self.scale is None, "folded before"
        with torch.no_grad():
            weight = self.weight.double()
            self.bias.add_((weight @ mean.to(weight)).float())
            self.weight.copy_((weight * scale.to(weight)).float())
        self.mean, self.scale = mean.to(self.weight), scale.to(self.weight)

    def fold(self) -> None:
        """The weights are those of the features themselves again."""
        assert self.mean is not None, "standardised before"
        assert self.scale is not None, "standardised before"
        with torch.no_grad():
            weight = self.weight.double() / self.scale.double()
            self.bias.sub_((weight @ self.mean.double()).float())
            self.weight.copy_(weight.float())
        self.mean = self.scale = None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits."""
        if self.mean is None or self.scale is None:
            return super().forward(features)
        return super().forward((features - self.mean) / self.scale)


class TransferModel(nn.Module):
    """`backbone` gives features [N, D], `head` gives logits [N, K]."""

    def __init__(self, backbone: nn.Module, num_labels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = Head(int(backbone.num_features), num_labels)  # type: ignore[arg-type]
        nn.init.zeros_(self.head.weight)  # the first step is then the same for every feature scale
        nn.init.zeros_(self.head.bias)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Network inputs -> logits [N, K]."""
        return self.head(self.backbone(*inputs))


def pick_device(wanted: str) -> torch.device:
    """The device that `run.device` means here.

    Raises:
        InputError: cuda was asked for and there is none.
    """
    from components.contracts import InputError

    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("run.device is cuda, but torch sees no CUDA device here; use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Feed:
    """A task bound to one network's preprocessing: how samples become its inputs."""

    task: ModuleType
    preprocessing: dict[str, Any]

    @classmethod
    def of(cls, task: str, preprocessing: dict[str, Any]) -> Feed:
        """By the task's name."""
        return cls(plugins.load("tasks", task), preprocessing)

    def prepare(self, table: pd.DataFrame, job: Job, root: Path | None = None) -> np.ndarray:
        """The samples of a manifest as prepared rows [N, ...]; `root` is where their paths begin."""
        rows: np.ndarray = self.task.prepare(
            table, self.preprocessing, root or job.root, job.cache("prepared"), job.run.threads, job.progress
        )
        return rows

    def collate(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """The network's inputs for some prepared rows."""
        inputs: tuple[np.ndarray, ...] = self.task.collate(rows, self.preprocessing)
        return inputs

    def lengths(self, rows: np.ndarray) -> np.ndarray | None:
        """int [N]: how long each row is; None where all are of one size."""
        found: np.ndarray | None = self.task.lengths(rows)
        return found

    def example(self, batch: int) -> tuple[np.ndarray, ...]:
        """Inputs of the largest size, the same each time."""
        inputs: tuple[np.ndarray, ...] = self.task.example(self.preprocessing, batch)
        return inputs

    def key(self, table: pd.DataFrame) -> str:
        """What decides the prepared rows of a manifest, for caches."""
        return samples.digest_of(table, self.preprocessing, self.task.decoder())


def save_run(folder: Path, model: nn.Module, record: RunRecord) -> None:
    """Weights (safetensors), the record of a run, and the files of its preprocessing.

    One metadata key that holds JSON: with two, safetensors does not write the same bytes each time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    note = json.dumps({"run": record.run, "labels": list(record.labels)}, sort_keys=True)
    write_atomic(folder / "weights.safetensors", save(state, metadata={"graftline": note}))
    write_json(folder / "run.json", replace(record, preprocessing=put_files(folder / FILES, record.preprocessing)))


def load_run(folder: Path) -> tuple[TransferModel, RunRecord]:
    """The trained network of a run, in eval mode on the CPU, and its record. Needs nothing but the folder."""
    raw = read_record(RunRecord, folder / "run.json")
    run = replace(raw, preprocessing=with_files(folder / FILES, raw.preprocessing))
    choice = plugins.choose("backbones", run.backbone)
    backbone = choice.load().build(choice.params, pretrained=False, preprocessing=run.preprocessing)
    model = TransferModel(backbone, len(run.labels))
    model_files.check(folder / "weights.safetensors", model_files.TENSORS, key="artifacts")
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model.eval(), run


@torch.inference_mode()
def infer(
    network: nn.Module,
    rows: np.ndarray,
    feed: Feed,
    device: torch.device,
    progress: Progress,
    what: str,
    batch: int = 64,
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """Outputs of a network in eval mode over prepared rows, float32 [N, ...] in the rows' order.

    Rows of about one length go through together, the longest first, so that little is computed for padding. `dtype`
    is that of the matrix products and convolutions; the weights stay as they are.
    """
    network = network.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    lengths = feed.lengths(rows)
    order = np.arange(len(rows)) if lengths is None else np.argsort(-lengths, kind="stable")
    starts = range(0, len(rows), batch)
    parts = []
    for start in progress(starts, what, len(starts)):
        some = order[start : start + batch]
        inputs = [torch.from_numpy(a).to(device) for a in feed.collate(rows[some])]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            parts.append(network(*inputs).float().cpu().numpy())
    outputs = np.concatenate(parts)
    found = np.empty_like(outputs)
    found[order] = outputs
    return found
