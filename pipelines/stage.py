"""`python -m pipelines.stage NAME`: the one command of every DVC stage.

Reads params.yaml, pins what changes last bits (threads, instruction set) before any library is loaded, runs the
stage, and publishes its outputs, metrics and lineage only if it succeeded. Dies with its parent.

Exit codes: 0 done; 1 a fault of ours; 2 a mistake in params or input; 3 refused by a verdict.
"""

from __future__ import annotations

import errno
import importlib
import os
import shutil
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from components import lineage, plugins, tied
from components import params as params_module
from components.contracts import InputError, Refused, read_json, write_json
from components.job import Job, alone
from components.params import Params, ParamsError, Run
from pipelines import dag, gpu, history, libraries

DONE, FAULT, MISTAKE, REFUSED = 0, 1, 2, 3

REMEDIES = {
    errno.ENOSPC: "the disk is full. Nothing half-written was kept; make room and run again",
    errno.EDQUOT: "your quota is used up. Nothing half-written was kept; make room and run again",
    errno.EFBIG: "the file would be larger than this system allows; raise the limit (ulimit -f) and run again",
    errno.EROFS: "the project lies on a file system that cannot be written to",
    errno.EACCES: "this user may not read or write it; change its permissions and run again",
}

DECISIONS = ("GRAFTLINE_DECISIONS", ".graftline/decisions.json")
"""The variable by which `reproduce` says that its workspace has recorded decisions, and where they lie in it."""

QUIET = {
    "GX_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}


def stage_names(root: Path) -> tuple[str, ...]:
    """The stages of the line: folders of components that hold a stage.py."""
    del root
    here = Path(__file__).parent.parent / "components"
    return tuple(sorted(p.parent.name for p in here.glob("*/stage.py")))


def sections(root: Path) -> dict[str, type[Params]]:
    """Section of params.yaml -> its type."""
    found: dict[str, type[Params]] = {"run": Run}
    for name in stage_names(root):
        found[name] = importlib.import_module(f"components.{name}.stage").Params
    return found


def read_params(root: Path) -> dict[str, Params]:
    """All of params.yaml, typed, run.task known.

    Raises:
        ParamsError: every mistake at once.
    """
    path = root / "params.yaml"
    problems: list[str] = []
    typed: dict[str, Params] = {}
    try:
        typed = params_module.read(path, sections(root))
    except ParamsError as error:
        problems = error.problems
    raw_run = params_module.load_yaml(path).get("run")
    for key in ("decision", "task"):
        name, known = raw_run.get(key) if isinstance(raw_run, dict) else None, plugins.names(f"{key}s")
        if isinstance(name, str) and name not in known:
            problems.insert(0, f"run.{key}: no {key} is called {name!r}. Known: {', '.join(known)}")
    if problems:
        raise ParamsError(path, problems)
    return typed


def pin(run: Run) -> None:
    """Pin threads and instruction set, and silence calls home. Must come before torch or numpy is loaded."""
    threads = str(run.threads)
    pins = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    # Threads that spin while they wait train 1.2 times as fast on idle cores (183, 150, 183 against 143, 152, 145
    # images/s on two), and half as fast where one other process is busy (54, 65 against 99, 106). It changes no bit.
    pins["OMP_WAIT_POLICY"] = "PASSIVE"
    if run.instruction_set == "avx2":
        pins |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}
        pins["OPENBLAS_CORETYPE"] = "Haswell"
    os.environ.update(pins | QUIET)


def die_with_starter() -> None:
    """Die with whoever started us, so that no orphan goes on: also with a DVC that has a shell between it and us."""
    parent = os.getppid()
    if "DVC_STAGE" not in os.environ:
        tied.to(parent)
        return
    starter = parent
    while b"pipelines.stage" in _words_of(starter):
        starter = _parent_of(starter)
    if not _is_dvc(starter):
        print("the DVC that started this is gone; nothing was done", file=sys.stderr)
        sys.exit(FAULT)
    tied.to(parent)
    if starter != parent:
        tied.to_farther(starter)


def _is_dvc(pid: int) -> bool:
    """Whether that process is a DVC: by its name, or by DVC's own record of who writes here."""
    if not Path("/proc/self/cmdline").exists() or b"dvc" in _words_of(pid):
        return True
    try:
        held = Path(os.environ.get("DVC_ROOT", "."), ".dvc", "tmp", "rwlock").read_text("utf-8")
    except OSError:
        return False
    return f'"pid": {pid},' in held


def _words_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one stage in the current folder; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    root = Path.cwd()
    known = stage_names(root)
    if len(arguments) != 1 or arguments[0] not in known:
        print(f"usage: python -m pipelines.stage NAME\nNAME is one of: {', '.join(known)}", file=sys.stderr)
        return DONE if arguments in (["-h"], ["--help"]) else MISTAKE
    name = arguments[0]
    die_with_starter()
    status: dict[str, Any] = {"stage": name, "pid": os.getpid(), "started": time.time()}
    with alone(root, name, partial(print, file=sys.stderr, flush=True)):
        code, told = _tried(name, root)
        if code != DONE and not _helps():
            shutil.rmtree(root / "artifacts" / ".building" / name, ignore_errors=True)
        if told:
            print(told if told.startswith(f"{name} ") else f"{name}: {told}", file=sys.stderr)
        if not _helps():
            _write_status(root, name, {**status, "ended": time.time(), "exit_code": code, "told": told})
    return code


def _helps() -> bool:
    """Whether torchrun started this process beside a first one, which alone writes (components/finetune/launch.py)."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"


def _tried(name: str, root: Path) -> tuple[int, str]:
    """Exit code, and what to tell."""
    try:
        _run(name, root)
    except Refused as error:
        return REFUSED, str(error) + ("" if _helps() else _withdraw(name, root))
    except InputError as error:
        return MISTAKE, str(error)
    except KeyboardInterrupt:
        return 130, "interrupted; run again to go on from here"
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0)
        if remedy is None:
            return FAULT, _fault(name, root)
        return MISTAKE, f"{error.strerror} ({error.filename or root}): {remedy}"
    except Exception:
        return FAULT, _fault(name, root)
    return DONE, ""


def _pin_early(root: Path) -> None:
    """numpy reads its thread count when loaded, and plugins named in params.yaml may load it."""
    raw = params_module.load_yaml(root / "params.yaml").get("run")
    try:
        pin(Run.model_validate(raw))
    except ValueError:
        return  # read_params tells this mistake together with all others


def _run(name: str, root: Path) -> None:
    _pin_early(root)
    typed = read_params(root)
    run = cast(Run, typed["run"])
    module: ModuleType = importlib.import_module(f"components.{name}.stage")
    declared = {s.name: s for s in dag.load(root)}[name]
    settled = _settled(root).get(name, {})
    job = Job(name, run, root, module.NEEDS, declared.deps, partial(history.commit_of, root), settled)
    if _helps() and not hasattr(typed[name], "processes"):
        raise InputError(f"torchrun started several processes, and {name} is not for several")
    if not _helps():
        job.clear()
    with gpu.held(gpu.devices(name, run.device, getattr(typed[name], "processes", 1))):
        metrics = module.run(typed[name], job)
    if _helps():
        return
    write_json(job.out("metrics.json"), metrics)
    prefix = f"artifacts/{name}/"
    outs = [o for o in declared.outs if o != f"{prefix}lineage.json"]
    _check_outputs(job.building, {o.removeprefix(prefix) for o in outs})
    params = {name: typed[name].model_dump(mode="json"), "run": run.model_dump(mode="json")}
    packages = libraries.installed(declared.libraries) if declared.libraries else None
    record = lineage.record(root, name, declared.deps, outs, params, job.building, packages)
    write_json(job.out("lineage.json"), record)
    job.publish()


def _settled(root: Path) -> dict[str, Any]:
    """What a bundle's stages had decided by measured times: stage -> its record. Only `reproduce` gives it, to the
    stages of its own workspace; a file that lies in a project decides nothing.

    Raises:
        InputError: the file is no such record.
    """
    given = os.environ.get(DECISIONS[0])
    path = root / DECISIONS[1]
    if not given or Path(given) != path:
        return {}
    try:
        told = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if not isinstance(told, dict) or not all(isinstance(one, dict) for one in told.values()):
        raise InputError(f"{path} must map each stage to its record")
    return told


def _withdraw(name: str, root: Path) -> str:
    """Take away what an earlier run handed over: a bundle must not lie where a refused one would have been."""
    line = dag.load(root)
    rest_on_it = {name}
    for one in line:
        if rest_on_it & set(one.parents):
            rest_on_it.add(one.name)
    read = {parent for one in line for parent in one.parents}
    told = ""
    for last in sorted(rest_on_it - read):
        place = root / "artifacts" / last
        if any(p.name != "metrics.json" for p in place.glob("*")):
            aside = root / "artifacts" / ".building" / last
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            os.rename(place, aside)  # at once: half a bundle must not lie there either
            shutil.rmtree(aside, ignore_errors=True)
            told += f"\nartifacts/{last} of an earlier run was taken away; DVC's cache still has it."
    return told


def _check_outputs(built: Path, declared: set[str]) -> None:
    made = {p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file()}
    missing = {d for d in declared if not (built / d).exists()}
    loose = {m for m in made if not any(m == d or m.startswith(d + "/") for d in declared)}
    if missing or loose:
        raise RuntimeError(
            f"declared in dvc.yaml but not made: {sorted(missing)}; made but not declared: {sorted(loose)}"
        )


def _fault(name: str, root: Path) -> str:
    text = traceback.format_exc()
    place = root / "reports" / name / "fault.txt"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")
    except OSError:
        return f"a fault of ours, not of your input:\n{text}"
    last = text.strip().splitlines()[-1]
    trace = f"The whole trace: {place.relative_to(root)}. Nothing half-written was kept."
    return f"a fault of ours, not of your input: {last}\n  {trace}"


def _write_status(root: Path, name: str, status: dict[str, Any]) -> None:
    try:
        write_json(root / "reports" / name / "status.json", status)
    except OSError:
        print(f"{name}: could not write reports/{name}/status.json (disk full?)", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
