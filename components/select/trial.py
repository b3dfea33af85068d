"""The candidates on trial: each is built, its cost counted, its features scored."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg  # noqa: F401  brings a BLAS of its own, which must be there before its threads are limited
import torch
from threadpoolctl import threadpool_limits

from components import plugins, samples
from components.contracts import InputError, read_table
from components.features import cached_features, extract
from components.job import Job
from components.model import Feed, pick_device
from components.plugins import Choice
from components.select import cost
from components.select.ranking import Entry

if TYPE_CHECKING:
    import pandas as pd

    from components.select.stage import Params

LATENCY_MARGIN = 1.1
RANKED = ("coverage",)
"""What of a preprocessing's fit counts in the choice as a score."""
WHOLE_SPLIT = 2
"""Up to so many times max_samples the whole train split passes through: finetune then finds its features."""


class Trial:
    """What all candidates share: samples, labels, device, budget."""

    def __init__(self, params: Params, job: Job) -> None:
        self.params, self.job = params, job
        self.task = plugins.load("tasks", job.run.task)
        self.device: torch.device = pick_device(job.run.device)
        table = read_table(job.source("validate", "accepted.parquet")).sort_values("id")
        train = table[table["split"] == "train"].reset_index(drop=True)
        self.decision = plugins.load("decisions", job.run.decision)
        self.labels = self.decision.labels(train["label"])
        if len(self.labels) < 2:
            raise InputError(f"select: the train split has {len(self.labels)} label(s); to choose needs at least 2")
        self.scored = subsample(train, params.max_samples, job.run.seed)
        whole = len(train) <= WHOLE_SPLIT * params.max_samples
        self.table = train if whole else train.iloc[self.scored].reset_index(drop=True)
        self.places = self.scored if whole else np.arange(len(self.scored))
        self.targets = self.decision.classes(train["label"].iloc[self.scored])
        self.titles = _titles(params.candidates, lambda c: c.load().title(c.params))
        self.names = _titles(params.scores, lambda c: c.name)
        self.latency: dict[str, float] = {}

    def weigh(self, number: int) -> Entry:
        """The candidate with its cost, and why it is beyond the budget if it is."""
        choice, title = self.params.candidates[number], self.titles[number]
        network, preprocessing = self._build(number)
        inputs = tuple(torch.from_numpy(a) for a in Feed(self.task, preprocessing).example(1))
        counted = cost.count(network, inputs)
        self.latency[title] = round(cost.latency_ms(network, inputs, self.device), 3)
        figures = {"parameters_millions": counted.parameters_millions, "gmacs": counted.gmacs}
        prior = getattr(choice.params, "published_top1", None)
        pretrained = getattr(network, "provenance", {}).get("source") != "random"
        entry = Entry(title, choice.spec(), prior, figures, pretrained, self._beyond(title, figures))
        left_out = f". Left out: {entry.excluded_because}" if entry.excluded_because else ""
        self.job.say(f"{title}: {self.figures(entry)}{left_out}")
        return entry

    def figures(self, entry: Entry) -> str:
        """Its cost in words, with the measured time."""
        millions, gmacs = entry.cost["parameters_millions"], entry.cost["gmacs"]
        return f"{millions:.3g} million parameters, {gmacs:.3g} GMACs, {self.latency[entry.title]:.3g} ms"

    def judge(self, number: int, entry: Entry) -> None:
        """Fill in its scores."""
        features, entry.fit = self._features(number)
        entry.scores |= {k: round(entry.fit[k], 6) for k in RANKED if k in entry.fit}
        if not np.isfinite(features).all():
            raise InputError(
                f"select.candidates[{number}]: {entry.title} gives features that are not finite numbers. "
                "Its weights are damaged or not meant for this preprocessing."
            )
        # On matrices this small a second BLAS thread only waits: 29 s of CPU against 0.9 s for linear_probe.
        with threadpool_limits(limits=1, user_api="blas"):
            for choice, name in zip(self.params.scores, self.names):
                self._score(choice, name, entry, features)
        self.job.say(f"{entry.title}: " + ", ".join(f"{n} {v:.4g}" for n, v in entry.scores.items()))

    def _score(self, choice: Choice, name: str, entry: Entry, features: np.ndarray) -> None:
        module, seed = choice.load(), samples.keyed_seed(self.job.run.seed, "select", name)
        if hasattr(module, "correct"):
            entry.answers[name] = module.correct(features, self.targets, choice.params, seed)
            value = float(entry.answers[name].mean())
        else:
            value = module.score(features, self.targets, choice.params, seed)
        entry.scores[name] = round(value, 6)  # further digits differ between machines

    def preprocessing(self, number: int) -> dict[str, Any]:
        """What the candidate's network wants as input."""
        choice = self.params.candidates[number]
        return choice.load().preprocessing(choice.params)

    def _build(self, number: int) -> tuple[torch.nn.Module, dict[str, Any]]:
        choice, where = self.params.candidates[number], f"select.candidates[{number}]"
        module = choice.load()
        if self.job.run.task not in module.TASKS:
            raise InputError(f"{where}: {choice.name} is for {', '.join(module.TASKS)}, not for {self.job.run.task}")
        torch.manual_seed(samples.keyed_seed(self.job.run.seed, "initial weights"))  # where they are random
        try:
            return module.build(choice.params), self.preprocessing(number)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    def _features(self, number: int) -> tuple[np.ndarray, dict[str, float]]:
        """Features of the scored samples, float64 [N, D], kept, so that finetune finds them again; and how well
        the candidate's preprocessing fits them."""
        job = self.job
        network, preprocessing = self._build(number)
        network = network.to(self.device)
        feed = Feed(self.task, preprocessing)
        rows = feed.prepare(self.table, job)

        def compute() -> np.ndarray:
            what = f"features of {self.titles[number]}"
            return extract(network, rows, feed, self.device, job.progress, what, job.run.instruction_set)

        key, cache = feed.key(self.table), job.cache("features")
        features = cached_features(network, key, cache, compute, job.run.instruction_set)
        fit = self.task.fit(rows[self.places], preprocessing)
        return np.asarray(features[self.places], dtype=np.float64), fit

    def _beyond(self, title: str, figures: dict[str, float]) -> str:
        """Why it is beyond the budget, or "". Holds no measured time: the leaderboard is byte-stable."""
        budget = self.params.budget
        for name, unit in (("parameters_millions", "million parameters"), ("gmacs", "GMACs")):
            limit = getattr(budget, f"max_{name}")
            if limit is not None and figures[name] > limit:
                return f"{figures[name]:g} {unit} is over select.budget.max_{name} {limit:g}"
        limit = budget.max_latency_ms
        if limit is not None and self.latency[title] > LATENCY_MARGIN * limit:
            return f"its measured latency is over select.budget.max_latency_ms {limit:g} by more than 10 %"
        return ""


def subsample(table: pd.DataFrame, most: int, seed: int) -> np.ndarray:
    """Places of at most `most` rows, ascending: two of every label first, then each label by its share.

    Which rows of a label is drawn by (seed, id), so it does not depend on the other rows.
    """
    labels, ids = table["label"].to_numpy(), table["id"].to_numpy()
    order: list[tuple[bool, float, int, int]] = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        drawn = sorted((samples.keyed_seed(seed, "select", ids[i]), int(i)) for i in own)
        order += [(n >= 2, (n + 0.5) / len(own), key, i) for n, (key, i) in enumerate(drawn)]
    return np.array(sorted(i for *_, i in sorted(order)[:most]), dtype=np.int64)


def _titles(choices: Sequence[Choice], title: Callable[[Choice], str]) -> list[str]:
    """A name for each; same-named ones also bear the options that differ: `resnet18-image_size-96`."""
    titles = [title(c) for c in choices]
    found = []
    for choice, own in zip(choices, titles):
        same = [c.spec() for c, t in zip(choices, titles) if t == own]
        differ = [k for k in choice.spec() if len({str(s.get(k)) for s in same}) > 1]
        told = "".join(f"-{k}-{choice.spec()[k]}" for k in differ)
        found.append(own + re.sub(r"[^A-Za-z0-9._-]+", "_", told))
    return found
