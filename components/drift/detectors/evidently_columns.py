"""Evidently's column drift, with its page to look at.

What: Evidently's `ValueDrift` a column, with a test that gives a p-value: `numeric` for numbers, and for
categories the two-sample chi-square of components/drift/two_sample.py, registered with Evidently. The page
lies in reports/drift/evidently.html. The stage adjusts the p-values over columns.
When: you want Evidently's pictures of every column beside the verdict.
Not when: import time counts (5 to 7 s; `ks` gives the same numbers without), or samples are very many.
Settings: numeric, alpha.
Cost: 5 to 7 s of import, then 0.1 s a column; the page is 4 MB.
Evidence here: Evidently's own `chisquare` takes the reference for the truth: with ten categories and no
change it alarmed at 0.05 in 52 % of 2,000 draws (270 against 270) and 13 % (1,258 against 270); the one
registered here in 5.1 % and 4.7 %. Its default for more than 1,000 references is a distance against a fixed
0.1, whatever the sample size. `ks` gives scipy's p-value to the last digit (python
tests/golden/measure_detectors.py, tests/contracts/test_detectors.py; 2026-11-21).
Source: Evidently 0.7.23, metrics/column_statistics.py; ks: Hodges 1958; cramer_von_mises: Anderson 1962.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from components import params
from components.drift.columns import Column, Report
from components.drift.two_sample import chi_square

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("columns",)
DIRECTION = "below"
"""Drift where the p-value is at most alpha."""
_CATEGORICAL = "two_sample_chi_square"


class Params(params.Params):
    """Options."""

    numeric: Literal["ks", "cramer_von_mises"] = "ks"
    """Evidently's test for numbers. Its distances have no false-alarm rate, so they are not offered."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """How often any column at all may alarm where nothing has changed."""


def score_columns(params: Params, columns: Sequence[Column], report: Report) -> dict[str, float]:
    """Column name -> p-value; writes evidently.html."""
    if not columns:
        return {}
    with warnings.catch_warnings():
        # Deprecations in what Evidently imports, and scipy's note that it took the asymptotic p-value.
        warnings.simplefilter("ignore")
        return _evidently(params, columns, report)


def _evidently(params: Params, columns: Sequence[Column], report: Report) -> dict[str, float]:
    from evidently import DataDefinition, Dataset
    from evidently import Report as EvidentlyReport
    from evidently.metrics import ValueDrift

    _register()
    kinds = {kind: [c.name for c in columns if c.kind == kind] for kind in ("numeric", "categorical")}
    definition = DataDefinition(numerical_columns=kinds["numeric"], categorical_columns=kinds["categorical"])
    methods = {"numeric": params.numeric, "categorical": _CATEGORICAL}
    metrics = [ValueDrift(column=c.name, method=methods[c.kind], threshold=params.alpha) for c in columns]
    sides = [
        Dataset.from_pandas(_frame(columns, side), data_definition=definition) for side in ("current", "reference")
    ]
    snapshot = EvidentlyReport(metrics, include_tests=False).run(*sides)
    snapshot.save_html(str(report("evidently.html")))
    found = {m["config"]["column"]: float(m["value"]) for m in snapshot.dict()["metrics"]}
    return {c.name: found[c.name] for c in columns}


def _frame(columns: Sequence[Column], side: str) -> pd.DataFrame:
    """Columns of unlike length in one table: Evidently takes missing values out column by column."""
    import pandas as pd

    return pd.DataFrame({c.name: pd.Series(getattr(c, side)) for c in columns})


def _register() -> None:
    """Evidently's own chi-square takes the reference for the truth (see Evidence here), so it gets
    another."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def test(reference: Any, current: Any, kind: Any, threshold: float) -> tuple[float, bool]:
        del kind
        p_value = chi_square(np.asarray(reference, dtype=object), np.asarray(current, dtype=object))
        return p_value, p_value <= threshold

    register_stattest(StatTest(_CATEGORICAL, "two-sample chi-square p_value", [ColumnType.Categorical]), test)
