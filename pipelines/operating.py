"""The commands that keep a line running: what `python -m pipelines` understands of them, and their help."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pipelines.operating_help import (
    BACKTEST,
    COMMENT,
    MONITOR,
    PROMOTE,
    PRUNE,
    REAP,
    ROLLBACK,
    RUNS,
    SCORE,
    SERVE,
    SWEEP,
    TUNE,
)


class Commands(Protocol):
    """What parser.py collects commands in."""

    def add(
        self, name: str, does: Callable[[argparse.Namespace], int], told: str, more: str = ""
    ) -> argparse.ArgumentParser:
        """One more."""


def add_to(commands: Commands, here: Path) -> None:
    """Every command of this module."""
    one = commands.add("runs", lambda a: runs(here, a), "what ran, when, why, and how it ended", RUNS)
    one.add_argument("--last", type=int, default=20, metavar="N", help="the newest N; default 20")
    one.add_argument("--json", action="store_true", help="print all of it as JSON")
    one = commands.add("reap", lambda a: reap(here, a), "notice runs that died; resume them once", REAP)
    one.add_argument("--resume", action="store_true", help="resume what nobody watched")
    one = commands.add("monitor", lambda a: monitor(here, a), "judge new data by the live bundle; retrain", MONITOR)
    one.add_argument("--only-look", action="store_true", help="judge, and do nothing about it")
    one = commands.add("promote", lambda a: promote(here, a), "make a release the live one", PROMOTE)
    told = "a version, or a release's folder; by default the newest"
    one.add_argument("which", metavar="VERSION", nargs="?", help=told)
    _about_a_place(one)
    one.add_argument("--key", metavar="PUBLIC.pem", help="public key of whom you trust; by default your own")
    told = "take one that is older than the live one, or has another name; promote.max_loss is asked all the same"
    one.add_argument("--allow-older", action="store_true", help=told)
    one = commands.add("rollback", lambda a: rollback(here, a), "make the one before live again", ROLLBACK)
    _about_a_place(one)
    one.add_argument("--key", metavar="PUBLIC.pem", help="public key of whom you trust; by default your own")
    one.add_argument("--to", metavar="VERSION", help="further back, to one that was live before")
    one = commands.add("deployed", lambda a: deployed(here, a), "what is live, since when, and what was before")
    one.add_argument("--json", action="store_true", help="print all of it as JSON")
    one = commands.add("prune", lambda a: prune(here, a), "remove what is too old to keep", PRUNE)
    one.add_argument("--dry-run", action="store_true", help="only tell what would be removed")
    one = commands.add("backtest", lambda a: backtest(here, a), "how fast does the model age?", BACKTEST)
    _about_dates(one)
    one = commands.add("comment", lambda a: comment(here, a), "what differs from a commit, for a pull request", COMMENT)
    one.add_argument("--base", metavar="COMMIT", help="compare with this one; by default the last")
    one.add_argument("--out", metavar="FILE", help="write it there; by default it is printed")
    one.add_argument("--link", metavar="TITLE=URL", action="append", default=[], help="where something is to be seen")
    _about_many(commands, here)
    one = commands.add("serve", lambda a: serve(here, a), "schedules, events and the watch, on one machine", SERVE)
    told = "of Prefect's server, where none is named by PREFECT_API_URL; default 4200"
    one.add_argument("--port", type=_port, metavar="N", help=told)


def _about_dates(one: argparse.ArgumentParser) -> None:
    one.add_argument("--date", metavar="COLUMN", required=True, help="the attribute that holds a sample's date")
    one.add_argument("--period", choices=("week", "month", "quarter", "year"), default="month", help="default: month")
    numbers = {
        "cuts": (4, "most models that are trained; default 4"),
        "min-train": (100, "fewer samples before a date are too few to train on; default 100"),
        "min-judged": (20, "a period with fewer samples is not judged; default 20"),
    }
    for name, (default, told) in numbers.items():
        place = "max_cuts" if name == "cuts" else name.replace("-", "_")
        one.add_argument(f"--{name}", dest=place, type=int, default=default, metavar="N", help=told)
    one.add_argument("--quick", action="store_true", help="a linear probe in place of finetune.strategy")
    one.add_argument("--keep", action="store_true", help="leave the clones, to look at what was trained")


def _about_many(commands: Commands, here: Path) -> None:
    one = commands.add("sweep", lambda a: sweep(here, a), "try several settings side by side", SWEEP)
    which = one.add_mutually_exclusive_group(required=True)
    which.add_argument("--over", metavar="KEY", help="of params.yaml: one setting for each of --values, or of its list")
    which.add_argument("--changes", metavar="FILE", help="a YAML list of {name: ..., set: {KEY: VALUE}}")
    one.add_argument("--values", metavar="LIST", help="what KEY is set to, in YAML")
    one.add_argument("--metric", default="validation.accuracy", help="larger is better; default validation.accuracy")
    one.add_argument("--until", metavar="STAGE", help="only what this stage needs; by default the whole line")
    one.add_argument("--keep", action="store_true", help="leave the workspaces, to look at what was made")
    _about_tuning(commands.add("tune", lambda a: tune(here, a), "look for better settings of finetune", TUNE))
    one = commands.add("score", lambda a: score(here, a), "label many samples with a bundle, in shards", SCORE)
    one.add_argument("bundle", metavar="BUNDLE", help="as for predict")
    one.add_argument("input", metavar="INPUT", help="a folder of files, or a file of lines")
    one.add_argument("--out", metavar="FILE", required=True, help="a .jsonl, .csv or .parquet")
    one.add_argument("--shards", type=int, default=1, metavar="N", help="default 1: without Prefect")
    one.add_argument("--key", metavar="PUBLIC.pem", help="public key of whom you trust; by default your own")
    one.add_argument("--unsigned", action="store_true", help="take a bundle that is not released")


def _about_tuning(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--minutes", type=float, metavar="M", required=True, help="begin and go on with trials for so long"
    )
    one.add_argument("--trials", type=int, metavar="N", help="at most N in all, with those of earlier sessions")
    told = "tune these: KEY, KEY=LOW..HIGH or KEY=[ONE, ANOTHER]; by default those of the strategy that matter"
    one.add_argument("--keys", nargs="+", metavar="KEY", help=told)
    told = "what finetune tells of the validation split; default validation_loss, which is finer than accuracy"
    one.add_argument("--metric", default="validation_loss", help=told)
    one.add_argument("--dry-run", action="store_true", help="only tell what won; params.yaml stays as it is")


def _about_a_place(one: argparse.ArgumentParser) -> None:
    one.add_argument("--environment", metavar="NAME", help="such as staging; by default promote.environment")
    one.add_argument("--because", metavar="TEXT", default="", help="why; kept in the record")


def runs(root: Path, options: argparse.Namespace) -> int:
    """The record of runs."""
    from pipelines.runs import show

    print("\n".join(show(root, options.last, options.json)))
    return 0


def reap(root: Path, options: argparse.Namespace) -> int:
    """Runs that died."""
    from pipelines.reaper import reap as notice

    print("\n".join(notice(root, resume=options.resume)) or "No run died.")
    return 0


def monitor(root: Path, options: argparse.Namespace) -> int:
    """New data against the live bundle."""
    from pipelines.monitor import monitor as look

    return look(root, only_look=options.only_look)


def promote(root: Path, options: argparse.Namespace) -> int:
    """Another bundle goes live."""
    from pipelines.promote import promote as raise_up

    asked = (options.which, options.environment, _key(options.key), options.because, options.allow_older)
    print("\n".join(raise_up(root, *asked)))
    return 0


def rollback(root: Path, options: argparse.Namespace) -> int:
    """The bundle before goes live again."""
    from pipelines.promote import rollback as go_back

    print("\n".join(go_back(root, options.environment, _key(options.key), options.because, options.to)))
    return 0


def deployed(root: Path, options: argparse.Namespace) -> int:
    """What is live."""
    from pipelines.promote import deployed as tell

    print("\n".join(tell(root, options.json)))
    return 0


def prune(root: Path, options: argparse.Namespace) -> int:
    """What is too old goes."""
    from pipelines.prune import prune as clear

    print("\n".join(clear(root, dry_run=options.dry_run)))
    return 0


def backtest(root: Path, options: argparse.Namespace) -> int:
    """Dated data, replayed."""
    from pipelines import runs
    from pipelines.backtest import Wish
    from pipelines.backtest import backtest as replay

    names = ("date", "period", "max_cuts", "min_train", "min_judged", "quick", "keep")
    with runs.recorded(root, "backtest"):
        return replay(root, Wish(**{name: getattr(options, name) for name in names}))


def comment(root: Path, options: argparse.Namespace) -> int:
    """A comment for a pull request."""
    from pipelines.comment import comment as write

    print("\n".join(write(root, options.base or None, Path(options.out) if options.out else None, options.link)))
    return 0


def sweep(root: Path, options: argparse.Namespace) -> int:
    """Several settings side by side."""
    from pipelines import runs
    from pipelines.fan_out import Wish
    from pipelines.fan_out import sweep as attempt

    names = ("over", "values", "changes", "metric", "until", "keep")
    with runs.recorded(root, "sweep"):
        return attempt(root, Wish(**{name: getattr(options, name) for name in names}))


def tune(root: Path, options: argparse.Namespace) -> int:
    """Better settings of finetune."""
    from pipelines import runs
    from pipelines.tune import Wish
    from pipelines.tune import tune as look

    keys = tuple(options.keys) if options.keys else None
    with runs.recorded(root, "tune"):
        return look(root, Wish(options.minutes, options.trials, keys, options.metric, options.dry_run))


def score(root: Path, options: argparse.Namespace) -> int:
    """A bundle on many samples."""
    from pipelines.shards import score as label_all

    given = (options.bundle, Path(options.input), Path(options.out), options.shards, options.key, options.unsigned)
    print("\n".join(label_all(root, *given)))
    return 0


def serve(root: Path, options: argparse.Namespace) -> int:
    """Schedules on this machine."""
    from pipelines.flows import served

    served.seconds(served.PACE, 5, whole=True)  # before Prefect reads it, which would answer with a traceback
    served.seconds(served.WATCH, 15)
    from pipelines.flows.serve import serve as keep_on

    return keep_on(root, options.port)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 1 to 65535")
    return int(text)


def _key(given: str | None) -> Path | None:
    return Path(os.path.expanduser(given)) if given else None
