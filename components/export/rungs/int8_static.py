"""Weights and activations of convolutions in int8, with ranges taken once from real training samples.

What: ONNX Runtime's static quantisation: QDQ, per channel, uint8 activations, min-max ranges. What the network bears
least stays in float32: its operators are cut into `parts` of one after the other, each part is left out once, and what
lowers the error of the embedding most stays out, then a second part if it helps as well. So at most parts + 2
quantised networks are compared, on samples that took no part in the calibration. The classifier is never quantised.
When: convolutional networks.
Not when: transformers (int8_dynamic), or fewer than 32 samples to calibrate with. A quarter of the training samples
drawn (export.num_calibration) are kept apart to compare settings with, so that 42 are needed in all.
Settings: reduce_range, parts, search_above, min_gain.
Cost: 3 s a comparison for EfficientNet-Lite0 at 64 px; memory as a forward pass.
Evidence here: EfficientNet-Lite0 at 64 px, two cores of an AMD EPYC: 1.39 (1.29 to 1.49) times as fast as float32 at
batch 1 and 2.09 (1.38 to 2.80) at batch 16 (python tests/benchmarks/ladder.py --repeats 2 --samples 300), more where
other processes run; 13.5 MB to 3.8 MB. Fine-tuned on the digits no part is left out, and 0 of 269 validation and 2
of 268 test labels flip (stage export). Frozen, with a linear head, the embedding's mean error is 30 % of its mean size,
and 14 % with the first tenth of its operators in float32, while without all its depthwise convolutions it is worse
(57 %): so parts are found by measuring; 7 of 150 labels flip, and it would be refused (the same command). Percentile
instead of min-max ranges: 31 % (a trial that was not kept). All 2026-11-21.
Source: Nagel et al., A white paper on neural network quantization, 2021; ONNX Runtime, Quantize ONNX models.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from components import params
from components.export import graph

if TYPE_CHECKING:
    import onnx

    from components.export.graph import Batch, Samples

CALIBRATED = True
LIMITS = (
    "Inner values beyond the range that they had on the training samples it was calibrated with are cut off, so on "
    "inputs unlike those it may lose more than the test split shows.",
)
"""What a card says of a model of this rung."""
OPERATORS = ["Conv", "Add", "Mul", "Clip", "Relu"]
MIN_SHARE = 0.5
"""Of all weights that must stand in convolutions."""
MIN_SAMPLES = 32
"""To calibrate with, beside those that settings are compared with."""
EMBEDDING = "embedding"


class Params(params.Params):
    """How it is quantised."""

    reduce_range: bool = True
    """7 bits a weight: without it, processors that lack VNNI saturate and give other answers than this one."""
    parts: int = Field(default=8, ge=2, le=32)
    """Pieces of the network that the search may leave in float32."""
    search_above: float = Field(default=0.05, ge=0.0)
    """Nothing is searched where the embedding's mean error, over its mean size, is at most this."""
    min_gain: float = Field(default=0.1, ge=0.0, lt=1.0)
    """A part stays in float32 only if that lowers the error by this share of it."""


def not_worth(network: onnx.ModelProto) -> str:
    """Why there is nothing to gain with this network; empty: it is tried."""
    if graph.weights_in(network, ("Conv",)) < MIN_SHARE:
        return "less than half of its weights are in convolutions"
    return ""


def made(network: onnx.ModelProto, samples: Samples, params: Params) -> tuple[onnx.ModelProto, str]:
    """The quantised network, and which of its operators are not.

    Raises:
        NotMade: there are too few samples.
    """
    given, kept = (sum(len(next(iter(b.values()))) for b in part) for part in (samples.calibration, samples.probe))
    if given < MIN_SAMPLES:
        raise graph.NotMade(
            f"it needs {MIN_SAMPLES} training samples to calibrate with, and has {given}, beside {kept} that settings "
            "are compared with"
        )
    with tempfile.TemporaryDirectory() as folder:
        return _searched(_Quantiser(network, samples, params, Path(folder) / "ranges.json"), params)


def _searched(quantiser: _Quantiser, params: Params) -> tuple[onnx.ModelProto, str]:
    """The best of the networks compared; see the top of this file."""
    left_out: list[str] = []
    best, error = quantiser.tried(left_out)
    if error > params.search_above:
        trials = [(quantiser.tried(part), part) for part in quantiser.parts(params.parts)]
        trials.sort(key=lambda trial: trial[0][1])  # stable: of equal errors the earlier part
        for (network, alone), part in trials[:2]:
            found, lower = (network, alone) if not left_out else quantiser.tried([*left_out, *part])
            if not lower <= (1 - params.min_gain) * error:
                break
            best, error, left_out = found, lower, [*left_out, *part]
    told = f"{len(left_out)} of {len(quantiser.nodes)} operators stay in float32"
    return best, told + (f": {', '.join(left_out)}" if left_out else "")


class _Quantiser:
    """A network with its calibration, ready to be quantised in several ways."""

    def __init__(self, network: onnx.ModelProto, samples: Samples, params: Params, ranges: Path) -> None:
        self.network, self.samples, self.params, self.ranges = network, samples, params, ranges
        self.nodes = [node.name for node in network.graph.node if node.op_type in OPERATORS]
        self.wanted = self._embedding(network)

    def parts(self, number: int) -> list[list[str]]:
        """The operators, in their order, in that many pieces of about one size."""
        edges = np.linspace(0, len(self.nodes), number + 1).round().astype(int)
        return [self.nodes[a:b] for a, b in itertools.pairwise(edges) if a < b]

    def tried(self, left_out: list[str]) -> tuple[onnx.ModelProto, float]:
        """Quantised but for these operators, and its error: mean |difference| / mean |value| of the embedding."""
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        plain = graph.without_shapes(self.network)
        quantised = graph.through_file(
            lambda place: quantize_static(
                plain, place, _reader(self.samples.calibration), quant_format=QuantFormat.QDQ, per_channel=True,
                reduce_range=self.params.reduce_range, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax, op_types_to_quantize=OPERATORS,
                nodes_to_exclude=list(left_out), calibration_cache_path=self.ranges,
            )
        )  # fmt: skip
        gap = np.abs(self._embedding(quantised) - self.wanted).mean()
        return quantised, float(gap / max(float(np.abs(self.wanted).mean()), 1e-30))

    def _embedding(self, network: onnx.ModelProto) -> np.ndarray:
        found = graph.answers(network, self.samples.probe, [EMBEDDING], self.samples.threads)
        return np.concatenate([part[0] for part in found]).astype(np.float64)


def _reader(batches: tuple[Batch, ...]) -> Any:
    """As ONNX Runtime wants to be given samples."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Batch] = iter(batches)

        def get_next(self) -> Batch | None:
            return next(self.left, None)

    return Reader()
