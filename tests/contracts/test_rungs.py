"""Every rung: worth it for the networks it names, close to float32, same interface, the same bytes each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_networks

from components import plugins
from components.export import graph
from components.params import Params

FAMILY = "export.rungs"
NETWORKS = {"convolutions": tiny_networks.convolutions, "products": tiny_networks.products}
CANONICAL: dict[str, dict[str, Any]] = {
    "fp32": {"worth": {"convolutions", "products"}, "error": 0.0, "size": 1.0, "operator": ""},
    "fp16": {"worth": {"convolutions", "products"}, "error": 0.002, "size": 0.51, "operator": "Cast"},
    "int8_dynamic": {"worth": {"products"}, "error": 0.03, "size": 0.27, "operator": "MatMulInteger"},
    "int8_static": {"worth": {"convolutions"}, "error": 0.03, "size": 0.4, "operator": "QuantizeLinear"},
}
"""For each rung: networks it is tried on; the largest mean error of the embedding over its mean size, and the largest
file, as a share of float32's, that it may give; and an operator that it leaves in the graph."""
CASES = [(rung, network) for rung, told in sorted(CANONICAL.items()) for network in sorted(told["worth"])]


def made(rung: str, network: onnx.ModelProto, outlier: float = 1.0, **options: Any) -> tuple[onnx.ModelProto, str]:
    module = plugins.load(FAMILY, rung)
    parts = (tiny_networks.batches(network, n, seed, outlier) for n, seed in ((4, 1), (2, 2)))
    samples = graph.Samples(*parts, 2)
    found: tuple[onnx.ModelProto, str] = module.made(network, samples, module.Params(**options))
    return found


def error(found: onnx.ModelProto, network: onnx.ModelProto, outlier: float = 1.0) -> float:
    unseen = tiny_networks.batches(network, 2, 3, outlier)
    one, other = (
        np.concatenate([part[0] for part in graph.answers(n, unseen, ["embedding"], 2)]) for n in (found, network)
    )
    return float(np.abs(one - other).mean() / np.abs(other).mean())


def test_every_rung_has_canonical_settings() -> None:
    assert set(plugins.names(FAMILY)) == set(CANONICAL)


@pytest.mark.parametrize("name", plugins.names(FAMILY))
def test_card_and_params_are_there(name: str) -> None:
    module = plugins.load(FAMILY, name)
    for part in ("What:", "When:", "Not when:", "Settings:", "Cost:", "Evidence here", "Source:"):
        assert part in module.__doc__, part
    assert issubclass(module.Params, Params)
    assert isinstance(module.CALIBRATED, bool)
    assert all(limit.endswith(".") and len(limit) < 200 for limit in module.LIMITS)
    assert bool(module.LIMITS) == (name != "fp32"), "what the card says of a model of this rung"


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", plugins.names(FAMILY))
def test_it_says_for_which_networks_it_is_worth_trying(name: str, network: str) -> None:
    why = plugins.load(FAMILY, name).not_worth(NETWORKS[network]())
    assert (why == "") == (network in CANONICAL[name]["worth"])


@pytest.mark.parametrize(("name", "network"), CASES)
def test_it_is_close_to_float32_and_as_small_as_it_says(name: str, network: str) -> None:
    plain, told = NETWORKS[network](), CANONICAL[name]
    before = plain.SerializeToString(deterministic=True)
    found, _ = made(name, plain)
    assert plain.SerializeToString(deterministic=True) == before, "the network itself stays as it was"
    onnx.checker.check_model(found)
    for kind in ("input", "output"):
        one, other = ([(v.name, v.type.tensor_type.elem_type) for v in getattr(n.graph, kind)] for n in (found, plain))
        assert one == other
    operators = {node.op_type for node in found.graph.node}
    assert told["operator"] in operators | {""}
    assert error(found, plain) <= told["error"]
    assert (error(found, plain) > 0) == (name != "fp32"), "something was changed"
    assert len(found.SerializeToString()) <= told["size"] * len(before)


def test_the_same_network_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    script = (
        "import hashlib, json, sys; sys.path[:0] = json.loads(sys.argv[1])\n"
        "from test_rungs import CASES, NETWORKS, made\n"
        "print(json.dumps([hashlib.sha256(made(r, NETWORKS[n]())[0].SerializeToString(deterministic=True)).hexdigest()"
        " for r, n in CASES]))"
    )
    here = Path(__file__).parent
    paths = json.dumps([str(here.parent.parent), str(here.parent), str(here)])
    found = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TMPDIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", script, paths], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert found[0] == found[1]
    assert len(set(found[0])) == len(CASES)


def test_static_int8_leaves_out_what_the_network_bears_least() -> None:
    """A planted outlier: the input needs more than 8 bits."""
    network = tiny_networks.convolutions(outlier=1000)
    plain, told = made("int8_static", network, outlier=1000, search_above=1e9)
    assert told.startswith("0 of 7")
    searched, told = made("int8_static", network, outlier=1000, parts=7)
    assert told.startswith("1 of 7 operators stay in float32: 00_Conv")
    assert error(searched, network, 1000) < error(plain, network, 1000) / 3


def test_static_int8_needs_samples() -> None:
    network = tiny_networks.convolutions()
    module = plugins.load(FAMILY, "int8_static")
    few = tuple({"pixels": b["pixels"][:4]} for b in tiny_networks.batches(network))
    with pytest.raises(graph.NotMade, match="needs 32 training samples to calibrate with, and has 16, beside 16 that"):
        module.made(network, graph.Samples(few, few, 2), module.Params())


def test_static_int8_needs_as_many_training_samples_as_its_card_says() -> None:
    from components.export import trained

    module = plugins.load(FAMILY, "int8_static")
    for num, enough in ((42, True), (41, False)):
        assert (trained.split_at(num) >= module.MIN_SAMPLES) == enough
    assert "42 are needed in all" in module.__doc__


def test_half_precision_keeps_what_overflows() -> None:
    network = tiny_networks.convolutions(outlier=1e6, inside=True)
    found, told = made("fp16", network)
    assert told.startswith("3 of 11")
    assert error(found, network) < 0.01
