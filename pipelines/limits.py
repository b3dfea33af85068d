"""How long a stage and a run may take, whoever started them: section `runs` of infra/operations.yaml."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """Beyond which all is ended."""

    max_stage_minutes: float | None = None
    max_run_hours: float | None = None


def of(root: Path) -> Limits:
    """The project's; none where it has no such file.

    Raises:
        ParamsError: with every mistake of the file.
    """
    if not (root / "infra" / "operations.yaml").exists():
        return Limits()
    from pipelines import operations

    settings = operations.section(root, operations.Runs)
    return Limits(settings.max_stage_minutes, settings.max_run_hours)


class Clock:
    """The time of one run, from when this is made: once its turn is had, so that waiting does not count."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self.stage = limits, ""
        hours = limits.max_run_hours
        self._run_until = time.monotonic() + hours * 3600 if hours else None
        self._stage_until: float | None = None

    def begin(self, stage: str = "") -> None:
        """That stage's time begins; without a name, only the run's goes on."""
        minutes = self._limits.max_stage_minutes
        self.stage = stage
        self._stage_until = time.monotonic() + minutes * 60 if stage and minutes else None

    @property
    def until(self) -> float | None:
        """When it is over, by time.monotonic(); None: never."""
        return min((one for one in (self._run_until, self._stage_until) if one is not None), default=None)

    @property
    def told(self) -> str:
        """What to tell of what was ended at `until`."""
        if self._stage_until is not None and self._stage_until == self.until:
            return _too_long(self.stage, "runs.max_stage_minutes", self._limits.max_stage_minutes)
        return _too_long("the run", "runs.max_run_hours", self._limits.max_run_hours)


def _too_long(what: str, key: str, limit: float | None) -> str:
    unit = key.rpartition("_")[2]
    return f"{what} took longer than {limit:g} {unit} ({key} in infra/operations.yaml), and was ended"
