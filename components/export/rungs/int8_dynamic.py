"""Weights of matrix products in int8; the range of what they are multiplied with is taken anew at each call.

What: ONNX Runtime's dynamic quantisation, per channel, of matrix products with weights and of tables of vectors (token
embeddings). Attention's products of two activations, norms and the classifier stay in float32.
When: transformers. Needs no samples.
Not when: convolutions (their dynamic form is slower than float32; int8_static is for those). The range is that of a
whole batch, so an answer depends a little on the other samples of its batch: where it must not, take another rung.
Settings: reduce_range.
Cost: 2 s for MiniLM.
Evidence here: MiniLM at 128 tokens, two cores of an AMD EPYC: 2.25 (2.24 to 2.25) times as fast as float32 at batch 1
and 2.40 (2.39 to 2.42) at batch 16, 90 MB to 23 MB, 2 of 150 labels flip with a head on frozen features (python
tests/benchmarks/ladder.py --repeats 2 --samples 300, 2026-11-21); fine-tuned on the spam example 3 of 878 test labels
flip, accuracy +0.1 points (-0.3 to +0.6), and it ships. MiniLM's unit vectors
are off by 0.11 in length, by 0.09 without reduce_range (a trial that was not kept). Fusing by
onnxruntime.transformers.optimizer finds 13 norms and 6 GELUs, but no attention in what torch's exporter writes, and is
not faster than what ONNX Runtime fuses by itself when it loads: left out.
Source: Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-only inference,
2018; ONNX Runtime, Quantize ONNX models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components import params
from components.export import graph

if TYPE_CHECKING:
    import onnx

    from components.export.graph import Samples

CALIBRATED = False
LIMITS = (
    "An answer depends a little on the other samples of its batch, as ranges of values are taken over the whole batch.",
)
"""What a card says of a model of this rung."""
OPERATORS = ("MatMul", "Gather")
MIN_SHARE = 0.2
"""Of all weights that must stand in matrix products."""


class Params(params.Params):
    """How it is quantised."""

    reduce_range: bool = True
    """7 bits a weight: without it, processors that lack VNNI saturate and give other answers than this one."""


def not_worth(network: onnx.ModelProto) -> str:
    """Why there is nothing to gain with this network; empty: it is tried."""
    if graph.weights_in(network, ("MatMul",)) < MIN_SHARE:
        return "less than a fifth of its weights are in matrix products"
    return ""


def made(network: onnx.ModelProto, samples: Samples, params: Params) -> tuple[onnx.ModelProto, str]:
    """The quantised network, and how many of its products are.

    Raises:
        NotMade: nothing could be quantised.
    """
    del samples
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = graph.without_shapes(network)
    quantised = graph.through_file(
        lambda place: quantize_dynamic(
            plain, place, op_types_to_quantize=list(OPERATORS), per_channel=True, reduce_range=params.reduce_range,
            weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True},
        )
    )  # fmt: skip
    products = sum(node.op_type == "MatMulInteger" for node in quantised.graph.node)
    if not products:
        raise graph.NotMade("no matrix product could be quantised")
    return quantised, f"{products} matrix products in int8"
