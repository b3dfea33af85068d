"""What the README says is so: its stages, families, files, commands and Python version."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from components import plugins
from pipelines import dag

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_stage_table_is_the_line_in_its_order() -> None:
    told = re.findall(r"^\| `(\w+)` \|", section("The graph"), re.M)
    assert told == [s.name for s in dag.load(ROOT)]


def test_to_add_table_names_every_family_once() -> None:
    told = re.findall(r"`components/([\w/]+)/x\.py`", section("To add a ..."))
    assert sorted(f.replace("/", ".") for f in told) == sorted(plugins.families())


def test_every_file_in_the_tree_is_there_and_every_module_of_pipelines_is_in_it() -> None:
    tree = section("The tree")
    for folder in ("pipelines", "components"):
        modules = {p.name for p in (ROOT / folder).glob("*.py")} - {"__init__.py"}
        told = set(re.findall(r"\b(\w+\.py)\b", tree))
        assert modules <= told, f"{folder}: {modules - told} are not in README's tree"
    for name in re.findall(r"^([\w./]+)/? {2,}", tree, re.M):
        assert name == "dvc.lock" or (ROOT / name).exists(), name


def test_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z-]+)", TEXT)) <= targets
    shown = subprocess.run(
        [sys.executable, "-m", "pipelines", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for command in set(re.findall(r"`python -m pipelines ([a-z]+)", TEXT)):
        assert re.search(rf"^ +{command}\b", shown, re.M), command


def test_every_make_target_is_told_by_help() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.M).group(1).split())  # type: ignore[union-attr]
    assert phony == set(re.findall(r"^([a-z-]+):.*##", text, re.M))


def test_python_version_is_that_of_the_project() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == ">=3.11,<3.12"
    assert "Python 3.11" in TEXT


def test_locks_hold_hashes_and_no_addresses() -> None:
    for name in ("requirements.lock", "requirements-dev.lock", "infra/uv.lock.txt"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert "--index" not in text
        for line in text.splitlines():
            assert line.startswith("    --hash=sha256:") or line.rstrip().endswith("\\"), line


def test_lock_satisfies_the_project() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    locked = dict(re.findall(r"^([\w.-]+)==([\w.+!]+)", (ROOT / "requirements.lock").read_text(), re.M))
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), text
