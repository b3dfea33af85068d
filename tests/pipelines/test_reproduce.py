"""A model made again: the same is said to be the same, and each of forty changes is seen and its cause named.

The line is the one in miniature, with a bundle that tells its making as a real one does.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import miniature
import pytest

from components import lineage, params
from components.contracts import InputError, read_json, write_json
from components.handoff import provenance
from pipelines import libraries, stage
from pipelines.comparison import CAUSES, Comparison, Difference
from pipelines.reproduce import decision, reproduce

LIBRARIES = {name: metadata.version(name) for name in ("numpy", "pydantic", "rich")}
HANDOFF = '''
"""A bundle with its provenance."""
import dataclasses
from components import lineage, params
from components.contracts import read_json, write_json
from components.handoff import provenance
NEEDS = ("ingest", "gate", "report", "export")
class Params(params.Params):
    note: str
def run(params, job):
    job.out("bundle/model.onnx").write_text(job.source("export", "model.txt").read_text() + params.note)
    lineages = {stage: read_json(job.source(stage, "lineage.json", even_if_refused=True)) for stage in NEEDS}
    merged = provenance.merge(lineages)
    where = job.commit_of(provenance.rests_on(merged["code"]))
    mean = lineages["ingest"]["outputs"]["artifacts/ingest/mean.json"]
    told = provenance.Provenance(
        name="mini", commit=where.commit, clean=where.clean, differing=where.differing, commit_note=where.note,
        base_weights={"source": "file", "sha256": lineages["ingest"]["params"]["ingest"]["weights"]["sha256"]},
        data={"manifest_sha256": mean, "accepted_sha256": mean}, weights_sha256="0" * 64,
        lock_sha256=lineage.hash_file(job.root / "requirements.lock"), **merged,
        subjects={"model.onnx": lineage.hash_file(job.building / "bundle/model.onnx")},
    )
    write_json(job.out("bundle/provenance.json"), provenance.statement(told))
    return {"num_files": 2.0}
'''
PIXELS = bytes(range(256)) * 3


def make(root: Path) -> Path:
    """The project in miniature with weights, libraries, pictures, and a bundle; not run yet."""
    miniature.make(root)
    ingest = root / "components/ingest/stage.py"
    text = ingest.read_text().replace("    pause: float\n", "    pause: float\n    weights: dict[str, str]\n")
    ingest.write_text(text)
    (root / "components/handoff/stage.py").write_text(HANDOFF.lstrip())
    for name in ("provenance.py", "private.py"):
        shutil.copy(miniature.REPOSITORY / "components/handoff" / name, root / "components/handoff" / name)
    (root / "base.bin").write_bytes(b"pretrained")
    digest = hashlib.sha256(b"pretrained").hexdigest()
    miniature.turn_knob(
        root, "  pause: 0\n", f"  pause: 0\n  weights: {{source: file, path: base.bin, sha256: {digest}}}\n"
    )
    (root / "data/picture.bin").write_bytes(PIXELS)
    (root / "data/labels.csv").write_text(
        "id,label\n" + "".join(f"{n},{'cat' if n % 2 else 'dog'}\n" for n in range(9))
    )
    (root / "requirements.lock").write_text("".join(f"{n}=={v}\n" for n, v in LIBRARIES.items()))
    (root / "infra").mkdir()
    (root / libraries.FILE).write_text(libraries.rendered(root))
    dvc = (root / "dvc.yaml").read_text()
    for name, own in {"ingest": "numpy, pydantic", "gate": "pydantic", "report": "rich", "export": "pydantic"}.items():
        dvc = dvc.replace(f"params: [{name}, run]", f"params: [{name}, run, {{{libraries.FILE}: [{own}]}}]")
    dvc = dvc.replace("artifacts/handoff/bundle.txt", "artifacts/handoff/bundle")
    reads = ["requirements.lock", *(f"artifacts/{s}/lineage.json" for s in ("ingest", "gate", "report", "export"))]
    reads += ["artifacts/gate/verdict.json", "components/handoff/provenance.py"]
    lines = "".join(f"      - {one}\n" for one in reads)
    before, dep, after = dvc.rpartition("      - artifacts/export/model.txt\n")
    dvc = f"{before}{dep}{lines}{after}"
    (root / "dvc.yaml").write_text(dvc)
    (root / ".gitignore").write_text((root / ".gitignore").read_text() + "/data/\n/base.bin\n")
    subprocess.run(["git", "rm", "-rq", "--cached", "data"], cwd=root, check=True)
    miniature.commit(root)
    return root


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make(tmp_path_factory.mktemp("bundled") / "mini")
    done = miniature.call(root, sys.executable, "-m", "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    miniature.commit(root)
    return root


@pytest.fixture
def project(_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished project with a bundle, current folder of this process."""
    root = Path(shutil.copytree(_made, tmp_path / "mini", symlinks=True))
    monkeypatch.chdir(root)
    monkeypatch.setattr(stage, "sections", sections)
    return root


def sections(root: Path) -> dict[str, Any]:
    """The sections of the project's own stages, where this process has loaded those of the repository."""
    found: dict[str, Any] = {"run": params.Run}
    for name in miniature.STAGES:
        spec = importlib.util.spec_from_file_location(f"mini_{name}", root / "components" / name / "stage.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[name] = module.Params
    return found


def bundle(root: Path) -> Path:
    return root / "artifacts" / "handoff" / "bundle"


def differences(root: Path) -> list[Difference]:
    return Comparison(root, provenance.read(bundle(root))).differences()


# --- forty changes ---

Change = Callable[[Path, random.Random, pytest.MonkeyPatch], None]


def knob(before: str, after: str) -> Change:
    return lambda root, rng, patch: miniature.turn_knob(root, before, after)


def one_byte(path: str) -> Change:
    def change(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
        content = bytearray((root / path).read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (root / path).write_bytes(content)

    return change


def one_label(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
    lines = (root / "data/labels.csv").read_text().splitlines()
    at = rng.randrange(1, len(lines))
    lines[at] = lines[at].replace("cat", "?").replace("dog", "cat").replace("?", "dog")
    (root / "data/labels.csv").write_text("\n".join(lines) + "\n")


def row_order(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
    head, *rows = (root / "data/labels.csv").read_text().splitlines()
    at, other = rng.sample(range(len(rows)), 2)
    rows[at], rows[other] = rows[other], rows[at]
    (root / "data/labels.csv").write_text("\n".join([head, *rows]) + "\n")


def number_order(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
    (root / "data/numbers.txt").write_text("3 1 2\n")  # the mean, and so every output, is the same


def a_file_more(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
    (root / f"data/more-{rng.randrange(99)}.bin").write_bytes(b"")


def a_file_less(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
    (root / "data/picture.bin").unlink()


def renamed(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
    (root / "data/picture.bin").rename(root / "data/picture2.bin")


def no_weights(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
    (root / "base.bin").unlink()


def a_line(path: str) -> Change:
    def change(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
        lines = (root / path).read_text().splitlines()
        lines.insert(rng.randrange(len(lines)) if path.endswith("#") else len(lines), f"# {rng.random()}")
        (root / path).write_text("\n".join(lines) + "\n")

    return change


def installed(name: str, version: str | None) -> Change:
    def change(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
        real = libraries.installed

        def other(names: Any) -> dict[str, str]:
            found = {n: v for n, v in real(names).items() if n != name}
            return found if version is None else {**found, name: version}

        patch.setattr(libraries, "installed", other)

    return change


def locked(name: str) -> Change:
    def change(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
        path = root / "requirements.lock"
        path.write_text(path.read_text().replace(f"{name}==", f"{name}=={rng.randrange(9)}."))

    return change


def a_library_more(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
    with (root / "requirements.lock").open("a") as lock:
        lock.write("yarl==1.0\n")


def patched(target: Any, name: str, value: Any) -> Change:
    return lambda root, rng, patch: patch.setattr(target, name, lambda: value)


CHANGES: dict[str, tuple[str, str, Change]] = {
    "seed": ("params", "ingest", knob("seed: 1", "seed: 2")),
    "name of the project": ("params", "ingest", knob("name: mini", "name: maxi")),
    "device": ("params", "ingest", knob("device: cpu", "device: auto")),
    "decision": ("params", "ingest", knob("decision: single_label", "decision: multi_label")),
    "a value of ingest": ("params", "ingest", knob("pause: 0", "pause: 0.1")),
    "a value of gate": ("params", "gate", knob("at_least: 1.0", "at_least: 0.5")),
    "a value of report": ("params", "report", knob("title: Result", "title: Outcome")),
    "a value of export": ("params", "export", knob('suffix: ".v1"', 'suffix: ".v2"')),
    "two threads": ("threads", "ingest", knob("threads: 1", "threads: 2")),
    "nine threads": ("threads", "ingest", knob("threads: 1", "threads: 9")),
    "instruction set": ("instruction set", "ingest", knob("instruction_set: native", "instruction_set: avx2")),
    "processor": ("instruction set", "ingest", patched(lineage, "processor", "GenuineIntel sse4_2 avx")),
    "machine": ("machine", "ingest", patched(platform, "machine", "riscv64")),
    "system": ("machine", "ingest", patched(platform, "system", "Plan 9")),
    "python": ("library", "ingest", patched(platform, "python_version", "3.11.99")),
    **{f"one pixel, {n}": ("data", "ingest", one_byte("data/picture.bin")) for n in range(5)},
    **{f"one label, {n}": ("data", "ingest", one_label) for n in range(3)},
    **{f"row order, {n}": ("data", "ingest", row_order) for n in range(3)},
    "order of the numbers": ("data", "ingest", number_order),
    "a file more": ("data", "ingest", a_file_more),
    "a file less": ("data", "ingest", a_file_less),
    "a file renamed": ("data", "ingest", renamed),
    **{f"base weights, {n}": ("weights", "ingest", one_byte("base.bin")) for n in range(2)},
    "base weights gone": ("weights", "ingest", no_weights),
    "code of ingest": ("code", "ingest", a_line("components/ingest/stage.py")),
    "code of gate": ("code", "gate", a_line("components/gate/stage.py")),
    "code of report": ("code", "report", a_line("components/report/stage.py")),
    "code of export": ("code", "export", a_line("components/export/stage.py")),
    "code that stages share": ("code", "ingest", a_line("components/job.py")),
    "numpy installed by hand": ("library", "ingest", installed("numpy", "1.0")),
    "rich installed by hand": ("library", "report", installed("rich", "1.0")),
    "what rich needs installed by hand": ("library", "report", installed("pygments", "1.0")),
    "a library gone": ("library", "ingest", installed("pydantic", None)),
    "numpy in the lock": ("library", "ingest", locked("numpy")),
    "rich in the lock": ("library", "report", locked("rich")),
    "a library more in the lock": ("library", "export", a_library_more),
}  # fmt: skip


def test_there_are_forty_changes_of_every_cause() -> None:
    assert len(CHANGES) >= 40
    assert {cause for cause, _, _ in CHANGES.values()} == set(CAUSES)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_and_its_cause_named(name: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cause, first, change = CHANGES[name]
    change(project, random.Random(name), monkeypatch)
    found = differences(project)
    assert [(d.cause, d.stage) for d in found] == [(cause, first)]


@pytest.mark.parametrize("number", range(10))
def test_no_false_alarm_where_nothing_that_counts_was_changed(number: int, project: Path) -> None:
    rng = random.Random(number)
    (project / "README.md").write_text(str(rng.random()))
    (project / "data/picture.bin").touch()
    (project / "components/__pycache__").mkdir(exist_ok=True)
    (project / f"components/__pycache__/{number}.pyc").write_bytes(rng.randbytes(9))
    (project / "params.yaml").write_text(f"# {number}\n" + (project / "params.yaml").read_text())
    assert differences(project) == []


# --- made again ---


def again(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return miniature.line(root, "reproduce", "artifacts/handoff/bundle", *options)


def content(root: Path) -> dict[str, str]:
    """All of the project but what its locks and Python leave behind."""
    apart = {".graftline", "__pycache__", "tmp", "index"}  # git keeps times of files in its index
    files = (p for p in root.rglob("*") if p.is_file() and not apart & {*p.relative_to(root).parts})
    return {str(p.relative_to(root)): lineage.hash_file(p) for p in files}


def test_unchanged_it_is_reproduced_and_the_project_is_not_touched(project: Path, tmp_path: Path) -> None:
    before = content(project)
    done = again(project, "--in", str(tmp_path / "scratch"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "REPRODUCED: every output of 4 stages, and 1 file of the bundle" in done.stdout
    assert "differ" not in done.stdout
    assert "Running stage 'handoff'" in done.stderr, "it shows how far it is"
    assert content(project) == before
    assert [*(tmp_path / "scratch").iterdir()] == []


def test_from_the_recorded_commit_whatever_was_changed_since(project: Path) -> None:
    miniature.turn_knob(project, "seed: 1", "seed: 2")
    miniature.turn_knob(project, 'suffix: ".v1"', 'suffix: ".v2"')
    miniature.commit(project)
    with (project / "components/gate/stage.py").open("a") as code:
        code.write("MEAN = 0\n")
    done = again(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run.seed: recorded 1, here 2; the recorded one is used" in done.stdout
    assert "components/gate/stage.py: recorded" in done.stdout


def test_data_that_changed_are_told_before_anything_long(project: Path) -> None:
    (project / "data/labels.csv").write_text("id,label\n")
    done = again(project)
    assert done.returncode == 3
    assert "NOT REPRODUCED: it differs from the stage ingest on; the cause: data (data)" in done.stdout
    assert "Running stage" not in done.stderr


def test_data_that_are_not_there_are_told_with_where_they_are_looked_for(project: Path) -> None:
    shutil.rmtree(project / "data")
    (project / "data.dvc").write_text("outs: []\n")
    done = again(project)
    assert done.returncode == 2
    assert f"not there: looked for at {project / 'data'}; put it there, or run `dvc pull data.dvc`" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_library_is_told_and_the_rebuild_can_be_had_anyway(project: Path) -> None:
    told = read_json(bundle(project) / "provenance.json")
    told["predicate"]["buildDefinition"]["internalParameters"]["environment"]["packages"]["rich"] = "1.0"
    write_json(bundle(project) / "provenance.json", told)
    assert again(project).returncode == 3
    done = again(project, "--anyway")
    assert done.returncode == 0, "the numbers do not rest on that library"
    assert f"rich: recorded 1.0, here {LIBRARIES['rich']}" in done.stdout


def test_a_stage_that_is_not_deterministic_is_the_first_that_differs(project: Path) -> None:
    stage = project / "components/export/stage.py"
    stage.write_text(stage.read_text().replace('"model" + ', '"model" + __import__("uuid").uuid4().hex + '))
    miniature.commit(project)
    assert miniature.call(project, sys.executable, "-m", "dvc", "repro").returncode == 0
    miniature.commit(project)
    done = again(project)
    assert done.returncode == 3
    assert "export            2  differs: model.txt\n" in done.stdout
    assert "the first stage that differs is export; the cause: not known" in done.stdout


def test_of_a_tree_that_was_not_clean_the_code_at_hand_is_tried(project: Path) -> None:
    stage = project / "components/export/stage.py"
    stage.write_text(stage.read_text() + "# not committed\n")
    assert miniature.call(project, sys.executable, "-m", "dvc", "repro").returncode == 0
    done = again(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not clean when it was made (components/export/stage.py)" in done.stdout
    stage.write_text(stage.read_text() + "# and changed since\n")
    done = again(project)
    assert done.returncode == 3
    assert "the cause: code (components/export/stage.py)" in done.stdout


def test_a_commit_that_is_not_to_be_had_is_told(project: Path) -> None:
    told = read_json(bundle(project) / "provenance.json")
    told["predicate"]["buildDefinition"]["internalParameters"]["source"]["commit"] = "0" * 40
    write_json(bundle(project) / "provenance.json", told)
    miniature.turn_knob(project, "seed: 1", "seed: 2")
    done = again(project)
    assert done.returncode == 3
    assert "commit 000000000000 is not in this repository" in done.stdout
    assert "the cause: params (run.seed)" in done.stdout


def test_a_bundle_that_was_altered_is_not_made_again(project: Path) -> None:
    (bundle(project) / "model.onnx").write_text("another")
    done = again(project)
    assert done.returncode == 3
    assert "the bundle is not what its own provenance says: model.onnx differs" in done.stdout


def test_a_decision_by_measured_times_goes_along_and_a_pinned_one_stands_in_params(tmp_path: Path) -> None:
    assert decision(tmp_path) == {}
    write_json(tmp_path / "ladder.json", {"variant": "fp16", "decided": "pinned", "why": "", "rungs": []})
    assert decision(tmp_path) == {}
    record = {"variant": "fp16", "decided": "measured", "why": "fast", "rungs": []}
    write_json(tmp_path / "ladder.json", record)
    assert decision(tmp_path) == {"export": record}


def test_a_library_installed_by_hand_is_told_before_anything_runs(project: Path) -> None:
    locked("numpy")(project, random.Random(0), pytest.MonkeyPatch())
    done = miniature.line(project, "check")
    assert done.returncode == 0
    here = LIBRARIES["numpy"]
    assert done.stderr.startswith(f"numpy is {here} installed, and requirements.lock says ")
    assert "`make setup` mends it" in done.stderr


@pytest.mark.parametrize("what", ["nothing", "a file", "not JSON", "a workspace that is not empty"])
def test_what_cannot_be_tried_is_told_without_a_traceback(what: str, project: Path, tmp_path: Path) -> None:
    place: Path | None = None
    given = bundle(project)
    if what == "nothing":
        given = tmp_path / "nowhere"
    elif what == "a file":
        given = given / "model.onnx"
    elif what == "not JSON":
        (given / "provenance.json").write_text("{")
    else:
        place = project
    with pytest.raises(InputError):
        reproduce(project, given, place)
