"""Rank the pretrained candidates by how well their features fit the data, and by what they cost.

Reads: validate/accepted.parquet (train split only), the candidates' weights.
Writes: chosen.json (the backbone, its preprocessing, why), leaderboard.json (every candidate: scores, ranks,
prior, cost, why it was left out), leaderboard.csv, files/ (what the
preprocessing rests on: a tokenizer). For people: reports/select/leaderboard.png, latency.json.
Decides: the mean rank over `scores`, `coverage` (the share of the tokens that a candidate's own tokenizer keeps and
knows) being one more for texts, published accuracy being one more where every candidate states it (over
11 networks and 11 data sets, https://github.com/TencentARC/SFDA, it ranks with weighted tau 0.65, LogME with
0.51, the two with NCE together with 0.77); a tie goes to fewer multiplications. A candidate beyond the budget
is left out before its features are computed; by latency only where the measured one is over by more than 10
%, as measured times wander. To pin that decision take the candidate out, or set max_latency_ms to null.
Fails: weights that are missing or do not fit, a candidate for another task, none within the budget
(InputError).
Does not check: what fine-tuning will reach. Scores look at frozen features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator

from components import params
from components.contracts import InputError, put_files, write_json
from components.job import Job
from components.plugins import Choice, Family

if TYPE_CHECKING:
    from components.select.ranking import Entry
    from components.select.trial import Trial

NEEDS = ("validate",)


class Budget(params.Params):
    """Limits; null is no limit."""

    max_parameters_millions: float | None = Field(gt=0)
    """Parameters of the backbone without its classifier."""
    max_gmacs: float | None = Field(gt=0)
    """10^9 multiply-accumulates a sample."""
    max_latency_ms: float | None = Field(gt=0)
    """Measured here at batch 1 on run.device, in torch."""


class Params(params.Params):
    """Section `select`."""

    candidates: list[Annotated[Choice, Family("backbones")]] = Field(min_length=1)
    """What to choose among."""
    scores: list[Annotated[Choice, Family("select.scores")]] = Field(min_length=1)
    """Combined by mean rank."""
    max_samples: int = Field(ge=10)
    """Training samples that the scores use at most; every label keeps its share."""
    budget: Budget
    """Candidates beyond are not chosen."""

    @field_validator("candidates")
    @classmethod
    def _differ(cls, candidates: list[Choice]) -> list[Choice]:
        return _once(candidates, "candidates")

    @field_validator("scores")
    @classmethod
    def _scores_differ(cls, scores: list[Choice]) -> list[Choice]:
        return _once(scores, "scores")


def run(params: Params, job: Job) -> dict[str, float]:
    """Returns counts, the chosen one's cost, and best_<score> over the candidates."""
    from components.select import ranking
    from components.select.picture import draw
    from components.select.trial import Trial

    trial = Trial(params, job)
    entries = [trial.weigh(i) for i in range(len(params.candidates))]
    write_json(job.report("latency.json"), {"device": str(trial.device), "batch": 1, "latency_ms": trial.latency})
    admitted = [(i, e) for i, e in enumerate(entries) if not e.excluded_because]
    if not admitted:
        figures = "\n".join(f"  - {e.title}: {trial.figures(e)}. {e.excluded_because}" for e in entries)
        raise InputError(
            "select.budget: no candidate is within it. Raise a limit, set it to null, or add a smaller one.\n" + figures
        )
    for i, entry in admitted:
        trial.judge(i, entry)
    ordered = ranking.rank([e for _, e in admitted])
    agrees = ranking.prior_agrees(ordered)
    apart = ranking.difference(ordered[0], ordered[1], job.run.seed) if len(ordered) > 1 else None
    why = ranking.why(ordered, apart, agrees)
    job.say(why)
    _write(trial, ordered, entries, why, apart, agrees)
    draw(ordered, job.report("leaderboard.png"))
    best = ordered[0]
    return {
        "num_candidates": float(len(entries)),
        "num_excluded": float(len(entries) - len(ordered)),
        "num_samples": float(len(trial.scored)),
        "chosen_parameters_millions": best.cost["parameters_millions"],
        "chosen_gmacs": best.cost["gmacs"],
        **{f"best_{name}": max(e.scores[name] for e in ordered) for name in best.scores},
    }


def _once(choices: list[Choice], what: str) -> list[Choice]:
    specs = [c.spec() for c in choices]
    for number, spec in enumerate(specs):
        if spec in specs[:number]:
            raise ValueError(f"{what}[{number}] is the same as {what}[{specs.index(spec)}]; take one of them out")
    return choices


def _write(
    trial: Trial,
    ordered: list[Entry],
    entries: list[Entry],
    why: str,
    apart: dict[str, Any] | None,
    agrees: bool | None,
) -> None:
    import pandas as pd

    from components.select.ranking import share_won

    job, best = trial.job, ordered[0]
    job.out("files/.keep").touch()  # so that there is a folder where the preprocessing has no files
    write_json(
        job.out("chosen.json"),
        {
            "backbone": best.backbone,
            "title": best.title,
            "preprocessing": put_files(job.out("files"), trial.preprocessing(entries.index(best))),
            "pretrained": best.pretrained,
            "why": why,
            "runners_up": [e.title for e in ordered[1:]],
        },
    )
    rows = [*ordered, *(e for e in entries if e.excluded_because)]
    write_json(
        job.out("leaderboard.json"),
        {
            "candidates": [_plain(e) for e in rows],
            "prior_agrees": agrees,
            "difference": apart,
            "num_samples": len(trial.scored),
            "labels": len(trial.labels),
            "note": _note(ordered, agrees),
        },
    )
    columns = [
        {"candidate": e.title, "score": share_won(e, len(ordered)), "mean_rank": e.mean_rank, **e.scores,
         "published": e.prior, **e.cost}
        for e in ordered
    ]  # fmt: skip
    pd.DataFrame(columns).to_csv(job.out("leaderboard.csv"), index=False, lineterminator="\n")


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "title": entry.title,
        "backbone": entry.backbone,
        "scores": entry.scores,
        "ranks": entry.ranks,
        "mean_rank": entry.mean_rank,
        "prior": entry.prior,
        "cost": entry.cost,
        "fit": entry.fit,
        "within_budget": not entry.excluded_because,
        "excluded_because": entry.excluded_because,
        "rank": entry.rank,
    }


def _note(ordered: list[Entry], agrees: bool | None) -> str:
    if len(ordered) == 1:
        return "One candidate within the budget: nothing was compared."
    if agrees is None:
        return "Not every candidate states its published accuracy, so scores alone decided."
    same = "the same candidate" if agrees else "another candidate"
    return (
        f"Published accuracy is one of the ranks; alone it would choose {same}. Over unlike candidates it is "
        "known to rank better than transferability scores."
    )
