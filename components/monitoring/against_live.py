"""A candidate against the live model on the candidate's own test split: the same samples, so the comparison is paired.

Samples that the live model was trained or tuned on are left out where it is known which those are; otherwise they
flatter the live model, and it is said so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components import quality
from components.drift.columns import MIN_SAMPLES
from components.job import Job
from components.paired import paired_gain

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95


def compare(
    candidate: Path, live: Path, accepted: pd.DataFrame, known: Collection[str] | None, root: Path, job: Job
) -> dict[str, Any]:
    """`accepted`: validate's table; `known`: sha256 of what the live model has learnt from, None: not known. The gain
    is the candidate's accuracy minus the live one's. Without enough samples, only `note` tells anything."""
    from components.monitoring.answers import ask

    test = accepted[(accepted["split"] == "test") & accepted["label"].notna()]
    unseen = test if known is None else test[~test["sha256"].isin(set(known))]
    told: dict[str, Any] = {"num_test": len(test), "num_compared": len(unseen), "note": _note(known, test, unseen)}
    if len(unseen) < MIN_SAMPLES:
        return {**told, "note": f"{told['note']}; {len(unseen)} are too few to compare, {MIN_SAMPLES} are needed"}
    unseen = unseen.sort_values("id", kind="stable").reset_index(drop=True)
    right = {}
    for name, bundle in (("candidate", candidate), ("live", live)):
        said = ask(bundle, unseen, root, job)
        answers = np.full(len(unseen), None, dtype=object)
        answers[said.taken] = said.predicted
        right[name] = np.array([a == b for a, b in zip(answers, unseen["label"])], dtype=bool)
    measured = {name: asdict(quality.wilson(int(one.sum()), len(one), LEVEL)) for name, one in right.items()}
    return {**told, **measured, "gain": asdict(paired_gain(right["candidate"], right["live"], LEVEL))}


def _note(known: Collection[str] | None, test: pd.DataFrame, unseen: pd.DataFrame) -> str:
    if known is None:
        return "it is not known what the live model was trained on, so samples it knows may flatter it"
    return f"{len(test) - len(unseen)} test samples that the live model has learnt from are left out"
