"""infra/operations.yaml, typed: how the line is run when nobody watches. Strict, like params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import Field, field_validator, model_validator

from components import params, plugins
from components.monitoring import figures
from components.plugins import Choice, Family

FILE = "infra/operations.yaml"
S = TypeVar("S", bound=params.Params)
Event = Literal["crashed", "fault", "refused", "drift", "promoted", "rolled_back", "done", "retrained"]


class Runs(params.Params):
    """Section `runs`."""

    keep: int = Field(ge=10, le=100_000)
    """Records of runs that are kept."""
    max_stage_minutes: float | None = Field(gt=0)
    """A stage that takes longer is ended, with all its processes."""
    max_run_hours: float | None = Field(gt=0)
    """So is a whole run."""
    resume: bool
    """A run that nobody watched and that died is resumed, once."""


class Rule(params.Limited):
    """One rule over what the monitor measured."""

    metric: str
    """monitor.<metric>."""
    optional: bool = False
    """Holds where the metric could not be measured."""

    @field_validator("metric")
    @classmethod
    def _is_measured(cls, value: str) -> str:
        if told := figures.unknown(value):
            raise ValueError(told)
        return value


class Monitor(params.Params):
    """Section `monitor`."""

    data: str | None
    """Where new data arrive; None: ingest.data."""
    source: Annotated[Choice, Family("ingest.sources")] | None
    """How samples are found there; None: as ingest.source."""
    min_samples: int = Field(ge=2)
    """Fewer new samples are not judged."""
    columns: Annotated[Choice, Family("drift.detectors")]
    """How properties and predictions are compared."""
    embeddings: Annotated[Choice, Family("drift.detectors")]
    """How the network's features are compared."""
    rules: tuple[Rule, ...] = Field(min_length=1)
    """Each must hold, or the model is retrained."""
    cool_down_hours: float = Field(ge=0)
    """No second retraining sooner."""
    max_retrainings: int = Field(ge=1)
    """Most retrainings in a week."""
    then: Literal["nothing", "train", "release", "promote"]
    """What follows a failed rule; each includes the one before."""

    @field_validator("columns", "embeddings")
    @classmethod
    def _kind(cls, choice: Choice, info: Any) -> Choice:
        return plugins.comparing(info.field_name, choice)


class Promote(params.Params):
    """Section `promote`."""

    environment: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    """The pointer's name."""
    max_loss: float | None = Field(ge=0, le=1)
    """Most accuracy that the new one may lose to the live one, by the difference measured; its interval is told.
    --allow-older does not skip it."""
    min_queries: int = Field(ge=1)
    """Real test samples that the infra blessing must have asked."""
    keep_releases: int = Field(ge=1)
    """Newest releases that are kept, besides live and previous ones."""


class Keep(params.Params):
    """Section `keep`: retention."""

    work_days: float = Field(gt=0)
    """Checkpoints and caches that nobody read since."""
    prefect_days: float = Field(gt=0)
    """Flow runs in Prefect's database."""
    dvc_cache: Literal["commits", "tags", "all"]
    """What DVC's cache keeps besides the work tree and what is younger than work_days: what any commit names; or only
    tags and the heads of branches; all: nothing is ever removed."""


class Notify(params.Params):
    """Section `notify`."""

    file: bool
    """A line each in .graftline/notices.jsonl."""
    blocks: tuple[str, ...]
    """Prefect notification blocks, type/name."""
    on: tuple[Event, ...]
    """What is worth a notice."""


class FanOut(params.Params):
    """Section `fan_out`."""

    runner: Literal["threads", "dask", "ray"]
    """Which of Prefect's task runners has tasks side by side."""
    workers: int = Field(ge=1, le=1024)
    """How many, where none is named by `address`."""
    address: str | None
    """Of a scheduler of dask, or a cluster of ray; None: a local one, for this flow."""

    @model_validator(mode="after")
    def _where(self) -> Self:
        if self.address is not None and self.runner == "threads":
            raise ValueError("threads have no address: set it to null, or the runner to dask or ray")
        return self


SECTIONS: dict[str, type[params.Params]] = {
    "runs": Runs,
    "monitor": Monitor,
    "promote": Promote,
    "keep": Keep,
    "notify": Notify,
    "fan_out": FanOut,
}


class Operations:
    """All sections."""

    def __init__(self, typed: dict[str, Any]) -> None:
        self.runs = cast(Runs, typed["runs"])
        self.monitor = cast(Monitor, typed["monitor"])
        self.promote = cast(Promote, typed["promote"])
        self.keep = cast(Keep, typed["keep"])
        self.notify = cast(Notify, typed["notify"])
        self.fan_out = cast(FanOut, typed["fan_out"])


def read(root: Path) -> Operations:
    """The project's settings.

    Raises:
        ParamsError: with every mistake at once.
    """
    return Operations(params.read(root / FILE, SECTIONS))


def section(root: Path, cls: type[S]) -> S:
    """One section alone: others name plugins, which load libraries that are not needed for it, and no mistake of
    another one stands in the way.

    Raises:
        ParamsError: with every mistake of the whole file, where this section has one.
    """
    name = next(name for name, one in SECTIONS.items() if one is cls)
    try:
        return cls.model_validate(params.load_yaml(root / FILE).get(name))
    except ValueError:
        return cast(S, getattr(read(root), name))
