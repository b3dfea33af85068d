"""One look of the monitor: which model is live, what of the data is new to it, and what the rules say; writes
reports/monitor/. What is computed stands in components/monitoring."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contracts import InputError, read_json, write_atomic, write_json
from pipelines import bundles, looks, operations, promote
from pipelines.looks import Looked

if TYPE_CHECKING:
    from components.job import Job
    from components.monitoring.arrivals import Arrived
    from components.monitoring.measure import Measured
    from pipelines.promote import Live
    from pipelines.versions import Version

MANIFEST = "artifacts/ingest/manifest.parquet"


@dataclass(frozen=True)
class Model:
    """The bundle that is live, or what stands in for it."""

    title: str
    folder: Path
    digest: str
    since: float | None
    """When it went live; None: nothing was promoted, and the bundle at hand is looked at."""


def live_model(root: Path, full: bool = False) -> Model:
    """The live bundle, else the one that the line made last.

    Raises:
        InputError: there is none.
        Refused: it is not what went live, or (`full`) does not hold.
    """
    live = promote.live(root, full=full)
    if live is not None:
        return Model(f"{live.name} {live.version} ({live.environment})", live.folder, live.digest, _seconds(live))
    folder = root / bundles.BUNDLE
    if not (folder / "SHA256SUMS").is_file():
        raise InputError(f"nothing is live, and {bundles.BUNDLE} is not there: there is no model to look at")
    if full:
        bundles.must_hold(folder, None, unsigned=True)
    from components.lineage import hash_file

    return Model("the bundle at hand (none is live)", folder, hash_file(folder / "SHA256SUMS"), None)


def _seconds(live: Live) -> float:
    return datetime.fromisoformat(live.since).timestamp()


def judge(root: Path, settings: operations.Monitor, model: Model, data: Path, name: str) -> tuple[Looked, Arrived]:
    """The look itself, and what it was about."""
    from components.job import Job
    from components.monitoring import answers, arrivals, measure
    from pipelines import stage

    os.environ.update(stage.QUIET)
    typed: Any = stage.read_params(root)
    model = replace(live_model(root, full=True), since=model.since)
    version, known, new_means = _made_from(root, model)
    job = Job("monitor", typed["run"], root, ())
    inner = Job("ingest", typed["run"], job.work("arrived", os.getpid()), ())
    source = settings.source or typed["ingest"].source
    seen = looks.seen(root, model.digest)
    try:
        arrived = arrivals.gather(data, source, known, seen, inner, job, time.time())
        looks.remember(root, model.digest, arrived.marks_of_known)
        if len(arrived.table) < settings.min_samples:
            return _waiting(arrived, settings, model, name), arrived
        said = answers.ask(model.folder, arrived.table, inner.root, job)
        _clear(job)
        called = f"{len(arrived.table)} new samples"
        measured = measure.measure(model.folder, arrived, said, settings.columns, settings.embeddings, job, called)
    finally:
        shutil.rmtree(inner.root, ignore_errors=True)
    measured.metrics.update(_ages(model, version))
    return _conclude(root, settings, model, arrived, measured, (job, name, new_means)), arrived


def _waiting(arrived: Arrived, settings: operations.Monitor, model: Model, name: str) -> Looked:
    num = len(arrived.table)
    told = f"{num} new sample{'s' * (num != 1)}; {settings.min_samples} are needed to judge (monitor.min_samples)."
    if arrived.unreadable:
        told += f" Besides, {sum(arrived.unreadable.values())} cannot be read."
    if arrived.num_arriving:
        told += f" {arrived.num_arriving} may still be on the way."
    return Looked("waiting", told, num, model.title, name, "")


def _clear(job: Job) -> None:
    """The detector's page of an earlier look."""
    for old in job.report("x").parent.glob("evidently.html"):
        old.unlink()


def _made_from(root: Path, model: Model) -> tuple[Version | None, frozenset[str], str]:
    """The live model among the project's versions, sha256 of the samples that it was made from, and what new means."""
    from components.contracts import read_table
    from pipelines import versions

    given = versions.Version({}, root, folder=model.folder)
    found = versions.gather(root).same(given)
    place = found.where(MANIFEST) if found else None
    told = "not among the samples that the live model was made from"
    if place is None and (root / MANIFEST).is_file():
        place, told = (
            root / MANIFEST,
            "not among the samples that `ingest` read last (those of the live model are gone)",
        )
    if place is None:
        return found, frozenset(), "every sample, as nobody knows what the live model was made from"
    return found, frozenset(read_table(place)["sha256"]), f"{told}, and not judged by it before"


def _ages(model: Model, version: Version | None) -> dict[str, float]:
    now, found = time.time(), {}
    if model.since is not None:
        found["days_live"] = max(0.0, now - model.since) / 86_400
    if version is not None and version.date:
        recorded = datetime.fromisoformat(version.date).replace(tzinfo=UTC).timestamp()
        found["days_since_trained"] = max(0.0, now - recorded) / 86_400
    return found


def _conclude(
    root: Path, settings: operations.Monitor, model: Model, arrived: Arrived, measured: Measured, about: Any
) -> Looked:
    """Judge by the rules, and write reports/monitor/."""
    from components.monitoring import figures, page

    job, name, new_means = about
    verdict = figures.judge(settings.rules, measured.metrics, measured.why_not)
    state = "quiet" if verdict.passed else "drift"
    at = datetime.now(UTC).isoformat(timespec="seconds")
    num = int(measured.metrics["num_new"])
    failed = tuple(f"{one.name}: {one.why}" for one in verdict.rules if not one.passed)
    looked = Looked(state, measured.headline, num, model.title, name, at, failed)
    picture = "evidently.html" if job.report("evidently.html").is_file() else ""
    told = {
        **asdict(measured), "at": at, "state": state, "data": name, "project": job.run.name, "new_means": new_means,
        "bundle": {"title": model.title, "digest": model.digest, "checked": "verified before it was asked"},
        "num_arriving": arrived.num_arriving, "picture": picture, "done": "",
        "recorded_accuracy": _recorded(model.folder),
    }  # fmt: skip
    line = {"at": at, "state": state, "bundle": model.title, "num_new": num, "told": measured.headline}
    write_json(job.report("verdict.json"), verdict)
    write_json(job.report("monitor.json"), told)
    past = looks.add(root, {**line, "metrics": measured.metrics})
    write_atomic(job.report("index.html"), page.render(read_json(job.report("monitor.json")), verdict, past).encode())
    return looked


def _recorded(folder: Path) -> float | None:
    try:
        return float(read_json(folder / "metrics.json")["shipped"]["accuracy"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
