"""Questions to an ONNX graph that several rungs ask, and how a changed one is written."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

Batch = dict[str, np.ndarray]
"""The network's inputs by name."""


class NotMade(Exception):
    """A rung could not be made of this network; the message says why, in stable words."""


@dataclass(frozen=True)
class Samples:
    """Real training samples, as inputs of the network."""

    calibration: tuple[Batch, ...]
    """Ranges of values are taken from these."""
    probe: tuple[Batch, ...]
    """Others, by which settings are compared."""
    threads: int


def weights_in(network: onnx.ModelProto, operators: tuple[str, ...]) -> float:
    """Share of the weights, 0..1, that are inputs of these operators."""
    sizes = {t.name: int(np.prod(t.dims)) for t in network.graph.initializer if len(t.dims) > 1}
    own = {name for node in network.graph.node if node.op_type in operators for name in node.input}
    return sum(n for name, n in sizes.items() if name in own) / max(1, sum(sizes.values()))


def without_shapes(network: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the exporter's notes of inner shapes, which ONNX Runtime's tools refuse where an axis is free."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    del copy.graph.value_info[:]
    return copy


def through_file(make: Callable[[Path], object]) -> onnx.ModelProto:
    """What a tool writes that can only write files; its name and folder leave no trace."""
    import onnx

    with tempfile.TemporaryDirectory() as folder, quiet():
        place = Path(folder) / "network.onnx"
        make(place)
        made = onnx.load(str(place))
    return bare(made)


def bare(network: onnx.ModelProto) -> onnx.ModelProto:
    """The same without notes of whoever made it, and without inner shapes."""
    del network.graph.value_info[:]
    del network.metadata_props[:]
    for node in network.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    _sort(network)
    return network


def _sort(network: onnx.ModelProto) -> None:
    """Every operator after those that it reads, otherwise in the order given: ONNX asks for that, tools forget it."""
    waiting = list(network.graph.node)
    made = {name for node in waiting for name in node.output}
    ready: list[onnx.NodeProto] = []
    while waiting:
        later = []
        for node in waiting:
            if made & _read(node):
                later.append(node)
            else:
                ready.append(node)
                made -= set(node.output)
        assert len(later) < len(waiting), "a graph has no cycle"
        waiting = later
    del network.graph.node[:]
    network.graph.node.extend(ready)


def _read(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, those of the graphs inside it too."""
    inner = (one for a in node.attribute for g in (a.g, *a.graphs) for one in g.node)
    return set(node.input).union(*map(_read, inner))


@contextmanager
def quiet() -> Iterator[None]:
    """ONNX Runtime's tools tell the root logger what they advise in general; it is not for users."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


def answers(
    network: onnx.ModelProto | bytes, batches: tuple[Batch, ...], outputs: list[str], threads: int
) -> list[list[np.ndarray]]:
    """The outputs of a network for each batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    content = network if isinstance(network, bytes) else network.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [session.run(outputs, batch) for batch in batches]
