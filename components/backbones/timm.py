"""Pretrained image networks of the timm library.

What: any timm model as a feature extractor [N, D], with the preprocessing that it was pretrained with.
When: images. Weights from the hub at a pinned commit, from a local file, or from an installed package. Only
tensors are read, never code; a file that does not fit is refused with the names that differ.
Not when: the network must take something else than three channels.
Settings: model, revision, weights, image_size, fit, published_top1.
Cost: import 3 to 5 s; memory and time are the model's own and measured in `select`.
Evidence here: packaged EfficientNet-Lite0 weights fit by order (296 tensors) and see a daisy in the flower of
scikit-learn (tests/components/backbones/test_timm.py).
Source: Wightman, PyTorch Image Models, 2019, doi 10.5281/zenodo.4414861.
"""

from __future__ import annotations

import difflib
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from components import params, weights
from components.preprocessing.image_classification import Preprocessing
from components.weights import WeightsError, checked_hash, hub_file, misfit, read_state, weights_file

if TYPE_CHECKING:
    from torch import nn

TASKS = ("image_classification",)
SCRATCH_LEARNING_RATE = 3e-3
"""Of the run from random weights (digits, 3 epochs, validation accuracy: 0.64 at 1e-3, 0.93 at 3e-3)."""
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names that weights have on the hub, the better one first."""


class Weights(weights.Weights):
    """Where the pretrained weights come from."""

    match: Literal["names", "order"] = "names"
    """order: tensors are paired by position (same count, shapes, last names), where names differ."""

    @model_validator(mode="after")
    def _of_a_file(self) -> Self:
        if self.source in ("hub", "random") and self.match == "order":
            raise ValueError(f"`match` has no effect with source {self.source}; take it out")
        return self


class Params(params.Params):
    """A candidate."""

    model: str
    """A timm model name, with its pretrained tag for hub weights: resnet18.a1_in1k."""
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    """Commit of the hub repository (40 digits; a branch moves); needed for hub weights, and only for them."""
    weights: Weights = Weights()
    """Where its pretrained weights come from."""
    image_size: int | None = Field(default=None, ge=16, le=2048)
    """Side in pixels; by default the pretrained one."""
    fit: Literal["squash", "crop", "pad"] = "squash"
    """How an image that is not square is fitted."""
    published_top1: float | None = Field(default=None, ge=0, le=1)
    """Published ImageNet-1k accuracy, the prior that transferability scores are held against."""

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", self.model):
            raise ValueError(f"model {self.model!r} is not a timm name like resnet18.a1_in1k (no slash, no colon)")
        if self.weights.source == "hub" and not self.revision:
            raise ValueError(
                f"hub weights of {self.model} need `revision`, the commit of huggingface.co/timm/{self.model}"
            )
        if self.weights.source != "hub" and self.revision:
            raise ValueError(f"`revision` has no effect with {self.weights.source} weights; take it out")
        return self


def title(options: Params) -> str:
    """A short name for tables and folders."""
    source = {"random": "-random", "file": f"-{Path(options.weights.path or '').stem}"}
    return options.model + source.get(options.weights.source, "")


def preprocessing(options: Params) -> dict[str, Any]:
    """The input that the network was pretrained with, at `image_size`."""
    import timm

    try:
        config = timm.get_pretrained_cfg(options.model) or timm.create_model(options.model).pretrained_cfg
        config = config if isinstance(config, dict) else config.to_dict()
    except (RuntimeError, ValueError) as error:
        raise _unknown(options, error) from None
    size = options.image_size or config["input_size"][-1]
    how = Preprocessing(
        height=size,
        width=size,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic") else "bicubic",
        fit=options.fit,
    )
    return asdict(how)


def build(options: Params, *, pretrained: bool = True, preprocessing: dict[str, Any] | None = None) -> nn.Module:
    """The network without its classifier: inputs [N, 3, S, S] -> features [N, D]; `num_features` is D.

    `pretrained=False` gives the same architecture from random weights (torch's generator decides them).
    `provenance` on the module says where the weights came from. `preprocessing` is not needed: timm knows all
    its architectures by name.

    Raises:
        WeightsError: see the message for the file, the names that differ, or the pinned hash.
    """
    import timm

    del preprocessing
    sized = {"img_size": options.image_size} if options.image_size and _fixed_size(options) else {}
    try:
        module: nn.Module = timm.create_model(options.model, pretrained=False, num_classes=0, **sized)
    except RuntimeError as error:
        raise _unknown(options, error) from None
    source = options.weights.source if pretrained else "random"
    provenance: dict[str, Any] = {}
    if source == "hub":
        provenance = {"repository": _repository(options), "revision": options.revision}
    elif source != "random":
        provenance = {"package": options.weights.package, "match": options.weights.match}
    if source != "random":
        provenance |= _load_file(module, _file(options), options)
    module.num_features = _feature_size(module, options)  # type: ignore[assignment]
    module.provenance = {**provenance, "source": source, "licence": _licence(module)}  # type: ignore[assignment]
    return module


def source_head(options: Params) -> nn.Linear | None:
    """The classifier that the weights were pretrained with: features [N, D] -> logits of its own labels [N, S], for
    what rests on the old task (LwF, co-tuning, forgetting). None where the file has none, or the network has another
    kind than one linear layer.

    Raises:
        WeightsError: as `build`.
    """
    import timm
    from torch import nn

    if options.weights.source == "random":
        return None
    sized = {"img_size": options.image_size} if options.image_size and _fixed_size(options) else {}
    whole = timm.create_model(options.model, pretrained=False, **sized)
    head = whole.get_classifier()
    if not isinstance(head, nn.Linear):
        return None
    state = _state(_file(options), options)
    prefix = next(name for name, module in whole.named_modules() if module is head) + "."
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in head.state_dict().items()}:
        return None
    head.load_state_dict(own)
    return head.eval()


def _repository(options: Params) -> str:
    return f"timm/{options.model}"


def _file(options: Params) -> Path:
    if options.weights.source == "hub":
        return hub_file(_repository(options), options.revision, HUB_FILES)
    return weights_file(options.weights)


def _state(path: Path, options: Params) -> dict[str, Any]:
    """The file's tensors by the names of the whole network."""
    state: dict[str, Any] = read_state(path, options.weights)
    return _pair_by_order(state, options, path) if options.weights.match == "order" else state


def _load_file(module: nn.Module, path: Path, options: Params) -> dict[str, Any]:
    digest = checked_hash(options.weights, path)
    state = _as_timm_has_it(module, _state(path, options))
    own = module.state_dict()
    optional = {k for k in own if k.endswith("num_batches_tracked")}
    if unknown := state.keys() - own.keys():
        head = _names_of_whole(options) - own.keys()
        state = {k: v for k, v in state.items() if k not in head}
        unknown -= head
    missing = own.keys() - state.keys() - optional
    shapes = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if missing or unknown or shapes:
        told = [weights.shapes(k, own[k].shape, state[k].shape) for k in shapes]
        raise misfit(path.name, options.model, sorted(missing), sorted(unknown), told)
    module.load_state_dict({**{k: own[k] for k in optional}, **state})
    return {"file": path.name, "sha256": digest}


def _as_timm_has_it(module: nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """By timm's own conversion for the architecture: older names, position embeddings of another size."""
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(dict(state), module))
    except (KeyError, AttributeError, RuntimeError, ValueError, IndexError):
        return state  # what does not fit is told by name


def _names_of_whole(options: Params) -> set[str]:
    """Tensors of the network with its classifier, which is not loaded."""
    import timm

    return set(timm.create_model(options.model, pretrained=False).state_dict())


def _pair_by_order(state: dict[str, Any], options: Params, path: Path) -> dict[str, Any]:
    import timm

    whole = timm.create_model(options.model, pretrained=False)
    own = {k: v for k, v in whole.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    wrong = [
        f"{a} {tuple(own[a].shape)} <- {b} {tuple(given[b].shape)}"
        for a, b in zip(own, given)
        if own[a].shape != given[b].shape or a.rsplit(".", 1)[-1] != b.rsplit(".", 1)[-1]
    ]
    if len(own) != len(given):
        wrong.insert(0, f"the model has {len(own)} tensors, the file {len(given)}")
    if wrong:
        raise misfit(path.name, options.model, [], [], wrong)
    return dict(zip(own, given.values()))


def _fixed_size(options: Params) -> bool:
    import timm

    config = timm.get_pretrained_cfg(options.model)
    return bool(config and config.fixed_input_size)


def _feature_size(module: nn.Module, options: Params) -> int:
    """D, by asking the network: for some (mobilenetv3) timm's `num_features` is that of an earlier layer."""
    import torch

    side = preprocessing(options)["height"]
    with torch.inference_mode():
        features = module.eval()(torch.zeros(1, 3, side, side))
    module.train()
    if features.ndim != 2:
        raise WeightsError(f"{options.model} gives {tuple(features.shape)} where features [N, D] are needed")
    return int(features.shape[1])


def _licence(module: nn.Module) -> str:
    config: Any = module.pretrained_cfg
    return str(config.get("license") or "not stated by owner")


def _unknown(options: Params, error: Exception) -> WeightsError:
    import timm

    architecture = options.model.split(".")[0]
    if timm.is_model(architecture):
        close = timm.list_models(f"{architecture}.*", pretrained=True)[:8]
    else:
        close = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
    hint = f" Close: {', '.join(close)}." if close else ""
    return WeightsError(f"timm cannot make {options.model!r}: {str(error).splitlines()[0].rstrip('.')}.{hint}")
