"""Networks as ONNX in a moment, with the outputs of a deployed one: convolutions, or products of a transformer."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

Batch = dict[str, np.ndarray]

CONVOLUTIONS = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 3, 16, 16] pixels) => (int64[batch] label, float[batch, 4] probabilities, float[batch, 112] embedding)
{
    a = Conv <pads = [1, 1, 1, 1]> (pixels, w1, b1)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, w2, b2)
    d = Relu (c)
    e = Conv (d, w3, b3)
    f = Add (e, c)
    g = Relu (f)
    embedding = ReduceMean <keepdims = 0> (g, axes)
    logits = Gemm (embedding, w4, b4)
    label = ArgMax <axis = 1, keepdims = 0> (logits)
    probabilities = Softmax <axis = 1> (logits)
}
"""
PRODUCTS = """
<ir_version: 10, opset_import: ["" : 20]>
net (int64[batch, length] input_ids, int64[batch, length] attention_mask)
    => (int64[batch] label, float[batch, 4] probabilities, float[batch, 96] embedding)
{
    a = Gather (table, input_ids)
    m = Cast <to = 1> (attention_mask)
    n = Unsqueeze (m, last)
    b = MatMul (a, w1)
    c = Gelu (b)
    d = MatMul (c, w2)
    e = Add (a, d)
    f = Mul (e, n)
    embedding = ReduceMean <keepdims = 0> (f, axes)
    logits = Gemm (embedding, w4, b4)
    label = ArgMax <axis = 1, keepdims = 0> (logits)
    probabilities = Softmax <axis = 1> (logits)
}
"""


def convolutions(outlier: float = 1.0, inside: bool = False) -> onnx.ModelProto:
    """130,000 weights. `outlier`: how much larger the first channel of the input is (see `batches`), or, `inside`, of
    what the first convolution gives; the weights after it are as much smaller, so that the network computes the same.
    """
    rng = np.random.default_rng(0)
    sizes = {"w1": (112, 3, 3, 3), "w2": (112, 112, 3, 3), "w3": (112, 112, 1, 1), "w4": (112, 4)}
    values = {k: rng.normal(0, 1 / np.sqrt(np.prod(s[1:])), s) for k, s in sizes.items()}
    values |= {"b1": np.zeros(112), "b2": np.zeros(112), "b3": np.zeros(112), "b4": np.zeros(4)}
    if inside:
        values["w1"][0] *= outlier
        values["w2"][:, 0] /= outlier
    else:
        values["w1"][:, 0] /= outlier
    return _with(CONVOLUTIONS, values, {"axes": np.array([2, 3])})


def products() -> onnx.ModelProto:
    """A table of vectors, two products, a classifier: 150,000 weights."""
    rng = np.random.default_rng(0)
    sizes = {"table": (500, 96), "w1": (96, 500), "w2": (500, 96), "w4": (96, 4)}
    values = {k: rng.normal(0, 1 / np.sqrt(s[0] if k != "table" else 1), s) for k, s in sizes.items()}
    return _with(PRODUCTS, {**values, "b4": np.zeros(4)}, {"axes": np.array([1]), "last": np.array([2])})


def _with(text: str, values: dict[str, np.ndarray], indices: dict[str, np.ndarray]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    arrays = {k: v.astype(np.float32) for k, v in values.items()} | {k: v.astype(np.int64) for k, v in indices.items()}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in arrays.items())
    for number, node in enumerate(model.graph.node):
        node.name = f"{number:02d}_{node.op_type}"
    onnx.checker.check_model(model, full_check=True)
    return model


def batches(network: onnx.ModelProto, num: int = 4, seed: int = 1, outlier: float = 1.0) -> tuple[Batch, ...]:
    """Inputs of it, 16 samples a batch."""
    rng = np.random.default_rng(seed)
    if network.graph.input[0].name == "pixels":
        scale = np.array([outlier, 1, 1]).reshape(1, 3, 1, 1)
        return tuple({"pixels": (scale * rng.normal(size=(16, 3, 16, 16))).astype(np.float32)} for _ in range(num))
    ids = [rng.integers(0, 500, (16, int(rng.integers(3, 12)))) for _ in range(num)]
    return tuple({"input_ids": one, "attention_mask": np.ones_like(one)} for one in ids)
