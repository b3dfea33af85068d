"""Duplicates: the same content several times, and the same content with different labels.

What: groups the accepted samples by the hash of their content (a file's bytes, a text as it was accepted). Copies with
one label are a warning (they are kept, in one split, and weigh more); copies with different labels are an error,
because at least one of the labels is wrong.
When: always.
Not when: copies are meant (oversampling): read the warning as a count.
Settings: none.
Cost: one grouping; 100,000 samples in 0.3 s (one core, November 2026).
Evidence here: tests/contracts/test_checks.py; the digits of the default run have no copies.
Source: Barz and Denzler, Do we train on test data? Purging CIFAR of near-duplicates, 2020, for what copies do to
measured accuracy. What is nearly equal is not found here; for texts, `near_duplicates` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components import params
from components.contracts import Finding

if TYPE_CHECKING:
    import pandas as pd

NAME = "duplicates"


class Params(params.Params):
    """No options."""


def check(table: pd.DataFrame, params: Params) -> list[Finding]:
    """See above. The table is every row of the manifest; rows set aside (no `split`) are not looked at."""
    del params
    used = table[table["split"].notna()]
    copies = used[used["sha256"].duplicated(keep=False)]
    labels = copies.groupby("sha256")["label"].transform("nunique")
    found = []
    conflicting, same = copies[labels > 1], copies[labels == 1]
    if len(conflicting):
        told = (
            f"{conflicting['sha256'].nunique()} content(s) with different labels ({_groups(conflicting, True)}); "
            "keep the right one of each and take the others out"
        )
        found.append(Finding(NAME, "error", told, len(conflicting), tuple(conflicting["id"][:20])))
    if len(same):
        told = (
            f"{same['sha256'].nunique()} content(s) occur {len(same)} times ({_groups(same, False)}); they stay "
            "together in one split, but weigh more than others"
        )
        found.append(Finding(NAME, "warning", told, len(same), tuple(same["id"][:20])))
    return found


def _groups(copies: pd.DataFrame, with_label: bool, most: int = 3) -> str:
    told = []
    for _, group in list(copies.groupby("sha256", sort=False))[:most]:
        names = [f"{i} is `{label}`" if with_label else str(i) for i, label in zip(group["id"], group["label"])]
        told.append(" = ".join(names[:3]) + (" = ..." if len(names) > 3 else ""))
    return "; ".join(told) + ("; ..." if copies["sha256"].nunique() > most else "")
