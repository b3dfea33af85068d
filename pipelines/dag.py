"""dvc.yaml -> ordered stages. Pure: no Prefect, no DVC, no subprocess. The graph is written nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.contracts import InputError
from components.params import load_yaml

LIBRARIES = "infra/libraries.yaml"
_TEMPLATE = re.compile(r"\$\{([^}]+)\}")


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml, its templates filled in from params.yaml."""

    name: str
    cmd: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    """Outputs, plots and metrics, in that order."""
    metrics: tuple[str, ...]
    params: tuple[str, ...]
    """Sections of params.yaml."""
    libraries: tuple[str, ...] = ()
    """Libraries of infra/libraries.yaml that it imports."""

    @property
    def parents(self) -> tuple[str, ...]:
        """Stages whose folders it reads, in the order of dvc.yaml's list."""
        found = [d.split("/")[1] for d in self.deps if d.startswith("artifacts/") and "/" in d[10:]]
        return tuple(dict.fromkeys(n for n in found if n != self.name))


def load(root: Path) -> tuple[Stage, ...]:
    """The stages, each after those that it reads; ties in the order of dvc.yaml.

    Raises:
        InputError: dvc.yaml or params.yaml cannot be read, a template has no value, or the graph has a circle.
    """
    graph, values = root / "dvc.yaml", root / "params.yaml"
    return _load(graph, values, *(path.read_bytes() if path.is_file() else b"" for path in (graph, values)))


@lru_cache(maxsize=8)
def _load(graph: Path, params: Path, *_: bytes) -> tuple[Stage, ...]:
    """One command asks several times; parsed again only if a file changed."""
    raw = load_yaml(graph).get("stages")
    if not isinstance(raw, dict) or not all(isinstance(body, dict) and "cmd" in body for body in raw.values()):
        raise InputError("dvc.yaml: `stages` must map each stage's name to its block, with a `cmd`")
    values = load_yaml(params)
    stages = {name: _stage(name, body, values) for name, body in raw.items()}
    ordered: list[Stage] = []
    placed: set[str] = set()
    while len(ordered) < len(stages):
        ready = [s for n, s in stages.items() if n not in placed and set(s.parents) & stages.keys() <= placed]
        if not ready:
            raise InputError(f"dvc.yaml: these stages wait for each other: {sorted(stages.keys() - placed)}")
        ordered.append(ready[0])
        placed.add(ready[0].name)
    return tuple(ordered)


def _stage(name: str, body: dict[str, Any], values: dict[str, Any]) -> Stage:
    def filled(entries: list[Any]) -> tuple[str, ...]:
        plain = (next(iter(e)) if isinstance(e, dict) else e for e in entries)
        return tuple(_TEMPLATE.sub(lambda m: _value(m.group(1), values, name), str(e)) for e in plain)

    metrics = filled(body.get("metrics", []))
    params = body.get("params", [])
    return Stage(
        name=name,
        cmd=body["cmd"],
        deps=filled(body.get("deps", [])),
        outs=filled([*body.get("outs", []), *body.get("plots", [])]) + metrics,
        metrics=metrics,
        params=filled([p for p in params if not isinstance(p, dict)]),
        libraries=filled([n for p in params if isinstance(p, dict) for n in p.get(LIBRARIES, [])]),
    )


def _value(key: str, values: dict[str, Any], stage: str) -> str:
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            raise InputError(f"params.yaml: {key}: this key is missing; the stage {stage} needs it")
        found = found[part]
    if isinstance(found, dict | list):
        raise InputError(f"params.yaml: {key} must be one value, not {type(found).__name__}")
    return str(found)
