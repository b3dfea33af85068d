"""Raw images into the deployed graph: resize, crop or pad, scale and normalise, as in training.

What: puts in front of the network what components/preprocessing/image_classification.py does after decoding. The
model then takes `image`, uint8 [batch, height, width, 3], RGB, any height and width, and the pixels that the network
sees are those of training, bit for bit: a resize is two products of whole numbers with Pillow's own coefficients.
When: images.
Not when: files are to be decoded, turned upright or laid over a background: that stays with whoever opens them, by
the rules of preprocessing.py. The images of one batch have one size.
Settings: those of `Preprocessing`.
Cost: 14 KB, and no time for images that have the network's size already. Else more time than Pillow takes, as there
is a coefficient for every pair of an input and an output: 640x480 to 224x224 takes 30 ms, 12 megapixels 0.6 s, on two
cores (Pillow: 3 and 70 ms; tests/benchmarks/resize.py). Where that matters, fit by preprocessing.py before, as
predict.py does.
Evidence here: not a pixel differs over odd sizes (1x1, 3x1000, ...), three fits and four interpolations
(tests/components/graphs/test_image_classification.py). ONNX's own Resize, antialias and exclude_outside=1, is 3
to 12 times as fast and differs in 1.2 % of the values, by up to 2 of 255 (bilinear), and in 0.02 %, by 1 (bicubic);
with exclude_outside=0 in 17 %, by up to 24 (bicubic; ONNX Runtime 1.31.1, 3 million values, 2026-11-21).
Source: components/resampling.py; ONNX operators, opset 18.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components import params, resampling, samples
from components.preprocessing import image_classification as pixels
from components.preprocessing.image_classification import IMAGE, Preprocessing

if TYPE_CHECKING:
    import onnx
    import pandas as pd

NETWORK = "pixels"
"""Input of the network in the joined model."""
TOLERANCE = 0
"""Largest difference of a pixel, of 255, between the graph and the training code."""
NUM_COMPARED, MAX_SIDE = 16, 1024
"""Files that are compared, and the largest side of what is taken of them."""

# `image` -> `image_known`, uint8 [batch, 3, h, w]. Images that have the network's size already go past the resize.
_SIZED = """
image_2 = Constant <value = int64 {{2}}> ()
image_1 = Constant <value = int64 {{1}}> ()
image_h = Constant <value = int64 {{{height}}}> ()
image_w = Constant <value = int64 {{{width}}}> ()
image_shape = Shape (image)
image_rows = Gather (image_shape, image_1)
image_columns = Gather (image_shape, image_2)
image_first = Transpose <perm = [0, 3, 1, 2]> (image)
image_is_high = Equal (image_rows, image_h)
image_is_wide = Equal (image_columns, image_w)
image_fits = And (image_is_high, image_is_wide)
image_fitted = If (image_fits) <
then_branch = as_it_is () => (uint8[batch, 3, {height}, {width}] image_kept) {{
image_kept = Identity (image_first)
}}, else_branch = resized () => (uint8[batch, 3, {height}, {width}] image_changed) {{
{changed}
}}>
image_wanted = Constant <value = int64[4] {{0, 3, {height}, {width}}}> ()
image_known = Reshape (image_fitted, image_wanted)
"""
_NORMALISED = """
image_float = Cast <to = 1> (image_known)
image_scale = Constant <value = float[3, 1, 1] {{{scale}}}> ()
image_offset = Constant <value = float[3, 1, 1] {{{offset}}}> ()
image_scaled = Mul (image_float, image_scale)
image_normal = Add (image_scaled, image_offset)
pixels = Cast <to = {kind}> (image_normal)
"""
# preprocessing._largest: part_high, part_wide, and where they lie in the middle of {rows} and {columns}.
_LARGEST = """
part_wide_1 = Mul ({rows}, {wide})
part_wide_2 = Mul (part_wide_1, image_2)
part_wide_3 = Add (part_wide_2, {high})
part_wide_4 = Mul ({high}, image_2)
part_wide_5 = Div (part_wide_3, part_wide_4)
part_wide_6 = Max (part_wide_5, image_1)
part_wide = Min (part_wide_6, {columns})
part_high_1 = Mul ({columns}, {high})
part_high_2 = Mul (part_high_1, image_2)
part_high_3 = Add (part_high_2, {wide})
part_high_4 = Mul ({wide}, image_2)
part_high_5 = Div (part_high_3, part_high_4)
part_high_6 = Max (part_high_5, image_1)
part_high = Min (part_high_6, {rows})
part_top_1 = Sub ({rows}, part_high)
part_top = Div (part_top_1, image_2)
part_left_1 = Sub ({columns}, part_wide)
part_left = Div (part_left_1, image_2)
one_list = Constant <value = int64[1] {{1}}> ()
axes = Constant <value = int64[2] {{2, 3}}> ()
top_list = Reshape (part_top, one_list)
left_list = Reshape (part_left, one_list)
begin = Concat <axis = 0> (top_list, left_list)
part_bottom = Add (part_top, part_high)
part_right = Add (part_left, part_wide)
"""
_CUT = """
bottom_list = Reshape (part_bottom, one_list)
right_list = Reshape (part_right, one_list)
end = Concat <axis = 0> (bottom_list, right_list)
image_cut = Slice (image_first, begin, end, axes)
"""
_FILL = """
below = Sub (image_h, part_bottom)
beside = Sub (image_w, part_right)
below_list = Reshape (below, one_list)
beside_list = Reshape (beside, one_list)
border = Concat <axis = 0> (begin, below_list, beside_list)
red, green, blue = Split <axis = 1, num_outputs = 3> (image_inner)
red_ground = Constant <value = uint8 {{{0}}}> ()
green_ground = Constant <value = uint8 {{{1}}}> ()
blue_ground = Constant <value = uint8 {{{2}}}> ()
red_padded = Pad (red, border, red_ground, axes)
green_padded = Pad (green, border, green_ground, axes)
blue_padded = Pad (blue, border, blue_ground, axes)
image_changed = Concat <axis = 1> (red_padded, green_padded, blue_padded)
"""


class Params(params.Params):
    """No options."""


def joined(network: onnx.ModelProto, preprocessing: dict[str, Any]) -> onnx.ModelProto:
    """The network with its preprocessing in front: `image`, uint8 [batch, height, width, 3], in the place of `pixels`.

    The same network and preprocessing give the same bytes when serialised.
    """
    import onnx

    how = Preprocessing.read(preprocessing)
    model = onnx.ModelProto()
    model.CopyFrom(network)
    graph = model.graph
    assert [node.name for node in graph.input] == [NETWORK], "a network of this task takes pixels alone"
    kind = graph.input[0].type.tensor_type.elem_type
    output = (
        f"{'float16' if kind == onnx.TensorProto.FLOAT16 else 'float'}[batch, 3, {how.height}, {how.width}] {NETWORK}"
    )
    front = _graph(how, output, _normalised(how, kind))
    made = {name for node in front.node for name in node.output}
    assert not made & {name for node in graph.node for name in node.output}, "two values of one name"
    nodes = [*front.node, *graph.node]
    for field, items in (("node", nodes), ("input", list(front.input))):
        graph.ClearField(field)
        getattr(graph, field).extend(items)
    onnx.checker.check_model(model, full_check=True)
    return model


def feed(rows: np.ndarray, preprocessing: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the joined model takes for prepared rows, uint8 [N, height, width, 3]: just these, as they fit already."""
    del preprocessing
    return {IMAGE: np.ascontiguousarray(rows)}


def told(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """What is inside the graph, and what is left to whoever calls it."""
    how = Preprocessing.read(preprocessing)
    resize = f"resize to {how.width}x{how.height} px ({how.fit}, {how.interpolation})"
    ground = f", filled up with {list(how.background)}" if how.fit == "pad" else ""
    normal = f"(v / 255 - mean) / std of each channel, mean {list(how.mean)}, std {list(how.std)}"
    return {
        "inside": [resize + ground, normal],
        "outside": ["decode the file", "turn it upright", "lay transparency over the background", "convert to RGB"],
        "why": "ONNX has no operator that reads files by these rules; preprocessing.py has them",
        "tolerance": TOLERANCE,
    }


def compare(table: pd.DataFrame, preprocessing: dict[str, Any], root: Path) -> dict[str, Any]:
    """How far the graph's resize is from the training code's: up to NUM_COMPARED files of a manifest, spread evenly,
    each as it is and cut to odd sizes, down to one pixel. A pixel's unit is 1 of 255."""
    import onnxruntime

    how = Preprocessing.read(preprocessing)
    session = onnxruntime.InferenceSession(alone(preprocessing), providers=["CPUExecutionProvider"])
    chosen = np.unique(np.linspace(0, len(table) - 1, min(len(table), NUM_COMPARED)).round().astype(int))
    largest = num_different = num_values = num_images = 0
    for path, sha256 in zip(table["input.path"].iloc[chosen], table["sha256"].iloc[chosen]):
        upright, _ = pixels.decode(samples.read_checked(root, path, sha256))
        image = pixels.to_rgb(upright, how.background)
        for box in _odd_boxes(*image.size):
            part = image.crop(box)
            (found,) = session.run(None, {IMAGE: np.asarray(part)[None]})
            gap = np.abs(found[0].transpose(1, 2, 0).astype(int) - pixels.fit(part, how))
            largest = max(largest, int(gap.max()))
            num_different += int((gap > 0).sum())
            num_values += gap.size
            num_images += 1
    return {
        "num_images": num_images, "num_values": num_values, "num_different": num_different,
        "max_abs": largest, "tolerance": TOLERANCE,
    }  # fmt: skip


def companion(preprocessing: dict[str, Any], folder: Path) -> dict[str, Any]:
    """No other graph beside this one."""
    del preprocessing, folder
    return {}


def alone(preprocessing: dict[str, Any]) -> bytes:
    """The resize by itself, as a model: `image` -> `image_known`, uint8 [batch, 3, height, width]."""
    import onnx

    how = Preprocessing.read(preprocessing)
    graph = _graph(how, f"uint8[batch, 3, {how.height}, {how.width}] image_known", "")
    version = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(graph, opset_imports=[version], ir_version=10)
    return bytes(model.SerializeToString(deterministic=True))


def _graph(how: Preprocessing, output: str, rest: str) -> onnx.GraphProto:
    import onnx

    body = _SIZED.format(height=how.height, width=how.width, changed=_changed(how)) + rest
    return onnx.parser.parse_graph(f"front (uint8[batch, height, width, 3] {IMAGE}) => ({output}) {{{body}}}")


def _normalised(how: Preprocessing, kind: int) -> str:
    """The numbers of `normalise`, written so that they are read as the same float32."""
    scale, offset = pixels.affine(how)
    told = {name: ", ".join(repr(float(v)) for v in values) for name, values in (("scale", scale), ("offset", offset))}
    return _NORMALISED.format(kind=kind, **told)


def _changed(how: Preprocessing) -> str:
    """`image_first` -> `image_changed`, by `how.fit`."""
    shape, image = {"rows": "image_rows", "columns": "image_columns"}, {"high": "image_rows", "wide": "image_columns"}
    network = {"high": "image_h", "wide": "image_w"}
    if how.fit == "squash":
        sizes = (("image_rows", "image_h"), ("image_columns", "image_w"))
        text = resampling.resized("image_first", "image_changed", sizes, how.interpolation)
    elif how.fit == "crop":
        sizes = (("part_high", "image_h"), ("part_wide", "image_w"))
        text = _LARGEST.format(**shape, **network) + _CUT
        text += resampling.resized("image_cut", "image_changed", sizes, how.interpolation)
    else:
        sizes = (("image_rows", "part_high"), ("image_columns", "part_wide"))
        text = _LARGEST.format(rows="image_h", columns="image_w", **image)
        text += resampling.resized("image_first", "image_inner", sizes, how.interpolation)
        text += _FILL.format(*how.background)
    return resampling.prefixed(resampling.constants(text) + text, "image_")


def _odd_boxes(width: int, height: int) -> set[tuple[int, int, int, int]]:
    """The whole, and cuts of it: two thirds of a side, a strip in either direction, a single pixel."""
    width, height = min(width, MAX_SIDE), min(height, MAX_SIDE)
    wide, high = max(1, 2 * width // 3 - 1), max(1, 2 * height // 3 - 1)
    sizes = ((width, height), (wide, height), (width, high), (wide, high), (1, height), (width, 1), (1, 1))
    return {(0, 0, *size) for size in sizes}
