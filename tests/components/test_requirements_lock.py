"""The lock of libraries is read the same way by all who read it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from components.requirements_lock import canonical, locked

ROOT = Path(__file__).parents[2]
TEXT = f"""# a comment that names other==1.0
numpy==2.4.1 \\
    --hash=sha256:{"b" * 64} \\
    --hash=sha256:{"a" * 64}
    # via pandas
onnxruntime==1.31.1 ; python_version >= "3.11" \\
    --hash=sha256:{"c" * 64}
Py_Other.Name==1.0
with-extras[a,b]==2.0 \\
    --hash=sha256:{"d" * 64}
"""


def test_versions_and_hashes_are_read() -> None:
    assert locked(TEXT) == {
        "numpy": ("2.4.1", ["a" * 64, "b" * 64]), "onnxruntime": ("1.31.1", ["c" * 64]), "py-other-name": ("1.0", []),
        "with-extras": ("2.0", ["d" * 64]),
    }  # fmt: skip
    assert locked("") == {}


@pytest.mark.parametrize("name", ["ruamel.yaml", "Ruamel_Yaml", "RUAMEL--yaml"])
def test_names_are_compared_as_indexes_compare_them(name: str) -> None:
    assert canonical(name) == "ruamel-yaml"


def test_every_library_of_our_own_lock_is_found_with_its_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text()
    found = locked(text)
    assert len(found) == len(re.findall(r"^[\w.-]+==", text, re.M)) > 100
    assert all(files for _, files in found.values())
    assert sum(len(files) for _, files in found.values()) == text.count("--hash=sha256:")
