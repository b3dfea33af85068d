"""The model as it will be run: ONNX Runtime on the CPU with all its optimisations. Loads nothing else, so that a
process of its own is as small as a deployer's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

PROVIDER = "CPUExecutionProvider"
TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(int64)": "int64",
    "tensor(int32)": "int32", "tensor(uint8)": "uint8", "tensor(bool)": "bool",
}  # fmt: skip


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """The model as it will be run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # that a constant was folded is not for users
    return onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])


def in_short(error: Exception, path: Path) -> str:
    """What ONNX Runtime says of a model, without the folder that it lay in, which is another one each time."""
    told = (str(error).splitlines() or [type(error).__name__])[0]
    for folder in {str(path.parent), str(path.parent.resolve()), str(path.parent.absolute())}:
        told = told.replace(f"{folder}/", "")
    return told[:200]


def interface(session: onnxruntime.InferenceSession) -> dict[str, list[dict[str, Any]]]:
    """Inputs and outputs with name, shape (the free dimension by its name) and dtype."""

    def told(nodes: Any) -> list[dict[str, Any]]:
        return [{"name": n.name, "shape": list(n.shape), "dtype": TYPES[n.type]} for n in nodes]

    return {"inputs": told(session.get_inputs()), "outputs": told(session.get_outputs())}


def ask(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by name."""
    names = [n.name for n in session.get_outputs()]
    return dict(zip(names, session.run(names, feed)))
