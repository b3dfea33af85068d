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
import hashlib
import importlib.util
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from components import params
from components.contracts import InputError
from components.preprocessing.image_classification import Preprocessing

if TYPE_CHECKING:
    import torch
    from torch import nn

TASKS = ("image_classification",)


class WeightsError(InputError):
    """Weights that are not there, are not the pinned ones, or do not fit the model."""


class Weights(params.Params):
    """Where the pretrained weights come from."""

    source: Literal["hub", "file", "package", "random"] = "hub"
    """hub: huggingface.co at `revision`. file: `path`. package: `path` (a glob) in it. random: none."""
    package: str | None = None
    """Import name of an installed package that holds the file."""
    path: str | None = None
    """The file, relative to the project; with `package`, a glob inside that."""
    match: Literal["names", "order"] = "names"
    """order: tensors are paired by position (same count, shapes, last names), where names differ."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Refuse a file with another hash. Needed with source file: DVC sees a changed file by it."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.source in ("file", "package") and not self.path:
            raise ValueError(f"weights from a {self.source} need `path`")
        if self.source == "file" and self.path and not self.sha256:
            raise ValueError(
                "weights from a file need `sha256`, as DVC sees params.yaml and not the file: "
                f"write what `sha256sum {self.path}` prints"
            )
        if self.source == "package" and not self.package:
            raise ValueError("weights from a package need `package`, its import name")
        if self.source in ("hub", "random") and (self.path or self.match == "order"):
            raise ValueError(f"`path` and `match` have no effect with source {self.source}; take them out")
        if self.source != "package" and self.package:
            raise ValueError(f"`package` has no effect with source {self.source}; take it out")
        if self.source == "random" and self.sha256:
            raise ValueError("`sha256` has no effect with source random; take it out")
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


def build(options: Params, *, pretrained: bool = True) -> nn.Module:
    """The network without its classifier: inputs [N, 3, S, S] -> features [N, D]; `num_features` is D.

    `pretrained=False` gives the same architecture from random weights (torch's generator decides them).
    `provenance` on the module says where the weights came from.

    Raises:
        WeightsError: see the message for the file, the names that differ, or the pinned hash.
    """
    import timm

    sized = {"img_size": options.image_size} if options.image_size and _fixed_size(options) else {}
    try:
        module: nn.Module = timm.create_model(options.model, pretrained=False, num_classes=0, **sized)
    except RuntimeError as error:
        raise _unknown(options, error) from None
    source = options.weights.source if pretrained else "random"
    provenance: dict[str, Any] = {}
    if source == "hub":
        provenance = {"repository": f"timm/{options.model}", "revision": options.revision}
        provenance |= _load_file(module, hub_file(options), options)
    elif source != "random":
        provenance = {"package": options.weights.package, "match": options.weights.match}
        provenance |= _load_file(module, weights_file(options.weights), options)
    module.num_features = _feature_size(module, options)  # type: ignore[assignment]
    module.provenance = {**provenance, "source": source, "licence": _licence(module)}  # type: ignore[assignment]
    return module


def hub_file(options: Params) -> Path:
    """The model's weights at the pinned commit, from the hub or from its cache on this machine.

    Raises:
        WeightsError: neither has them.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    repository = f"timm/{options.model}"
    try:
        for name in ("model.safetensors", "pytorch_model.bin"):
            try:
                return Path(hf_hub_download(repository, name, revision=options.revision))
            except RemoteEntryNotFoundError:
                continue
    except LocalEntryNotFoundError:
        told = "there is no connection to it, and its cache on this machine does not hold them"
    except Exception as error:  # the hub's client has many ways to fail
        told = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    else:
        told = "the repository holds neither model.safetensors nor pytorch_model.bin"
    raise WeightsError(
        f"could not get the weights of {repository} at {options.revision} from the hub: {told}. "
        "Without a network use `weights: {source: file, path: ...}`."
    )


def weights_file(weights: Weights) -> Path:
    """The one file that `file` or `package` weights name.

    Raises:
        WeightsError: the package or the file is not there, or the glob fits several.
    """
    if weights.source == "package":
        found = importlib.util.find_spec(str(weights.package))
        if found is None or not found.submodule_search_locations:
            raise WeightsError(
                f"the package {weights.package!r} is not installed; see pyproject.toml for those that are"
            )
        folder = Path(next(iter(found.submodule_search_locations)))
        files = sorted(folder.glob(str(weights.path)))
    else:
        folder = Path.cwd()
        files = [p for p in [folder / str(weights.path)] if p.is_file()]
    if len(files) != 1:
        told = ", ".join(p.name for p in files) or "none"
        raise WeightsError(f"weights path {weights.path!r} must name one file in {folder}; found: {told}")
    return files[0]


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file or of a state dict; nothing is unpickled but tensors.

    Raises:
        WeightsError: it is neither.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path.name} is neither safetensors nor a plain state dict ({type(error).__name__}). "
            "Nothing in it was executed. Save it as safetensors."
        ) from None
    for wrapper in ("state_dict_ema", "state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"{path.name} holds something else than named tensors")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _load_file(module: nn.Module, path: Path, options: Params) -> dict[str, Any]:
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if options.weights.sha256 and digest != options.weights.sha256:
        raise WeightsError(f"{path.name} has sha256 {digest}, but weights.sha256 pins {options.weights.sha256}")
    state = read_state(path)
    if options.weights.match == "order":
        state = _pair_by_order(state, options, path)
    state = _as_timm_has_it(module, state)
    own = module.state_dict()
    optional = {k for k in own if k.endswith("num_batches_tracked")}
    if unknown := state.keys() - own.keys():
        head = _names_of_whole(options) - own.keys()
        state = {k: v for k, v in state.items() if k not in head}
        unknown -= head
    missing = own.keys() - state.keys() - optional
    shapes = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if missing or unknown or shapes:
        told = [_shapes(k, own, state) for k in shapes]
        raise WeightsError(_misfit(path, options, sorted(missing), sorted(unknown), told))
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
        raise WeightsError(_misfit(path, options, [], [], wrong))
    return dict(zip(own, given.values()))


def _shapes(name: str, own: dict[str, Any], state: dict[str, Any]) -> str:
    return f"{name}: the model has {tuple(own[name].shape)}, the file {tuple(state[name].shape)}"


def _misfit(path: Path, options: Params, missing: list[str], unknown: list[str], wrong: list[str]) -> str:
    lines = [f"{path.name} does not fit {options.model}; nothing was loaded."]
    for what, found in (
        ("missing in the file", missing),
        ("unknown to the model", unknown),
        ("not fitting", wrong),
    ):
        if found:
            more = f" and {len(found) - 8} more" if len(found) > 8 else ""
            lines.append(f"  {what}: {', '.join(found[:8])}{more}")
    return "\n".join(lines)


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
