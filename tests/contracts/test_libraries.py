"""infra/libraries.yaml against the lock, and what a bump of one library makes stale."""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path

import pytest

from components.params import load_yaml
from components.requirements_lock import canonical
from pipelines import dag, libraries

ROOT = Path(__file__).parent.parent.parent


def bumped(root: Path, name: str) -> set[str]:
    """The libraries whose entry is another one after that one was bumped in the lock."""
    shutil.copy(ROOT / libraries.LOCK, root)
    before = libraries.table(root)
    path = root / libraries.LOCK
    text, num = re.subn(rf"^{name}==\S+", f"{name}==999.9", path.read_text(), flags=re.M)
    assert num == 1
    path.write_text(text)
    after = libraries.table(root)
    return {one for one in before if before[one] != after[one]}


def rerun(changed: set[str]) -> set[str]:
    return {stage.name for stage in dag.load(ROOT) if changed & {*stage.libraries}}


def test_the_file_is_up_to_date() -> None:
    assert (ROOT / libraries.FILE).read_text("utf-8") == libraries.rendered(ROOT), "run `make lock`"
    assert load_yaml(ROOT / libraries.FILE) == libraries.table(ROOT), "DVC reads it as YAML"


def test_a_name_has_no_dot_which_dvc_would_read_as_a_path() -> None:
    assert canonical("ruamel.yaml") == "ruamel-yaml"
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in libraries.written(ROOT))


WITH_TORCH = {"augment", "drift", "evaluate", "export", "finetune", "select"}


@pytest.mark.parametrize(
    ("name", "direct", "stages"),
    [
        ("prefect", set(), set()),
        ("great-expectations", {"validate"}, {"validate"}),
        ("evidently", {"drift"}, {"drift"}),
        ("onnxscript", {"export"}, {"export"}),
        ("lightning-fabric", {"finetune"}, {"finetune"}),
        ("scikit-learn", {"drift", "evaluate", "ingest", "select"}, {"drift", "evaluate", "ingest", "select"}),
        ("timm", WITH_TORCH - {"augment"}, WITH_TORCH - {"augment"}),
        ("jinja2", {"handoff", "report"}, {"handoff", "report", "validate", *WITH_TORCH}),  # torch needs it, and GX
    ],
)
def test_a_bumped_library_reruns_exactly_the_stages_that_import_it_or_what_needs_it(
    name: str, direct: set[str], stages: set[str], tmp_path: Path
) -> None:
    assert {s.name for s in dag.load(ROOT) if name in s.libraries} == direct
    assert rerun(bumped(tmp_path, name)) == stages


@pytest.mark.parametrize(("name", "users"), [("tokenizers", {"transformers"}), ("pyarrow", {"pandas"})])
def test_what_a_library_needs_counts_for_it(name: str, users: set[str], tmp_path: Path) -> None:
    changed = bumped(tmp_path, name)
    assert {name, *users} <= changed
    assert "ruamel-yaml" not in changed


def test_a_bump_of_an_orchestrator_reruns_nothing(tmp_path: Path) -> None:
    assert rerun(bumped(tmp_path, "prefect")) == set()
    assert rerun(bumped(tmp_path, "dvc")) == set()


def test_what_is_installed_by_hand_is_told_with_both_versions(tmp_path: Path) -> None:
    shutil.copy(ROOT / libraries.LOCK, tmp_path)
    assert libraries.strays(tmp_path) == []
    path = tmp_path / libraries.LOCK
    here = metadata.version("numpy")
    path.write_text(path.read_text().replace(f"numpy=={here}", "numpy==1.0") + "nowhere-to-be-had==3\n")
    assert libraries.strays(tmp_path) == [
        f"numpy is {here} installed, and requirements.lock says 1.0; `make setup` mends it",
        "nowhere-to-be-had is not installed, and requirements.lock says 3; `make setup` mends it",
    ]


def test_the_versions_of_a_stage_are_the_installed_ones() -> None:
    found = libraries.installed(["pandas"])
    assert found["pandas"] == metadata.version("pandas")
    assert {"numpy", "pyarrow", "python-dateutil"} <= found.keys()
    assert "torch" not in found
