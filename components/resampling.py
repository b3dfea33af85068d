"""Pillow's resize as nodes of an ONNX graph, with the same result to the last bit.

Pillow resamples 8-bit pixels one axis after the other: each output is a sum of inputs times coefficients of 22 bits
in whole numbers, rounded and clipped to 0..255 after each axis. Here the coefficients of an axis are computed in the
graph from its two sizes, in double precision and in Pillow's order; then a pass is one product of whole numbers.
A coefficient is three digits of 8 bits, so that MatMulInteger can take it; its sums are exact.
ONNX's own Resize with antialias is near, but not equal: see components/graphs/image_classification.py.

Source: Pillow 13, src/libImaging/Resample.c and Geometry.c (nearest), for what is computed.
"""

from __future__ import annotations

import re
from collections.abc import Collection

BITS = 22
"""Of a coefficient, as in Pillow."""
_SUPPORT = {"bilinear": "one", "bicubic": "two", "lanczos": "three"}
"""Interpolation -> how far its filter reaches, in pixels of the coarser side."""

_NUMBERS: dict[str, dict[str, float]] = {
    "double": {
        "zero": 0.0, "half": 0.5, "one": 1.0, "two": 2.0, "three": 3.0, "four": 4.0, "five": 5.0, "eight": 8.0,
        "one_half": 1.5, "two_half": 2.5, "minus_half": -0.5, "pi": 3.141592653589793, "unit": 2.0**BITS,
        "sign_bit": 128.0, "base": 256.0,
    },
    "uint8": {"middle": 128},
    "int32": {
        "black": 0, "white": 255, "digit_1": 2**8, "digit_2": 2**16, "rounding": 2 ** (BITS - 1), "units": 2**BITS,
    },
    "int64": {"front": 0},
    "int64[1]": {"first_axis": 0, "second_axis": 1},
}  # fmt: skip

# |x|, the distance from the centre -> the weight there. One operation a line, in the order in which Pillow has them.
_FILTERS = {
    "bilinear": """
weight = Sub (one, x)
""",
    "bicubic": """
near_1 = Mul (one_half, x)
near_2 = Sub (near_1, two_half)
near_3 = Mul (near_2, x)
near_4 = Mul (near_3, x)
near = Add (near_4, one)
far_1 = Sub (x, five)
far_2 = Mul (far_1, x)
far_3 = Add (far_2, eight)
far_4 = Mul (far_3, x)
far_5 = Sub (far_4, four)
far = Mul (far_5, minus_half)
is_near = Less (x, one)
weight = Where (is_near, near, far)
""",
    "lanczos": """
angle = Mul (x, pi)
sine = Sin (angle)
sinc = Div (sine, angle)
third = Div (x, three)
slow_angle = Mul (third, pi)
slow_sine = Sin (slow_angle)
window = Div (slow_sine, slow_angle)
product = Mul (sinc, window)
in_the_middle = Equal (x, zero)
weight = Where (in_the_middle, one, product)
""",
}

# Sizes `from` and `to` -> `coefficients` [from, to], whole numbers in double precision.
_COEFFICIENTS = """
from_d = Cast <to = 11> (FROM)
to_d = Cast <to = 11> (TO)
scale = Div (from_d, to_d)
coarse = Max (scale, one)
support = Mul (coarse, SUPPORT)
fine = Div (one, coarse)
outputs = Range (zero, to_d, one)
outputs_mid = Add (outputs, half)
centre = Mul (outputs_mid, scale)
low_1 = Sub (centre, support)
low_2 = Add (low_1, half)
low = Floor (low_2)
high_1 = Add (centre, support)
high_2 = Add (high_1, half)
high = Floor (high_2)
inputs_row = Range (zero, from_d, one)
inputs = Unsqueeze (inputs_row, second_axis)
distance_1 = Sub (inputs, centre)
distance_2 = Add (distance_1, half)
distance = Mul (distance_2, fine)
x = Abs (distance)
FILTER
in_reach = Less (x, SUPPORT)
from_low = GreaterOrEqual (inputs, low)
to_high = Less (inputs, high)
in_bounds = And (from_low, to_high)
counts = And (in_reach, in_bounds)
weights = Where (counts, weight, zero)
total = ReduceSum <keepdims = 1> (weights, first_axis)
share = Div (weights, total)
sign = Sign (share)
size_1 = Abs (share)
size_2 = Mul (size_1, unit)
size_3 = Add (size_2, half)
size_4 = Floor (size_3)
coefficients = Mul (sign, size_4)
"""

# `coefficients` -> `digits` [from, 3 to], uint8: three digits of base 256 in -128..127, each plus 128.
_DIGITS = """
above_1 = Add (coefficients, sign_bit)
above_2 = Div (above_1, base)
above = Floor (above_2)
above_3 = Mul (above, base)
digit_a = Sub (coefficients, above_3)
top_1 = Add (above, sign_bit)
top_2 = Div (top_1, base)
top = Floor (top_2)
top_3 = Mul (top, base)
digit_b = Sub (above, top_3)
digits_1 = Concat <axis = 1> (digit_a, digit_b, top)
digits_2 = Add (digits_1, sign_bit)
digits = Cast <to = 2> (digits_2)
"""

_ALONG_ROWS = """
sums = MatMulInteger (IMAGE, digits, , middle)
sum_a, sum_b, sum_c = Split <axis = 3, num_outputs = 3> (sums)
"""
_ALONG_COLUMNS = """
digits_across = Transpose <perm = [1, 0]> (digits)
sums = MatMulInteger (digits_across, IMAGE, middle)
sum_a, sum_b, sum_c = Split <axis = 2, num_outputs = 3> (sums)
"""

# Three sums -> pixels: (a + 256 b + 65536 c + half) / 2^22, clipped. Clipped at 0 first, as Div cuts towards 0.
_PIXELS = """
part_b = Mul (sum_b, digit_1)
part_c = Mul (sum_c, digit_2)
sum_1 = Add (sum_a, part_b)
sum_2 = Add (sum_1, part_c)
sum_3 = Add (sum_2, rounding)
sum_4 = Max (sum_3, black)
sum_5 = Div (sum_4, units)
sum_6 = Min (sum_5, white)
OUT = Cast <to = 2> (sum_6)
"""

# Pillow adds the scale up, and so does CumSum; scale * (i + 1/2) can differ from that in the last bit.
_NEAREST = """
from_d = Cast <to = 11> (FROM)
to_d = Cast <to = 11> (TO)
scale = Div (from_d, to_d)
start = Mul (scale, half)
begin = Unsqueeze (start, first_axis)
to_list = Unsqueeze (TO, first_axis)
all_steps = Expand (scale, to_list)
steps = Slice (all_steps, second_axis, to_list)
jumps = Concat <axis = 0> (begin, steps)
places = CumSum (jumps, front)
floors = Floor (places)
last_d = Sub (from_d, one)
inside = Min (floors, last_d)
indices = Cast <to = 7> (inside)
OUT = Gather <axis = AXIS> (IMAGE, indices)
"""


def resized(image: str, out: str, sizes: tuple[tuple[str, str], tuple[str, str]], interpolation: str) -> str:
    """`image`, uint8 [N, C, H, W] -> `out`, uint8 [N, C, h, w], as lines of ONNX text, opset 18.

    `sizes` are the names of int64 scalars: ((H, h), (W, w)). Rows first, as components/preprocessing does. All other
    names begin with that of `out`, or are those of `constants`.
    """
    between = f"{out}_by_rows"
    return _pass(image, between, sizes[1], interpolation, 3) + _pass(between, out, sizes[0], interpolation, 2)


def constants(text: str) -> str:
    """The constants that lines of `resized` refer to, as lines of ONNX text."""
    words = set(re.findall(r"\w+", text))
    named = [(kind, name, value) for kind, some in _NUMBERS.items() for name, value in some.items()]
    return "".join(
        f"{name} = Constant <value = {kind} {{{value!r}}}> ()\n" for kind, name, value in named if name in words
    )


def _pass(image: str, out: str, sizes: tuple[str, str], interpolation: str, axis: int) -> str:
    """One axis: rows are resized along axis 3, columns along axis 2."""
    slots = {"FROM": sizes[0], "TO": sizes[1], "IMAGE": image, "OUT": out, "AXIS": str(axis)}
    text = _NEAREST
    if interpolation != "nearest":
        text = _COEFFICIENTS + _DIGITS + (_ALONG_ROWS if axis == 3 else _ALONG_COLUMNS) + _PIXELS
        slots["SUPPORT"] = _SUPPORT[interpolation]
        text = text.replace("FILTER", _FILTERS[interpolation])
    text = re.sub(r"\w+", lambda m: slots.get(m[0], m[0]), text)
    return prefixed(text, f"{out}_", {out})


def prefixed(text: str, prefix: str, but: Collection[str] = ()) -> str:
    """The same lines; the names that they make begin with `prefix`, unless they do already, or are among `but`."""
    lines = [line for line in text.splitlines() if line]
    made = {name for line in lines for name in re.findall(r"\w+", line.split(" = ")[0])} - {*but}
    names = {name: prefix + name for name in made if not name.startswith(prefix)}
    return "".join(re.sub(r"\w+", lambda m: names.get(m[0], m[0]), line) + "\n" for line in lines)
