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
    pieces: int = 1
    """In how many a batch is computed, since memory ran out."""
    scaler: dict[str, float] = field(default_factory=dict)
    """Of the loss, where numbers are of 16 bits with a short range (fp16)."""


def write(
    keep: Path,
    trained: nn.Module,
    optimiser: Any,
    best: dict[str, torch.Tensor],
    callback: dict[str, torch.Tensor],
    state: State,
) -> None:
    """`best`: weights of the best epoch so far. `callback`: what the phase's callback needs to go on."""
    kinds = {"now": trained.state_dict(), "best": best, "callback": callback}
    tensors = {f"{kind}.{k}": v for kind, found in kinds.items() for k, v in found.items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    write_atomic(keep, save(plain, metadata={"state": json.dumps(asdict(state))}))


def resume(
    keep: Path, trained: nn.Module, optimiser: Any, device: torch.device
) -> tuple[State, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The state, the weights of the best epoch, and what the callback had; as at the beginning where there is no
    checkpoint."""
    if not keep.exists():
        return State(), {}, {}
    from safetensors import safe_open

    with safe_open(keep, framework="pt") as handle:
        state = State(**json.loads(handle.metadata()["state"]))
    tensors = load_file(keep)

    def of(kind: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(f"{kind}."): v for k, v in tensors.items() if k.startswith(f"{kind}.")}

    trained.load_state_dict(of("now"))
    inner: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in of("optimiser").items():
        index, key = name.split(".", 1)
        inner.setdefault(int(index), {})[key] = value.to(device) if key != "step" else value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": inner})
    return state, of("best"), of("callback")
