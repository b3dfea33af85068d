"""The infra blessing: a fresh process loads the model and answers real samples as the same file did when it was
measured; and the budgets. That what was measured is good enough is for other rules (shipped.py, parity.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.contracts import Rule, Verdict
from components.export import trial

NUM_SAMPLES = 128
"""Real test samples that are asked, or all where there are fewer."""
BATCH = 16
"""As it was measured: an answer may depend on its batch."""
FEW = 100
"""With fewer samples the rule says so: the test split has no more."""


def load_and_query(
    path: Path, threads: int, feeds: Sequence[trial.Feed], expected: np.ndarray, decided: str
) -> tuple[Rule, dict[str, Any]]:
    """The rule, in stable words; and what is measured: seconds to load. `expected` are decisions [N] or [N, K]."""
    name, num = "load and query in a fresh process", len(expected)
    if not num:
        return Rule(name, False, None, 0.0, None, "there is no test sample to ask"), {}
    try:
        with trial.Trial(path, threads) as fresh:
            found = np.concatenate([one[decided] for one in fresh.answers(feeds)])
            measured = {"load_seconds": round(fresh.load_seconds, 3), "memory_mb": fresh.peak_mb()}
    except trial.TrialError as error:
        return Rule(name, False, None, 0.0, None, str(error)), {}
    wrong = int((found != expected).reshape(num, -1).any(axis=1).sum())
    told = (
        f"it loads and answers {num} test samples; {wrong} of the labels differ from those that this file gave when it "
    )
    told += "was measured" + (f"; the test split has fewer than {FEW} samples" if num < FEW else "")
    return Rule(name, wrong == 0, float(wrong), 0.0, 0.0 - wrong, told), measured


def budget(key: str, measured: float, most: float | None, unit: str, *, stable: bool) -> list[Rule]:
    """The rule of a budget, if there is one. A figure that another run would not give again is left out of it."""
    if most is None:
        return []
    passed = measured <= most
    told = f"{measured:g} {unit}" if stable else "measured: reports/export/ladder.json"
    why = f"{'within' if passed else 'over'} `export.{key}`, {most:g} {unit} ({told})"
    value, margin = (measured, round(most - measured, 6)) if stable else (None, None)
    return [Rule(f"export.{key} at most {most:g}", passed, value, most, margin, why)]


def verdict(rules: Sequence[Rule]) -> Verdict:
    """Passed if every rule did."""
    return Verdict("export", all(rule.passed for rule in rules), tuple(rules))
