"""`python -m pipelines sweep`: the line for several settings side by side, each in a workspace of its own.

A workspace is a git clone with the files at hand and its setting in params.yaml; it shares the project's DVC cache, so
what no setting changes is computed once, and what was finished before is not run again: DVC decides. What runs side by
side, and where, is Prefect's task runner's business (pipelines/flows/fan_out.py). Nothing is applied: the lines for
params.yaml are printed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.contracts import InputError, read_json, read_table
from components.params import load_yaml
from pipelines import dag, dvc_cli, side, stage, standings

FOLDER = ".graftline/sweep"
STATES = {dvc_cli.DONE: "done", dvc_cli.REFUSED: "refused", dvc_cli.MISTAKE: "mistake"}


@dataclass(frozen=True)
class Setting:
    """One of those that are tried."""

    name: str
    changes: dict[str, Any]
    """Key of params.yaml, with dots -> value."""


@dataclass(frozen=True)
class Wish:
    """What is tried, and how it is judged."""

    over: str | None = None
    values: str | None = None
    changes: str | None = None
    metric: str = standings.METRIC
    until: str | None = None
    keep: bool = False


def sweep(root: Path, wish: Wish) -> int:
    """Try every setting, write reports/sweep/, print who is ahead; the exit code.

    Raises:
        InputError: a setting that cannot be tried; nothing was run.
    """
    root = root.resolve()
    settings = planned(root, wish)
    if wish.until is not None and wish.until not in (names := [s.name for s in dag.load(root)]):
        raise InputError(f"--until: no stage is called {wish.until!r}. The line: {' '.join(names)}")
    from pipelines.flows import fan_out as flow

    found = flow.run(root, settings, wish.until, wish.keep)
    told = standings.conclude(root, found, wish.metric)
    print("\n".join(told))
    good = [one for one in found if one["state"] in ("done", "refused")]
    return dvc_cli.DONE if good else max((int(one["code"]) for one in found), default=dvc_cli.FAULT)


# --- which settings ---


def planned(root: Path, wish: Wish) -> list[Setting]:
    """The settings, each with params that hold.

    Raises:
        InputError: with every mistake of every setting.
    """
    if (wish.over is None) == (wish.changes is None):
        raise InputError("give either --over KEY (with --values, where KEY is no list), or --changes FILE")
    found = _of_file(Path(wish.changes)) if wish.changes else _over(root, str(wish.over), wish.values)
    names = [one.name for one in found]
    if len(found) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"at least two settings are needed, with names that differ; found: {', '.join(names) or 'none'}"
        )
    problems = []
    for one in found:
        with tempfile.TemporaryDirectory() as aside:
            try:
                (Path(aside) / "params.yaml").write_text(side.changed(root, one.changes), "utf-8")
                stage.read_params(Path(aside))
            except InputError as error:
                problems.append(f"setting {one.name}: {error}")
    if problems:
        raise InputError("\n".join(problems))
    return found


def _over(root: Path, key: str, values: str | None) -> list[Setting]:
    if values is not None:
        given = _yaml(values, "--values")
        if not isinstance(given, list):
            raise InputError(f"--values: give a list, such as '[16, 32]' (given: {values})")
    else:
        now = side.at(load_yaml(root / "params.yaml"), key)
        if not isinstance(now, list):
            raise InputError(
                f"--over {key}: it is no list of which one can be tried after the other; give --values too"
            )
        given = [[one] for one in now]
    if any(value in given[:number] for number, value in enumerate(given)):
        raise InputError(f"--over {key}: the same value twice; at least two settings that differ are needed")
    names = [_name(value) for value in given]
    numbered = [n if names.count(n) == 1 else f"{n}-{i}" for i, n in enumerate(names, 1)]
    return [Setting(name, {key: value}) for name, value in zip(numbered, given)]


def _name(value: Any) -> str:
    """Short, and fit for a folder."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        first = [str(value[k]) for k in ("name", "model") if k in value]
        rest = [f"{k}-{v}" for k, v in value.items() if k not in ("name", "model") and isinstance(v, int | float | str)]
        value = "-".join([*first, *rest[:3]])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(value)).strip("-.")[:60] or "empty"


def _of_file(path: Path) -> list[Setting]:
    try:
        given = _yaml(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise InputError(f"--changes: {path} cannot be read ({error.strerror})") from None
    shape = "a list of {name: ..., set: {KEY: VALUE}}, the keys as in params.yaml with dots"
    if not isinstance(given, list):
        raise InputError(f"{path} must be {shape}")
    found = []
    for number, one in enumerate(given):
        if not isinstance(one, dict) or set(one) != {"name", "set"} or not isinstance(one["set"], dict):
            raise InputError(f"{path}, entry {number + 1}: it must be one of {shape}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", str(one["name"])):
            raise InputError(
                f"{path}, entry {number + 1}: a name of letters, digits, dots and dashes (given: {one['name']!r})"
            )
        found.append(Setting(str(one["name"]), dict(one["set"])))
    return found


def _yaml(text: str, where: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:
        raise InputError(f"{where}: not valid YAML: {str(error).splitlines()[0]}") from None


# --- one setting; may run in another process or on another machine that sees the same folders ---


def one(root: str, name: str, changes: dict[str, Any], until: str | None, keep: bool) -> dict[str, Any]:
    """Run the line with a setting; what came of it, as plain values. The workspace is gone afterwards unless `keep`;
    one that a killed sweep left is taken up again."""
    project = Path(root)
    place = project / FOLDER / name
    found: dict[str, Any] = {"name": name, "changes": changes, "metrics": {}, "seconds": {}}
    try:
        side.prepare(project, place, changes)
        outcome, seen = side.through(place, until)
        found |= {"state": STATES.get(outcome.code, "fault"), "code": outcome.code, "told": outcome.told}
        found |= _figures(place, seen)
    except InputError as error:
        found |= {"state": "mistake", "code": dvc_cli.MISTAKE, "told": str(error)}
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)
    return found | ({"workspace": str(place)} if keep else {})


def _figures(place: Path, stages: list[str]) -> dict[str, Any]:
    metrics: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for name in stages:
        path = place / "artifacts" / name / "metrics.json"
        metrics |= {f"{name}.{k}": v for k, v in (read_json(path) if path.exists() else {}).items()}
        status = place / "reports" / name / "status.json"
        if status.exists():
            told = read_json(status)
            seconds[name] = round(told["ended"] - told["started"], 3)
    return {"metrics": metrics, "seconds": seconds, **_validation(place, "evaluate" in stages)}


def _validation(place: Path, evaluated: bool) -> dict[str, Any]:
    """Accuracy on the validation split with its interval, and which samples were right: by them settings are compared.
    The test split is left for what is chosen."""
    if not evaluated:
        return {}
    found = read_json(place / "artifacts/evaluate/quality.json")["runs"]["main"]["validation"]["accuracy"]
    table = read_table(place / "artifacts/evaluate/predictions.parquet")
    own = table[(table["run"] == "main") & (table["split"] == "validation")].sort_values("id")
    right = "".join("01"[int(yes)] for yes in own["label"] == own["predicted"])
    ids = hashlib.sha256("\n".join(own["id"]).encode()).hexdigest()
    return {"validation": found, "right": right, "ids": ids}


def plain(settings: list[Setting]) -> list[dict[str, Any]]:
    """As JSON has them."""
    return [asdict(one) for one in settings]
