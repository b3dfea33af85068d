"""infra/prefect/prefect.yaml as Prefect's objects, for `serve`. What is scheduled stands there, and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import MissingFlowError, ScriptError

from components.contracts import InputError
from components.params import load_yaml

FILE = "infra/prefect/prefect.yaml"
PROJECT = "{{ $GRAFTLINE_PROJECT }}"
_KINDS: dict[str, Any] = {"cron": CronSchedule, "interval": IntervalSchedule, "rrule": RRuleSchedule}


def load(root: Path, project: str) -> list[RunnerDeployment]:
    """The deployments, for a process that runs in the project's folder.

    Raises:
        InputError: the file is not of this form, or a flow is not where it says.
    """
    raw = load_yaml(root / FILE).get("deployments")
    if not isinstance(raw, list) or not all(isinstance(one, dict) for one in raw):
        raise InputError(f"{FILE}: deployments must be a list, each with name, entrypoint and schedules")
    return [_deployment(root, dict(one), project) for one in raw]


def _deployment(root: Path, raw: dict[str, Any], project: str) -> RunnerDeployment:
    entrypoint = str(raw.get("entrypoint", ""))
    if not all(entrypoint.partition(":")):
        raise InputError(
            f"{FILE}: entrypoint: {entrypoint!r} must be FILE:FLOW, such as pipelines/flows/train.py:train"
        )
    try:
        schedules: list[Any] = [_schedule(dict(one)) for one in raw.get("schedules") or []]
        made = RunnerDeployment.from_entrypoint(
            entrypoint,
            name=str(raw.get("name", PROJECT)).replace(PROJECT, project),
            description=raw.get("description"),
            tags=list(raw.get("tags") or []),
            parameters={**(raw.get("parameters") or {}), "root": str(root)},
            concurrency_limit=_limit(raw.get("concurrency_limit")),
        )
    except (MissingFlowError, ScriptError, FileNotFoundError, AttributeError) as error:
        raise InputError(f"{FILE}: {entrypoint}: no flow can be loaded from there: {error}") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{FILE}: {entrypoint}: {error}") from error
    made.schedules = schedules  # given to from_entrypoint, they would lose their slugs
    return made


def _schedule(raw: dict[str, Any]) -> DeploymentScheduleCreate:
    given = [kind for kind in _KINDS if raw.get(kind) is not None]
    if len(given) != 1:
        raise ValueError(f"a schedule has one of {', '.join(_KINDS)}; given: {', '.join(given) or 'none'}")
    (kind,) = given
    value = timedelta(seconds=raw[kind]) if isinstance(raw[kind], int | float) else raw[kind]
    settings = {k: raw[k] for k in ("timezone", "day_or", "anchor_date") if raw.get(k) is not None}
    return DeploymentScheduleCreate(
        schedule=_KINDS[kind](**{kind: value}, **settings), active=bool(raw.get("active", True)),
        slug=raw.get("slug"), parameters=dict(raw.get("parameters") or {}),
    )  # fmt: skip


def _limit(raw: Any) -> int | ConcurrencyLimitConfig | None:
    if raw is None:
        return None
    given = raw.get("limit") if isinstance(raw, dict) else raw
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        place = "concurrency_limit.limit" if isinstance(raw, dict) else "concurrency_limit"
        raise ValueError(f"{place} must be a whole number from 1; given: {given!r}")
    if not isinstance(raw, dict):
        return given
    return ConcurrencyLimitConfig(
        limit=given,
        collision_strategy=ConcurrencyLimitStrategy(raw.get("collision_strategy", "ENQUEUE")),
        grace_period_seconds=raw.get("grace_period_seconds"),
    )
