"""The target `onnx`: the same bytes wherever it is made, and nothing of the machine inside."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from components.contracts import InputError
from components.export.targets import onnx as target

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
from torch import nn
from components.decisions import single_label
from components.export.network import Deployed
from components.export.targets import onnx as target
from components.model import TransferModel

class Small(nn.Module):
    num_features = 6
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
    def forward(self, x):
        return torch.relu(self.norm(self.conv(x))).mean((2, 3))

torch.manual_seed(0)
model = Deployed(TransferModel(Small(), 4), 1.5, single_label).eval()
inputs = {"pixels": np.zeros((2, 3, 8, 8), np.float32)}
target.export(model, inputs, model.outputs, Path(sys.argv[2]), target.Params(opset=int(sys.argv[3])))
"""


def _export_in(folder: Path, repository: Path, hash_seed: str, opset: int = 20) -> bytes:
    """In another process, from a copy of the code in `folder`."""
    shutil.copytree(repository / "components", folder / "components", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "script.py").write_text(SCRIPT)
    place = folder / "model.onnx"
    environment = {"PYTHONHASHSEED": hash_seed, "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "script.py", str(folder), str(place), str(opset)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place.read_bytes()


def test_another_folder_and_process_give_the_same_bytes(tmp_path: Path, repository: Path) -> None:
    first = _export_in(tmp_path / "one", repository, "1")
    second = _export_in(tmp_path / "two" / "deeper in", repository, "2")
    assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest()
    traces = [
        str(tmp_path),
        str(repository),
        str(Path.home()),
        "site-packages",
        sys.prefix,
        socket.gethostname(),
    ]
    for trace in (*traces, "components/", ".py"):
        assert trace.encode() not in first, trace


def test_metadata_is_cleared_at_every_depth() -> None:
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["a"], ["b"], doc_string="/home/me")], "in", [], []
    )
    outer = onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)
    tensor = onnx.numpy_helper.from_array(np.zeros(2, np.float32), "w")
    function = onnx.helper.make_function("f", "F", ["x"], ["y"], inner.node, [onnx.helper.make_opsetid("", 20)])
    graph = onnx.helper.make_graph([outer], "out", [], [], [tensor], doc_string="/home/me")
    model = onnx.helper.make_model(graph, functions=[function], doc_string="/home/me")
    for holder in (
        model,
        graph,
        model.graph,
        model.graph.node[0],
        model.graph.initializer[0],
        model.functions[0],
    ):
        holder.metadata_props.add(key="trace", value="/home/me/x.py")
    model.graph.node[0].attribute[0].g.node[0].metadata_props.add(key="trace", value="/home/me/x.py")
    assert b"/home/me" in model.SerializeToString()
    target.strip(model)
    assert b"/home/me" not in model.SerializeToString()
    assert model.graph.initializer[0].name == "w"


class _Fixed(nn.Module):
    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (inputs[0].reshape(3, 12).sum(1),)


class _ValueDependent(nn.Module):
    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (inputs[0].sum((1, 2, 3)) if inputs[0].sum() > 2 else inputs[0].mean((1, 2, 3)),)


@pytest.mark.parametrize("network", [_Fixed, _ValueDependent])
def test_a_network_that_cannot_be_followed_is_refused(network: type[nn.Module], tmp_path: Path) -> None:
    inputs = {"pixels": np.zeros((3, 3, 2, 2), np.float32)}
    with pytest.raises(InputError, match=r"free batch size.*select\.candidates"):
        target.export(network().eval(), inputs, ("label",), tmp_path / "model.onnx", target.Params())
    assert not list(tmp_path.iterdir())


class _FixedLength(nn.Module):
    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (inputs[0].float().reshape(-1, 4).sum(1),)


def test_a_network_that_fixes_the_length_is_refused(tmp_path: Path) -> None:
    inputs = {"input_ids": np.ones((3, 4), np.int64), "attention_mask": np.ones((3, 4), np.int64)}
    place = tmp_path / "model.onnx"
    with pytest.raises(InputError, match=r"free batch size and length.*select\.candidates"):
        target.export(_FixedLength().eval(), inputs, ("label",), place, target.Params(), {1: ("length", 4)})
    assert not list(tmp_path.iterdir())


def test_a_free_axis_is_free_up_to_its_largest_size(tmp_path: Path) -> None:
    import onnxruntime

    class Sum(nn.Module):
        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return ((inputs[0] * inputs[1]).sum(1),)

    inputs = {"input_ids": np.ones((3, 4), np.int64), "attention_mask": np.ones((3, 4), np.int64)}
    target.export(Sum().eval(), inputs, ("label",), tmp_path / "model.onnx", target.Params(), {1: ("length", 4)})
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert [n.shape for n in session.get_inputs()] == [["batch", "length"]] * 2
    for size in ((1, 1), (7, 3)):
        found = session.run(None, {name: np.full(size, 2, np.int64) for name in inputs})[0]
        assert found.tolist() == [4 * size[1]] * size[0]
