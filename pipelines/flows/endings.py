"""How the flow `train` ends: an exit code, and the same as Prefect shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from pipelines.outcomes import DONE, FAULT, INTERRUPTED, MISTAKE, REFUSED, TERMINATED, TIMED_OUT

ENDINGS = {
    FAULT: "Fault", MISTAKE: "Mistake", REFUSED: "Refused", TIMED_OUT: "TimedOut", INTERRUPTED: "Interrupted",
    TERMINATED: "Interrupted",
}  # fmt: skip
"""Exit code of a stage -> name of the state in which its task run and the flow run end."""


@dataclass(frozen=True)
class Ending:
    """How the flow ends."""

    code: int
    told: str
    ran: tuple[str, ...] = ()
    stop: BaseException | None = None

    @property
    def state(self) -> State[Any]:
        """The same as Prefect shows it."""
        if self.code == DONE:
            return Completed(message=self.told)
        kind = Cancelled if self.code in (INTERRUPTED, TERMINATED) else Failed
        return kind(name=ENDINGS.get(self.code, ENDINGS[FAULT]), message=self.told)


def gone(project: Path) -> str:
    return f"{project} is gone: it was moved or removed while the line ran"


def stopped(stop: BaseException, ran: tuple[str, ...]) -> Ending:
    if isinstance(stop, KeyboardInterrupt):
        return Ending(INTERRUPTED, "interrupted; run again to go on from here", ran, stop)
    return Ending(TERMINATED, "asked to end (SIGTERM); run again to go on from here", ran, stop)
