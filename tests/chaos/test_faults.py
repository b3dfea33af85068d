"""The state layer with a fault at every k-th file operation: the old state or the new one, never a third.

Each test tells how many points it injected; `test_enough_points` adds them up.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import signed
from faulty import KINDS, Crash, Faults, Told, everywhere

from components import contracts
from components import job as job_module
from components.job import Job
from pipelines import dvc_cli, pointer, release, runs, stage, sweep

POINTS: dict[str, int] = {}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where the system has such a place: thousands of projects come and go."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def hold(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Told]:
    """`everywhere` in the test's own folder; nothing may have gone wrong."""

    def hold(before: Any, act: Any, state: Any, **options: Any) -> Told:
        told = everywhere(tmp_path, before, act, state, **options)
        assert told.points > 0
        assert not told.wrong, "\n".join([f"{len(told.wrong)} of {told.points}:", *told.wrong[:20]])
        POINTS[request.node.name] = POINTS.get(request.node.name, 0) + told.points
        return told

    return hold


# --- that these tests can fail ---


def _careless(root: Path) -> None:
    (root / "state.json").write_text(json.dumps(list(range(100))))


def _beside_with_number(root: Path) -> None:
    beside = root / f".state.json.{os.getpid()}.tmp"
    try:
        beside.write_text("[2]")
        beside.replace(root / "state.json")
    finally:
        beside.unlink(missing_ok=True)


def test_a_careless_writer_is_found(tmp_path: Path) -> None:
    def state(root: Path) -> str:
        return {1: "old", 100: "new"}[len(contracts.read_json(root / "state.json"))]

    told = everywhere(tmp_path, lambda root: contracts.write_json(root / "state.json", [1]), _careless, state)
    assert any("a state that cannot be read" in wrong for wrong in told.wrong)
    assert not any("second attempt" in wrong for wrong in told.wrong)


def test_a_leftover_of_a_killed_writer_is_found(tmp_path: Path) -> None:
    told = everywhere(
        tmp_path,
        lambda root: contracts.write_json(root / "state.json", [1]),
        _beside_with_number,
        lambda root: {1: "old", 2: "new"}[contracts.read_json(root / "state.json")[0]],
    )
    assert any(".tmp" in wrong for wrong in told.wrong)


def test_after_a_crash_nothing_is_tidied_up(tmp_path: Path) -> None:
    with pytest.raises(Crash), Faults(tmp_path, "crash", 2).installed():
        contracts.write_atomic(tmp_path / "x", b"content")
    assert os.listdir(tmp_path) == [".x.tmp"]


# --- files ---


def _value(path: Path, old: Any, new: Any) -> str:
    if not path.exists():
        return "old" if old is None else "missing"
    return {json.dumps(old): "old", json.dumps(new): "new"}[json.dumps(contracts.read_json(path))]


@pytest.mark.parametrize("old", [None, [1, 2, 3]])
def test_a_file_is_the_old_or_the_new_one(hold: Callable[..., Told], old: Any) -> None:
    new = list(range(1000))
    hold(
        lambda root: contracts.write_json(root / "a" / "state.json", old) if old else None,
        lambda root: contracts.write_json(root / "a" / "state.json", new),
        lambda root: _value(root / "a" / "state.json", old, new),
    )


def test_a_file_written_in_pieces_is_the_old_or_the_new_one(hold: Callable[..., Told]) -> None:
    """As decoded pixels are."""

    def act(root: Path) -> None:
        with contracts.whole(root / "pixels.npy") as store:
            for number in range(200):
                store.write(bytes([number]) * 100)

    def state(root: Path) -> str:
        return {3: "old", 20_000: "new"}[(root / "pixels.npy").stat().st_size]

    hold(lambda root: contracts.write_atomic(root / "pixels.npy", b"old"), act, state)


def test_a_table_is_the_old_or_the_new_one(hold: Callable[..., Told]) -> None:
    import pandas as pd

    tables = {word: pd.DataFrame({"id": [word] * n}) for word, n in (("old", 3), ("new", 3000))}
    hold(
        lambda root: contracts.write_table(root / "t.parquet", tables["old"]),
        lambda root: contracts.write_table(root / "t.parquet", tables["new"]),
        lambda root: str(contracts.read_table(root / "t.parquet")["id"][0]),
    )


def test_files_of_a_preprocessing_are_whole_or_not_there(hold: Callable[..., Told]) -> None:
    spec = {"name": "x", "files": {f"{n}.json": "text " * 99 for n in range(12)}}

    def act(root: Path) -> None:
        contracts.write_json(root / "chosen.json", contracts.put_files(root / "files", spec))

    def state(root: Path) -> str:
        if not (root / "chosen.json").exists():
            return "old"
        assert contracts.with_files(root / "files", contracts.read_json(root / "chosen.json")) == spec
        return "new"

    hold(lambda root: None, act, state)


def test_two_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    path, writers = tmp_path / "state.json", []
    for number in range(4):
        if (pid := os.fork()) == 0:
            for _ in range(50):
                contracts.write_json(path, [number] * 2000)
            os._exit(0)
        writers.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in writers] == [0] * 4
    assert len(set(contracts.read_json(path))) == 1
    assert os.listdir(tmp_path) == ["state.json"]


# --- a stage's outputs ---

NEW = {"model.txt": "2", "parts/a/x.txt": "2", "parts/y.txt": "2", "metrics.json": "{}"}
NEW |= {f"runs/{n}/weights.txt": "2" * n for n in range(5)}
OLD = {"model.txt": "1", "parts/a/z.txt": "1", "parts/y.txt": "1", "metrics.json": "{}", "more.txt": "1"}
OLD |= {f"runs/{n}/weights.txt": "1" * n for n in range(4)}


def _put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _outputs(root: Path) -> str:
    place = root / "artifacts" / "s"
    if not place.exists():
        return "nothing"
    found = {p.relative_to(place).as_posix(): p.read_text() for p in place.rglob("*") if p.is_file()}
    return "new" if found == NEW else "old" if found == OLD else f"a mixture: {found}"


def _build(root: Path) -> None:
    job = Job.at(root, "s")
    job.clear()
    for name, text in NEW.items():
        contracts.write_atomic(job.out(name), text.encode())
    job.publish()


def test_outputs_are_those_of_one_run(hold: Callable[..., Told]) -> None:
    hold(lambda root: _put(root / "artifacts" / "s", OLD), _build, _outputs)


def test_first_outputs_are_all_there_or_none(hold: Callable[..., Told]) -> None:
    hold(lambda root: None, _build, _outputs, allowed=("nothing", "new"))


def test_where_folders_cannot_be_exchanged_no_outputs_are_mixed(
    hold: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "_exchanged", lambda one, other: False)
    hold(lambda root: _put(root / "artifacts" / "s", OLD), _build, _outputs, allowed=("old", "nothing", "new"))


def test_a_bundle_is_withdrawn_as_a_whole(hold: Callable[..., Told], monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import dag

    line = [dag.Stage("s", "", (), (), (), ())]
    monkeypatch.setattr(dag, "load", lambda root: line)
    hold(
        lambda root: _put(root / "artifacts" / "s", OLD),
        lambda root: (stage._withdraw("s", root), sweep.sweep(root)),
        _outputs,
        allowed=("old", "nothing"),
        ends="nothing",
    )


# --- what DVC rests on ---

LOCK = """schema: '2.0'
stages:
  gate:
    cmd: python -m pipelines.stage gate
    outs:
    - path: artifacts/gate/verdict.json
      hash: md5
      md5: 0dab4fe2cddf912ab02b338723f945f8
      size: 1
  ingest:
    cmd: python -m pipelines.stage ingest
"""


def _locked(root: Path) -> str:
    found = (root / "dvc.lock").read_text() if (root / "dvc.lock").exists() else ""
    if found in ("", LOCK):
        return "old"
    return "new" if found.index("  ingest:") < found.index("  gate:") and len(found) == len(LOCK) else found


def test_the_record_of_stages_is_put_in_order_at_once(hold: Callable[..., Told]) -> None:
    def before(root: Path) -> None:
        (root / "dvc.lock").write_text(LOCK)
        (root / "dvc.yaml").write_text("stages:\n  ingest:\n    cmd: x\n  gate:\n    cmd: x\n")

    hold(before, sweep.in_order, _locked)


def test_a_cut_off_record_comes_back_at_once(hold: Callable[..., Told]) -> None:
    parts = LOCK.partition("  gate:")
    ingest = LOCK[LOCK.index("  ingest:") :]
    committed = parts[0] + ingest + "  gate:" + parts[2].removesuffix(ingest)

    def before(root: Path) -> None:
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        (root / "dvc.lock").write_text(committed)
        subprocess.run(["git", "add", "dvc.lock"], cwd=root, check=True)
        who = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, "commit", "-qm", "x"], cwd=root, check=True)
        (root / "dvc.lock").write_text("")

    hold(before, dvc_cli.heal, _locked)


def test_what_a_killed_run_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    leave = ["artifacts/s/.model.txt.tmp", "artifacts/.building/s/half.txt", ".graftline/prepared/.x.npy.tmp"]
    stay = ["artifacts/s/model.txt", "artifacts/s/notes.tmp", ".graftline/finetune/abc/main.safetensors", ".a.tmp"]
    _put(tmp_path, dict.fromkeys([*leave, *stay, "artifacts/.building/held/half.txt", ".graftline/.held.tmp"], "x"))
    with job_module.alone(tmp_path, "held", print), contracts._alone(tmp_path / ".graftline" / ".held.tmp"):
        sweep.sweep(tmp_path)
        assert not any((tmp_path / name).exists() for name in leave)
        assert all((tmp_path / name).exists() for name in [*stay, "artifacts/.building/held/half.txt"])
        assert (tmp_path / ".graftline" / ".held.tmp").exists()
    sweep.sweep(tmp_path)
    assert not list((tmp_path / "artifacts" / ".building").iterdir())
    assert all((tmp_path / name).exists() for name in stay)


# --- training ---


def _network(value: float) -> tuple[Any, Any]:
    import torch

    network = torch.nn.Linear(64, 64)
    torch.nn.init.constant_(network.weight, value)
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 64)).sum().backward()
    optimiser.step()
    return network, optimiser


def _keep(path: Path, epoch: int) -> None:
    from components.finetune import checkpoints

    network, optimiser = _network(epoch)
    checkpoints.write(path, network, optimiser, network.state_dict(), {}, checkpoints.State(epoch=epoch))


def _epoch(path: Path) -> int:
    """Of the checkpoint that lies there, whose tensors are all read."""
    import torch

    from components.finetune import checkpoints

    network, optimiser = _network(0)
    state, best, _ = checkpoints.resume(path, network, optimiser, torch.device("cpu"))
    assert not best or bool((best["weight"].round() == state.epoch).all())
    return state.epoch


def test_a_checkpoint_is_the_old_or_the_new_one(hold: Callable[..., Told]) -> None:
    hold(
        lambda root: _keep(root / "main.safetensors", 1),
        lambda root: _keep(root / "main.safetensors", 2),
        lambda root: {1: "old", 2: "new"}[_epoch(root / "main.safetensors")],
    )


KILLS = """
import hashlib, os, signal, sys, time
from pathlib import Path
from components.contracts import write_atomic
path, found = Path(sys.argv[1]), set()
content = [os.urandom(1 << 18) + bytes([n]) for n in (1, 2)]
for number in range(200):
    if (pid := os.fork()) == 0:
        while True:
            for one in content:
                write_atomic(path, one + hashlib.sha256(one).digest())
    time.sleep(0.001 + 0.00003 * number)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if path.exists():
        whole = path.read_bytes()
        assert hashlib.sha256(whole[:-32]).digest() == whole[-32:], f"kill {number} left half a file"
        found.add(whole[-33])
assert found == {1, 2}, found
write_atomic(path, b"at last")
"""


def test_200_kills_while_a_checkpoint_is_written_leave_a_whole_one(tmp_path: Path, repository: Path) -> None:
    path = tmp_path / "main.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(path)], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == [path.name]


# --- releases and what is live ---


def test_a_release_is_there_whole_or_can_be_made_again(hold: Callable[..., Told]) -> None:
    from components.handoff import verify_bundle

    key = signed.private_key()

    def state(root: Path) -> str:
        places = [root / "releases" / "net-1.0.0", root / "releases" / "net-1.0.0.tar"]
        there = [p for p in places if p.exists()]
        for place in there:
            assert not verify_bundle.check(place, key.public_key())[0]
        return {0: "old", 1: "one of the two", 2: "new"}[len(there)]

    files = ("model.onnx", "predict.py", "provenance.json", "variants/fp32.onnx")
    hold(
        lambda root: signed.unsigned(root / "bundle", files=files),
        lambda root: release._write(root, root / "bundle", key, "net", "1.0.0"),
        state,
        allowed=("old", "one of the two", "new"),
    )


def _pointed(number: int) -> pointer.Entry:
    words = {"since": "2026-01-01T00:00:00Z", "by": "x", "because": "y", "run": ""}
    return pointer.Entry("net", f"1.0.{number}", f"{number}" * 64, **words)


def test_the_pointer_names_the_old_or_the_new_bundle(hold: Callable[..., Told]) -> None:
    def before(root: Path) -> None:
        (root / "releases" / "net-1.0.1").mkdir(parents=True)
        (root / "releases" / "net-1.0.2").mkdir()
        with pointer.changing(root):
            pointer.write(root, pointer.promoted(None, "staging", _pointed(1)))

    def act(root: Path) -> None:
        with pointer.changing(root):
            now = pointer.read(root, "staging")
            if now and now.live == _pointed(1):
                pointer.write(root, pointer.promoted(now, "staging", _pointed(2)))
            elif now:
                pointer.write(root, now)

    def state(root: Path) -> str:
        now = pointer.read(root, "staging")
        assert now is not None
        assert (root / "deployed" / "staging").resolve().name in ("net-1.0.1", "net-1.0.2")
        pointer.mend(root, "staging")  # as whoever reads it does
        assert (root / "deployed" / "staging").resolve().name == f"net-{now.live.version}"
        return {_pointed(1): "old", _pointed(2): "new"}[now.live]

    hold(before, act, state)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_record_of_runs_can_always_be_read(tmp_path: Path) -> None:
    """Trouble with it stops no run; so a second run is the second attempt."""
    trigger = runs.Trigger("hand", "someone", "a test")
    points = 0

    def act(root: Path) -> None:
        with runs.recorded(root, "train", trigger) as run:
            run.end(0, "all is well", ("ingest",))

    for kind in KINDS:
        for at in range(1, 100):
            root = tmp_path / f"{kind} {at}".replace("/", " ")
            root.mkdir()
            for name in ("dvc.yaml", "params.yaml"):
                (root / name).touch()
            act(root)
            first = runs.history(root)
            faults = Faults(root, kind, at)
            with contextlib.suppress(Crash, OSError), faults.installed():
                act(root)
            runs._ACTIVE.clear()  # that process is gone
            if not faults.reached:
                break
            points += 1
            assert runs.history(root)[-1:] == first, (kind, at)
            act(root)
            sweep.sweep(root)  # as every turn does
            assert runs.history(root)[-1:] == first, (kind, at)
            newest = runs.history(root)[0]
            assert (newest.state, newest.told, newest.ran) == ("done", "all is well", ("ingest",)), (kind, at)
            assert all(runs.read(root, name) is not None for name in runs.names(root)), (kind, at)
            assert not list(root.rglob("*.tmp")), (kind, at, faults.seen[at - 1])
    assert points
    POINTS["runs"] = points


def test_enough_points() -> None:
    """Of all tests above, where all were run."""
    print(f"{sum(POINTS.values())} points, {len(KINDS)} kinds of fault: {POINTS}")
    if len(POINTS) >= 14:
        assert sum(POINTS.values()) > 2000
