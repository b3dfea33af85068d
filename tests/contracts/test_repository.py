"""One stage = one folder = one DVC stage = one section = one artifacts folder = one test folder, all of one name."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components import plugins
from pipelines import dag
from pipelines.stage import read_params, sections, stage_names

ROOT = Path(__file__).parent.parent.parent
NAMES = stage_names(ROOT)
HEADINGS = ("What:", "When:", "Not when:", "Settings:", "Cost:", "Evidence here:", "Source:")
PLUGINS = [(f, n) for f in plugins.families() for n in plugins.names(f)]


def misnamed(folders: set[str], dvc: set[str], params: set[str], tests: set[str]) -> set[str]:
    """Names that are not in all four places."""
    return (folders | dvc | params | tests) - (folders & dvc & params & tests)


def where() -> tuple[set[str], set[str], set[str], set[str]]:
    with_tests = {p.name for p in (ROOT / "tests/components").iterdir() if any(p.glob("test_*.py"))}
    return set(NAMES), {s.name for s in dag.load(ROOT)}, set(sections(ROOT)) - {"run"}, with_tests & set(NAMES)


def test_a_stage_has_one_name_everywhere() -> None:
    assert misnamed(*where()) == set()


@pytest.mark.parametrize("place", range(4))
def test_a_name_that_differs_in_one_place_is_noticed(place: int) -> None:
    names = [set(s) for s in where()]
    names[place] = (names[place] - {"gate"}) | {"gates"}
    assert misnamed(*names) == {"gate", "gates"}


def test_params_file_is_valid_and_every_key_has_a_comment() -> None:
    read_params(ROOT)
    for number, line in enumerate((ROOT / "params.yaml").read_text().splitlines(), 1):
        key = re.match(r"  (\w+):", line)
        if key:
            assert "#" in line, f"params.yaml:{number}: {key.group(1)} has no comment"


@pytest.mark.parametrize("name", sorted(p.parent.name for p in ROOT.glob("examples/*/params.yaml")))
def test_params_of_every_example_are_valid(name: str) -> None:
    read_params(ROOT / "examples" / name)


@pytest.mark.parametrize("stage", dag.load(ROOT), ids=lambda s: s.name)
def test_a_stage_writes_only_below_its_own_folder_and_runs_the_one_command(stage: dag.Stage) -> None:
    assert stage.cmd == f"python -m pipelines.stage {stage.name}"
    assert all(out.startswith(f"artifacts/{stage.name}/") for out in stage.outs)
    assert stage.metrics == (f"artifacts/{stage.name}/metrics.json",)
    assert set(stage.params) == {stage.name, "run"}
    assert f"artifacts/{stage.name}/lineage.json" in stage.outs
    assert ("requirements.lock" in stage.deps) == (stage.name == "handoff"), "the rest name the libraries they import"
    assert stage.libraries


PLACEHOLDER = re.compile(r"\b(EVIDENCE|MINUTES|TODO|FIXME|XXX)")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/README.md")), ids=lambda p: p.parent.name)
def test_an_example_says_what_it_printed_and_shows_it(path: Path) -> None:
    assert not PLACEHOLDER.search(path.read_text())
    pictures = [p.name for p in path.parent.glob("*.png")]
    assert any(f"({name})" in path.read_text() for name in pictures)


@pytest.mark.parametrize(("family", "name"), PLUGINS)
def test_every_plugin_has_a_card(family: str, name: str) -> None:
    card = plugins.load(family, name).__doc__ or ""
    missing = [h for h in HEADINGS if not re.search(rf"^{h}", card, re.M)]
    assert not missing
    assert not PLACEHOLDER.search(card)
    positions = [card.index(f"\n{h}") for h in HEADINGS]
    assert positions == sorted(positions)


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_says_what_it_reads_writes_decides_and_does_not_check(name: str) -> None:
    text = (ROOT / "components" / name / "stage.py").read_text()
    for heading in ("Reads:", "Writes:", "Decides:", "Fails:", "Does not check:"):
        assert re.search(rf"^{heading}", text, re.M), f"{name}: {heading}"


def test_no_catch_all_modules() -> None:
    banned = {"utils", "helpers", "common", "base", "core"}
    found = [p for f in ("components", "pipelines") for p in (ROOT / f).rglob("*") if p.stem in banned]
    assert not found


def test_reading_params_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from pipelines.stage import read_params; read_params(Path('.'));"
        "heavy = {'torch', 'timm', 'pandas', 'sklearn', 'scipy', 'matplotlib', 'evidently', 'great_expectations',"
        " 'onnx', 'onnxruntime', 'prefect', 'dvc', 'lightning_fabric', 'PIL.ImageDraw'} & sys.modules.keys();"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


VIOLATIONS = {
    "a component imports prefect": ("components/job.py", "import prefect"),
    "a component imports pipelines": ("components/job.py", "import pipelines.dag"),
    "a stage imports another stage": ("components/gate/stage.py", "import components.evaluate.transfer"),
    "a plugin imports its sibling": (
        "components/finetune/strategies/full.py",
        "import components.finetune.strategies.lp_ft",
    ),
    "prefect outside flows": ("pipelines/dag.py", "import prefect"),
    "a subprocess outside dvc_cli": ("pipelines/dag.py", "import subprocess"),
    "params know plugins": ("components/params.py", "import components.plugins"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imports")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("components", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_import_contracts_hold(copy: Path) -> None:
    done = _lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", VIOLATIONS)
def test_a_broken_import_rule_is_noticed(case: str, copy: Path) -> None:
    name, line = VIOLATIONS[case]
    path = copy / name
    before = path.read_text()
    path.write_text(f"{before}\n\ndef _planted() -> None:\n    {line}\n")
    try:
        done = _lint(copy)
    finally:
        path.write_text(before)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout


TASKS = plugins.names("tasks")
STAGE_MODULES = sorted(
    path.relative_to(ROOT)
    for name in NAMES
    for path in (ROOT / "components" / name).glob("*.py")
    if path.name != "__init__.py"
)


@pytest.mark.parametrize("path", STAGE_MODULES, ids=str)
def test_no_stage_asks_what_a_sample_is(path: Path) -> None:
    """What differs between images and texts is in tasks, backbones and plugins, so nowhere else is it compared."""
    tree = ast.parse((ROOT / path).read_text())
    told = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.Match | ast.Dict | ast.Subscript)
        and any(
            isinstance(inner, ast.Constant) and inner.value in {*TASKS, *plugins.names("decisions"), "image", "text"}
            for inner in ast.walk(node)
        )
    ]
    assert not told, f"{path}: lines {told} ask for a task or a decision by name"
