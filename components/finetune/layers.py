"""The layers of any backbone, from its input to its output, found without a table by hand.

Of a timm network as timm groups them (`group_matcher`). Of any other the members of its outermost list of blocks; what
comes before them (embeddings, a stem) is a layer of its own, and what comes after (a last norm, a projection) belongs
to the last one.
"""

from __future__ import annotations

from typing import Any

from torch import nn

FEW = 8
"""A list of so few members that hold lists themselves is one of stages, whose blocks are the layers."""


def layers(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """Every parameter of the backbone once, by layer; the first layer is the one next to the input."""
    named = dict(backbone.named_parameters())
    found = [[named[name] for name in names] for names in names_by_layer(backbone)]
    assert sum(map(len, found)) == len(named), "every parameter is in one layer"
    return found


def names_by_layer(backbone: nn.Module) -> list[list[str]]:
    """The same by the parameters' names."""
    if hasattr(backbone, "group_matcher"):
        from timm.models import group_parameters

        matcher: Any = backbone.group_matcher
        groups: dict[int, list[str]] = group_parameters(backbone, matcher(coarse=False))
        return [groups[key] for key in sorted(groups)]
    blocks = _blocks(backbone)
    found: list[list[str]] = [[], *[[] for _ in blocks]]
    at = 0
    for name, _ in backbone.named_parameters():
        at = next((i for i, block in enumerate(blocks, 1) if name.startswith(block)), at)
        found[at].append(name)
    return [names for names in found if names]


def _blocks(backbone: nn.Module) -> list[str]:
    """Prefixes of the parameters of each block, in order."""
    lists = [(name, module) for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList)]
    sized = [(name, module) for name, module in lists if len(module) > 1 and _weight(module)]
    if not sized:
        return [f"{name}." for name, child in backbone.named_children() if _weight(child)]
    name, members = max(sized, key=lambda one: (_weight(one[1]), -len(one[0])))  # the outermost holds the most
    prefixes = [f"{name}.{i}." for i in range(len(members))]
    inner = [_inner(member) for member in members]
    if len(members) < FEW and all(inner):
        return [f"{prefix}{block}" for prefix, blocks in zip(prefixes, inner) for block in blocks]
    return prefixes


def _inner(member: nn.Module) -> list[str]:
    """Prefixes of the blocks of one stage; a list of unlike parts is none of blocks (T5: attention, feed-forward)."""
    lists = [(name, module) for name, module in member.named_modules() if isinstance(module, nn.ModuleList)]
    alike = [(name, len(module)) for name, module in lists if _weight(module) and len({type(m) for m in module}) == 1]
    return [f"{alike[0][0]}.{i}." for i in range(alike[0][1])] if alike else []


def _weight(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def by_depth(backbone: nn.Module, learning_rate: float, decay: float) -> list[dict[str, Any]]:
    """Optimiser groups, one a layer: the last has `learning_rate`, each one below `decay` times that of the next."""
    found = layers(backbone)
    return [
        {"name": f"layer {i}", "params": params, "lr": learning_rate * decay ** (len(found) - 1 - i)}
        for i, params in enumerate(found)
    ]
