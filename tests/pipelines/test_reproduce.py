"""A model made again: the same is said to be the same, and each of forty kinds of change is seen and its cause named.

The line is the one in miniature, with a bundle that tells its making as a real one does.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import miniature
import pytest
import signed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from components import lineage, params
from components.contracts import InputError, Refused, read_json, write_json
from components.handoff import provenance, signing
from pipelines import base_weights, claims, dvc_cli, history, libraries, stage, workspace
from pipelines.comparison import CAUSES, Comparison, Difference
from pipelines.rebuilt import Rebuilt, causes
from pipelines.reproduce import Wish, reproduce

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
    from components.handoff.sums import write_checksums  # the tests load this file where there is none
    write_checksums(job.building / "bundle")
    return {"num_files": 2.0}
'''
SUMS = (
    "import hashlib\n"
    "def write_checksums(folder):\n"
    "    names = sorted(p.name for p in folder.iterdir() if p.name != 'SHA256SUMS')\n"
    "    lines = [f'{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\\n' for n in names]\n"
    "    (folder / 'SHA256SUMS').write_text(''.join(lines))\n"
)
PRETRAINED = hashlib.sha256(b"pretrained").hexdigest()
PIXELS = bytes(range(256)) * 3


def make(root: Path) -> Path:
    """The project in miniature with weights, libraries, pictures, and a bundle; not run yet."""
    miniature.make(root)
    ingest = root / "components/ingest/stage.py"
    text = ingest.read_text().replace("    pause: float\n", "    pause: float\n    weights: dict[str, str]\n")
    ingest.write_text(text)
    (root / "components/handoff/stage.py").write_text(HANDOFF.lstrip())
    for path in (miniature.REPOSITORY / "components/handoff").glob("*.py"):
        if path.name != "stage.py":
            shutil.copy(path, root / "components/handoff")
    (root / "components/handoff/sums.py").write_text(SUMS)
    (root / "base.bin").write_bytes(b"pretrained")
    weights = f"  weights: {{source: file, path: base.bin, sha256: {PRETRAINED}}}\n"
    miniature.turn_knob(root, "  pause: 0\n", f"  pause: 0\n{weights}")
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


def claim(root: Path, change: Callable[[Any], None]) -> None:
    """Alter what the bundle says of its making, and its sums with it."""
    told = read_json(bundle(root) / "provenance.json")
    change(told)
    write_json(bundle(root) / "provenance.json", told)
    signed.sum_up(bundle(root))


def internal(told: Any) -> Any:
    return told["predicate"]["buildDefinition"]["internalParameters"]


def stages(told: Any) -> Any:
    return next(one for one in told["predicate"]["runDetails"]["byproducts"] if one["name"] == "stages")["annotations"]


def git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def differences(root: Path) -> list[Difference]:
    return Comparison(root, provenance.read(bundle(root))).differences()


# --- forty kinds of change ---

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


def swapped(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
    one, other = root / "data/picture.bin", root / "data/labels.csv"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def cut_off(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
    path = root / "data/labels.csv"
    path.write_bytes(path.read_bytes()[: rng.randrange(1, 20)])


def line_ends(path: str) -> Change:
    def change(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
        (root / path).write_bytes((root / path).read_bytes().replace(b"\n", b"\r\n"))

    return change


def moved(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
    (root / "data/inner").mkdir()
    (root / "data/picture.bin").rename(root / "data/inner/picture.bin")


def gone(path: str) -> Change:
    def change(root: Path, rng: random.Random, patch: pytest.MonkeyPatch) -> None:
        place = root / path
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return change


def pinned_outside(name: str) -> Change:
    return lambda root, rng, patch: patch.setenv(name, "default")


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
    "task": ("params", "ingest", knob("task: image_classification", "task: text_classification")),
    "path of the weights": ("params", "ingest", knob("path: base.bin", "path: other.bin")),
    "pin of the weights": ("params", "ingest", knob(f"sha256: {PRETRAINED}", f"sha256: {'0' * 64}")),
    "threads": ("threads", "ingest", knob("threads: 1", "threads: 2")),
    "instruction set of one library": ("instruction set", "ingest", pinned_outside("MKL_CBWR")),
    "instruction set of the kernels": ("instruction set", "ingest", pinned_outside("ATEN_CPU_CAPABILITY")),
    "instruction set": ("instruction set", "ingest", knob("instruction_set: native", "instruction_set: avx2")),
    "processor": ("instruction set", "ingest", patched(lineage, "processor", "GenuineIntel sse4_2 avx")),
    "machine": ("machine", "ingest", patched(platform, "machine", "riscv64")),
    "system": ("machine", "ingest", patched(platform, "system", "Plan 9")),
    "python": ("library", "ingest", patched(platform, "python_version", "3.11.99")),
    "one pixel": ("data", "ingest", one_byte("data/picture.bin")),
    "one label": ("data", "ingest", one_label),
    "row order": ("data", "ingest", row_order),
    "two files swapped": ("data", "ingest", swapped),
    "a table cut off": ("data", "ingest", cut_off),
    "line ends of a table": ("data", "ingest", line_ends("data/labels.csv")),
    "a file moved deeper": ("data", "ingest", moved),
    "data gone": ("data", "ingest", gone("data")),
    "order of the numbers": ("data", "ingest", number_order),
    "a file more": ("data", "ingest", a_file_more),
    "a file less": ("data", "ingest", a_file_less),
    "a file renamed": ("data", "ingest", renamed),
    "base weights": ("weights", "ingest", one_byte("base.bin")),
    "base weights gone": ("weights", "ingest", no_weights),
    "code of ingest": ("code", "ingest", a_line("components/ingest/stage.py")),
    "code of gate": ("code", "gate", a_line("components/gate/stage.py")),
    "code of report": ("code", "report", a_line("components/report/stage.py")),
    "code of export": ("code", "export", a_line("components/export/stage.py")),
    "code that stages share": ("code", "ingest", a_line("components/job.py")),
    "code gone": ("code", "ingest", gone("components/job.py")),
    "line ends of code": ("code", "gate", line_ends("components/gate/stage.py")),
    "numpy installed by hand": ("library", "ingest", installed("numpy", "1.0")),
    "rich installed by hand": ("library", "report", installed("rich", "1.0")),
    "what rich needs installed by hand": ("library", "report", installed("pygments", "1.0")),
    "a library gone": ("library", "ingest", installed("pydantic", None)),
    "numpy in the lock": ("library", "ingest", locked("numpy")),
    "rich in the lock": ("library", "report", locked("rich")),
    "a library more in the lock": ("library", "export", a_library_more),
    "a remark in the lock": ("library", "export", a_line("requirements.lock")),
    "lock gone": ("library", "export", gone("requirements.lock")),
}  # fmt: skip


def test_there_are_forty_kinds_of_change_of_every_cause() -> None:
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
    assert "[5 of 5] handoff" in done.stderr, "it shows how far it is"
    assert re.search(r"^It took \d+ s\.$", done.stdout, re.M)
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
    claim(project, lambda told: internal(told)["environment"]["packages"].update(rich="1.0"))
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
    claim(project, lambda told: internal(told)["source"].update(commit="0" * 40))
    miniature.turn_knob(project, "seed: 1", "seed: 2")
    done = again(project)
    assert done.returncode == 3
    assert "no branch or tag here leads to commit 000000000000" in done.stdout
    assert "the cause: params (run.seed)" in done.stdout


# --- bundles that were altered ---


def test_files_that_are_not_those_of_the_sums_are_refused(project: Path) -> None:
    (bundle(project) / "model.onnx").write_text("another")
    done = again(project)
    assert done.returncode == 3
    assert "model.onnx: other bytes than SHA256SUMS says" in done.stderr


def put(name: str, text: str) -> Callable[[Path], None]:
    def alter(project: Path) -> None:
        (bundle(project) / name).write_text(text)
        signed.sum_up(bundle(project))

    return alter


def unlisted(project: Path) -> None:
    (bundle(project) / "model.onnx").write_text("another")
    claim(project, lambda told: told["subject"].pop())


@pytest.mark.parametrize(
    ("alter", "named"),
    {
        "a swapped model": (put("model.onnx", "another"), "model.onnx differs"),
        "a file more": (put("extra.py", "1"), "extra.py is not listed"),
        "a swapped model that is not listed": (unlisted, "model.onnx is not listed"),
    }.values(),
)
def test_a_bundle_that_is_not_what_it_says_is_not_made_again(
    alter: Callable[[Path], None], named: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alter(project)
    assert reproduce(project, bundle(project)) == 3
    assert "the bundle is not what its own provenance says" in (out := capsys.readouterr().out)
    assert named in out


def with_model(project: Path) -> None:
    """A swapped model in a bundle that is consistent in itself: its list and its sums name the swapped one."""
    (bundle(project) / "model.onnx").write_text("another")
    claim(project, listed(project))


def listed(project: Path) -> Callable[[Any], None]:
    def change(told: Any) -> None:
        told["subject"] = [{"name": n, "digest": {"sha256": h}} for n, h in claims.files(bundle(project)).items()]

    return change


def test_a_swapped_model_is_not_reproduced_though_the_bundle_is_consistent(project: Path) -> None:
    with_model(project)
    done = again(project)
    assert done.returncode == 3
    assert "bundle            1  differs: model.onnx" in done.stdout
    assert "NOT REPRODUCED: the first stage that differs is handoff" in done.stdout


def rebuilt(project: Path, made: Path) -> Rebuilt:
    comparison = Comparison(project, provenance.read(bundle(project)))
    return Rebuilt(comparison, [], bundle(project), made, dvc_cli.Outcome((), (), (), ()))


def extra(project: Path) -> None:
    (bundle(project) / "extra.py").write_text("1")
    claim(project, listed(project))


def no_model(project: Path) -> None:
    (bundle(project) / "model.onnx").rename(bundle(project) / "model.bin")
    claim(project, listed(project))


def said(change: Callable[[Any], None]) -> Callable[[Path], None]:
    return lambda project: claim(project, change)


def depends(name: str) -> Callable[[Any], None]:
    def change(told: Any) -> None:
        found = told["predicate"]["buildDefinition"]["resolvedDependencies"]
        next(one for one in found if one["name"] == name)["digest"] = {"sha256": "0" * 64}

    return change


ALTERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a swapped model": (with_model, "differs: model.onnx"),
    "a file more": (extra, "extra.py (was not made)"),
    "the model by another name": (no_model, "model.bin (was not made), model.onnx (is not in the bundle)"),
    "the hash of a file of code": (said(depends("components/gate/stage.py")), "components/gate/stage.py.digest"),
    "the hash of the lock": (said(depends("requirements.lock")), "requirements.lock.digest.sha256"),
    "the hash of the data": (said(lambda t: stages(t)["ingest"]["inputs"].update(data="0" * 64)), "ingest.inputs.data"),
    "a parent": (said(lambda t: stages(t)["gate"]["parents"].update(ingest="0" * 64)), "gate.parents.ingest"),
    "an output": (
        said(lambda t: stages(t)["gate"]["outputs"].update({"artifacts/gate/verdict.json": "0" * 64})),
        "gate              2  differs: verdict.json",
    ),
    "a better builder": (said(lambda t: t["predicate"]["runDetails"]["metadata"].update(level="L3")), "metadata"),
    "a library": (said(lambda t: internal(t)["environment"]["packages"].update(torch="9")), "packages.torch"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_what_a_bundle_says_or_holds_must_come_out_again(
    name: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Path(shutil.copytree(project, tmp_path / "made", symlinks=True))
    assert rebuilt(project, made).same()
    alter, named = ALTERED[name]
    alter(project)
    assert not rebuilt(project, made).same()
    assert named in capsys.readouterr().out


def test_the_words_on_the_code_s_history_may_be_others(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Path(shutil.copytree(project, tmp_path / "made", symlinks=True))
    claim(project, lambda told: internal(told)["source"].update(commit="1" * 40, clean=False, differing=["a"]))
    assert rebuilt(project, made).same()
    assert "names another commit or another state of the tree, and is the same else" in capsys.readouterr().out


def test_of_a_released_bundle_the_signer_s_key_is_asked_for(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    (bundle(project) / "attestation.dsse.json").write_text("{}")
    done = again(project)
    assert done.returncode == 2
    assert "A signed bundle is checked with the signer's public key" in done.stderr


def test_a_released_bundle_is_checked_with_the_key(project: Path, tmp_path: Path) -> None:
    folder, private = tmp_path / "mini-1.0.0", signed.private_key()
    signing.seal(bundle(project), folder, private, "mini", "1.0.0")
    public = tmp_path / "public.pem"
    public.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    found = claims.held(folder, str(public))
    assert "signed by the key" in found
    (folder / "model.onnx").write_text("another")
    with pytest.raises(Refused, match=r"model\.onnx"):
        claims.held(folder, str(public))


# --- bundles that choose code ---


def commit_aside(project: Path, branch: str | None) -> tuple[str, str]:
    """A commit with other code of a stage, on a branch or on none; its name, and the hash of that code."""
    path = "components/gate/stage.py"
    (project / path).write_text((project / path).read_text() + f"open({str(project / 'ran')!r}, 'w')\n")
    digest = lineage.hash_file(project / path)
    miniature.commit(project)
    commit = git(project, "rev-parse", "HEAD")
    if branch:
        git(project, "branch", branch)
    git(project, "reset", "--quiet", "--hard", "HEAD~1")
    return commit, digest


def chosen(commit: str, code: dict[str, str]) -> Callable[[Any], None]:
    def change(told: Any) -> None:
        internal(told)["source"]["commit"] = commit
        for one in told["predicate"]["buildDefinition"]["resolvedDependencies"]:
            one["digest"] = {"sha256": code.get(one["name"], next(iter(one["digest"].values())))}

    return change


def test_a_commit_that_no_branch_leads_to_is_not_run(project: Path) -> None:
    commit, digest = commit_aside(project, None)
    claim(project, chosen(commit, {"components/gate/stage.py": digest}))
    assert git(project, "cat-file", "-t", commit) == "commit", "it lies among the objects"
    assert not history.is_kept(project, commit)
    done = again(project)
    assert done.returncode == 3
    assert f"no branch or tag here leads to commit {commit[:12]}" in done.stdout
    assert "the cause: code (components/gate/stage.py)" in done.stdout
    assert "Running stage" not in done.stderr


def test_a_commit_of_a_branch_without_the_recorded_code_is_not_run_whatever_is_wished(project: Path) -> None:
    commit, _ = commit_aside(project, "side")
    assert history.is_kept(project, commit)
    claim(project, chosen(commit, {}))
    done = again(project, "--anyway")
    assert done.returncode == 3
    assert "code             1 differ" in done.stdout
    assert "Nothing was run: the recorded commit does not hold the recorded code." in done.stdout
    assert "Running stage" not in done.stderr
    assert not (project / "ran").exists()


@pytest.mark.parametrize("commit", ["HEAD", "HEAD~1", "main", "--upload-pack=x", "9" * 39, ""])
def test_what_is_no_commit_is_not_evaluated(commit: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim(project, lambda told: internal(told)["source"].update(commit=commit or "x" * 40))
    assert reproduce(project, bundle(project)) == 3
    assert "the cause: code (commit)" in capsys.readouterr().out


def test_a_stage_that_the_bundle_does_not_tell_of_is_missed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim(project, lambda told: stages(told).pop("export") and None)
    assert reproduce(project, bundle(project)) == 3
    assert "the outputs of export: recorded none" in capsys.readouterr().out


def test_outputs_that_the_bundle_leaves_out_are_missed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim(project, lambda told: stages(told)["export"]["outputs"].pop("artifacts/export/model.txt") and None)
    assert reproduce(project, bundle(project)) == 3
    assert "the outputs of export" in capsys.readouterr().out


def test_no_package_s_code_is_run_by_the_quick_look(project: Path) -> None:
    (project / "grabbed.py").write_text(f"open({str(project / 'ran')!r}, 'w')\n")
    for package, path in (("grabbed.x", "*"), ("grabbed", "*"), ("numpy", "/etc/*"), ("numpy", "../*"), (7, "*")):
        spec = {"source": "package", "package": package, "path": path}
        with pytest.raises(ValueError, match=r"\w"):
            base_weights.hash_at_hand(project, spec)
        claim(
            project,
            lambda told, spec=spec: told["predicate"]["buildDefinition"]["externalParameters"]["params"][  # type: ignore[misc]
                "ingest"
            ].update(weights={**spec, "sha256": "0" * 64}),
        )
        found = [d for d in differences(project) if d.cause == "weights"]
        assert [d.missing for d in found] == [True]
    assert not (project / "ran").exists()


GARBAGE: dict[str, Callable[[Any], None]] = {
    "packages": lambda told: internal(told)["environment"].update(packages=[1]),
    "a version": lambda told: internal(told)["environment"]["packages"].update(numpy=1),
    "pins": lambda told: internal(told)["environment"].update(pins=7),
    "the machine": lambda told: internal(told)["environment"].update(machine=[1]),
    "the environment of a stage": lambda told: internal(told).update(environments_that_differ={"gate": [1]}),
    "the section run": lambda told: params_of(told).update(run=[1]),
    "deep params": lambda told: params_of(told).update(run=deep(99)),
    "the hash of an input": lambda told: stages(told)["ingest"]["inputs"].update(data=7),
    "an input outside": lambda told: stages(told)["ingest"]["inputs"].update({"../../etc": "0" * 64}),
    "an absolute input": lambda told: stages(told)["ingest"]["inputs"].update({"/": "0" * 64}),
    "an output outside": lambda told: stages(told)["ingest"]["outputs"].update({"/etc/passwd": "0" * 64}),
    "no outputs": lambda told: stages(told)["ingest"].update(outputs={}),
    "parents": lambda told: stages(told)["gate"].update(parents={"ingest": None}),
    "the code of a stage": lambda told: stages(told)["gate"].update(code=[7]),
    "no stages": lambda told: stages(told).clear(),
    "a stage": lambda told: stages(told).update(gate=7),
}


def params_of(told: Any) -> Any:
    return told["predicate"]["buildDefinition"]["externalParameters"]["params"]


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_in_the_provenance_is_told_in_words(name: str, project: Path) -> None:
    claim(project, GARBAGE[name])
    with pytest.raises(InputError):
        reproduce(project, bundle(project))


# --- the workspace ---


@pytest.fixture
def comparison(project: Path) -> Comparison:
    return Comparison(project, provenance.read(bundle(project)))


def test_the_workspace_shares_no_file_with_the_project(comparison: Comparison, project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "workspace"
    workspace.prepare(comparison, "HEAD", folder)
    workspace.fill(comparison, bundle(project), folder)
    assert (folder / "data/labels.csv").read_text() == (project / "data/labels.csv").read_text()
    assert (folder / "base.bin").read_bytes() == b"pretrained"
    assert {p.stat().st_nlink for p in folder.rglob("*") if p.is_file()} == {1}
    with (folder / "data/labels.csv").open("a") as table:
        table.write("x")
    assert "x" not in (project / "data/labels.csv").read_text()
    assert not [p for p in folder.rglob("*") if p.is_symlink()]


@pytest.mark.parametrize("named", ["pipelines", "components", "./components/gate", "tests", "params.yaml", ".git"])
def test_no_param_replaces_code(named: str, comparison: Comparison, project: Path, tmp_path: Path) -> None:
    (project / "tests").mkdir()
    folder = tmp_path / "workspace"
    comparison.told.params["report"]["title"] = named
    comparison.told.params["ingest"]["data"] = named
    comparison.told.params["ingest"]["weights"]["path"] = named
    comparison.told.stages["ingest"]["inputs"][named] = "0" * 64
    workspace.prepare(comparison, "HEAD", folder)
    with (project / "components/gate/stage.py").open("a") as code:
        code.write("# at hand\n")
    before = content(folder)
    workspace.fill(comparison, bundle(project), folder)
    assert {p: h for p, h in content(folder).items() if p in before} == before


def test_nothing_is_written_where_a_link_of_the_commit_leads(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project/link").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="would lie outside the workspace"):
        workspace._put(Path(__file__), tmp_path / "project/link/file", tmp_path / "project")
    assert [*(tmp_path / "outside").iterdir()] == []


def test_a_decision_that_lies_in_a_project_decides_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = project / stage.DECISIONS[1]
    write_json(place, {"export": {"variant": "fp16"}})
    monkeypatch.delenv(stage.DECISIONS[0], raising=False)
    assert stage._settled(project) == {}
    monkeypatch.setenv(stage.DECISIONS[0], str(project.parent / "elsewhere" / stage.DECISIONS[1]))
    assert stage._settled(project) == {}
    monkeypatch.setenv(stage.DECISIONS[0], str(place))
    assert stage._settled(project) == {"export": {"variant": "fp16"}}
    for garbage in ("{", "[1]", '{"export": 1}'):
        place.write_text(garbage)
        with pytest.raises(InputError):
            stage._settled(project)


def test_of_several_causes_all_are_named_and_the_first_of_the_line_first(project: Path) -> None:
    (project / "data/labels.csv").write_text("id,label\n")
    (project / "base.bin").write_bytes(b"another")
    done = again(project)
    assert done.returncode == 3
    assert "the cause: data (data), weights (ingest.weights)" in done.stdout
    many = [Difference("code", "gate", str(n), "", "") for n in range(6)]
    assert causes(many) == "code (0), code (1), code (2), code (3), and 2 more"


def test_what_a_measured_time_decides_is_said_not_to_be_pinned(comparison: Comparison) -> None:
    assert comparison.by_the_clock() == []
    comparison.told.params["select"] = {"budget": {"max_latency_ms": 250.0, "max_gmacs": 1.0}}
    comparison.told.params["export"] = {"max_latency_ms": None}
    assert Comparison(comparison.root, comparison.told).by_the_clock() == ["select.budget.max_latency_ms 250"]


# --- changes through the whole command ---


THROUGH: dict[str, tuple[int, str]] = {
    "seed": (0, "run.seed: recorded 1, here 2; the recorded one is used"),
    "threads": (0, "run.threads: recorded 1, here 2; the recorded one is used"),
    "rich in the lock": (0, "rich in requirements.lock: recorded"),
    "code of gate": (0, "components/gate/stage.py: recorded"),
    "one pixel": (3, "the first stage that differs is handoff; the cause: data (data)"),
    "order of the numbers": (3, "the first stage that differs is handoff; the cause: data (data)"),
    "base weights": (0, "ingest.weights: recorded"),  # told, and no number of this line rests on them
}


QUICKLY = ("threads", "rich in the lock", "order of the numbers")
"""The others take as long each, and are left to `make test-all`."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICKLY else [pytest.mark.slow]) for n in THROUGH])
def test_a_change_is_told_by_the_whole_command(name: str, project: Path) -> None:
    CHANGES[name][2](project, random.Random(name), pytest.MonkeyPatch())
    done = again(project, "--anyway")
    code, told = THROUGH[name]
    assert (done.returncode, told in done.stdout) == (code, True), done.stdout + done.stderr


def test_other_numbers_are_another_first_stage(project: Path) -> None:
    (project / "data/numbers.txt").write_text("1 2 4\n")
    done = again(project, "--anyway")
    assert done.returncode == 3
    assert "the first stage that differs is ingest; the cause: data (data)" in done.stdout
    assert "ingest            2  differs: mean.json" in done.stdout


def test_a_decision_by_measured_times_goes_along_and_a_pinned_one_stands_in_params(tmp_path: Path) -> None:
    assert workspace.decision(tmp_path) == {}
    write_json(tmp_path / "ladder.json", {"variant": "fp16", "decided": "pinned", "why": "", "rungs": []})
    assert workspace.decision(tmp_path) == {}
    record = {"variant": "fp16", "decided": "measured", "why": "fast", "rungs": []}
    write_json(tmp_path / "ladder.json", record)
    assert workspace.decision(tmp_path) == {"export": record}
    write_json(tmp_path / "ladder.json", {"variant": "fp16", "decided": "measured"})
    with pytest.raises(InputError, match="rungs"):
        workspace.decision(tmp_path)


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
        reproduce(project, given, Wish(place))
