"""ONNX models that reach out of their file or bring code, and folders of transformers that do, made in code."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import unsafe_files


def model(nodes: list[Any] | None = None, domains: tuple[str, ...] = ("",), **more: Any) -> Any:
    """y = x + w, as a ModelProto."""
    import onnx
    from onnx import TensorProto, helper

    nodes = nodes or [helper.make_node("Add", ["x", "w"], ["y"])]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4], b"\0" * 16, raw=True)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    opsets = [helper.make_opsetid(domain, 20 if domain == "" else 1) for domain in domains]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10, **more)
    assert isinstance(made, onnx.ModelProto)
    return made


def outside(tensor: Any, **entries: str) -> Any:
    """The tensor's numbers are said to lie elsewhere."""
    from onnx import TensorProto

    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _external(**entries: str) -> Any:
    made = model()
    outside(made.graph.initializer[0], **entries)
    return made


def _in_attribute() -> Any:
    from onnx import TensorProto, helper

    constant = helper.make_tensor("c", TensorProto.FLOAT, [4], b"\0" * 16, raw=True)
    return model([helper.make_node("Constant", [], ["y"], value=outside(constant, location="../secret"))])


def _in_subgraph() -> Any:
    from onnx import TensorProto, helper

    weight = helper.make_tensor("v", TensorProto.FLOAT, [4], b"\0" * 16, raw=True)
    inner = helper.make_graph([], "inner", [], [], [outside(weight, location="../secret")])
    return model([helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)])


def _nested(depth: int) -> bytes:
    """Graphs in attributes of nodes of graphs, deeper than a protocol buffer may be."""
    graph = b""
    for _ in range(depth):
        for field in (6, 5, 1):  # attribute.g, node.attribute, graph.node
            size, number = b"", len(graph)
            while number > 0x7F:
                size, number = size + bytes([number & 0x7F | 0x80]), number >> 7
            graph = bytes([field << 3 | 2]) + size + bytes([number]) + graph
    return b"\x08\x0a\x3a" + bytes([len(graph) & 0x7F | 0x80, len(graph) >> 7]) + graph


def _sparse() -> Any:
    from onnx import TensorProto, helper

    made = model()
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], b"\0" * 4, raw=True)
    indices = helper.make_tensor("i", TensorProto.INT64, [1], b"\0" * 8, raw=True)
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    outside(made.graph.sparse_initializer[0].indices, location="elsewhere")
    return made


def _function() -> Any:
    from onnx import helper

    own = helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])],
                               [helper.make_opsetid("", 20)])  # fmt: skip
    return model(functions=[own])


def _node(domain: str, operator: str, **attributes: Any) -> Any:
    from onnx import helper

    node = helper.make_node(operator, ["x"], ["y"], domain=domain, **attributes)
    return model([node], ("", domain) if domain else ("",))


def graphs() -> dict[str, tuple[bytes, str]]:
    """Name -> content, reason."""
    good, data = model().SerializeToString(), "external_data"
    only_marked, training = model(), model()
    only_marked.graph.initializer[0].data_location = 1
    training.training_info.add()
    no_opset = model()
    no_opset.ClearField("opset_import")
    made: dict[str, tuple[Any, str]] = {
        "weights above": (_external(location="../../etc/passwd", offset="0", length="16"), data),
        "weights at an absolute path": (_external(location="/etc/passwd"), data),
        "weights beside it": (_external(location="weights.bin"), data),
        "weights behind a link": (_external(location="link"), data),
        "weights behind a hard link": (_external(location="hard"), data),
        "weights at an address": (_external(location="https://example.invalid/w"), data),
        "weights on another drive": (_external(location="C:\\w"), data),
        "weights in memory": (_external(location="*/_ORT_MEM_ADDR_/*", offset="4096", length="16"), data),
        "weights nowhere": (_external(location=""), data),
        "weights elsewhere, without a word where": (only_marked, data),
        "weights of an attribute": (_in_attribute(), data),
        "weights of an inner graph": (_in_subgraph(), data),
        "weights of a sparse tensor": (_sparse(), data),
        "functions": (_function(), "onnx_function"),
        "training": (training, "onnx_function"),
        "an operator of its own": (_node("evil.ops", "Run"), "custom_operator"),
        "an operator of Python": (_node("ai.onnx.contrib", "PyOp"), "custom_operator"),
        "an operator of the extensions": (_node("ai.onnx.contrib", "StringLower"), "custom_operator"),
        "a compiled program": (_node("com.microsoft", "EPContext", ep_cache_context="../x"), "custom_operator"),
        "a domain of its own": (model(domains=("", "evil.ops")), "custom_operator"),
        "graphs nested deep": (_nested(13), "onnx_damaged"),
        "no version of operators": (no_opset, "onnx_damaged"),
        "two graphs": (good + b"\x3a\x00", "onnx_damaged"),
        "cut": (good[:-1], "onnx_damaged"),
        "only its first bytes": (good[:4], "onnx_damaged"),
        "a field that does not exist": (good + b"\xfa\x06\x01x", "onnx_damaged"),
        "a pickle behind": (good + pickle.dumps(unsafe_files.Bomb(), protocol=2), "onnx_damaged"),
        "a wrong wire type": (good + b"\x3d\0\0\0\0", "onnx_damaged"),
        "a group": (good + b"\x3b\x3c", "onnx_damaged"),
        "a size beyond the file": (good + b"\x72\xff\xff\xff\x7f", "onnx_damaged"),
        "a number without an end": (good + b"\x28" + b"\xff" * 11, "onnx_damaged"),
        "a version of the future": (b"\x08\x0d\x12\x00" + b"\x08\x63" + good[2:], "onnx_damaged"),
        "text": (b"ir_version: 10", "unknown_format"),
    }
    return {n: (m if isinstance(m, bytes) else m.SerializeToString(), r) for n, (m, r) in made.items()}


# --- folders

AUTO = {"AutoModel": "modeling.Own"}


def _config(name: str, **change: Any) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        found = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**found, **change}))
        (folder / "modeling.py").write_text(f"open({unsafe_files.CANARY!r}, 'w')")

    return do


def _link(name: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        outside = folder.parent / f"outside {name}"
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)

    return do


def _written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def _only_pickled(content: bytes) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(content)

    return do


def _modules(*modules: dict[str, Any]) -> Callable[[Path], None]:
    listed = [{"idx": n, "name": str(n), **module} for n, module in enumerate(modules)]
    return lambda folder: (folder / "modules.json").write_text(json.dumps(listed)) and None


def _listed_above(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "x.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')


def _pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


_FIRST = {"path": "", "type": "sentence_transformers.models.Transformer"}
_BOMB = pickle.dumps(unsafe_files.Bomb(), protocol=2)
FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "auto_map of the network": (_config("config.json", auto_map=AUTO), "remote_code"),
    "auto_map of the tokenizer": (_config("tokenizer_config.json", auto_map=AUTO), "remote_code"),
    "auto_map of the processor": (_config("preprocessor_config.json", auto_map=AUTO), "remote_code"),
    "auto_map further in": (_config("config.json", text_config={"auto_map": AUTO}), "remote_code"),
    "auto_map in a list": (_config("config.json", parts=[{"auto_map": AUTO}]), "remote_code"),
    "auto_map of generation": (_config("generation_config.json", auto_map=AUTO), "remote_code"),
    "trust_remote_code": (_config("config.json", trust_remote_code=True), "remote_code"),
    "custom_pipelines": (_config("config.json", custom_pipelines={"p": {"impl": "modeling.P"}}), "remote_code"),
    "custom_generate": (_config("generation_config.json", custom_generate="modeling"), "remote_code"),
    "a vocabulary above": (_config("tokenizer_config.json", vocab_file="../../etc/passwd"), "path_outside"),
    "an absolute tokenizer": (_config("tokenizer_config.json", tokenizer_file="/etc/passwd"), "path_outside"),
    "config.json elsewhere": (_link("config.json"), "leaves_folder"),
    "tokenizer.json elsewhere": (_link("tokenizer.json"), "leaves_folder"),
    "weights elsewhere": (_link("model.safetensors"), "leaves_folder"),
    "a pickle for a vocabulary": (_written("tokenizer.model", _BOMB), "pickle"),
    "an archive for a vocabulary": (_written("spiece.model", unsafe_files.torch_zip()), "archive"),
    "a pickle for a vocabulary of text": (_written("vocab.txt", _BOMB), "pickle"),
    "a pickle for weights": (_only_pickled(_BOMB), "pickle"),
    "a pickle in an archive for weights": (_only_pickled(unsafe_files.torch_zip(_BOMB)), "pickle_global"),
    "lying weights": (
        _written("model.safetensors", unsafe_files.safetensors({"a": unsafe_files.told()})),
        "bad_offsets",
    ),
    "a pickle named as safetensors": (_written("model.safetensors", _BOMB), "pickle"),
    "modules.json elsewhere": (_modules({**_FIRST, "path": "../other"}), "WeightsError"),
    "a module of its own": (_modules(_FIRST, {"path": "1", "type": "modeling.Pooling"}), "WeightsError"),
    "a first module of its own": (_modules({**_FIRST, "type": "modeling.Transformer"}), "WeightsError"),
    "a module of the system": (_modules(_FIRST, {"path": "1", "type": "os.system"}), "WeightsError"),
    "weights listed above": (_listed_above, "WeightsError"),
    "a pipe": (_pipe, "WeightsError"),
}
"""Name -> what is done to a good folder, and the reason or the error."""
