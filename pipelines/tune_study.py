"""The trials of `tune`: what was tried and what came of it, in one file; what to try next; what to give up.

What is tried next follows from the seed, the trial's number and the trials before it: so a study that was killed and
taken up again tries the same as one that was not. Optuna's sampler (TPE) and pruner (median) are asked anew for each.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contracts import read_json, write_json
from components.samples import keyed_seed
from pipelines.tuned_keys import Key

if TYPE_CHECKING:
    import optuna

FILE = "study.json"
AT_RANDOM = 5
"""Trials before the sampler learns from them; the first one is what params.yaml has."""
BEFORE_PRUNING = 4
"""Trials that must have ended before one is given up."""
REDRAWN = 20
"""So often it is drawn anew where the same was tried before; then there is nothing new."""
FOR_IMPORTANCE = 30
"""Fewer finished trials say too little about what a key matters (GOOD has what was measured)."""
GOOD = 0.3
"""Share of the trials that importance takes for good ones. Optuna's tenth is three of 30: with four keys, of which one
made the loss beside some noise, that one came first in 78 % of 40 studies of 30 trials drawn at random; by 0.3 in all
of them, and in 42 % of those of 6 trials (2026-11-22)."""
LEAST_SHARE_OF_LOSS = 0.01
"""What another trial must have less of the first one's loss, for its values to be written: less may be chance."""
LEAST_POINTS = 0.1
"""The same for accuracy and the like, in percentage points."""
DONE, STOPPED, FAILED, RUNNING = "done", "stopped", "failed", "running"


@dataclass
class Trial:
    """One setting that is tried."""

    number: int
    values: dict[str, Any]
    """Key of params.yaml -> value."""
    state: str = RUNNING
    """done; stopped: it was hopeless; failed; running: it is, or was killed and will be gone on with."""
    value: float | None = None
    """The metric."""
    figures: dict[str, float] = field(default_factory=dict)
    """On validation, by name."""
    reports: dict[int, float] = field(default_factory=dict)
    """Percent of its epochs -> the best that the metric was until then."""
    seconds: float = 0.0
    told: str = ""
    """Why it failed."""


class Study:
    """All trials of some keys on the same data, code and other params; on disk after each change."""

    def __init__(self, folder: Path, keys: Sequence[Key], metric: str, seed: int) -> None:
        self.path, self.keys, self.metric, self.seed = folder / FILE, tuple(keys), metric, seed
        self.sign = 1.0 if "loss" in metric else -1.0
        """What the metric is multiplied by so that less is better."""
        told = read_json(self.path)["trials"] if self.path.exists() else []
        self.trials = [Trial(**{**one, "reports": {int(k): v for k, v in one["reports"].items()}}) for one in told]

    def save(self) -> None:
        """Whole or not at all."""
        plain = {"metric": self.metric, "keys": [one.told() for one in self.keys], "seed": self.seed}
        write_json(self.path, {**plain, "trials": [asdict(one) for one in self.trials]})

    @property
    def ended(self) -> list[Trial]:
        """Those of which it is known what came of them."""
        return [one for one in self.trials if one.state != RUNNING]

    @property
    def waiting(self) -> Trial | None:
        """The one that was begun and has not ended."""
        return next((one for one in self.trials if one.state == RUNNING), None)

    @property
    def done(self) -> list[Trial]:
        """Those that have a value."""
        return [one for one in self.trials if one.state == DONE]

    @property
    def best(self) -> Trial | None:
        """The first of the best."""
        return min(self.done, key=lambda one: self.sign * float(one.value or 0.0), default=None)

    @property
    def first(self) -> Trial | None:
        """What params.yaml had when this began, where that has a value."""
        return next((one for one in self.done if one.number == 0), None)

    @property
    def winner(self) -> Trial | None:
        """The best, where it is so much better than the first that its values are to be written."""
        best, first = self.best, self.first
        if best is None or first is None or best is first:
            return None if best is first else best
        gain, was = self.sign * (float(first.value or 0.0) - float(best.value or 0.0)), abs(float(first.value or 0.0))
        least = LEAST_SHARE_OF_LOSS * was if self.sign > 0 else LEAST_POINTS / 100
        return best if gain > least or math.isclose(gain, least) else None

    @property
    def usual_seconds(self) -> float:
        """Of a trial that was not given up; 0: not known."""
        return statistics.median([one.seconds for one in self.done] or [0.0])

    def next(self) -> Trial | None:
        """What is tried now: what was killed, what params.yaml has, what the sampler draws; None: nothing is new."""
        if self.waiting:
            return self.waiting
        number = len(self.trials)
        values = self._drawn(number) if number else {one.key: one.now for one in self.keys}
        if values is None:
            return None
        self.trials.append(Trial(number, values))
        self.save()
        return self.trials[-1]

    def report(self, trial: Trial, found: dict[int, float]) -> bool:
        """How good it was at which percent of its epochs; whether it is to be given up: its best is worse than the
        median of the others' at that point. The first trial never is, as the others are held against it."""
        trial.reports = dict(found)
        self.save()
        if trial.number == 0 or not found:
            return False
        study = self._told_to_optuna(0)
        asked = study.ask()
        for percent, value in found.items():
            asked.report(value, percent)
        return asked.should_prune()

    def end(self, trial: Trial, state: str, told: str = "", figures: dict[str, float] | None = None) -> None:
        """What came of it."""
        trial.figures = figures or {}
        trial.value, trial.state, trial.told = trial.figures.get(self.metric), state, told
        if state == DONE and not (trial.value is not None and math.isfinite(trial.value)):
            trial.state, trial.value, trial.told = FAILED, None, f"its {self.metric} is no number"
        self.save()

    def importance(self) -> dict[str, float]:
        """Key -> its share of what makes trials differ (PED-ANOVA, Watanabe et al., 2023); empty: too few of either."""
        if len(self.keys) < 2 or len(self.done) < FOR_IMPORTANCE or len({one.value for one in self.done}) < 2:
            return {}
        import optuna

        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=GOOD)
        found = optuna.importance.get_param_importances(self._told_to_optuna(0), evaluator=evaluator)
        return {key: round(float(share), 4) for key, share in found.items()}

    def _drawn(self, number: int) -> dict[str, Any] | None:
        tried = [one.values for one in self.trials]
        for again in range(REDRAWN):
            study = self._told_to_optuna(keyed_seed(self.seed, "tune", number, again) % 2**32)
            drawn = study.ask({one.key: one.distribution for one in self.keys}).params
            values = {one.key: one.rounded(drawn[one.key]) for one in self.keys}
            if values not in tried:
                return values
        return None

    def _told_to_optuna(self, seed: int) -> optuna.Study:
        """A study that knows what has ended. One that failed counts as worse than any, so that it is kept away from."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=AT_RANDOM)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=BEFORE_PRUNING)
        directions = optuna.study.StudyDirection
        direction = directions.MINIMIZE if self.sign > 0 else directions.MAXIMIZE
        study = optuna.create_study(sampler=sampler, pruner=pruner, direction=direction)
        distributions = {one.key: one.distribution for one in self.keys}
        states = {DONE: optuna.trial.TrialState.COMPLETE}
        for one in self.ended:
            if one.number == 0 and any(not _holds(key, one.values[key.key]) for key in self.keys):
                continue  # what is now may lie beyond what was asked for
            study.add_trial(
                optuna.trial.create_trial(
                    params=one.values, distributions=distributions, value=one.value,
                    state=states.get(one.state, optuna.trial.TrialState.PRUNED), intermediate_values=one.reports,
                )
            )  # fmt: skip
        return study


def _holds(key: Key, value: Any) -> bool:
    return value in key.choices if key.choices else key.low <= value <= key.high
