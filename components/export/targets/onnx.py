"""ONNX in one file, float32, any batch size, and any length where the samples have one.

What: torch's dynamo exporter, weights inside the file, names and folders of this machine taken out.
When: the model is to run anywhere that ONNX Runtime runs.
Not when: the weights are over 2 GB (one protobuf file cannot hold them), or the graph depends on values.
Settings: opset.
Cost: 2 to 9 s and about three times the model's memory.
Evidence here: EfficientNet-Lite0 at 64 px in 7 s, 13.5 MB; the same bytes twice and from another folder
(tests/components/export/test_onnx.py); fine-tuned on the digits it differs from torch by 1.1e-4 of the scale in
its embedding and 2.5e-5 in its probabilities, no label of 269 flips (stage export, 2026-11-21). A network that
asks for its batch size is traced for one size without a word: only the parity check sees that.
Source: torch.onnx, PyTorch 2.13; ONNX IR specification, metadata_props and doc_string.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from components import params
from components.contracts import InputError, write_atomic

if TYPE_CHECKING:
    from torch import nn

BATCH = "batch"
"""Name of the free dimension in the model's shapes."""


MAX_BYTES = 2_000_000_000
"""Of weights: a protobuf file ends at 2^31 bytes."""


class Params(params.Params):
    """How the graph is written."""

    opset: int = Field(default=20, ge=18, le=23)
    """Version of the ONNX operators; older runtimes need a lower one."""


class ExportError(InputError):
    """The network cannot be written as ONNX."""


def export(
    model: nn.Module, inputs: dict[str, np.ndarray], outputs: tuple[str, ...], path: Path, params: Params,
    free_axes: dict[int, tuple[str, int]] | None = None,
) -> None:  # fmt: skip
    """Write a network in eval mode; the same weights give the same bytes, wherever that happens.

    `inputs` are examples by name, in the order of forward's arguments, with a batch of at least 2 on axis 0;
    `outputs` names what forward gives. `free_axes` are the other axes whose size is free in every input, each with
    its name and its largest size.

    Raises:
        ExportError: the exporter cannot follow the network.
    """
    import onnx
    import torch

    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    if size > MAX_BYTES:
        raise ExportError(
            f"this network has {size / 1e9:.1f} GB of weights, and one ONNX file holds {MAX_BYTES / 1e9:.1f}. Take its "
            "candidate out of `select.candidates`, or lower `select.budget.max_parameters_millions`."
        )
    names = {0: BATCH, **{axis: name for axis, (name, _) in (free_axes or {}).items()}}
    free = {axis: torch.export.Dim(name, min=1, max=most) for axis, (name, most) in (free_axes or {}).items()}
    free[0] = torch.export.Dim(BATCH, min=1)
    examples = tuple(torch.from_numpy(a) for a in inputs.values())
    try:
        with warnings.catch_warnings():
            # torch 2.13 copies its own tree specification and warns itself about it
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            # that the same axis of two inputs has one name is meant
            warnings.filterwarnings("ignore", message=".*The axis name: .* will not be used", category=UserWarning)
            program = torch.onnx.export(
                model, examples, dynamo=True, external_data=False, verbose=False, opset_version=params.opset,
                input_names=list(inputs), output_names=list(outputs),
                dynamic_shapes={"inputs": tuple(free for _ in examples)},
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise _refusal(str(error.__cause__ or error).strip().splitlines()[0][:300], names) from error
    assert program is not None
    for value in (v for node in program.model.graph.all_nodes() for v in node.outputs):
        if value.name in outputs and not value.is_graph_output():
            value.name = f"{value.name}_inside"  # torch 2.13 calls what a table of vectors gives `embedding` too
    proto = program.model_proto
    _check_free(proto, names)
    strip(proto)
    content = proto.SerializeToString(deterministic=True)
    onnx.checker.check_model(content, full_check=True)
    write_atomic(path, content)


def _check_free(proto: Any, names: dict[int, str]) -> None:
    """torch 2.13 may fix a size without a word."""
    wanted = [(node, names) for node in proto.graph.input] + [(node, {0: BATCH}) for node in proto.graph.output]
    for node, axes in wanted:
        for axis, name in axes.items():
            if node.type.tensor_type.shape.dim[axis].dim_param != name:
                raise _refusal(f"its {node.name} has one fixed {name}", names)


def _refusal(why: str, names: dict[int, str]) -> ExportError:
    free = " and ".join([f"free {BATCH} size", *(name for axis, name in names.items() if axis)])
    return ExportError(
        f"this backbone cannot be written as ONNX with a {free}: {why}. "
        "Take its candidate out of `select.candidates`, or try another `export.target.opset`."
    )


def strip(message: Any) -> None:
    """Clear `metadata_props` and `doc_string` in a protobuf message and in all below it.

    The exporter notes source files and stack traces there: this machine's folders, and other bytes elsewhere.
    """
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in value if hasattr(value, "add") else [value]:
            strip(inner)
