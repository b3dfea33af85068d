"""The commands about the line of this project: run, repro, check, status, summary, list; each loads what it needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines import runs


def run(root: Path, record: bool, because: str = "") -> int:
    """The line as the Prefect flow `train`. Where nothing is stale, Prefect is not started."""
    with _recorded(root, ("run", *(["--record"] if record else [])), because) as current:
        quick = _as_recorded(root) or not checked(root)
        from pipelines import clones, dvc_cli

        with dvc_cli.turn(root):
            if not record and _nothing_to_do(root):
                current.end(0, "nothing to do", ())
                return 0
            current.watch()
            if quick:
                checked(root)
            from pipelines import followed

            with clones.turn(root), followed.started(root):  # DVC gets ready while Prefect is imported
                from pipelines.flows import train

                code, told = train.run(root)
        if not current.ended:  # the flow itself knows better what ran
            current.end(code, told)
    return _end(root, code, told)


def repro(root: Path, stage: str | None, because: str = "") -> int:
    """The line, or one stage of it, through DVC alone."""
    with _recorded(root, ("repro", *([stage] if stage else [])), because) as current:
        quick = (stage is None and _as_recorded(root)) or not checked(root, stage)
        from pipelines import clones, dvc_cli

        with dvc_cli.turn(root):
            if stage is None and _nothing_to_do(root):
                current.end(0, "nothing to do", ())
                return 0
            current.watch()
            if quick:
                checked(root, stage)
            with clones.turn(root):
                outcome = dvc_cli.repro(root, stage)
        current.end(outcome.code, outcome.told, outcome.ran)
    return _end(root, outcome.code, outcome.told)


def check(root: Path) -> int:
    """Only read params.yaml and dvc.yaml."""
    print(checked(root))
    return 0


def status(root: Path) -> int:
    """What would run now, and why."""
    from pipelines import dag, dvc_cli

    line = dag.load(root)
    stale = dvc_cli.stale(root)
    waiting = dvc_cli.needing(line, stale)
    for stage in line:
        for reason in stale.get(stage.name, []):
            print(f"{stage.name:10} runs: {reason}")
        if stage.name in stale:
            print(*_last_stop(root, stage.name), sep="", end="")
        elif stage.name in waiting:
            print(f"{stage.name:10} runs if what it reads comes out different")
        else:
            print(f"{stage.name:10} unchanged")
    return 0


def summary(root: Path) -> int:
    """What the last run came to."""
    from pipelines.summary import summarise

    print("\n".join(summarise(root)))
    return 0


def show_plugins() -> int:
    """Every family with its plugins; from their files, without loading them."""
    import ast

    from components import plugins

    folder = Path(plugins.__file__).parent
    for family in plugins.families():
        print(family)
        for name in plugins.names(family):
            text = folder.joinpath(*family.split("."), f"{name}.py").read_text("utf-8")
            card = " ".join((ast.get_docstring(ast.parse(text)) or "no card").split("\n\n")[0].split())
            print(f"  {name:24} {card.split('. ')[0].rstrip('.')}")
    return 0


@contextmanager
def _recorded(root: Path, how: tuple[str, ...], because: str) -> Iterator[runs.Current]:
    """A record of the run of `train`; a keeper is for when there is work."""
    from pipelines import runs

    if not (root / "dvc.yaml").is_file():
        checked(root)  # says that this is no project, and leaves nothing in it
    with runs.recorded(root, "train", runs.guess_trigger(because), how, watched=False) as current:
        yield current


def checked(root: Path, asked: str | None = None) -> str:
    """All mistakes of params.yaml at once, and data that is not there, before DVC or Prefect starts.

    Raises:
        InputError: there is one.
    """
    from components.contracts import InputError
    from pipelines import dag, libraries, stage

    print(*(f"{line}\n" for line in libraries.strays(root)), sep="", end="", file=sys.stderr)
    typed = stage.read_params(root)
    line = dag.load(root)
    names = [s.name for s in line]
    if asked is not None and asked not in names:
        raise InputError(f"no stage is called {asked!r}. The line: {' '.join(names)}")
    lacking = [(d, s.name) for s in line for d in s.deps if not d.startswith("artifacts/") and not (root / d).exists()]
    _check_data(root, {"ingest.data": getattr(typed.get("ingest"), "data", "")})
    if lacking:
        told = [f"  - {dep} is not there; {name} reads it" for dep, name in lacking]
        raise InputError("\n".join(["Put these where they are expected, or name others in params.yaml:", *told]))
    return f"params.yaml: no mistakes. Project {getattr(typed['run'], 'name', '')}, {len(line)} stages."


def _as_recorded(root: Path) -> bool:
    """Whether dvc.lock records just what params.yaml says now. Then the stages have read it strictly, and reading it so
    again can wait until DVC finds something to do: half of what a run costs that finds nothing.

    Raises:
        InputError: a file cannot be read, or DVC cannot watch the data.
    """
    from components.params import load_yaml
    from pipelines import dag, libraries, staleness

    lock = root / "dvc.lock"
    records = (staleness.locked_stages(lock.read_bytes()) if lock.exists() else None) or {}
    values, names = load_yaml(root / "params.yaml"), [s.name for s in dag.load(root)]
    if set(values) != {"run", *names} or not isinstance(values.get("ingest"), dict):
        return False
    for name in names:
        recorded = records.get(name, {}).get("params", {}).get("params.yaml")
        if recorded != {name: values[name], "run": values["run"]}:
            return False
    print(*(f"{line}\n" for line in libraries.strays(root)), sep="", end="", file=sys.stderr)
    _check_data(root, {"ingest.data": str(values["ingest"].get("data") or "")})
    return True


def _check_data(root: Path, named: dict[str, str]) -> None:
    """What DVC would stumble over, or not see.

    Raises:
        InputError: with the key and every reason.
    """
    from components.contracts import InputError

    for key, value in named.items():
        if not value:
            continue
        from components import watched

        data = (root / value).resolve()
        if root.resolve().is_relative_to(data):
            raise InputError(
                f"{key}: {value} holds this project; DVC would watch its own files. Name the data's folder"
            )
        if data.is_relative_to((root / "artifacts").resolve()):
            raise InputError(f"{key}: {value} lies in artifacts/, which belongs to the stages. Put the data elsewhere")
        problems = watched.problems(data)
        if problems:
            raise InputError("\n".join([f"{key}: DVC cannot watch all of it:", *(f"  - {p}" for p in problems)]))


def _nothing_to_do(root: Path) -> bool:
    from pipelines import dag, dvc_cli

    if dvc_cli.stale(root):
        return False
    print(f"Nothing to do: all {len(dag.load(root))} stages are unchanged since dvc.lock was written.\n")
    summary(root)
    return True


def _last_stop(root: Path, stage: str) -> list[str]:
    """A line on how the stage ended when it last ran, if it did not end well."""
    from components.contracts import read_json

    try:
        last = read_json(root / "reports" / stage / "status.json")
        how = {1: "with a fault", 2: "with a mistake", 3: "refused", 130: "interrupted"}.get(last["exit_code"])
        return [f"{'':10} last time it ended {how}: {last['told'].splitlines()[0]}\n"] if how else []
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _end(root: Path, code: int, told: str) -> int:
    print()
    summary(root)
    if code:
        print(f"\n{told}", file=sys.stderr)
    return code
