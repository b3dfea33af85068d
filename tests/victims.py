"""A project that is killed again and again: its states to start from, what it must come to, and its processes.

`Subject` is the line in miniature (bodies of milliseconds, with pauses for a kill to land in), or the real one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import miniature
import projects

NAP = "CHAOS_NAP"
"""`stage:seconds` that its body takes in miniature. In the environment, where it decides no hash."""
MARK = "CHAOS_MARK"
"""In the environment of all that one start brings to life."""
REPRO = (sys.executable, "-m", "pipelines", "repro")
DVC = (sys.executable, "-m", "dvc", "repro")
FLOW = (sys.executable, "-m", "pipelines", "run")

_BODY = """def run(params, job):
    import os as _os, time as _time
    for number in range(3):  # half of what is to be, for a kill to leave behind
        job.out(f"parts/{number}.txt").write_text("half")
    name, _, seconds = _os.environ.get("CHAOS_NAP", "").partition(":")
    _time.sleep(float(seconds) if name == job.stage else 0)
    for number in range(3):
        job.out(f"parts/{number}.txt").write_text(f"{job.stage} {number} {params}")
"""
_EARLIER = {
    "at_least: 1.0": "at_least: 0.5",
    "title: Result": "title: Past",
    '".v1"': '".v0"',
    'note: "."': 'note: ","',
}
"""The miniature's params -> those of an earlier run."""
_ENTRY = re.compile(r"^  (\w+):$", re.M)
_OBJECT = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?")
_REAL_CACHES = ("prepared", "features", "variants")


@dataclass
class Recorded:
    """A project after an undisturbed run."""

    root: Path
    lock: dict[str, str]
    """Stage -> its entry of dvc.lock, in that file's order."""
    seconds: dict[str, float]
    """Stage -> how long its process took."""

    @classmethod
    def of(cls, root: Path) -> Recorded:
        from components.contracts import read_json

        states = {s.parent.name: read_json(s) for s in sorted(root.glob("reports/*/status.json"))}
        return cls(root, entries(root), {name: s["ended"] - s["started"] for name, s in states.items()})


def entries(root: Path) -> dict[str, str]:
    """Stage -> the text of its entry in dvc.lock."""
    text = (root / "dvc.lock").read_text("utf-8")
    starts = [(m[1], m.start()) for m in _ENTRY.finditer(text)]
    ends = [start for _, start in starts[1:]] + [len(text)]
    return {name: text[start:end] for (name, start), end in zip(starts, ends)}


@dataclass
class Subject:
    """What is killed: templates of the project's states, made once."""

    folder: Path
    real: bool = False
    stages: tuple[str, ...] = tuple(miniature.STAGES)
    blank: Path = field(init=False)
    wanted: Recorded = field(init=False)
    earlier: Recorded | None = None

    def __post_init__(self) -> None:
        self.blank = self.folder / "blank"
        if self.real:
            projects.make_project(self.blank, _smallest)
            from pipelines import dag

            self.stages = tuple(stage.name for stage in dag.load(self.blank))
        else:
            _make_miniature(self.blank)
            self.earlier = self._recorded("earlier", REPRO, _earlier)
        self.wanted = self._recorded("wanted", REPRO)

    def _recorded(self, name: str, command: tuple[str, ...], change: Callable[[Path], None] | None = None) -> Recorded:
        root = Path(shutil.copytree(self.blank, self.folder / name, symlinks=True))
        if change:
            change(root)
        started = Started.of(root, command, self.environment("reference"))
        assert started.process.wait(1800) == 0, started.told()
        return Recorded.of(root)

    def environment(self, mark: str, nap: str = "") -> dict[str, str]:
        """Of a process that belongs to a round; DVC's state about files lies apart from the user's."""
        pinned = ("ATEN_", "ONEDNN_", "MKL_", "OMP_", "OPENBLAS_", "PREFECT_", "PYTEST_", "GRAFTLINE_")
        own = {k: v for k, v in os.environ.items() if not k.startswith(pinned)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        more = {MARK: mark, NAP: nap, "DVC_SITE_CACHE_DIR": str(self.folder / "site"), "PATH": path}
        return {**own, **more, "DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": os.devnull}

    def project(self, name: str, begins_at: str, over_earlier: bool, ahead: bool, emptied: bool) -> Path:
        """A project whose stages before `begins_at` are done, so that this one is the next to run.

        `over_earlier`: the others have outputs and a committed record of an earlier run, which are to be replaced;
        else none. `ahead`: those after it come from DVC's cache of runs. `emptied`: DVC's cache holds nothing.
        """
        root = Path(shutil.copytree(self.blank, self.folder / name, symlinks=True))
        done = self.stages[: self.stages.index(begins_at)]
        later = self.stages[len(done) + 1 :] if ahead else ()
        rest = self.stages[len(done) :] if over_earlier and self.earlier else ()
        records = {s: self.wanted.lock[s] for s in done}
        if self.earlier and rest:
            whole = "schema: '2.0'\nstages:\n" + "".join(self.earlier.lock.values())
            (root / "dvc.lock").write_text(whole, "utf-8")
            miniature.commit(root)
            records |= {s: self.earlier.lock[s] for s in rest}
            _take(self.earlier, root, rest, () if emptied else rest)
        if records:
            ordered = "".join(records[s] for s in self.stages if s in records)
            (root / "dvc.lock").write_text("schema: '2.0'\nstages:\n" + ordered, "utf-8")
        _take(self.wanted, root, done, () if emptied else (*done, *later))
        return root

    def differences(self, root: Path) -> list[str]:
        """What a project differs in from the undisturbed run, or has left lying about."""
        wanted, found = _contents(self.wanted.root), _contents(root)
        told = [f"{name} is missing" for name in wanted.keys() - found.keys()]
        told += [f"{name} is not as it should be" for name in wanted if found.get(name, wanted[name]) != wanted[name]]
        told += [f"{name} was left behind" for name in found.keys() - wanted.keys()]
        told += [f"{name} was left behind" for name in _names(root) - _names(self.wanted.root)]
        return sorted(told + _bad_objects(root))


def _make_miniature(root: Path) -> None:
    """Every stage with a folder among its outputs and a pause in its body."""
    root.mkdir()
    miniature.make(root)
    for name in miniature.STAGES:
        path = root / "components" / name / "stage.py"
        path.write_text(path.read_text("utf-8").replace("def run(params, job):\n", _BODY), "utf-8")
    graph = (root / "dvc.yaml").read_text("utf-8")
    graph = re.sub(r"(      - artifacts/(\w+)/lineage.json\n)", r"\1      - artifacts/\2/parts\n", graph)
    (root / "dvc.yaml").write_text(graph, "utf-8")
    miniature.commit(root)


def _earlier(root: Path) -> None:
    for now, before in _EARLIER.items():
        miniature.turn_knob(root, now, before)
    (root / "data" / "numbers.txt").write_text("2 3 4\n", "utf-8")


def _smallest(values: dict[str, dict[str, object]]) -> None:
    """The real line at its smallest; nothing in it is decided by a measured time."""
    values["ingest"]["source"] = {"name": "sklearn_digits", "limit": 240}
    values["select"]["candidates"] = [
        {"name": "timm", "model": "test_resnet", "image_size": 32, "weights": {"source": "random"}}
    ]
    values["finetune"]["strategy"] = {"name": "full", "epochs": 6}
    values["evaluate"]["num_bootstrap"] = values["bias"]["num_bootstrap"] = 100
    values["gate"]["rules"] = [{"metric": "evaluate.accuracy", "at_least": 0.0}]
    values["export"] |= {"variant": "fp32", "rungs": []}


def _take(recorded: Recorded, root: Path, artifacts: Iterable[str], cached: Iterable[str]) -> None:
    """Copy the outputs of some stages, and what DVC's cache has of some."""
    for stage in artifacts:
        shutil.copytree(recorded.root / "artifacts" / stage, root / "artifacts" / stage, dirs_exist_ok=True)
    source, target = recorded.root / ".dvc" / "cache", root / ".dvc" / "cache"
    runs = {key: run for key in (source / "runs").glob("*/*") for run in key.iterdir()}
    for stage in cached:
        (run,) = (r for r in runs.values() if f"pipelines.stage {stage}\n" in r.read_text("utf-8"))
        place = target / run.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(run, place)
        wanted = re.findall(r"md5: ([0-9a-f]{32}(?:\.dir)?)", run.read_text("utf-8"))
        while wanted:
            digest = wanted.pop()
            one = source / "files" / "md5" / digest[:2] / digest[2:]
            place = target / one.relative_to(source)
            if one.exists() and not place.exists():  # dependencies in git have none
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(one, place)
                if digest.endswith(".dir"):
                    wanted += re.findall(r'"md5": "([0-9a-f]{32})"', one.read_text("utf-8"))


def _contents(root: Path) -> dict[str, str]:
    """File of artifacts/ -> sha256, and dvc.lock's."""
    files = [root / "dvc.lock", *(p for p in (root / "artifacts").rglob("*") if p.is_file())]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.exists()}


def _names(root: Path) -> set[str]:
    """What else lies in the project; not reports (they bear times), the cache's objects, what is keyed by content."""
    found = set()
    for folder, folders, files in os.walk(root):
        inner = Path(folder).relative_to(root).as_posix()
        if inner in (".git", ".venv", ".dvc/cache", ".graftline/runs", "reports") or inner.endswith("__pycache__"):
            folders.clear()
            continue
        if inner == ".graftline":
            folders[:] = [f for f in folders if f not in _REAL_CACHES]
        found |= {f"{inner}/{name}" for name in files if name != "prefect-server.log"}
        found |= {f"{inner}/{name}/" for name in folders if inner.startswith("artifacts")}
    temporary = [p for p in root.rglob("*.tmp") if ".git" not in p.parts]
    return found | {p.relative_to(root).as_posix() for p in temporary}


def _bad_objects(root: Path) -> list[str]:
    """What is in DVC's cache and should not be: DVC itself does not look."""
    told = []
    store = root / ".dvc" / "cache" / "files" / "md5"
    for path in (p for p in store.rglob("*") if p.is_file()):
        name = path.relative_to(store).as_posix()
        if not _OBJECT.fullmatch(name):
            told.append(f"{path.relative_to(root)} was left behind")
        elif hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != name.replace("/", "")[:32]:
            told.append(f"{path.relative_to(root)} is not what its name says")
    return told


# --- processes ---


@dataclass(frozen=True)
class Started:
    """A command at work, in a session of its own; what it prints goes to a file, so that nobody has to read it."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def of(cls, root: Path, command: tuple[str, ...], environment: dict[str, str]) -> Started:
        log = root.parent / f"{root.name}-{uuid.uuid4().hex[:6]}.log"
        with log.open("wb") as out:
            return cls(
                subprocess.Popen(
                    command, cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                    start_new_session=True,
                ),
                log,
            )  # fmt: skip

    def told(self) -> str:
        return self.log.read_text("utf-8", "replace")


def living(mark: str, root: Path | None = None) -> dict[int, str]:
    """Processes that bear the mark, or work in the project -> their command."""
    found = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            of_it = f"{MARK}={mark}\0".encode() in Path(entry.path, "environ").read_bytes()
            if not of_it and root is not None:
                of_it = os.readlink(f"{entry.path}/cwd").startswith(f"{root}")
            words = Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if of_it and words:  # a zombie has none
            found[int(entry.name)] = words.strip()
    return found


def children(pid: int) -> list[int]:
    """Of its main thread."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def stage_process(pid: int, stage: str) -> int | None:
    """The process of a stage below that one."""
    for child in children(pid):
        if words_of(child).endswith(f" -m pipelines.stage {stage}") and " -c " not in words_of(child):
            return child
        if found := stage_process(child, stage):
            return found
    return None


def words_of(pid: int) -> str:
    """The command of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def kill(pids: Iterable[int]) -> int:
    """How many of them were there to be killed."""
    num = 0
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            num += 1
        except ProcessLookupError:
            pass
    return num


def wait_until(holds: Callable[[], bool], seconds: float, every: float = 0.001) -> bool:
    """Whether it came about in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True
