"""New samples against a bundle's reference profile, and its accuracy where they have labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components import plugins, quality
from components.contracts import Interval, read_json
from components.drift.columns import MIN_SAMPLES, Judged
from components.job import Job
from components.plugins import Choice
from components.samples import keyed_seed

if TYPE_CHECKING:
    import pandas as pd

    from components.drift.sides import Side
    from components.monitoring.answers import Answers
    from components.monitoring.arrivals import Arrived

LEVEL = 0.95
NO_PROFILE = "the bundle has no reference profile (handoff.profile_samples was 0), so drift cannot be measured"


@dataclass(frozen=True)
class Measured:
    """All figures of one look."""

    metrics: dict[str, float]
    columns: tuple[Judged, ...]
    embeddings: dict[str, Any]
    headline: str
    unreadable: dict[str, int]
    unknown_labels: dict[str, int]
    why_not: str = ""
    """Why drift was not measured."""


def measure(
    bundle: Path, arrived: Arrived, said: Answers, columns: Choice, embeddings: Choice, job: Job, called: str
) -> Measured:
    """`called`: what the new samples are called in the sentence."""
    table = arrived.table[said.taken].reset_index(drop=True)
    unreadable = dict(sorted((Counter(arrived.unreadable) + Counter(said.refused)).items()))
    num_unreadable = sum(unreadable.values())
    metrics = {
        "num_new": float(len(table)),
        "num_unreadable": float(num_unreadable),
        "share_unreadable": num_unreadable / max(1, num_unreadable + len(table)),
    }
    if len(table):
        metrics["mean_confidence"] = float(said.confidence.mean())
    unknown = _unknown_labels(table["label"], said.labels, job)
    metrics |= accuracy(table["label"], said.predicted, _recorded(bundle))
    metrics["num_unknown_labels"] = float(sum(unknown.values()))
    judged: tuple[Judged, ...] = ()
    whole: dict[str, Any] = {}
    headline, why_not = NO_PROFILE[0].upper() + NO_PROFILE[1:] + ".", NO_PROFILE
    before = profile_of(bundle)
    if before is not None and len(table):
        from components.drift import compared
        from components.drift.sides import Side

        now = Side(table, _outputs(said), said.embeddings)
        judged = tuple(compared.columns(columns, before, now, bool(table["label"].notna().all()), job.report))
        whole = compared.embeddings(embeddings, before, now, keyed_seed(job.run.seed, "monitor", embeddings.name))
        metrics |= compared.figures(judged, whole)
        headline, why_not = compared.headline(judged, whole, called), ""
    return Measured(metrics, judged, whole, headline, unreadable, unknown, why_not)


def profile_of(bundle: Path) -> Side | None:
    """The reference side of a bundle; None where it has no profile."""
    from components.drift.sides import Side
    from components.handoff import profile

    folder = bundle / profile.FOLDER
    if not (folder / profile.FILES[0]).is_file():
        return None
    return Side(*profile.read(folder))


def accuracy(labels: Iterable[str | None], predicted: np.ndarray, recorded: Interval | None) -> dict[str, float]:
    """On the samples with a label; absent where fewer than 10 have one. A label that the model does not know makes its
    answer wrong. The loss is against independent samples: Newcombe's square-and-add interval (Statistics in Medicine
    17, 1998, method 10)."""
    right = [label == said for label, said in zip(labels, predicted) if isinstance(label, str)]
    found = {"num_labelled": float(len(right))}
    if len(right) < MIN_SAMPLES:
        return found
    now = quality.wilson(sum(right), len(right), LEVEL)
    found |= {"accuracy": now.value, "accuracy_low": now.low, "accuracy_high": now.high}
    if recorded is None:
        return found
    loss = recorded.value - now.value
    return found | {
        "accuracy_loss": loss,
        "accuracy_loss_low": loss - math.hypot(recorded.value - recorded.low, now.high - now.value),
        "accuracy_loss_high": loss + math.hypot(recorded.high - recorded.value, now.value - now.low),
    }


def _recorded(bundle: Path) -> Interval | None:
    """Accuracy of the model as it ships, on its own test split."""
    try:
        told = read_json(bundle / "metrics.json")["shipped"]
        return Interval(told["accuracy"], told["accuracy_low"], told["accuracy_high"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _outputs(said: Answers) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({"predicted": said.predicted, "confidence": said.confidence})


def _unknown_labels(labels: pd.Series, known: Sequence[str], job: Job) -> dict[str, int]:
    split = plugins.load("decisions", job.run.decision).split
    counts = Counter(one for text in labels if isinstance(text, str) for one in split(text))
    return {label: num for label, num in sorted(counts.items()) if label not in set(known)}
