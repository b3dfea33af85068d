"""`python -m pipelines tune`: look for better settings of `finetune`, judged on the validation split alone.

Trials run one after the other in a workspace of the project (side.py), which shares its DVC cache; only `finetune` runs
in it, and no reference run. A killed one goes on from where it was: trials that ended stand in .graftline/tune/, the
one that was under way has its checkpoints in the workspace. What won is written into params.yaml, so the line stays
reproducible: how long trials took decides how many there are, never what is written of them.
"""

from __future__ import annotations

import csv
import io
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from components import lineage
from components.contracts import InputError, read_json, write_atomic
from components.job import alone
from components.params import Params, Run
from components.plugins import Choice
from pipelines import dag, dvc_cli, side, stage, tune_begun, tune_table, tuned_keys
from pipelines.settings_text import parsed, with_values
from pipelines.tune_begun import Base
from pipelines.tune_study import DONE, FAILED, STOPPED, Study, Trial

FOLDER = ".graftline/tune"
WORKSPACE = "work"
METRIC = "validation_loss"
STAGE = tuned_keys.SECTION
ASKED_AT = (50, 75)
"""Percent of a trial's epochs after which it is asked whether it is hopeless: before, a slow start says little."""
LIVE = f"reports/{STAGE}/live.csv"
"""Where finetune writes what each epoch came to, as it trains (components/finetune/live.py)."""


Phases = list[tuple[str, int]]
"""Of a strategy, each with its epochs."""


@dataclass(frozen=True)
class Wish:
    """What is tuned, and for how long."""

    minutes: float
    trials: int | None = None
    """In all, with those of earlier sessions."""
    keys: tuple[str, ...] | None = None
    metric: str = METRIC
    dry_run: bool = False


class OutOfTime(Exception):
    """The minutes are over; the trial is gone on with the next time."""


class Hopeless(Exception):
    """The trial is given up."""


def tune(root: Path, wish: Wish) -> int:
    """Look for better settings, write reports/tune/ and the winner into params.yaml; the exit code.

    Raises:
        InputError: what cannot be tuned, told before anything runs; or the settings at hand cannot be trained.
    """
    root = root.resolve()
    until = time.monotonic() + 60 * wish.minutes
    if not 0 < wish.minutes < math.inf or (wish.trials is not None and wish.trials < 2):
        raise InputError("give --minutes above 0, and --trials of at least 2: the first one is what params.yaml has")
    typed = stage.read_params(root)
    if STAGE not in typed or STAGE not in [s.name for s in dag.load(root)]:
        raise InputError(f"this line has no stage {STAGE}: there is nothing to tune")
    _known(wish.metric)
    bases = tune_begun.bases(root, root / FOLDER, wish.keys)
    now = bases[-1]
    if not wish.dry_run:
        _writable(now)
    place = root / FOLDER / WORKSPACE
    with alone(root, "tune", dvc_cli.say):
        alike = _alike(typed[STAGE])
        side.prepare(root, place, alike)
        outcome, _ = side.through(place, STAGE, (STAGE,))
        if outcome.code:
            dvc_cli.say(outcome.told)
            return outcome.code
        study = _study(root, place, bases, wish.metric, cast(Run, typed["run"]).seed)
        search(study, lambda trial: _attempt(place, study, trial, alike, until), until, wish.trials)
        if study.waiting is None:
            shutil.rmtree(place, ignore_errors=True)
        return _conclude(root, study, now, wish.dry_run)


def _known(metric: str) -> None:
    """Raises InputError: finetune does not tell it."""
    from components.finetune.live import HISTORY

    known = [name for name in HISTORY if name.startswith("validation_")]
    if metric not in known:
        raise InputError(f"--metric: finetune does not tell {metric}. It tells: {', '.join(known)}")


def _writable(now: Base) -> None:
    """Raises InputError: what wins could not be written, so it is told before anything is spent on it."""
    try:
        with_values(now.text.decode("utf-8"), {one.key: one.least for one in now.keys})
    except InputError as error:
        raise InputError(f"params.yaml: {error}. --dry-run looks for them, and writes nothing") from None


def search(
    study: Study,
    attempt: Callable[[Trial], None],
    until: float,
    trials: int | None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Try one setting after the other, until the time is over, there are so many, or nothing is new.

    None is begun that would, by the median of those before it, not end in time; one that was killed is gone on with.
    """
    while trials is None or len(study.ended) < trials:
        left = until - clock()
        if left <= 0 or (study.waiting is None and left < study.usual_seconds):
            dvc_cli.say("The time is over.")
            return
        trial = study.next()
        if trial is None:
            dvc_cli.say("Every setting between these limits was tried.")
            return
        of = f" of {trials}" if trials else ""
        dvc_cli.say(f"[trial {trial.number}{of}, {left / 60:.1f} min left] {tune_table.words(study, trial)}")
        began = clock()
        try:
            attempt(trial)
        except Hopeless:
            study.end(trial, STOPPED, "given up: worse than the median of the others at that point")
        except OutOfTime:
            dvc_cli.say("The time is over; this trial is gone on with the next time.")
            return
        finally:
            trial.seconds = round(trial.seconds + clock() - began, 3)
            study.save()
        best = study.best
        told = trial.told or f"{study.metric} {trial.value:.4g}"
        dvc_cli.say(f"[trial {trial.number}] {told}" + (f"; best so far: trial {best.number}" if best else ""))


# --- one trial ---


def _attempt(place: Path, study: Study, trial: Trial, alike: dict[str, Any], until: float) -> None:
    """Train it in the workspace and put down what came of it.

    Raises:
        InputError: what params.yaml has cannot be trained, so nothing can be held against it.
        Hopeless, OutOfTime: it was ended.
    """
    text = side.changed(study.path.parent, {**alike, **trial.values})
    write_atomic(place / "params.yaml", text.encode())
    (place / LIVE).unlink(missing_ok=True)
    ear = Ear(place / LIVE, study, trial, _epochs(stage.read_params(place)[STAGE]), until)
    try:
        outcome = dvc_cli.repro(place, STAGE, ear)
    except Hopeless:
        shutil.rmtree(place / ".graftline" / STAGE, ignore_errors=True)  # nobody goes on with it
        raise
    if outcome.code in (dvc_cli.INTERRUPTED, dvc_cli.TERMINATED):
        raise KeyboardInterrupt
    if not outcome.code:
        found = _figures(place)
        if study.metric not in found:
            raise InputError(f"--metric: finetune does not tell {study.metric}. It tells: {', '.join(found)}")
        study.end(trial, DONE, figures=found)
    elif trial.number == 0:
        raise InputError(f"what params.yaml has cannot be trained:\n{outcome.told}")
    else:
        study.end(trial, FAILED, (outcome.told.strip() or "failed").splitlines()[0])


class Ear:
    """Hears whenever finetune says something, looks what it has come to, and ends it where that is enough."""

    def __init__(self, live: Path, study: Study, trial: Trial, phases: Phases, until: float) -> None:
        self.live, self.study, self.trial, self.phases, self.until = live, study, trial, phases, until
        self.asked: dict[int, float] = {}

    def __call__(self, line: str) -> None:
        """One line.

        Raises:
            Hopeless, OutOfTime: it is to be ended.
        """
        del line
        found = best_until(self._values(), self.phases, self.study.sign)
        if found != self.asked and self.study.report(self.trial, found):
            raise Hopeless
        self.asked = found
        if time.monotonic() > self.until:
            raise OutOfTime

    def _values(self) -> list[tuple[str, float]]:
        """Of each epoch so far, also of those before a kill: its phase and the metric."""
        try:
            rows = list(csv.DictReader(io.StringIO(self.live.read_text("utf-8"))))
            return [(row["phase"], float(row[self.study.metric])) for row in rows if row["run"] == "main"]
        except (OSError, LookupError, ValueError):
            return []


def best_until(epochs: list[tuple[str, float]], phases: Phases, sign: float) -> dict[int, float]:
    """Percent of the epochs that a trial may have -> the best value until then, at those points that it has reached."""
    found: dict[int, float] = {}
    whole, at, num, best = sum(n for _, n in phases), -1, 0, math.inf
    for name, value in epochs:
        if at < 0 or name != phases[at][0] or num == phases[at][1]:
            at = next((i for i, (one, _) in enumerate(phases) if i > at and one == name), at)
            num = 0
        num, best = num + 1, min(best, sign * value)
        percent = 100 * (sum(n for _, n in phases[: max(at, 0)]) + num) / whole
        found |= {one: sign * best for one in ASKED_AT if one not in found and one <= percent < 100}
    return found


def _epochs(section: Params) -> Phases:
    """The phases of the strategy, each with its epochs."""
    strategy = cast(Choice, section.strategy)  # type: ignore[attr-defined]
    return [(phase.name, phase.epochs) for phase in strategy.load().phases(strategy.params)]


def _figures(place: Path) -> dict[str, float]:
    """Validation figures of the run that would ship."""
    metrics = read_json(place / "artifacts" / STAGE / "metrics.json")
    own = {name.removesuffix("_main"): float(v) for name, v in metrics.items() if name.endswith("_main")}
    return {name: value for name, value in own.items() if name.startswith("validation_")}


# --- the study, and its end ---


def _alike(section: Params) -> dict[str, Any]:
    """What all trials have, whatever params.yaml says: only the run that would ship is trained."""
    apart = ("references", "label_shares")
    return {f"{STAGE}.{name}": [] for name in apart if name in type(section).model_fields}


def _study(root: Path, place: Path, bases: list[Base], metric: str, seed: int) -> Study:
    """The study of these settings on these data and this code: begun, or taken up."""
    deps = {one.name: one.deps for one in dag.load(place)}[STAGE]
    base, folder = tune_begun.taken(bases, root / FOLDER, metric, lineage.hashes(place, deps))
    study = Study(folder, base.keys, metric, seed)
    dvc_cli.say("\n  ".join([f"Tuned by {metric}:", *(one.told() for one in study.keys)]))
    if study.trials:
        where = study.path.relative_to(root)
        own = "" if base is bases[-1] else " What is `now` above was so when it began; its winner was written since."
        dvc_cli.say(f"Taken up; trials that ended before: {len(study.ended)} ({where}).{own}")
    write_atomic(folder / "params.yaml", bases[-1].text)
    return study


def _conclude(root: Path, study: Study, now: Base, dry_run: bool) -> int:
    """Tell what came of it, and write the winner."""
    values = {one.key: one.now for one in now.keys}
    told, changes = tune_table.conclude(root, study, values)
    print("\n".join(told))
    if study.best is None:
        dvc_cli.say("Not one trial has ended: give it more minutes; it goes on from where it is.")
        return dvc_cli.MISTAKE
    if not changes:
        return dvc_cli.DONE
    problem = "--dry-run" if dry_run else _written(root / "params.yaml", study, now.text, changes)
    print(f"{problem}: nothing was written. For params.yaml:" if problem else "Written into params.yaml:")
    print("\n".join(f"  {line}" for line in tune_table.lines(changes, values)))
    return dvc_cli.MISTAKE if problem and not dry_run else dvc_cli.DONE


def _written(path: Path, study: Study, before: bytes, changes: dict[str, Any]) -> str:
    """Why the file was left as it is; empty: it has the changes now."""
    if path.read_bytes() != before:
        return "params.yaml was changed since this began"
    try:
        text = with_values(before.decode("utf-8"), changes)
    except InputError as error:
        return str(error)
    tune_begun.writes(study.path.parent, parsed(text))  # first: a kill in between must not part the two
    write_atomic(path, text.encode())
    return ""
