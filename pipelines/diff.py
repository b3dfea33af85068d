"""What differs between two bundles, and whether it matters: figures with intervals, graph, size, data, code, params,
libraries, weights. Reads files alone; nothing of a bundle is run but its graph, where it is to be measured."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from components import model_files
from components.contracts import InputError
from components.handoff import provenance
from components.lineage import hash_file
from components.params import flat
from pipelines import bundles, figures
from pipelines.differences import difference

SHOWN = ("accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "f1_macro", "log_loss", "ece")
MODEL, LADDER = "model.onnx", "ladder.json"


@dataclass(frozen=True)
class Side:
    """One of the two bundles."""

    folder: Path
    title: str

    @cached_property
    def origin(self) -> provenance.Provenance:
        """Its provenance.

        Raises:
            InputError: it has none that can be read.
        """
        try:
            return provenance.read(self.folder)
        except provenance.ProvenanceError as error:
            told = str(error).rpartition(": ")[2]
            raise InputError(f"{self.title}: its provenance.json cannot be used: {told}") from None

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """evaluation.json; see `figures.read`."""
        return figures.read(self.folder, figures.EVALUATION)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """metrics.json, as stage.metric; of model.onnx itself as shipped.metric."""
        told = figures.read(self.folder, figures.METRICS)
        return {f"{stage}.{name}": value for stage, values in told.items() for name, value in values.items()}

    @cached_property
    def packages(self) -> dict[str, str]:
        """Library -> version, of what made it."""
        found = self.origin.environment.get("packages") or {}  # provenance.read sees to it that it is a dict
        return {str(name): str(version) for name, version in found.items()}

    @cached_property
    def threads(self) -> int:
        """Of ONNX Runtime, as the run had them."""
        found = (self.origin.params.get("run") or {}).get("threads", 1)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise InputError(f"{self.title}: provenance.json has run.threads {found!r}; it must be a number from 1 on")
        return found

    @cached_property
    def files(self) -> dict[str, str]:
        """File -> sha256."""
        inside = sorted(p for p in self.folder.rglob("*") if p.is_file())
        return {p.relative_to(self.folder).as_posix(): hash_file(p) for p in inside}

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum((self.folder / name).stat().st_size for name in self.files)


def compare(a: Side, b: Side) -> dict[str, Any]:
    """Everything, as JSON has it. Differences are b minus a.

    Raises:
        InputError: one of them is no bundle.
    """
    return {
        "a": _named(a),
        "b": _named(b),
        "same_model": a.files.get(MODEL) == b.files.get(MODEL),
        "files": changes(a.files, b.files),
        "metrics": _metrics(a, b),
        "slices": _slices(a, b),
        "graph": {"a": graph(a), "b": graph(b), "ops": _ops(a, b)},
        "size": {"model_bytes": [_bytes(a), _bytes(b)], "bundle_bytes": [a.size, b.size]},
        "data": _data(a, b),
        "code": {**changes(a.origin.code, b.origin.code), "commit": [a.origin.commit, b.origin.commit]},
        "params": changes(flat("", a.origin.params), flat("", b.origin.params)),
        "libraries": changes(a.packages, b.packages),
        "environment": changes(_environment(a), _environment(b)),
        "weights": {
            "base": changes(flat("", a.origin.base_weights), flat("", b.origin.base_weights)),
            "trained": [a.origin.weights_sha256, b.origin.weights_sha256],
        },
    }


def changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that one of them lacks, and those with another value: {key: [a, b]}."""
    both = sorted(a.keys() & b.keys())
    return {
        "only_a": sorted(a.keys() - b.keys()),
        "only_b": sorted(b.keys() - a.keys()),
        "differ": {key: [a[key], b[key]] for key in both if a[key] != b[key]},
    }


def _named(side: Side) -> dict[str, Any]:
    origin = side.origin
    return {
        "title": side.title, "name": origin.name, "commit": origin.commit, "clean": origin.clean,
        "model_sha256": side.files.get(MODEL),
    }  # fmt: skip


def _metrics(a: Side, b: Side) -> list[dict[str, Any]]:
    """Quality of model.onnx itself with intervals, that of the float32 network, then every other metric that
    differs."""
    found = [*_quality(a, b, "shipped", "shipped"), *_quality(a, b, "float32", "evaluate")]
    told = {one["metric"] + end for one in found for end in ("", "_low", "_high")}
    for name in sorted((a.metrics.keys() | b.metrics.keys()) - told):
        if name.endswith(("_low", "_high")) or a.metrics.get(name) == b.metrics.get(name):
            continue
        found.append(difference(name, *(_with_limits(one.metrics, name) for one in (a, b))))
    return found


def _quality(a: Side, b: Side, of: str, name: str) -> list[dict[str, Any]]:
    """Measures of `of` (shipped, float32), told as `name`.measure; what model.onnx is, where it is float32."""
    qualities = [(side.evaluation.get("quality") or {}).get(of) or {} for side in (a, b)]
    names = [n for n in SHOWN if any(n in one for one in qualities)]
    names += sorted({n for one in qualities for n in one} - set(names))
    return [difference(f"{name}.{n}", *(one.get(n) or {} for one in qualities)) for n in names]


def _with_limits(metrics: Mapping[str, float], name: str) -> dict[str, Any]:
    ends = {"value": "", "low": "_low", "high": "_high"}
    return {key: metrics.get(name + end) for key, end in ends.items()}


def _slices(a: Side, b: Side) -> dict[str, Any]:
    found = []
    for side in (a, b):
        groups = (side.evaluation.get("groups") or {}).get("groups") or ()
        found.append({(g["grouping"], str(g["group"])): g for g in groups})
    rows = []
    for key in (k for k in found[0] if k in found[1]):
        before, after = (one[key] for one in found)
        for measure in (m for m in before["measures"] if m in after["measures"]):
            told = difference(measure, before["measures"][measure] or {}, after["measures"][measure] or {})
            told |= {"grouping": key[0], "group": key[1], "num": [before["num"], after["num"]]}
            rows.append({**told, "small": bool(before["small"] or after["small"])})
    only = [[": ".join(key) for key in one if key not in other] for one, other in (found, found[::-1])]
    return {"rows": rows, "only_a": only[0], "only_b": only[1]}


def graph(side: Side) -> dict[str, Any]:
    """Of model.onnx: opset, operators, kinds of weights, inputs and outputs, and which variant it is.

    Raises:
        InputError: it is no ONNX model, or one that is not read (UnsafeFile).
    """
    import onnx

    model_files.check(side.folder / MODEL, model_files.MODEL, key="bundle")
    try:
        model = onnx.load(str(side.folder / MODEL), load_external_data=False)
    except Exception as error:  # protobuf's and the file system's own errors
        raise InputError(f"{side.folder / MODEL} is not an ONNX model: {error}") from None
    kinds = Counter(onnx.TensorProto.DataType.Name(w.data_type).lower() for w in model.graph.initializer)
    ladder = figures.content(side.folder, LADDER) if (side.folder / LADDER).is_file() else {}
    return {
        "opsets": {one.domain or "ai.onnx": one.version for one in model.opset_import},
        "ops": dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        "weights": dict(sorted(kinds.items())),
        "inputs": [_node(one) for one in model.graph.input],
        "outputs": [_node(one) for one in model.graph.output],
        "variant": ladder.get("variant") if isinstance(ladder, dict) else None,
    }


def _node(one: Any) -> dict[str, Any]:
    import onnx

    tensor = one.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
    return {"name": one.name, "dtype": onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), "shape": shape}


def _ops(a: Side, b: Side) -> dict[str, list[int]]:
    counts = [graph(side)["ops"] for side in (a, b)]
    names = sorted(counts[0].keys() | counts[1].keys())
    return {n: [c.get(n, 0) for c in counts] for n in names if counts[0].get(n, 0) != counts[1].get(n, 0)}


def _bytes(side: Side) -> int:
    return (side.folder / MODEL).stat().st_size


def _data(a: Side, b: Side) -> dict[str, Any]:
    told = [flat("", side.evaluation.get("data") or {}) for side in (a, b)]
    hashes = changes(a.origin.data, b.origin.data)["differ"]
    same = {"manifest_sha256": "same_samples", "accepted_sha256": "same_splits"}
    return {**{name: key not in hashes for key, name in same.items()}, **changes(*told)}


def _environment(side: Side) -> dict[str, Any]:
    return flat("", {k: v for k, v in side.origin.environment.items() if k != "packages"})


def as_plain(told: dict[str, Any]) -> dict[str, Any]:
    """Without what JSON has no word for."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return dict(plain(told))


def diff(root: Path, a: str, b: str, as_json: bool = False, measure: bool = False) -> int:
    """Print what differs; 0.

    Raises:
        InputError: one of them is no bundle.
    """
    with bundles.opened(root, a) as first, bundles.opened(root, b) as second:
        sides = Side(first, a), Side(second, b)
        told = compare(*sides)
        if measure:
            from pipelines import latency

            told["latency"] = latency.measure(first, second, sides[0].threads)
    if as_json:
        print(json.dumps(as_plain(told), indent=1, ensure_ascii=False))
        return 0
    from rich.console import Console

    from pipelines.diff_tables import show

    show(told, Console(soft_wrap=False))
    return 0
