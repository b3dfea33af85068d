"""infra/operations.yaml: every key is documented, every mistake is told at once with its key and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.monitoring import figures
from components.params import ParamsError, load_yaml
from pipelines import operations

ROOT = Path(__file__).parents[2]
FILE = ROOT / operations.FILE


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[Callable[[Any], object]], Path]:
    def make(change: Callable[[Any], object]) -> Path:
        yaml = YAML()
        values = yaml.load(FILE)
        change(values)
        (tmp_path / "infra").mkdir(exist_ok=True)
        yaml.dump(values, tmp_path / operations.FILE)
        return tmp_path

    return make


def told(root: Path) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        operations.read(root)
    return caught.value.problems


def test_the_shipped_file_is_valid_and_every_key_has_a_comment() -> None:
    operations.read(ROOT)
    for number, line in enumerate(FILE.read_text().splitlines(), 1):
        key = re.match(r"  (\w+):", line)
        if key:
            assert "#" in line, f"{operations.FILE}:{number}: {key.group(1)} has no comment"


def test_the_shipped_file_states_every_key_and_every_key_says_what_it_is() -> None:
    raw = load_yaml(FILE)
    assert list(raw) == list(operations.SECTIONS)
    for name, section in operations.SECTIONS.items():
        assert list(raw[name]) == list(section.model_fields)
        assert all(field.description for field in section.model_fields.values()), name
        assert all(field.is_required() for field in section.model_fields.values()), "one home a value: the file"


def test_all_mistakes_are_told_at_once_with_their_keys(changed: Any) -> None:
    def change(values: Any) -> None:
        values["monitor"]["min_sample"] = values["monitor"].pop("min_samples")
        values["monitor"]["then"] = "dance"
        values["runs"]["keep"] = 3
        values["keep"]["work_days"] = 0
        values["notify"]["on"].append("birthday")
        values["promote"]["environment"] = "Production"
        values["extra"] = {}

    problems = "\n".join(told(changed(change)))
    assert "monitor.min_sample: unknown key. did you mean `min_samples`?" in problems
    assert "monitor.min_samples: this key is missing" in problems
    assert "monitor.then: input should be 'nothing', 'train', 'release' or 'promote' (given: 'dance')" in problems
    assert "runs.keep: input should be greater than or equal to 10 (given: 3)" in problems
    for key in ("keep.work_days", "notify.on[6]", "promote.environment", "extra: unknown key"):
        assert key in problems


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"metric": "monitor.acuracy", "at_least": 0.9}, "did you mean `monitor.accuracy`?"),
        ({"metric": "drift.share_of_columns", "at_most": 0.5}, "did you mean `monitor.share_of_columns`?"),
        ({"metric": "monitor.accuracy"}, "for monitor.accuracy (given: neither)"),
        ({"metric": "monitor.accuracy", "at_least": 0.1, "at_most": 1.0}, "(given: both)"),
        ({"metric": "monitor.accuracy", "at_least": "0.1"}, "monitor.rules[0].at_least"),
        ({"metric": "monitor.accuracy", "at_least": float("inf")}, "monitor.rules[0].at_least"),
        ({"metric": "monitor.accuracy", "atleast": 0.1}, "did you mean `at_least`?"),
    ],
)  # fmt: skip
def test_a_rule_that_is_none_is_told_with_what_is_allowed(changed: Any, rule: dict[str, Any], words: str) -> None:
    problems = "\n".join(told(changed(lambda values: values["monitor"].update(rules=[rule]))))
    assert "monitor.rules[0]" in problems
    assert words in problems
    if "unknown" not in problems and "did you mean `monitor." in problems:
        assert all(f"monitor.{name}" in problems for name in figures.METRICS)


def test_rules_may_not_be_missing_and_detectors_must_fit(changed: Any) -> None:
    def change(values: Any) -> None:
        values["monitor"]["rules"] = []
        values["monitor"]["columns"] = {"name": "permutation_mmd"}
        values["monitor"]["embeddings"] = {"name": "mmd"}

    problems = told(changed(change))
    assert any(line.startswith("monitor.rules:") for line in problems)
    assert "monitor.columns: permutation_mmd does not compare columns. Those that do: evidently_columns, ks" in str(
        problems
    )
    assert any("monitor.embeddings" in line and "Known: " in line for line in problems)


def test_every_metric_that_a_rule_may_name_is_explained() -> None:
    assert all(figures.METRICS.values())
