"""Train the chosen backbone by the named strategy, and the runs it is compared with.

Reads: validate/accepted.parquet (train and validation splits only), augment/policy.json, select/chosen.json and
select/files (the preprocessing's own files).
Writes: runs/<run>/ (weights.safetensors, run.json, history.csv) for `main` and every reference, and for those of fewer
labels (main_15); history.csv (without the latter); advice.json, how the strategy was found where it is `auto`;
runs/source_head.safetensors, the classifier that the backbone was pretrained with, where there is one and a frozen
probe to hold others against.
Decides: the accepted samples, the policy and its seed, the chosen backbone, the strategy, run.seed, run.threads,
processes (see launch.py, also for several machines).
Fails: a policy that is for another task (InputError); a loss that is not a number (TrainingError); one of several
processes that was killed: the others then end with it (ProcessDied).
Killed, it goes on from the last epoch and ends with the same bytes.
Does not check: quality. The test split is not read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator

from components import params, plugins
from components.contracts import read_json, read_table, with_files, write_atomic, write_json
from components.job import Job
from components.plugins import Choice, Family

if TYPE_CHECKING:
    from components.finetune.phases import Phase
    from components.finetune.runs import Line
    from components.finetune.team import Team

NEEDS = ("validate", "augment", "select")


class Params(params.Params):
    """Section `finetune`."""

    strategy: Annotated[Choice, Family("finetune.strategies")]
    """How the weights are adapted."""
    references: list[Literal["from_scratch", "frozen_probe"]]
    """from_scratch: the same architecture from random weights. frozen_probe: a linear head on the frozen backbone."""
    batch_size: Literal["auto"] | Annotated[int, Field(strict=True, ge=2, le=4096)]
    """Samples a step. auto: on a GPU the largest power of two that its memory holds and that leaves 16 steps an epoch,
    on a CPU 32."""
    precision: Literal["auto", "32", "bf16", "fp16"]
    """auto: on a GPU bf16, or fp16 where it has not that, on a CPU 32. bf16 on a CPU needs one that has it, and
    run.instruction_set: native; fp16 is for GPUs."""
    patience: int = Field(ge=1)
    """Epochs without a better validation loss before a phase stops; the best epoch's weights are kept. A few cut off
    the end of the schedule, where the rate falls and most is gained: on MNIST with 16 samples a label and 15 epochs 3
    came to 0.553, 1000 to 0.844 (tests/quality/table.py, row default, seed 0, 2026-11-22)."""
    weight_decay: float = Field(ge=0, le=1)
    """Of AdamW."""
    label_smoothing: float = Field(ge=0, lt=1)
    """Share of the target spread over all labels."""
    warmup: float = Field(ge=0, lt=1)
    """Share of the steps over which the learning rate rises; a cosine brings it down after. one_cycle is usually given
    0.3."""
    max_gradient_norm: float = Field(gt=0)
    """Longer gradients are scaled down to it."""
    schedule: Literal["cosine", "one_cycle"]
    """cosine: up in a line, down to 0. one_cycle: up along a cosine from 1/25, down to nearly 0, momentum the other
    way."""
    mixup: float = Field(ge=0, le=10)
    """Images: a sample and another one of its batch become one, in shares of Beta(mixup, mixup). 0: not."""
    cutmix: float = Field(ge=0, le=10)
    """Images: a box of another sample is put into each, its area of Beta(cutmix, cutmix). 0: not. With mixup, each
    batch has one of the two."""
    dropout: float = Field(ge=0, lt=1)
    """Share of the features that the head does not see in a step of training."""
    label_shares: list[float]
    """Rising shares of the training samples, in whole percent, on which main and the references are trained too, for
    about as many steps as on all of them: how many labels transfer saves. Empty: not measured."""
    processes: int = Field(ge=1, le=1024)
    """That train one model together, each on its part of a batch: one a CUDA device, or, on CPUs, each with run.threads
    threads. On several machines torchrun starts them, and this is their number in all."""

    @field_validator("batch_size", mode="wrap")
    @classmethod
    def _number_or_auto(cls, size: Any, read: ValidatorFunctionWrapHandler) -> Any:
        try:
            return read(size)
        except ValidationError:
            raise ValueError("give a whole number from 2 to 4096, or auto") from None

    @field_validator("label_shares")
    @classmethod
    def _rising_percents(cls, shares: list[float]) -> list[float]:
        if any(not 0 < one < 1 or abs(100 * one - round(100 * one)) > 1e-9 for one in shares):
            raise ValueError("give shares between 0 and 1 in whole percent, such as 0.15")
        if sorted(set(shares)) != shares:
            raise ValueError("give rising shares, each once")
        return shares


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns the validation loss and accuracy of each run and the samples it saw; computed_over_real_length where
    samples differ in length, labels_kept_by_policy where a policy and the frozen probe are there."""
    from components.finetune import launch

    return launch.together(params.processes, train, params, job)


def train(params: Params, job: Job, team: Team) -> dict[str, float]:
    """What each process does; the first one writes."""
    from components.finetune import shares
    from components.finetune.runs import Line
    from components.model import save_run

    chosen = read_json(job.source("select", "chosen.json"))
    chosen["preprocessing"] = with_files(job.source("select", "files"), chosen["preprocessing"])
    table = read_table(job.source("validate", "accepted.parquet")).sort_values("id")
    line = Line(params, job, chosen, read_json(job.source("augment", "policy.json")), table, team)
    rows: list[dict[str, Any]] = []
    metrics: dict[str, float] = {}
    with _rates_named(params, "main"):
        taken, advice = _taken(params.strategy, line)
    plans = _plans(params, taken, chosen)
    for share, given, (plan, (strategy, phases, pretrained)) in shares.each(line, params.label_shares, plans):
        name = shares.named(plan, share)
        with _rates_named(params, plan):
            done = given.train(name, strategy, shares.as_long(phases, share), pretrained)
        if team.rank:
            continue
        folder = job.out(f"runs/{name}/run.json").parent
        record = shares.told(done.record, given, share)
        if plan == "main" and advice["asked"]:
            of = "" if share == 1 else "the strategy was chosen on all labels: "
            record = replace(record, note="; ".join(filter(None, (record.note, of + advice["headline"]))))
        save_run(folder, done.model, record)
        own = [{"run": name, **row} for row in done.course.history]
        _write_csv(folder / "history.csv", own)
        rows += own if share == 1 else []
        metrics |= {f"{what}_{name}": value for what, value in done.course.figures.items()}
        metrics[f"num_samples_seen_{name}"] = float(done.record.num_samples_seen)
        metrics |= {f"{what}_{name}": value for what, value in done.record.found.items()}
        if name == "frozen_probe":
            metrics |= line.labels_kept(done.model)
    if team.rank:
        return {}
    if not all(phase.cached for _, phases, _ in plans.values() for phase in phases):
        metrics |= line.padding()
    if "frozen_probe" in plans and (head := line.source_head()) is not None:
        _write_tensors(job.out("runs/source_head.safetensors"), head.state_dict())
    write_json(job.out("advice.json"), advice)
    _write_csv(job.out("history.csv"), rows)
    _picture(rows, job.report("curves.png"))
    line.forget()
    return metrics


@contextmanager
def _rates_named(params: Params, plan: str) -> Iterator[None]:
    """Within it an error that a learning rate may be the cause of says where that is set."""
    from components.finetune.stepping import RateTooHigh

    try:
        yield
    except RateTooHigh as error:
        keys = [f"finetune.strategy.{key}" for key in params.strategy.spec() if "learning_rate" in key]
        remedy = f"Lower {' or '.join(keys)}."
        if plan != "main":
            remedy = f"{plan} has a rate of its own: lower finetune.max_gradient_norm, or take it out of references."
        raise RateTooHigh(f"{error} {remedy}") from None


def _taken(strategy: Choice, line: Line) -> tuple[Choice, dict[str, Any]]:
    """The named strategy, or the one that it chooses among others; and advice.json."""
    from components.finetune import advice

    module = strategy.load()
    if not hasattr(module, "choose"):
        return strategy, advice.not_asked(strategy)
    found: tuple[Choice, dict[str, Any]] = module.choose(strategy.params, line)
    return found


def _plans(
    params: Params, strategy: Choice, chosen: dict[str, Any]
) -> dict[str, tuple[dict[str, Any], list[Phase], bool]]:
    """Run -> (strategy as written, its phases, from pretrained weights?). References get main's number of epochs."""
    from components.finetune.phases import Phase, everything

    phases = strategy.load().phases(strategy.params)
    epochs = sum(p.epochs for p in phases)
    plans = {"main": (strategy.spec(), phases, True)}
    for reference in params.references:
        if reference == "frozen_probe":
            probe = plugins.choose("finetune.strategies", "linear_probe")
            alone = [replace(p, epochs=epochs) for p in probe.load().phases(probe.params)]  # more than it takes itself
            plans[reference] = ({**probe.spec(), "epochs": epochs}, alone, True)
        else:
            rate = plugins.load("backbones", chosen["backbone"]["name"]).SCRATCH_LEARNING_RATE
            spec = {"name": "from_scratch", "epochs": epochs, "learning_rate": rate}
            plans[reference] = (spec, [Phase("scratch", epochs, everything(rate, rate))], False)
    return plans


def _write_tensors(path: Path, tensors: dict[str, Any]) -> None:
    from safetensors.torch import save

    write_atomic(path, save({name: one.detach().cpu().contiguous() for name, one in tensors.items()}))


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    from components.finetune.live import HISTORY

    pd.DataFrame(rows).reindex(columns=[c for c in HISTORY if c in rows[0]]).to_csv(
        path, index=False, float_format="%.8g"
    )


def _picture(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib.pyplot as plt
    import pandas as pd

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, part in pd.DataFrame(rows).groupby("run"):
        axes[0].plot(part["epoch"], part["validation_loss"], marker=".", label=str(name))
        axes[1].plot(part["epoch"], part["validation_accuracy"], marker=".", label=str(name))
    axes[0].set(title="Loss on validation", xlabel="epoch", yscale="log")
    axes[1].set(title="Accuracy on validation", xlabel="epoch")
    axes[1].legend()
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
