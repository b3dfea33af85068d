"""One cell of the quality table: a strategy trained on some shots of a set, and judged on the held-out rows."""

from __future__ import annotations

import json
import os
import shutil
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from quality import plans, sets
from quality.plans import Cell
from quality.sets import Set

from components import params, plugins
from components.contracts import InputError
from components.features import cached_features
from components.finetune import checkpoints, stage
from components.finetune.runs import Line, Trained
from components.job import Job
from components.model import infer

HOME = Path(__file__).parents[2]


class Quiet(Job):
    """A job that says nothing: hundreds of cells would fill the screen."""

    @classmethod
    def room(cls) -> str:
        """The stage that it goes by: every process its own, so that none removes what another one needs."""
        return f"quality-{os.getpid()}"

    def say(self, text: str) -> None:
        """Nothing."""

    def progress(self, items: Iterable[Any], what: str, total: int | None = None) -> Iterator[Any]:
        """The items."""
        return iter(items)


@dataclass
class Bench:
    """What the cells of a run share."""

    place: Path
    """Folder of the sets, of decoded pixels and of features; they are kept."""
    threads: int = 1
    known: dict[str, Set] = field(default_factory=lambda: sets.SETS)
    section: dict[str, Any] = field(default_factory=lambda: params.load_yaml(HOME / "params.yaml")["finetune"])
    """The repository's own options of the loop."""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    def table(self, name: str) -> pd.DataFrame:
        """The set's manifest, read once."""
        if name not in self.tables:
            self.tables[name] = self.known[name].table(self.place)
        return self.tables[name]

    def run(self, cell: Cell, done: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The line of a cell; None where `done` is that line already."""
        given = self.known[cell.set]
        table = sets.dealt(self.table(cell.set), given, cell.seed, cell.shots)
        num = table["split"].value_counts()
        training = plans.Training(int(num["train"]), int(table["label"].nunique()), given)
        options = plans.trained_by(cell.strategy, self.section, training)
        told = {
            **vars(cell),
            "options": options.strategy.spec(),
            "digest": plans.digest(cell.strategy, given, self.section, self.threads),
        }
        if done is not None and all(done.get(key) == told[key] for key in ("options", "digest")):
            return None
        start, busy = time.monotonic(), time.process_time()
        try:
            figures = self._measured(cell, given, options, table)
        except InputError as problem:  # a strategy that is not for such data or weights: an answer too
            figures = {"not_run": str(problem)}
        spent = {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time() - busy}
        return {**told, **{f"num_{k}": int(n) for k, n in num.items()}, **figures,
                **{k: round(v, 2) for k, v in spent.items()}}  # fmt: skip

    def _measured(self, cell: Cell, given: Set, options: stage.Params, table: pd.DataFrame) -> dict[str, Any]:
        choice, job = (
            options.strategy,
            Quiet.at(self.place, Quiet.room(), seed=cell.seed, task=given.task, threads=self.threads),
        )
        line = self.line(job, given, options, table)
        try:
            with mock.patch.object(checkpoints, "write"):  # a cell is short: it is trained again, not gone on with
                module = choice.load()
                if hasattr(module, "choose"):  # auto
                    choice, _ = module.choose(choice.params, line)
                phases = choice.load().phases(choice.params)
                done = line.train("main", choice.spec(), phases, pretrained=True)
        finally:
            line.forget()
        test = table[table["split"] == "test"]
        logits = _logits(line, done, test, job, frozen=all(p.cached for p in phases))
        targets = line.decision.targets(test["label"], line.labels)
        right = logits.argmax(axis=1) == targets
        losses = line.decision.log_losses(
            line.decision.probabilities(logits, 1.0), line.decision.indicators(test["label"], line.labels)
        )
        return {
            "accuracy": float(right.mean()),
            "log_loss": float(losses.mean()),
            "validation_accuracy": done.course.figures["validation_accuracy"],
            "num_samples_seen": done.record.num_samples_seen,
            "best_epoch": done.record.best_epoch,
            "found": done.record.found,
            "trained": choice.name,
            "right": np.packbits(right).tobytes().hex(),
        }

    def line(self, job: Job, given: Set, options: stage.Params, table: pd.DataFrame) -> Line:
        """What a cell is trained on. Samples are not varied."""
        backbone = plugins.choose("backbones", given.backbone)
        network = {"backbone": backbone.spec(), "preprocessing": backbone.load().preprocessing(backbone.params)}
        policy = {"policy": {"name": "identity"}, "seed": job.run.seed, "note": ""}
        return Line(options, job, network, policy, table)


def _logits(line: Line, done: Trained, test: pd.DataFrame, job: Job, *, frozen: bool) -> np.ndarray:
    """Of the held-out rows; a frozen backbone's features of them are kept for the next cell."""
    rows, device = line.feed.prepare(test, job), torch.device("cpu")
    if not frozen:
        return infer(done.model, rows, line.feed, device, job.progress, "test")
    backbone = done.model.backbone
    features = cached_features(
        backbone,
        line.feed.key(test),
        job.cache("features"),
        lambda: infer(backbone, rows, line.feed, device, job.progress, "test"),
    )
    with torch.inference_mode():
        return done.model.head(torch.from_numpy(features)).numpy()


def read(file: Path) -> dict[tuple[str, int, str, str], dict[str, Any]]:
    """Every cell's last line, in the order of the file."""
    found: dict[tuple[str, int, str, str], dict[str, Any]] = {}
    for one in _lines(file):
        if "unavailable" not in one:
            key = Cell(one["set"], one["seed"], one["shots"], one["strategy"]).key
            found.pop(key, None)
            found[key] = one
    return found


def unavailable(file: Path) -> dict[str, str]:
    """Sets that could not be had when they were last asked for -> why."""
    last = {one["set"]: one.get("unavailable") for one in _lines(file)}
    return {name: why for name, why in last.items() if why is not None}


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """A line that was cut by a kill is none."""
    for text in file.read_text("utf-8").splitlines() if file.exists() else []:
        try:
            yield json.loads(text)
        except ValueError:
            continue


def add(file: Path, line: dict[str, Any]) -> None:
    """One line more, on the disk; the first of a run ends what a killed one left."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torn = file.exists() and file.stat().st_size > 0 and not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as handle:
        handle.write("\n" * torn + json.dumps(line, ensure_ascii=False) + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def run_all(bench: Bench, cells: list[Cell], file: Path, again: Iterable[str] = ()) -> int:
    """Measure what the file lacks; strategies in `again` anew. Returns the cells that failed by a fault."""
    anew, lost, failed, spent = set(again), set(), 0, 0.0
    earlier = read(file)
    for number, cell in enumerate(cells, 1):
        where = f"{number}/{len(cells)} {cell.set} seed {cell.seed} shots {cell.shots} {cell.strategy}"
        done = None if cell.strategy in anew else earlier.get(cell.key)
        if cell.set in lost:
            continue
        try:
            line = bench.run(cell, done)
        except sets.Unavailable as reason:
            lost.add(cell.set)
            add(file, {"set": cell.set, "unavailable": str(reason)})
            print(f"{cell.set} is left out: {reason}", flush=True)
            continue
        except Exception:  # a strategy with a fault must not cost the others their night
            failed += 1
            print(f"{where}: failed, and will be tried again\n{traceback.format_exc()}", flush=True)
            continue
        if line is None:
            continue
        add(file, line)
        spent += line["seconds"]
        told = f"accuracy {line['accuracy']:.4f}" if "accuracy" in line else f"not run: {line['not_run']}"
        print(f"{where}: {told}, {line['seconds']:.1f} s ({line['cpu_seconds']:.1f} s of CPU)", flush=True)
    for folder in (bench.place / ".graftline", bench.place / "reports"):
        shutil.rmtree(folder / Quiet.room(), ignore_errors=True)
    print(f"{spent / 3600:.2f} hours; {failed} cells failed", flush=True)
    return failed
