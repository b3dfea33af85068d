"""The flow `backtest`, for deployments: what pipelines/backtest.py does; its page is reports/backtest/index.html."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed, State

from components.contracts import InputError
from pipelines import flows, runs
from pipelines.backtest import PAGE, Wish
from pipelines.backtest import backtest as replay
from pipelines.flows import origin, pages


@flow(name="backtest", persist_result=False)
def backtest(
    date: str,
    root: str = ".",
    trigger: str = "",
    cause: str = "",
    period: Literal["week", "month", "quarter", "year"] = "month",
    max_cuts: int = Wish.max_cuts,
    min_train: int = Wish.min_train,
    min_judged: int = Wish.min_judged,
    quick: bool = False,
) -> State[Any]:
    """Replay dated data.

    Args:
        date: the attribute that holds a sample's date.
        root: the project's folder.
        trigger: what started it; empty: as Prefect knows.
        cause: why, in words.
        period: how time is cut.
        max_cuts: most models that are trained.
        min_train: fewer samples before a date are too few to train on.
        min_judged: a period with fewer samples is not judged.
        quick: a linear probe in place of the project's strategy.
    """
    wish = Wish(date, period, max_cuts, min_train, min_judged, quick)
    try:
        project = flows.project(root)
        with runs.recorded(project, "backtest", origin.trigger(trigger, cause), how=()) as run:
            origin.note(run)
            if not date:
                raise InputError("date: name the attribute that holds a sample's date")
            code = replay(project, wish)
            run.end(code, PAGE)
    except InputError as error:
        return Failed(name="Mistake", message=str(error))
    if code:
        return Failed(message=f"ended with {code}")
    text = f"```\n{(project / PAGE).as_uri()}\n```\n\n{pages.OPEN}"
    create_markdown_artifact(text, key="backtest-page", description="How fast the model ages")
    return Completed(message=PAGE)
