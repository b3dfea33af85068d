"""What sentence-transformers puts behind a transformer: modules.json and what it names.

Only JSON is read here; a module that is not known is refused by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.model_folder import ModelFolder, inside
from components.weights import WeightsError

POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
"""Keys of 1_Pooling/config.json, in the order in which their results are joined. Versions from 6 on write
`pooling_mode: mean`, with the names of _NEW_NAMES for those that are named otherwise there."""
_NEW_NAMES = {"mean_sqrt_len_tokens": "mean_sqrt_len", "weightedmean": "weighted_mean", "lasttoken": "last"}
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")


@dataclass(frozen=True)
class SentenceModules:
    """What modules.json of sentence-transformers puts behind the transformer."""

    pooling: tuple[str, ...]
    """Values of POOLING; their results are joined."""
    layers: tuple[dict[str, Any], ...]
    """{"kind": "dense", "path", "inputs", "outputs", "bias", "activation"} or {"kind": "normalize"}, in order."""


def read(folder: ModelFolder) -> SentenceModules | None:
    """Pooling and layers that sentence-transformers put behind the transformer; None for a plain transformer.

    Raises:
        WeightsError: a module that is not known here.
    """
    listed = folder.modules()
    if listed is None:
        return None
    pooling: tuple[str, ...] = ()
    layers: list[dict[str, Any]] = []
    for number, module in enumerate(listed):
        maker, _, kind = str(module.get("type", "")).rpartition(".")
        if maker and not f"{maker}.".startswith("sentence_transformers."):
            kind = f"{maker}.{kind}"  # a class of somebody else's, whatever its name
        path = inside(str(module.get("path", "")))
        own = folder.read(f"{path}/config.json", inner=False) or {}
        if number == 0 and kind == "Transformer":
            continue
        if kind == "Pooling" and not pooling:
            pooling = _pooling(own, folder)
        elif kind == "Dense" and pooling:
            layers.append(_dense(own, path, folder))
        elif kind == "Normalize" and pooling:
            layers.append({"kind": "normalize"})
        elif kind != "Dropout":
            raise WeightsError(
                f"{folder.told}: modules.json has a module {kind!r} at place {number}; known are Transformer, then "
                "Pooling, then Dense, Normalize and Dropout. Set `pooling` to leave all but the transformer out."
            )
    return SentenceModules(pooling or ("mean",), tuple(layers))


def _pooling(own: dict[str, Any], folder: ModelFolder) -> tuple[str, ...]:
    modes = own.get("pooling_mode") or [name for key, name in POOLING.items() if own.get(key)] or ["mean"]
    known = [_NEW_NAMES.get(str(m), str(m)) for m in (modes if isinstance(modes, list) else [modes])]
    if unknown := [m for m in known if m not in POOLING.values()]:
        raise WeightsError(f"{folder.told}: pooling {unknown[0]!r} is not one of {', '.join(POOLING.values())}")
    return tuple(known)


def _dense(own: dict[str, Any], path: str, folder: ModelFolder) -> dict[str, Any]:
    activation = str(own.get("activation_function", "Tanh")).rsplit(".", 1)[-1]
    sizes = [own.get("in_features"), own.get("out_features")]
    counted = all(type(size) is int and size > 0 for size in sizes)
    if activation not in ACTIVATIONS or own.get("use_residual") or not counted:
        raise WeightsError(
            f"{folder.told}: {path}/config.json is a Dense module that is not known here (activations: "
            f"{', '.join(ACTIVATIONS)}; no residual; in_features and out_features are numbers). Set `pooling` to leave "
            "all but the transformer out."
        )
    return {
        "kind": "dense",
        "path": path,
        "inputs": own["in_features"],
        "outputs": own["out_features"],
        "bias": bool(own.get("bias", True)),
        "activation": activation,
    }


def dense_file(folder: ModelFolder, path: str) -> Path:
    """The file of a Dense module's weights."""
    return folder.get([f"{path}/{name}" for name in ("model.safetensors", "pytorch_model.bin")])
