"""dvc.yaml against the code: a module that a stage uses and dvc.yaml does not list would be a stale cache."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from pathlib import Path

import grimp
import pytest

from components import plugins
from pipelines import dag

ROOT = Path(__file__).parent.parent.parent
STAGES = {s.name: s for s in dag.load(ROOT)}
_FAMILY = re.compile(r"""(?:plugins\.load|plugins\.choose|load|choose|Family)\(\s*["']([a-z_.]+)["']""")
_READ = re.compile(r"""job\.source\(\s*["'](\w+)["'],\s*f?["']([^"']+)["']""")


@pytest.fixture(scope="session")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("components", exclude_type_checking_imports=True, cache_dir=None)


def path_of(module: str) -> str:
    path = Path(*module.split("."))
    return (path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")).as_posix()


def closure(graph: grimp.ImportGraph, module: str) -> set[str]:
    return {module, *graph.find_upstream_modules(module)}


def used_modules(stage: dag.Stage, graph: grimp.ImportGraph) -> set[str]:
    """What the stage imports, and what the plugins that it can load import."""
    found = closure(graph, f"components.{stage.name}.stage")
    families = {
        f
        for m in found - {"components.plugins"}
        for f in _FAMILY.findall((ROOT / path_of(m)).read_text())
        if f in plugins.families()
    }
    for family in families:
        folder = f"components/{family.replace('.', '/')}"
        chosen = {d for d in stage.deps if d.startswith(folder + "/")}
        whole = any(folder == d or folder.startswith(d + "/") for d in stage.deps)
        names = plugins.names(family) if whole else [Path(d).stem for d in chosen]
        assert names, f"{stage.name} loads plugins of {family}, but dvc.yaml lists none of them"
        for name in names:
            found |= closure(graph, f"components.{family}.{name}")
    return {m for m in found if not path_of(m).endswith("__init__.py")}


def undeclared(stage: dag.Stage, used: set[str]) -> set[str]:
    paths = {path_of(m) for m in used}
    return {p for p in paths if not any(p == d or p.startswith(d + "/") for d in stage.deps)}


@pytest.mark.parametrize("name", STAGES)
def test_every_module_that_a_stage_uses_is_a_dependency(name: str, graph: grimp.ImportGraph) -> None:
    assert not undeclared(STAGES[name], used_modules(STAGES[name], graph))


@pytest.mark.parametrize("name", STAGES)
def test_every_code_dependency_is_used(name: str, graph: grimp.ImportGraph) -> None:
    used = {path_of(m) for m in used_modules(STAGES[name], graph)}
    code = {d for d in STAGES[name].deps if d.startswith("components/")}
    assert {d for d in code if not any(u == d or u.startswith(d + "/") for u in used)} == set()


@pytest.mark.parametrize("name", STAGES)
def test_dropping_any_code_dependency_is_noticed(name: str, graph: grimp.ImportGraph) -> None:
    stage = STAGES[name]
    used = used_modules(stage, graph)
    for dropped in [d for d in stage.deps if d.startswith("components/")]:
        broken = replace(stage, deps=tuple(d for d in stage.deps if d != dropped))
        assert undeclared(broken, used), dropped


@pytest.mark.parametrize("name", STAGES)
def test_artifacts_read_are_those_of_needs(name: str) -> None:
    stage = STAGES[name]
    module = importlib.import_module(f"components.{name}.stage")
    assert set(stage.parents) == set(module.NEEDS)


@pytest.mark.parametrize("name", STAGES)
def test_every_file_read_is_declared(name: str, graph: grimp.ImportGraph) -> None:
    reads = {
        f"artifacts/{need}/{file}"
        for module in used_modules(STAGES[name], graph)
        for need, file in _READ.findall((ROOT / path_of(module)).read_text())
    }
    deps = STAGES[name].deps
    assert {r for r in reads if not any(r == d or r.startswith(d + "/") for d in deps)} == set()


@pytest.mark.parametrize("name", STAGES)
def test_verdicts_of_what_is_read_are_dependencies(name: str) -> None:
    """A refusal must make the reader stale, so the verdict file of every judging parent is declared."""
    judging = {s.name for s in STAGES.values() if f"artifacts/{s.name}/verdict.json" in s.outs}
    for parent in judging & set(STAGES[name].parents):
        assert f"artifacts/{parent}/verdict.json" in STAGES[name].deps


def test_packages_hold_no_code_of_their_own() -> None:
    """__init__.py files are not listed as dependencies, so nothing may stand in them but a docstring."""
    for path in (ROOT / "components").rglob("__init__.py"):
        text = path.read_text().strip()
        assert not text or (text.startswith('"""') and text.endswith('"""') and text.count('"""') == 2), path
