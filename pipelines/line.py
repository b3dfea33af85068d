"""The commands about the line of this project: run, repro, check, status, summary, list; each loads what it needs."""

from __future__ import annotations

import sys
from pathlib import Path


def run(root: Path, record: bool) -> int:
    """The line as the Prefect flow `train`. Where nothing is stale, Prefect is not started."""
    _check(root)
    from pipelines import dvc_cli

    with dvc_cli.turn(root):
        if not record and _nothing_to_do(root):
            return 0
        from pipelines.flows import train

        code, told = train.run(root)
    return _end(root, code, told)


def repro(root: Path, stage: str | None) -> int:
    """The line, or one stage of it, through DVC alone."""
    _check(root, stage)
    from pipelines import dvc_cli

    with dvc_cli.turn(root):
        if stage is None and _nothing_to_do(root):
            return 0
        outcome = dvc_cli.repro(root, stage)
    return _end(root, outcome.code, outcome.told)


def check(root: Path) -> int:
    """Only read params.yaml and dvc.yaml."""
    print(_check(root))
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


def _check(root: Path, asked: str | None = None) -> str:
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
