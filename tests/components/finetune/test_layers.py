"""Layers of networks of many families: every parameter once, in order, and as many as the network has blocks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import timm
import transformers
from torch import nn

from components.finetune.layers import by_depth, layers, names_by_layer

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
                         "vocab_size": 50}  # fmt: skip
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2, "vocab_size": 50}
FAMILIES: dict[str, tuple[Any, int]] = {  # configuration, layers: the embeddings and each block
    "bert": (lambda: transformers.BertConfig(**SMALL), 4),
    "distilbert": (lambda: transformers.DistilBertConfig(dim=16, n_layers=3, n_heads=2, hidden_dim=32), 4),
    "gpt2": (lambda: transformers.GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=50), 4),
    "roberta": (lambda: transformers.RobertaConfig(**SMALL), 4),
    "deberta": (lambda: transformers.DebertaV2Config(**SMALL), 4),
    "mpnet": (lambda: transformers.MPNetConfig(**SMALL), 4),
    "llama": (lambda: transformers.LlamaConfig(**SMALL), 4),
    "modernbert": (lambda: transformers.ModernBertConfig(**SMALL, pad_token_id=0), 4),
    "vit": (lambda: transformers.ViTConfig(**{k: v for k, v in SMALL.items() if k != "vocab_size"}), 4),
    "swin": (lambda: transformers.SwinConfig(embed_dim=8, depths=[2, 2], num_heads=[1, 2], image_size=32), 5),
}


@pytest.mark.parametrize(
    ("name", "num"),
    [("test_efficientnet", 6), ("test_vit", 7), ("test_resnet", 5), ("test_convnext", 11), ("resnet18", 9),
     ("mobilenetv3_small_050", 14)],
)  # fmt: skip
def test_of_timms_networks_as_timm_groups_them(name: str, num: int) -> None:
    network = timm.create_model(name, num_classes=0)
    whole(network, num)


@pytest.mark.parametrize("name", FAMILIES)
def test_of_transformers_by_their_blocks(name: str) -> None:
    config, num = FAMILIES[name]
    network = transformers.AutoModel.from_config(config())
    whole(network, num)
    first, last = names_by_layer(network)[0], names_by_layer(network)[-1]
    assert all("embed" in n or n.startswith(("wte", "wpe")) for n in first), first
    assert len(last) > 1


def test_an_encoder_of_t5_without_its_decoder() -> None:
    whole(transformers.T5EncoderModel(transformers.T5Config(**T5)), 4)


def test_of_a_network_without_a_list_of_blocks_its_parts() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    whole(network, 2)


def test_rates_fall_with_depth() -> None:
    network = timm.create_model("test_vit", num_classes=0)
    groups = by_depth(network, 1e-3, 0.5)
    rates = [group["lr"] for group in groups]
    assert rates[-1] == 1e-3
    assert all(a == pytest.approx(b / 2) for a, b in pairwise(rates))
    assert len(groups) == 7


def whole(network: nn.Module, num: int) -> None:
    found = layers(network)
    assert len(found) == num, [names[:2] for names in names_by_layer(network)]
    assert sorted(id(p) for part in found for p in part) == sorted(id(p) for p in network.parameters())
    order = {id(p): i for i, p in enumerate(network.parameters())}
    means = [sum(order[id(p)] for p in part) / len(part) for part in found]
    assert means == sorted(means), "from the input to the output"
