"""`python -m pipelines reproduce BUNDLE`: make the model of a bundle again, and say whether it is the same.

First, in seconds, what the bundle was made of is held against what is at hand (pipelines/comparison.py). Then the
line runs in a clean workspace: the repository at the recorded commit, the recorded params, the data at hand, no
cache of any earlier run. At last every output of every stage is compared by hash. Nothing of the project is touched.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import lineage
from components.contracts import InputError, read_json, write_atomic, write_json
from components.params import load_yaml
from pipelines import dvc_cli, history, libraries
from pipelines.comparison import CAUSES, Comparison, Difference, flat

if TYPE_CHECKING:
    from components.handoff.provenance import Provenance

REPRODUCED, NOT_REPRODUCED = 0, 3
FILE = "provenance.json"
ALSO = ("dvc.yaml", "params.yaml", libraries.LOCK)
"""Files beside the code that the recorded commit speaks of."""
UNEXPLAINED = "not known: inputs, code, params and libraries are the recorded ones, so this stage is not deterministic"


class NotReproducible(InputError):
    """It cannot be tried: something is missing."""


def reproduce(root: Path, bundle: Path, place: Path | None = None, keep: bool = False, anyway: bool = False) -> int:
    """The exit code: 0 reproduced, 3 not. `place` is where the workspace is made, `keep` leaves it there; `anyway`
    rebuilds even where the comparison has found what cannot come out the same.

    Raises:
        InputError: the bundle is none, or what it needs is not at hand.
    """
    from components.handoff import provenance

    root, bundle = root.resolve(), bundle.resolve()
    told = provenance.read(bundle)
    if not told.stages:
        raise NotReproducible(f"{bundle} names no stage that made it")
    altered = _altered(bundle, told)
    if altered:
        print(f"NOT REPRODUCED: the bundle is not what its own provenance says: {', '.join(altered)}")
        return NOT_REPRODUCED
    comparison = Comparison(root, told)
    source = Source.of(comparison)
    found = comparison.differences()
    lasting = [d for d in found if not (d.mended and source.whole)]
    print("\n".join([*_heading(told, source), *_table(comparison, found, source)]), flush=True)
    missing = [d for d in lasting if d.missing]
    if missing:
        raise NotReproducible("\n".join(["These inputs are needed:", *(f"  - {d}" for d in missing)]))
    if lasting and not anyway:
        first = lasting[0]
        print(f"\nNOT REPRODUCED: it differs from the stage {first.stage} on; the cause: {first.cause} ({first.what})")
        print("Nothing was rebuilt; --anyway does it nonetheless.")
        return NOT_REPRODUCED
    with _workspace(place, keep) as folder:
        outcome = _rebuild(comparison, source, bundle, folder)
        return _judge(comparison, lasting, bundle, folder, outcome)


# --- before the rebuild ---


def _altered(bundle: Path, told: Provenance) -> list[str]:
    here = lineage.hashes(bundle, told.subjects)
    return [
        f"{name} {'differs' if name in here else 'is gone'}" for name, h in told.subjects.items() if here.get(name) != h
    ]


@dataclass(frozen=True)
class Source:
    """Where the code and the params come from."""

    commit: str | None
    """A commit that has them; None: the files at hand."""
    whole: bool
    """They are the recorded ones, whatever lies in the project now."""
    note: str

    @classmethod
    def of(cls, comparison: Comparison) -> Source:
        """The recorded commit, if it can be had and the recorded tree was clean; else what is at hand."""
        told, root = comparison.told, comparison.root
        if told.commit and not dvc_cli.has_commit(root, told.commit):
            return cls(
                None, False, f"commit {told.commit[:12]} is not in this repository, so the files at hand are used"
            )
        if told.commit and told.clean:
            now = history.commit_of(root, [*told.code, *ALSO])  # what else was committed since does not matter
            commit = "HEAD" if now.commit == told.commit else told.commit
            return cls(commit, True, f"rebuilt from commit {told.commit[:12]}")
        if told.commit:
            named = ", ".join(told.differing) or "files that it does not name"
            return cls(None, False, f"not clean when it was made ({named}), so the files at hand are used")
        return cls(None, False, f"no commit is recorded ({told.commit_note}), so the files at hand are used")


def _heading(told: Provenance, source: Source) -> list[str]:
    return [f"{told.name}: {len(told.stages)} stages are recorded; {source.note}", ""]


def _table(comparison: Comparison, found: list[Difference], source: Source) -> list[str]:
    told = comparison.told
    run = told.params.get("run", {})
    num = {
        "data": f"{len({p for _, p, _ in comparison.inputs()})} inputs",
        "code": f"{len(told.code)} files and folders",
        "params": f"{len(flat('', told.params))} values",
        "weights": str(told.base_weights.get("file") or told.base_weights.get("source") or "none"),
        "library": f"{len(told.environment.get('packages', {}))} versions",
        "threads": str(run.get("threads", "?")),
        "instruction set": str(run.get("instruction_set", "?")),
        "machine": str(told.environment.get("machine", "?")),
    }
    lines = []
    for cause in CAUSES:
        own = [d for d in found if d.cause == cause]
        lines.append(f"{cause:16} {f'{len(own)} differ' if own else 'same':10} {num[cause]}")
        mended = "; the recorded one is used" if source.whole else ""
        lines += [f"{'':16} {d.what}: recorded {d.recorded}, here {d.here}{mended if d.mended else ''}" for d in own]
    return lines


# --- the rebuild ---


@contextmanager
def _workspace(place: Path | None, keep: bool) -> Iterator[Path]:
    if place is not None:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise NotReproducible(f"--in {place}: it is not empty, and nothing is overwritten")
        place.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="reproduce-", dir=place)).resolve()
    try:
        yield folder / "project"
    finally:
        if keep:
            print(f"The workspace: {folder / 'project'}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _rebuild(comparison: Comparison, source: Source, bundle: Path, folder: Path) -> dvc_cli.Outcome:
    root = comparison.root
    dvc_cli.clone_at(root, folder, source.commit)
    if source.commit is None:
        for name in dvc_cli.project_files(root):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    shutil.rmtree(folder / "artifacts", ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    _write_params(comparison, folder)
    for path in _own_inputs(comparison):
        _put(root / path, folder / path)
    decided = decision(bundle)
    if decided:
        write_json(folder / ".graftline" / "decisions.json", decided)
    print(f"\nrebuilding in {folder}", file=sys.stderr, flush=True)
    return dvc_cli.repro(folder)


def _write_params(comparison: Comparison, folder: Path) -> None:
    """The recorded values, where the file in the workspace has others."""
    path = folder / "params.yaml"
    for section, values in comparison.params.items():
        if not _agrees(load_yaml(path).get(section, {}), values):
            write_atomic(path, _with_section(path.read_text("utf-8"), section, values).encode())


def _agrees(written: Any, recorded: Any) -> bool:
    """Whether all that is written is as recorded; a record holds the defaults too."""
    if isinstance(written, dict) and isinstance(recorded, dict):
        return all(k in recorded and _agrees(v, recorded[k]) for k, v in written.items())
    if isinstance(written, str) and isinstance(recorded, dict):  # a plugin by its name alone
        return recorded.get("name") == written
    if isinstance(written, list) and isinstance(recorded, list):
        return len(written) == len(recorded) and all(map(_agrees, written, recorded))
    return bool(written == recorded)


def _with_section(text: str, section: str, values: Any) -> str:
    import io

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    everything = yaml.load(text)
    everything[section] = values
    store = io.StringIO()
    yaml.dump(everything, store)
    return store.getvalue()


def _own_inputs(comparison: Comparison) -> set[str]:
    """Files and folders of the project that git does not hold and the line reads: data, files of weights."""
    read = {path for _, path, _ in comparison.inputs() if path not in comparison.outside}
    named = {v for v in flat("", comparison.params).values() if isinstance(v, str) and v and not os.path.isabs(v)}
    there = {n for n in named if len(n) < 500 and "\n" not in n and (comparison.root / n).exists()}
    kept = {p for p in read | there if not p.startswith(("artifacts/", "outside/", "components/", "infra/", "."))}
    return {p for p in kept if p not in (libraries.LOCK,) and ".." not in Path(p).parts}


def _put(source: Path, target: Path) -> None:
    """The same file or folder, by hard links where that can be, in the place of what lies there."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(str(source), str(target))


def _link(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError:
        shutil.copy2(source, target)


def decision(bundle: Path) -> dict[str, Any]:
    """What was decided by measured times when the bundle was made: stage -> its record."""
    try:
        told = read_json(bundle / "ladder.json")
        return {"export": told} if told["decided"] == "measured" else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


# --- after the rebuild ---


def _judge(
    comparison: Comparison, lasting: list[Difference], bundle: Path, folder: Path, outcome: dvc_cli.Outcome
) -> int:
    """Tell every stage, and the first that differs."""
    told = comparison.told
    first = ""
    print(f"\n{'stage':10} {'outputs':>8}  rebuilt")
    for stage in comparison.order:
        first = first or stage if _differ(stage, told.stages[stage]["outputs"], folder) else first
    if not first:
        rebuilt = folder / "artifacts" / "handoff" / "bundle"
        first = "handoff" if _differ("bundle", told.subjects, rebuilt) else ""
        if not first and lineage.hashes(rebuilt, [FILE]) != lineage.hashes(bundle, [FILE]):
            print(f"{'':19}  but {FILE} differs: the history of the code, or its record, is another now")
    _tell_decision(folder)
    first = first or next(iter(outcome.failed), "")
    if not first:
        told_files = "1 file" if len(told.subjects) == 1 else f"{len(told.subjects)} files"
        print(f"\nREPRODUCED: every output of {len(told.stages)} stages, and {told_files} of the bundle, byte for byte")
        return REPRODUCED
    print(f"\nNOT REPRODUCED: the first stage that differs is {first}; the cause: ", end="")
    print(_cause(comparison, lasting, folder, first))
    if outcome.told:
        print(outcome.told)
    return NOT_REPRODUCED


def _differ(name: str, recorded: dict[str, str], folder: Path) -> bool:
    """Tell a line, and whether any of them differs."""
    made = lineage.hashes(folder, recorded)
    others = sorted(path for path, digest in recorded.items() if made.get(path) != digest)
    state = f"differs: {', '.join(_short(others))}" if others else "same"
    print(f"{name:10} {len(recorded):8}  {state}")
    return bool(others)


def _short(paths: list[str]) -> list[str]:
    names = ["/".join(p.split("/")[2:]) if p.startswith("artifacts/") else p for p in paths]
    return names if len(names) <= 4 else [*names[:4], f"and {len(names) - 4} more"]


def _cause(comparison: Comparison, lasting: list[Difference], folder: Path, stage: str) -> str:
    """Of what was found before, what reaches that stage; else what the new lineage names otherwise."""
    upto = comparison.order[: comparison.order.index(stage) + 1] if stage in comparison.order else comparison.order
    earlier = [d for d in lasting if d.stage in upto]
    if earlier:
        return f"{earlier[-1].cause} ({earlier[-1].what})"
    if stage not in comparison.told.stages:
        return "its own params or code, which a bundle does not record; or it is not deterministic"
    made = folder / "artifacts" / stage / "lineage.json"
    if not made.is_file():
        return "it was not made"
    now, told = read_json(made), comparison.told
    record = told.stages.get(stage, {})
    pairs = (
        ("code", {p: told.code.get(p) for p in now["code"]}, now["code"]),
        ("params", {k: v for k, v in comparison.params.items() if k in now["params"]}, now["params"]),
        ("library", told.environment.get("packages", {}), now["environment"]["packages"]),
        ("threads", told.environment.get("pins", {}), now["environment"]["pins"]),
        ("data", record.get("inputs", {}), now["inputs"]),
    )
    for cause, before, after in pairs:
        changed = sorted(k for k in after if k in before and before[k] != after[k])
        if changed:
            return f"{cause} ({', '.join(_short(changed))})"
    return UNEXPLAINED


def _tell_decision(folder: Path) -> None:
    """Whether measuring again would have decided otherwise, as the stage says it of a decision it was given."""
    try:
        again = read_json(folder / "reports" / "export" / "ladder.json")["measured"]
        told = read_json(folder / ".graftline" / "decisions.json")["export"]["variant"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    same = "also" if again == told else "no longer"
    print(
        f"\nThe variant was pinned to the recorded {told}; measured here, {again} would ship, so {told} is {same} it."
    )
