"""Share of samples for which one stated label is decided for (demographic parity compares it).

What: selection_rate = sum of [label_of_interest is predicted, alone or among others] / N.
When: one label is the favourable outcome, and groups should get it equally often.
Not when: groups truly differ in how often the label is right: then equal rates are wrong predictions. It
looks at predictions alone, so read it beside recall. "Worst" is the group that gets it least.
Settings: label.
Cost: none to speak of.
Evidence here: golden values in tests/contracts/test_measures.py; the interval is accuracy's.
Source: Dwork et al., Fairness through awareness, ITCS 2012, section 3; Wilson 1927 for the interval.
"""

from __future__ import annotations

import numpy as np

from components import params
from components.bias.intervals import wilson
from components.bias.rows import Rows
from components.contracts import InputError

BETTER = "higher"


class Params(params.Params):
    """Options."""

    label: str
    """The favourable label, as in the data."""


def title(params: Params) -> str:
    """Its name in metrics, so that two labels can be measured side by side."""
    return f"selection_rate_{params.label}"


def values(params: Params, rows: Rows, weights: np.ndarray) -> np.ndarray:
    """Weighted share, [B] for weights [B, N]; NaN where all weights are zero."""
    total = weights.sum(axis=1)
    return np.divide(weights @ _selected(params, rows), total, out=np.full(len(weights), np.nan), where=total > 0)


def interval(params: Params, rows: Rows, level: float) -> tuple[float, float]:
    """Wilson's interval."""
    return wilson(float(_selected(params, rows).sum()), len(rows), level)


def _selected(params: Params, rows: Rows) -> np.ndarray:
    if params.label not in rows.names:
        known = ", ".join(rows.names)
        raise InputError(f"bias.measures: selection_rate: no label is called {params.label!r}. Labels: {known}")
    return np.asarray(rows.guess[:, rows.names.index(params.label)], dtype=np.float64)
