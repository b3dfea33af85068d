"""The contract of ingest.sources: every plugin, found by itself, on data that the table below gives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import pytest

from components import params, plugins
from components.contracts import Found
from components.job import Job


def _folder(data: Path) -> None:
    factories.image_folder(data, per_label=4)


def _table(data: Path) -> None:
    factories.image_folder(data, per_label=4)
    paths = sorted(p.relative_to(data).as_posix() for p in data.rglob("*.png"))
    lines = [json.dumps({"path": p, "label": p.split("/")[0], "odd": int(p[-5]) % 2}) for p in paths]
    (data / "rows.jsonl").write_text("\n".join(lines))


def _texts(data: Path) -> None:
    data.mkdir()
    lines = [json.dumps({"text": f"text {n}", "again": "and more", "label": "ab"[n % 2], "odd": n}) for n in range(12)]
    (data / "rows.jsonl").write_text("\n".join(lines))


CANONICAL: dict[str, tuple[dict[str, Any], Callable[[Path], None], int]] = {
    "image_folder": ({}, _folder, 12),
    "sklearn_digits": ({"limit": 30}, Path.mkdir, 30),
    "table": ({"file": "rows.jsonl", "attributes": ["odd"]}, _table, 12),
    "text_table": ({"text_pair": "again", "attributes": ["odd"]}, _texts, 12),
}
"""Source -> options, what lays its data out, how many samples it must find there."""
TASKS = {name: "text_classification" if name == "text_table" else "image_classification" for name in CANONICAL}
"""Source -> a task that its samples are for."""

NAMES = plugins.names("ingest.sources")


def find(name: str, job: Job, data: Path) -> list[Found]:
    options, _, _ = CANONICAL[name]
    choice = plugins.choose("ingest.sources", {"name": name, **options})
    return list(choice.load().find(choice.params, data, job))


@pytest.fixture
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    CANONICAL[request.getfixturevalue("name")][1](tmp_path / "data")
    return tmp_path / "data"


def test_every_source_has_canonical_data() -> None:
    assert set(NAMES) == set(CANONICAL), "describe the new source in CANONICAL"


@pytest.mark.parametrize("name", NAMES)
def test_a_source_says_what_it_gives_and_expects(name: str) -> None:
    module = plugins.load("ingest.sources", name)
    assert module.INPUTS
    assert all(isinstance(i, str) for i in module.INPUTS)
    assert module.EXPECTS.endswith(".")
    assert issubclass(module.Params, params.Params)
    undocumented = [k for k, f in module.Params.model_fields.items() if not f.description]
    assert not undocumented


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_whole_and_ids_are_unique(name: str, data: Path, make_job: Callable[..., Job]) -> None:
    job = make_job("ingest")
    found = find(name, job, data)
    assert len(found) == CANONICAL[name][2]
    assert len({f.id for f in found}) == len(found)
    for one in found:
        assert set(one.inputs) >= set(plugins.load("ingest.sources", name).INPUTS)
        assert one.label
        assert not one.reason
        for key in plugins.load("tasks", TASKS[name]).FILES:
            path = job.root / job.while_building(one.inputs[key])
            assert path.is_file(), one
            assert not Path(one.inputs[key]).is_absolute(), "inside the project paths are relative to it"


@pytest.mark.parametrize("name", NAMES)
def test_finding_twice_gives_the_same(name: str, data: Path, make_job: Callable[..., Job]) -> None:
    assert find(name, make_job("ingest"), data) == find(name, make_job("ingest"), data)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no_such_option"):
        plugins.choose("ingest.sources", {"name": name, **CANONICAL[name][0], "no_such_option": 1})


@pytest.mark.parametrize("name", NAMES)
def test_the_stage_runs_on_it(name: str, data: Path, make_job: Callable[..., Job]) -> None:
    from components.ingest import stage

    options, _, expected = CANONICAL[name]
    section = stage.Params.model_validate({"source": {"name": name, **options}, "data": "data"})
    metrics = stage.run(section, make_job("ingest", task=TASKS[name]))
    assert metrics["num_seen"] == metrics["num_used"] + metrics["num_quarantined"]
    assert metrics["num_used"] == expected
