"""What follows a retraining that nobody watched: its record is committed, the bundle released and promoted.

As far as monitor.then says. Each step finds what an earlier go has done already, so after a failure a second go goes
on; and each refuses by its own rules, so that what is not fit stays where it is, and what was live stays live.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.contracts import InputError, Refused, read_table, write_json
from pipelines import bundles, operations, processes
from pipelines.triggers import Trigger

RECORD = ("dvc.lock", "artifacts/*/metrics.json")
"""What git keeps of a run."""
COMPARISON = "reports/monitor/against_live.json"
ACCEPTED = "artifacts/validate/accepted.parquet"
TITLE = 100


def after(root: Path, cause: str, run: str = "") -> list[str]:
    """Commit, release, promote, as monitor.then says; what was done, by lines. `run`: the monitor's, for the record.

    Raises:
        InputError: git, a key, settings, or what lies in the work tree stand in the way: a person mends it, and a later
            go goes on from there.
        Refused: the candidate may not go live; what was live is live.
    """
    then = operations.read(root).monitor.then
    if then in ("nothing", "train"):
        return []
    told = [commit(root, cause, run)]
    told += released(root)
    if then == "promote":
        told += promoted(root, cause, run)
    return told


def released(root: Path) -> list[str]:
    """Release the bundle, unless it is the newest release already; so a commit since then does not stand in the way.

    Raises:
        InputError: it cannot be released as things lie.
    """
    from components.handoff.verify_bundle import SUMS
    from pipelines import promote, release

    newest = max(promote.releases(root), key=lambda one: one.number, default=None)
    if newest is not None and release.tagged(root, newest.name, newest.version):
        own, there = root / bundles.BUNDLE / SUMS, newest.folder / SUMS
        if own.is_file() and there.is_file() and own.read_bytes() == there.read_bytes():
            return [f"{newest.name} {newest.version} is released already"]
    try:
        return release.release(root)
    except Refused as error:  # its verdicts have passed, or it would not have come so far: the rest can be mended
        raise InputError(str(error)) from None


def commit(root: Path, cause: str, run: str = "") -> str:
    """Commit dvc.lock and the metrics of the stages, and nothing else.

    Raises:
        InputError: other tracked files differ from the last commit, or git refuses.
    """
    own, others = _changed(root)
    if others:
        named = ", ".join(others[:5]) + (" ..." if len(others) > 5 else "")
        raise InputError(f"the record of the retraining is not committed, as other files differ: {named}. Commit those")
    if not own:
        return "the record of the retraining is committed already"
    title = " ".join(f"Retrained: {cause}".split())
    title = title if len(title) <= TITLE else f"{title[: TITLE - 1]}…"
    text = f"{title}\n\n{cause}\n" + (f"\nRun: {run}\n" if run else "")
    _git(root, "add", "--", *own)
    _git(root, "commit", "--quiet", "--message", text, "--", *own)
    return f"committed: {title}"


def _changed(root: Path) -> tuple[list[str], list[str]]:
    """Files of the record that differ from the last commit, and other tracked files that do."""
    told = _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", ".")
    entries = [(line[:2], line[3:]) for line in told.split("\0") if line]
    prefix = _git(root, "rev-parse", "--show-prefix").strip()
    own, others = [], []
    for state, name in entries:
        inside = name.removeprefix(prefix)
        if any(Path(inside).match(pattern) for pattern in RECORD):
            own.append(inside)
        elif state != "??":
            others.append(inside)
    return sorted(own), sorted(others)


def _git(root: Path, *words: str) -> str:
    code, out, complaint = processes.quietly(["git", *words], root)
    if code:
        last = (complaint or out.decode("utf-8", "replace")).splitlines()[-1:] or [str(code)]
        raise InputError(f"git {words[0]} refuses, so the retraining is not released: {last[0]}")
    return out.decode("utf-8", "surrogateescape")


def promoted(root: Path, cause: str, run: str) -> list[str]:
    """Compare with the live one, then promote. What started it is what the monitor's run found."""
    from pipelines import promote

    told = compared(root)
    return [*told, *promote.promote(root, None, None, None, cause, False, Trigger("drift", "monitor", cause, run))]


def compared(root: Path) -> list[str]:
    """The live model and the candidate on the candidate's own test split: for people by lines, and in COMPARISON for
    contest.py, which decides by it."""
    from components.lineage import hash_file
    from pipelines import promote

    live = promote.live(root, full=True)
    if live is None:
        return ["Nothing is live yet, so there is nothing to compare with."]
    found = _measured(root, live.folder)
    models = {"candidate": root / bundles.BUNDLE, "live": live.folder}
    found["models"] = {name: hash_file(folder / "model.onnx") for name, folder in models.items()}
    write_json(root / COMPARISON, found)
    if "gain" not in found:
        return [f"Not compared with the live model: {found['note']}."]
    gain, shares = found["gain"], {name: found[name]["value"] for name in models}
    return [
        f"On {found['num_compared']} samples of the new test split: {shares['candidate']:.1%}, the live model "
        f"{shares['live']:.1%}; difference {100 * gain['value']:+.1f} points ({100 * gain['low']:+.1f} to "
        f"{100 * gain['high']:+.1f}); {found['note']}."
    ]


def _measured(root: Path, live: Path) -> dict[str, Any]:
    from components.job import Job
    from components.monitoring.against_live import compare
    from pipelines import stage

    typed: Any = stage.read_params(root)
    job = Job("monitor", typed["run"], root, ())
    known = learnt_from(root, live)
    return compare(root / bundles.BUNDLE, live, read_table(root / ACCEPTED), known, root, job)


def learnt_from(root: Path, folder: Path) -> frozenset[str] | None:
    """sha256 of the samples that a bundle was trained and tuned on; None: not known."""
    from pipelines import versions

    found = versions.gather(root).same(versions.Version({}, root, folder=folder))
    place = found.where(ACCEPTED) if found else None
    if place is None:
        return None
    table = read_table(place)
    return frozenset(table.loc[table["split"] != "test", "sha256"])
