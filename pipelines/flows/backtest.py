"""The flow `backtest`, for deployments: what pipelines/backtest.py does; its page is reports/backtest/index.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_link_artifact
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed, State

from components.contracts import InputError
from pipelines import flows as _  # noqa: F401  ties this process to serve
from pipelines import runs
from pipelines.backtest import Wish
from pipelines.backtest import backtest as replay
from pipelines.triggers import Trigger, guess_trigger

PAGE = "reports/backtest/index.html"


@flow(name="backtest", persist_result=False)
def backtest(
    root: str = ".", trigger: str = "", cause: str = "", date: str = "", period: str = "month", quick: bool = False
) -> State[Any]:
    """Replay dated data. `date`: the attribute that holds a sample's date; `period`: week, month, quarter or year."""
    project = Path(root).resolve()
    guessed = guess_trigger(cause)
    try:
        with runs.recorded(
            project, "backtest", Trigger(trigger or guessed.kind, guessed.who, guessed.cause), how=()
        ) as run:
            context = FlowRunContext.get()
            if context and context.flow_run:
                run.note(flow_run_id=str(context.flow_run.id), api_url=str(PREFECT_API_URL.value() or ""))
            if not date:
                raise InputError("date: name the attribute that holds a sample's date")
            code = replay(project, Wish(date=date, period=period, quick=quick))
            run.end(code, PAGE)
    except InputError as error:
        return Failed(name="Mistake", message=str(error))
    if code:
        return Failed(message=f"ended with {code}")
    create_link_artifact((project / PAGE).as_uri(), link_text=PAGE, key="backtest-page")
    return Completed(message=PAGE)
