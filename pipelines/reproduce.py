"""`python -m pipelines reproduce BUNDLE`: make the model of a bundle again, and say whether it is the same.

First the bundle's own files must hold. Then, in seconds, what it was made of is held against what is at hand
(pipelines/comparison.py), and against the files that are about to run. Then the line runs in a clean workspace
(pipelines/workspace.py): the repository at the recorded commit, the recorded params, copies of the data at hand, no
cache of any earlier run. At last every output of every stage and every file of the bundle is compared by hash
(pipelines/rebuilt.py). Nothing of the project is touched.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.contracts import InputError
from components.params import flat
from pipelines import claims, dvc_cli, history, workspace
from pipelines.comparison import CAUSES, Comparison, Difference
from pipelines.rebuilt import Rebuilt, causes

if TYPE_CHECKING:
    from components.handoff.provenance import Provenance

REPRODUCED, NOT_REPRODUCED = 0, 3


class NotReproducible(InputError):
    """It cannot be tried: something is missing."""


@dataclass(frozen=True)
class Wish:
    """How it is to be done."""

    place: Path | None = None
    """Where the workspace is made; by default the system's folder for such."""
    keep: bool = False
    """Leave it there."""
    anyway: bool = False
    """Rebuild even where it is known before that something differs."""
    key: str | None = None
    """File with the public key of whom a released bundle must be signed by; by default this user's own."""


def reproduce(root: Path, bundle: Path, wish: Wish | None = None) -> int:
    """The exit code: 0 reproduced, 3 not.

    Raises:
        InputError: the bundle is none, or what it needs is not at hand.
        Refused: the bundle's own files do not hold.
    """
    started = time.monotonic()
    code = _reproduce(root.resolve(), bundle.resolve(), wish or Wish())
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"It took {f'{minutes} min ' if minutes else ''}{seconds} s.")
    return code


def _reproduce(root: Path, bundle: Path, wish: Wish) -> int:
    from components.handoff import provenance

    told = provenance.read(bundle)
    print(claims.held(bundle, wish.key))
    claims.judged(told)
    altered = claims.altered(bundle, told)
    if altered:
        shown = ", ".join([*altered[:5], *([f"and {len(altered) - 5} more"] if len(altered) > 5 else [])])
        print(f"NOT REPRODUCED: the bundle is not what its own provenance says: {shown}")
        return NOT_REPRODUCED
    comparison = Comparison(root, told)
    source = Source.of(comparison)
    with workspace.opened(wish.place, wish.keep) as folder:
        workspace.prepare(comparison, source.commit, folder)
        found = comparison.differences()
        lasting = source.wrong + [d for d in found if not (d.mended and source.whole)]
        inside = comparison.in_workspace(folder)
        lasting += [d for d in inside if (d.cause, d.what) not in {(one.cause, one.what) for one in lasting}]
        print("\n".join([*_heading(told, source), *_table(comparison, found, lasting, source)]), flush=True)
        if not _may_run(lasting, wish, forged=source.whole and bool(inside)):
            return NOT_REPRODUCED
        workspace.fill(comparison, bundle, folder)
        dvc_cli.say(f"\nrebuilding in {folder}")
        outcome = workspace.run(folder)
        return REPRODUCED if Rebuilt(comparison, lasting, bundle, folder, outcome).same() else NOT_REPRODUCED


def _may_run(lasting: list[Difference], wish: Wish, forged: bool) -> bool:
    """Whether it can come out the same; else it is told why not. `forged`: the commit holds other code than the
    record says, which is not run whatever is wished.

    Raises:
        NotReproducible: an input is not there.
    """
    missing = [d for d in lasting if d.missing]
    if missing:
        raise NotReproducible("\n".join(["These inputs are needed:", *(f"  - {d}" for d in missing)]))
    if not lasting or (wish.anyway and not forged):
        return True
    print(f"\nNOT REPRODUCED: it differs from the stage {lasting[0].stage} on; the cause: {causes(lasting)}")
    why = "the recorded commit does not hold the recorded code" if forged else "--anyway does it nonetheless"
    print(f"Nothing was run: {why}." if forged else f"Nothing was rebuilt; {why}.")
    return False


@dataclass(frozen=True)
class Source:
    """Where the code and the params come from."""

    commit: str | None
    """A commit that has them; None: the files at hand."""
    whole: bool
    """They are the recorded ones, whatever lies in the project now."""
    note: str
    wrong: list[Difference]
    """What is wrong with the record of it."""

    @classmethod
    def of(cls, comparison: Comparison) -> Source:
        """The recorded commit, if a branch or tag leads to it and the recorded tree was clean; else what is at hand.

        A bundle cannot choose any other code: neither an expression for git to evaluate nor an object that nobody
        merged.
        """
        from components.handoff.provenance import rests_on

        told, root = comparison.told, comparison.root
        if not told.commit:
            return cls(None, False, f"no commit is recorded ({told.commit_note}), so the files at hand are used", [])
        if not claims.is_commit(told.commit):
            wrong = Difference(
                "code", comparison.order[0], "commit", repr(told.commit[:40]), "40 hex digits are needed"
            )
            return cls(None, False, "what it records is no commit, so the files at hand are used", [wrong])
        short = told.commit[:12]
        if not history.is_kept(root, told.commit):
            return cls(None, False, f"no branch or tag here leads to commit {short}, so the files at hand are used", [])
        if told.clean:
            now = history.commit_of(root, rests_on(told.code))  # what else was committed since does not matter
            return cls("HEAD" if now.commit == told.commit else told.commit, True, f"rebuilt from commit {short}", [])
        named = ", ".join(told.differing) or "files that it does not name"
        return cls(None, False, f"not clean when it was made ({named}), so the files at hand are used", [])


def _heading(told: Provenance, source: Source) -> list[str]:
    return [f"{told.name}: {len(told.stages)} stages are recorded; {source.note}", ""]


def _table(comparison: Comparison, found: list[Difference], lasting: list[Difference], source: Source) -> list[str]:
    """By cause: whether what will be used is as recorded; below, what it is and what of the project at hand is not."""
    told = comparison.told
    run = told.params.get("run", {})
    num = {
        "data": f"{len({p for _, p, _ in comparison.inputs()})} inputs",
        "code": f"{len(told.code)} files and folders{' of the commit' if source.whole else ' at hand'}",
        "params": f"{len(flat('', told.params))} values",
        "weights": str(told.base_weights.get("file") or told.base_weights.get("source") or "none"),
        "library": f"{len(told.environment.get('packages', {}))} versions",
        "threads": str(run.get("threads", "?")),
        "instruction set": str(run.get("instruction_set", "?")),
        "machine": str(told.environment.get("machine", "?")),
    }
    mended = [d for d in found if d.mended and source.whole]
    lines = []
    for cause in CAUSES:
        own = [d for d in lasting if d.cause == cause]
        lines.append(f"{cause:16} {f'{len(own)} differ' if own else 'same':10} {num[cause]}")
        lines += [f"{'':16} {d.what}: recorded {d.recorded}, here {d.here}" for d in own]
        others = [d for d in mended if d.cause == cause]
        lines += [f"{'':16} {d.what}: recorded {d.recorded}, here {d.here}; the recorded one is used" for d in others]
    clock = [f"{'measured time':16} {'not pinned':10} {one}" for one in comparison.by_the_clock()]
    return lines + clock
