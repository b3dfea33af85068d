"""dvc.yaml against the code: a module that a stage uses and dvc.yaml does not list would be a stale cache.

Held for the plugins that params.yaml names, and for every other one that a template of dvc.yaml could name.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grimp
import pytest
from imported import libraries_of

from components import plugins
from components.params import load_yaml
from pipelines import dag, libraries

ROOT = Path(__file__).parent.parent.parent
STAGES = {s.name: s for s in dag.load(ROOT)}
_CHOICE = re.compile(r"components/([\w/]+)/\$\{([\w.]+)\}\.py")
_FAMILY = re.compile(r"""(?:plugins\.load|plugins\.choose|load|choose|Family)\(\s*["']([a-z_.]+)["']""")
_READ = re.compile(r"""job\.source\(\s*["'](\w+)["'],\s*f?["']([^"']+)["']""")


@pytest.fixture(scope="session")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("components", exclude_type_checking_imports=True, cache_dir=None)


def choices() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(key of params.yaml, plugin, its tasks) that dvc.yaml has a template for, every one but those chosen."""
    found = {key: folder.replace("/", ".") for folder, key in _CHOICE.findall((ROOT / "dvc.yaml").read_text())}
    for key, family in found.items():
        for name in plugins.names(family):
            if name != chosen(load_yaml(ROOT / "params.yaml"), key):
                yield key, name, tuple(getattr(plugins.load(family, name), "TASKS", ()))


def chosen(values: dict[str, Any], key: str) -> str:
    for part in key.split("."):
        values = values[part]
    return str(values)


@pytest.fixture(scope="session")
def variants(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dag.Stage]]:
    """The stages as they stand, and with each other plugin in the place of the chosen one."""
    root = tmp_path_factory.mktemp("variant")
    shutil.copy(ROOT / "dvc.yaml", root)
    made = [STAGES]
    for key, name, tasks in choices():
        values = load_yaml(ROOT / "params.yaml")
        *above, last = key.split(".")
        section = values
        for part in above:
            section = section[part]
        section[last] = name
        if tasks and values["run"]["task"] not in tasks:  # a plugin for texts is chosen where the task is one of texts
            values["run"]["task"] = tasks[0]
        (root / "params.yaml").write_text(json.dumps(values))  # JSON is YAML
        made.append({s.name: s for s in dag.load(root)})
    return made


def path_of(module: str) -> str:
    path = Path(*module.split("."))
    return (path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")).as_posix()


def closure(graph: grimp.ImportGraph, module: str) -> set[str]:
    return {module, *graph.find_upstream_modules(module)}


def used_modules(stage: dag.Stage, graph: grimp.ImportGraph) -> set[str]:
    """What the stage imports, and what the plugins that it can load import, and those that they can load."""
    found = closure(graph, f"components.{stage.name}.stage")
    known: set[str] = set()
    while families := families_in(found) - known:
        known |= families
        for family in families:
            found |= plugin_modules(stage, family, graph)
    return {m for m in found if not path_of(m).endswith("__init__.py")}


def families_in(modules: set[str]) -> set[str]:
    texts = [(ROOT / path_of(m)).read_text() for m in modules - {"components.plugins"}]
    return {family for text in texts for family in _FAMILY.findall(text)} & {*plugins.families()}


def plugin_modules(stage: dag.Stage, family: str, graph: grimp.ImportGraph) -> set[str]:
    folder = f"components/{family.replace('.', '/')}"
    chosen = {d for d in stage.deps if d.startswith(folder + "/")}
    whole = any(folder == d or folder.startswith(d + "/") for d in stage.deps)
    names = plugins.names(family) if whole else [Path(d).stem for d in chosen]
    assert names, f"{stage.name} loads plugins of {family}, but dvc.yaml lists none of them"
    tasks = {Path(d).stem for d in stage.deps if d.startswith("components/tasks/")}
    found: set[str] = set()
    for name in names:
        of = getattr(plugins.load(family, name), "TASKS", tasks)
        if not tasks or tasks & {*of}:  # one for other tasks is never loaded
            found |= closure(graph, f"components.{family}.{name}")
    return found


def undeclared(stage: dag.Stage, used: set[str]) -> set[str]:
    paths = {path_of(m) for m in used}
    return {p for p in paths if not any(p == d or p.startswith(d + "/") for d in stage.deps)}


Variants = list[dict[str, dag.Stage]]


@pytest.mark.parametrize("name", STAGES)
def test_every_module_that_a_stage_uses_is_a_dependency(
    name: str, graph: grimp.ImportGraph, variants: Variants
) -> None:
    assert len(variants) > 8, "there are others to choose"
    for stages in variants:
        assert not undeclared(stages[name], used_modules(stages[name], graph))


@pytest.mark.parametrize("name", STAGES)
def test_every_code_dependency_is_used(name: str, graph: grimp.ImportGraph, variants: Variants) -> None:
    used = {path_of(m) for stages in variants for m in used_modules(stages[name], graph)}
    code = {d for d in STAGES[name].deps if d.startswith("components/")}
    assert {d for d in code if not any(u == d or u.startswith(d + "/") for u in used)} == set()


@pytest.mark.parametrize("name", STAGES)
def test_dropping_any_code_dependency_is_noticed(name: str, graph: grimp.ImportGraph, variants: Variants) -> None:
    each = [(stages[name], used_modules(stages[name], graph)) for stages in variants]
    for dropped in [d for d in STAGES[name].deps if d.startswith("components/")]:
        broken = [(replace(s, deps=tuple(d for d in s.deps if d != dropped)), used) for s, used in each]
        assert any(undeclared(stage, used) for stage, used in broken), dropped


def needed(name: str, graph: grimp.ImportGraph, variants: Variants) -> set[str]:
    """The libraries of a stage, whichever plugin is chosen; predict.py is called as a program of its own."""
    used = {f"components.{name}.{p.stem}" for p in (ROOT / "components" / name).glob("predict.py")}
    used = used.union(*(used_modules(stages[name], graph) for stages in variants))
    return libraries_of([(ROOT / path_of(module)).read_text() for module in sorted(used)])


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_exactly_the_libraries_that_it_imports(
    name: str, graph: grimp.ImportGraph, variants: Variants
) -> None:
    assert list(STAGES[name].libraries) == sorted(needed(name, graph, variants))
    assert set(STAGES[name].libraries) <= libraries.written(ROOT).keys()


PLANTED = {
    "at the head": "import yarl\n",
    "inside a function": "def adjust() -> None:\n    import yarl\n",
    "a part of it": "def adjust() -> None:\n    from yarl._url import URL\n",
    "where something is missing": "try:\n    import json\nexcept ImportError:\n    import yarl as json\n",
    "beside names for annotations": "if TYPE_CHECKING:\n    import torch\nelse:\n    import yarl\n",
}


@pytest.mark.parametrize("text", PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_import_is_noticed(
    text: str, graph: grimp.ImportGraph, variants: Variants, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text

    def planted(path: Path, *arguments: Any, **options: Any) -> str:
        own = read(path, *arguments, **options)
        return f"{own}\n{text}" if path == ROOT / "components" / "holm.py" else own

    monkeypatch.setattr(Path, "read_text", planted)
    for name in ("bias", "drift"):
        assert needed(name, graph, variants) - set(STAGES[name].libraries) == {"yarl"}
    assert needed("gate", graph, variants) == set(STAGES["gate"].libraries), "it does not use that module"


def test_what_nobody_calls_and_names_for_annotations_are_no_libraries() -> None:
    text = "import sys\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nimport components.job\n"
    text += "def run():\n    other.used()\ndef lost():\n    import timm\n"
    used = "def used():\n    from ruamel.yaml import YAML\n    getattr(1, 'also')()\ndef also():\n    import numpy\n"
    assert libraries_of([text]) == set()
    assert libraries_of([text, used]) == {"ruamel-yaml", "numpy"}
    assert libraries_of(["def run():\n    import torch\n    torch.onnx.export()"]) == {"torch", "onnxscript"}
    with pytest.raises(LookupError, match="nowhere_to_be_had"):
        libraries_of(["import nowhere_to_be_had"])


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
