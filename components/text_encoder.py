"""A transformer of Hugging Face with its pooling: token ids in, one row of features a text out.

Attention is written out as matrix products (`eager`): with torch 2.13 and transformers 5.23 every family can then
be exported with a free batch and a free length. Fused attention cannot for T5 and is not there for DeBERTa-v2 and
MPNet, and on this processor it is no faster up to 128 tokens (the card of backbones/transformers.py has the
figures).
"""

from __future__ import annotations

import copy
import difflib
import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from components.model_folder import quietly
from components.weights import WeightsError, misfit, shapes

ATTENTION = "eager"


class TextEncoder(nn.Module):
    """`network` gives hidden states [N, L, H], pooling one row of them a text, `layers` the features [N, D]."""

    def __init__(
        self, network: nn.Module, inputs: tuple[str, ...], pooling: tuple[str, ...], layers: list[dict[str, Any]]
    ) -> None:
        super().__init__()
        self.network, self.inputs, self.pooling = network, inputs, pooling
        self.layers = nn.ModuleList(Dense(layer) if layer["kind"] == "dense" else Normalize() for layer in layers)

    @property
    def feature_scale(self) -> float:
        """The size of an entry of the features that the architecture alone settles: of a vector of length 1."""
        ends_in_length = len(self.layers) > 0 and isinstance(self.layers[-1], Normalize)
        return float(self.num_features) ** -0.5 if ends_in_length else 1.0  # type: ignore[arg-type]

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """int64 [N, L] each, in the order of `inputs`, padded on the right -> features [N, D]."""
        given = dict(zip(self.inputs, inputs))
        hidden = self.network(**given, return_dict=True).last_hidden_state.float()
        features = pool(hidden, given["attention_mask"], self.pooling)
        for layer in self.layers:
            features = layer(features)
        return features

    def extra_repr(self) -> str:
        """What the caches of features must know, beside the parts."""
        return f"inputs={self.inputs}, pooling={self.pooling}"


class Dense(nn.Module):
    """The module of that name in sentence-transformers."""

    def __init__(self, layer: dict[str, Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(layer["inputs"], layer["outputs"], bias=layer["bias"])
        self.activation = getattr(nn, layer["activation"])()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[N, inputs] -> [N, outputs]."""
        return self.activation(self.linear(features))


class Normalize(nn.Module):
    """Every row has length 1."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[N, D] -> [N, D]."""
        return F.normalize(features, p=2.0, dim=-1)


def pool(hidden: torch.Tensor, mask: torch.Tensor, modes: tuple[str, ...]) -> torch.Tensor:
    """Hidden states [N, L, H] of the tokens that the mask [N, L] has as real -> [N, H * number of modes].

    mean: sum / n. mean_sqrt_len: sum / sqrt(n). weighted_mean: token i counts i + 1 times (Muennighoff, SGPT,
    2022). cls: the first token. last: the last one. max: the largest value of each dimension.
    """
    real = mask.unsqueeze(-1).bool()
    kept = hidden.masked_fill(~real, 0.0)  # not a product: what a padding token gives need not be finite
    number = mask.sum(dim=1, keepdim=True).clamp(min=1)
    pooled = []
    for mode in modes:
        if mode == "mean":
            pooled.append(kept.sum(dim=1) / number)
        elif mode == "mean_sqrt_len":
            pooled.append(kept.sum(dim=1) / number.float().sqrt())
        elif mode == "weighted_mean":
            weight = (mask.cumsum(dim=1) * mask).unsqueeze(-1).to(hidden.dtype)
            pooled.append((kept * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1))
        elif mode == "cls":
            pooled.append(kept[:, 0])
        elif mode == "last":
            place = (number - 1).unsqueeze(-1).expand(-1, 1, hidden.shape[2])
            pooled.append(kept.gather(1, place).squeeze(1))
        else:
            assert mode == "max", f"pooling {mode} passed the reading of the folder"
            pooled.append(hidden.masked_fill(~real, torch.finfo(hidden.dtype).min).amax(dim=1))
    return torch.cat(pooled, dim=1)


def read_config(config: dict[str, Any]) -> Any:
    """The configuration object of a cleaned config.json.

    Raises:
        WeightsError: transformers does not know it, or it contradicts itself.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config["model_type"]
    if kind not in CONFIG_MAPPING:
        close = difflib.get_close_matches(kind, list(CONFIG_MAPPING.keys()), n=3)
        hint = f" Close: {', '.join(close)}." if close else ""
        raise WeightsError(f"transformers {transformers.__version__} has no model_type {kind!r}.{hint}")
    try:
        with quietly():
            found = CONFIG_MAPPING[kind](**{k: v for k, v in config.items() if k != "model_type"})
    except Exception as error:  # each configuration class checks in its own way
        raise WeightsError(f"config.json of a {kind} cannot be used: {_first_line(error)}") from None
    found.use_cache = False
    found._attn_implementation = ATTENTION
    return found


def is_decoder(config: Any) -> bool:
    """Whether a token sees only those before it, so that the last one alone has seen the text."""
    from transformers.models.auto import modeling_auto as auto

    kind = config.model_type
    causal, masked = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return kind in causal and kind not in masked and not config.is_encoder_decoder


def blank(config: Any) -> nn.Module:
    """The network with weights from torch's generator, without heads; of an encoder and decoder, both or the first.

    Raises:
        WeightsError: transformers has no such network for texts.
    """
    cls, options = _class(config)
    try:
        with quietly():
            network: nn.Module = cls(copy.deepcopy(config), **options)  # T5 writes into it
    except Exception as error:  # each network checks in its own way
        raise WeightsError(
            f"a {config.model_type} cannot be built from its config.json: {_first_line(error)}"
        ) from None
    return network


def _class(config: Any) -> tuple[Any, dict[str, Any]]:
    """The class of the network, and the options that leave its pooler out, which no feature comes from."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING

    for mapping in (MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING):  # T5 has its encoder alone in the first
        if type(config) in mapping:
            cls = mapping[type(config)]
            cls = cls[0] if isinstance(cls, tuple) else cls
            known = inspect.signature(cls.__init__).parameters
            return cls, {"add_pooling_layer": False} if "add_pooling_layer" in known else {}
    raise WeightsError(f"transformers has no network without a head for a {config.model_type}")


def pretrained(config: Any, state: dict[str, torch.Tensor], file: str, model: str) -> nn.Module:
    """The network with these weights, float32.

    A head that the file has beside it is left out, and so is its pooler.

    Raises:
        WeightsError: they do not fit; the message has the names that differ.
    """
    cls, options = _class(config)
    with quietly():  # by transformers, which knows older names of its tensors
        network, told = cls.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, dtype=torch.float32,
            attn_implementation=ATTENTION, local_files_only=True, ignore_mismatched_sizes=True, **options,
        )  # fmt: skip
    parts = {name.split(".", 1)[0] for name in network.state_dict()}
    prefix = f"{cls.base_model_prefix}."
    unknown = [k for k in told["unexpected_keys"] if k.removeprefix(prefix).split(".", 1)[0] in parts - {"pooler"}]
    missing = [k for k in told["missing_keys"] if not k.startswith("pooler.")]
    wrong = [shapes(name, own, given) for name, given, own in sorted(told["mismatched_keys"])]
    if unknown or missing or wrong or told["error_msgs"]:
        raise misfit(file, model, sorted(missing), sorted(unknown), [*wrong, *told["error_msgs"]])
    return network


def fill(layer: nn.Module, state: dict[str, torch.Tensor], file: str) -> None:
    """Give a Dense layer its weights.

    Raises:
        WeightsError: they do not fit.
    """
    own = layer.state_dict()
    wrong = [
        shapes(k, own[k].shape, state[k].shape) for k in own.keys() & state.keys() if own[k].shape != state[k].shape
    ]
    if own.keys() != state.keys() or wrong:
        raise misfit(
            file, "its Dense module", sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys()), wrong
        )
    layer.load_state_dict(state)


def encoder_of(network: nn.Module, config: Any) -> nn.Module:
    """The part that reads: of an encoder and decoder, the encoder, whose embeddings are then in the weights once.

    Raises:
        WeightsError: it does not read tokens.
    """
    found: nn.Module = network.get_encoder() if config.is_encoder_decoder else network  # type: ignore[operator]
    if "input_ids" not in inspect.signature(found.forward).parameters:
        raise WeightsError(f"a {config.model_type} does not read tokens, so it is no backbone for texts")
    return found


def max_positions(network: nn.Module, config: Any) -> int | None:
    """The most tokens that the network has positions for; None where they are relative.

    RoBERTa and its kin number their positions from behind the padding token's, so they have fewer than rows.
    """
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    found = getattr(config, "max_position_embeddings", None)
    return int(found) if isinstance(found, int) and found > 0 else None


def has_token_types(network: nn.Module, config: Any) -> bool:
    """Whether it tells the second text of a pair from the first by an input of its own."""
    known = "token_type_ids" in inspect.signature(network.forward).parameters
    return known and (getattr(config, "type_vocab_size", 0) or 0) > 1


def num_features(encoder: TextEncoder) -> int:
    """D, by asking the network.

    Raises:
        WeightsError: it is no network that reads tokens.
    """
    device = next(encoder.parameters()).device
    example = tuple(torch.ones(1, 2, dtype=torch.long, device=device) for _ in encoder.inputs)
    training = encoder.training
    try:
        with torch.inference_mode():
            features = encoder.eval()(*example)
    except Exception as error:  # a network for images or sound fails in its own way
        raise WeightsError(f"this network gives no features of a text: {_first_line(error)}") from None
    encoder.train(training)
    return int(features.shape[1])


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
