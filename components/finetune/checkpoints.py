"""A phase's checkpoint: where it stands, and all tensors that going on from there needs. Whole, or not there."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from components.contracts import write_atomic


@dataclass
class State:
    """Where a phase stands after an epoch; together with the tensors beside it all that resuming needs."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    num_samples_seen: int = 0
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


def write(keep: Path, trained: nn.Module, optimiser: Any, best: dict[str, torch.Tensor], state: State) -> None:
    """`best`: weights of the best epoch so far."""
    tensors = {f"now.{k}": v for k, v in trained.state_dict().items()} | {f"best.{k}": v for k, v in best.items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    write_atomic(keep, save(plain, metadata={"state": json.dumps(asdict(state))}))


def resume(
    keep: Path, trained: nn.Module, optimiser: Any, device: torch.device
) -> tuple[State, dict[str, torch.Tensor]]:
    """The state, and the weights of the best epoch; both as at the beginning where there is no checkpoint."""
    if not keep.exists():
        return State(), {}
    from safetensors import safe_open

    with safe_open(keep, framework="pt") as handle:
        state = State(**json.loads(handle.metadata()["state"]))
    tensors = load_file(keep)
    trained.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("now.")})
    inner: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            inner.setdefault(int(index), {})[key] = value.to(device) if key != "step" else value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": inner})
    return state, {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
