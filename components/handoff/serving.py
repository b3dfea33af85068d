"""What servers want beside the model: a Triton model repository and a KServe manifest, from the model's own interface.

The model itself is not copied, and a bundle to which a file was added no longer verifies: `install` gives the command
that makes a model repository beside the bundle.
"""

from __future__ import annotations

import json
import re
from typing import Any

from components.handoff.bundle import Bundle

MAX_BATCH = 64
BY_BATCH = ("int8_dynamic",)
"""Variants whose answer for a sample depends on the others of its batch: a server must not put together what came
from different callers."""
HUMAN = "human to fill"
REPOSITORY = "../models"
TYPES = {
    "bool": "TYPE_BOOL", "uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64", "int8": "TYPE_INT8", "int16": "TYPE_INT16", "int32": "TYPE_INT32",
    "int64": "TYPE_INT64", "float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64",
    "string": "TYPE_STRING",
}  # fmt: skip
"""dtype as export.json has it -> as Triton has it."""


def write(bundle: Bundle, name: str, export: dict[str, Any]) -> str:
    """Fills serving/; returns the command that makes the model repository of it."""
    bundle.text(f"serving/triton/{name}/config.pbtxt", config(name, export))
    bundle.text("serving/kserve.yaml", manifest(name, export))
    return install(name)


def install(name: str) -> str:
    """Run in the bundle's folder: a model repository beside it, with the model where Triton looks for version 1."""
    place = f"{REPOSITORY}/{name}"
    settings = f"install -D -m 644 -t {place} serving/triton/{name}/config.pbtxt"
    return f"{settings} && install -D -m 644 model.onnx {place}/1/model.onnx"


def config(name: str, export: dict[str, Any]) -> str:
    """config.pbtxt of Triton's onnxruntime backend; `export` has inputs and outputs as {name, shape, dtype}."""
    nodes = [*export["inputs"], *export["outputs"]]
    batched = all(one["shape"] and not isinstance(one["shape"][0], int) for one in nodes)
    alone = export.get("variant") in BY_BATCH
    lines = [
        "# Belongs into a Triton model repository; in the bundle's folder:",
        f"#   {install(name)}",
        f"name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        'default_model_filename: "model.onnx"',
        f"max_batch_size: {MAX_BATCH if batched else 0}",
    ]
    for kind in ("inputs", "outputs"):
        told = ",\n".join(_tensor(one, batched) for one in export[kind])
        lines.append(f"{kind.removesuffix('s')} [\n{told}\n]")
    if alone:
        lines.append(f"# No dynamic_batching: an answer of {export['variant']} depends on the samples of its batch.")
    elif batched:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def _tensor(node: dict[str, Any], batched: bool) -> str:
    """One input or output; the batch, which Triton adds by itself, is left out. A free dimension is -1."""
    dims = [size if isinstance(size, int) else -1 for size in node["shape"][batched:]]
    # Triton wants at least one dimension: [batch] is asked for and answered as [batch, 1].
    shape = f"dims: [ {', '.join(map(str, dims))} ]" if dims else "dims: [ 1 ] reshape: { shape: [ ] }"
    return f"  {{ name: {json.dumps(node['name'])} data_type: {TYPES[node['dtype']]} {shape} }}"


def manifest(name: str, export: dict[str, Any]) -> str:
    """An InferenceService of KServe that serves the Triton repository over the Open Inference Protocol (v2)."""
    del export
    return f"""# Where the model repository lies is for you to say: upload {REPOSITORY} after
#   {install(name)}
# in the bundle's folder, and put its address (s3://, gs://, pvc://, ...) in the place of "{HUMAN}".
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {label(name)}
spec:
  predictor:
    model:
      modelFormat:
        name: triton
      runtime: kserve-tritonserver
      protocolVersion: v2
      storageUri: "{HUMAN}"
"""


def label(name: str) -> str:
    """A project's name as Kubernetes takes it for a service: small letters, digits and dashes, a letter first."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    plain = plain if plain[:1].isalpha() else f"model-{plain}"
    return plain[:50].rstrip("-")
