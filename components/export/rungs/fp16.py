"""Weights and arithmetic in float16; inputs and outputs stay float32.

What: ONNX Runtime's converter. Operators whose constants, or results on up to 16 training samples, come near the end of
float16's range (see headroom) stay in float32, between casts.
When: the file must be half as large, or it runs on a processor with float16 arithmetic.
Not when: it runs on a usual CPU: ONNX Runtime has few float16 kernels there and casts forth and back, so that it is
mostly slower, which the measurement then says.
Settings: headroom.
Cost: 1 s, and one pass of those samples with every intermediate result kept.
Evidence here: half the size; at batch 1 on two cores of an AMD EPYC MiniLM at 128 tokens is 0.93 (0.87 to 1.00) times
as fast as float32, EfficientNet-Lite0 at 64 px 0.67 (0.63 to 0.70) times; no label of 150 flips
(python tests/benchmarks/ladder.py --repeats 2 --samples 300, 2026-11-21). It has not shipped here once.
Source: Micikevicius et al., Mixed precision training, 2018; onnxruntime.transformers.float16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from components import params
from components.export import graph

if TYPE_CHECKING:
    import onnx

    from components.export.graph import Samples

CALIBRATED = True
LIMITS = ("A value beyond the range of float16 (65504) overflows; that was looked for on at most 16 training samples.",)
"""What a card says of a model of this rung."""
LARGEST = 65504.0
"""Of float16."""


class Params(params.Params):
    """How careful it is."""

    headroom: float = Field(default=4.0, ge=1.0)
    """An operator stays in float32 where its largest result on those samples, times this, would overflow."""


def not_worth(network: onnx.ModelProto) -> str:
    """Why there is nothing to gain with this network; empty: it is tried."""
    weights = sum(int(np.prod(t.dims)) for t in network.graph.initializer)
    return "" if weights >= 100_000 else "it has less than 100,000 weights"


def made(network: onnx.ModelProto, samples: Samples, params: Params) -> tuple[onnx.ModelProto, str]:
    """The network in float16, and how many operators stayed in float32."""
    from onnxruntime.transformers import float16

    large = _overflowing(network, samples, LARGEST / params.headroom)
    with graph.quiet():
        half = float16.convert_float_to_float16(
            graph.without_shapes(network), keep_io_types=True, node_block_list=sorted(large)
        )
    _without_round_trips(half)
    told = f"{len(large)} of {len(network.graph.node)} operators stay in float32, as they would overflow"
    return graph.bare(half), told


def _overflowing(network: onnx.ModelProto, samples: Samples, limit: float) -> set[str]:
    """Names of the operators with a constant or a result beyond the limit."""
    import onnx

    constants = {
        t.name
        for t in network.graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT and np.abs(onnx.numpy_helper.to_array(t)).max(initial=0) > limit
    }
    inner = onnx.shape_inference.infer_shapes(graph.without_shapes(network)).graph.value_info
    floats = [v for v in inner if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    told = graph.without_shapes(network)
    told.graph.output.extend(floats)
    names = [v.name for v in floats]
    large = set(constants)
    for found in graph.answers(told, samples.probe[:1], names, samples.threads) if names else []:
        large |= {name for name, value in zip(names, found) if not np.abs(value).max(initial=0) <= limit}
    return {node.name for node in network.graph.node if large & {*node.input, *node.output}}


def _without_round_trips(half: onnx.ModelProto) -> None:
    """Between two operators that stay in float32 the converter casts to float16 and back: just where it overflows."""
    import onnx

    down, up = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    casts = {n.output[0]: (n.input[0], n.attribute[0].i) for n in half.graph.node if n.op_type == "Cast"}
    inner = {
        made: casts[source][0]
        for made, (source, to) in casts.items()
        if to == up and casts.get(source, (0, 0))[1] == down
    }
    for node in half.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = inner.get(name, name)
    for _ in range(2):  # a cast that nobody reads, and then the one before it
        read = {name for node in half.graph.node for name in node.input} | {value.name for value in half.graph.output}
        alive = [n for n in half.graph.node if n.op_type != "Cast" or n.output[0] in read]
        del half.graph.node[:]
        half.graph.node.extend(alive)
