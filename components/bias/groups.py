"""Which samples are compared: by attributes that the user named, by measured properties cut into thirds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from components.contracts import ATTRIBUTE, PROPERTY, InputError

if TYPE_CHECKING:
    import pandas as pd

MAX_GROUPS = 100
NOT_GIVEN = "not given"


@dataclass(frozen=True)
class Grouping:
    """One way to tell the samples apart: N samples in G groups."""

    name: str
    groups: tuple[str, ...]
    codes: np.ndarray
    """int [N]: index into `groups`."""


def find(
    table: pd.DataFrame, attributes: list[str], properties: list[str]
) -> tuple[list[Grouping], list[dict[str, str]]]:
    """The groupings, and those left out with the reason.

    Raises:
        InputError: no such attribute or property; the message lists those that are there.
            Or an attribute has so many values that it is an identifier.
    """
    found: list[Grouping] = []
    skipped: list[dict[str, str]] = []
    for key, prefix, names, cut in (
        ("bias.attributes", ATTRIBUTE, attributes, _by_value),
        ("bias.properties", PROPERTY, properties, _by_thirds),
    ):
        known = sorted(c.removeprefix(prefix) for c in table.columns if c.startswith(prefix))
        for name in dict.fromkeys(n.removeprefix(prefix) for n in names):
            if name not in known:
                there = ", ".join(known) or "none"
                raise InputError(f"{key}: the samples have no {prefix.rstrip('.')} {name!r}. There are: {there}")
            taken = name in (g.name for g in found)
            grouping = cut(f"{name} (measured)" if taken else name, table[prefix + name])
            if len(grouping.groups) < 2:
                skipped.append({"grouping": name, "why": f"{name} is {grouping.groups[0]} for every sample"})
            else:
                found.append(grouping)
    return found, skipped


def _by_value(name: str, column: pd.Series) -> Grouping:
    values = ["" if value is None or value != value else str(value) for value in column]
    values = [value or NOT_GIVEN for value in values]
    groups = tuple(sorted(set(values)))
    if len(groups) > MAX_GROUPS:
        raise InputError(
            f"bias.attributes: {name} has {len(groups)} values among {len(values)} test samples, more than "
            f"{MAX_GROUPS}. It looks like an identifier; name a column that groups them, or take it out."
        )
    index = {group: i for i, group in enumerate(groups)}
    return Grouping(name, groups, np.array([index[v] for v in values], dtype=np.int64))


def _by_thirds(name: str, column: pd.Series) -> Grouping:
    """At most three groups of about equal size; equal values are never torn apart.

    Up to three distinct values are groups of their own. Otherwise the cuts are the values at 1/3 and 2/3 of
    the sorted column; where ties make both the same there are two groups.
    """
    values = column.to_numpy(dtype=np.float64)
    known = np.isfinite(values)
    distinct = np.unique(values[known])
    if len(distinct) <= 3:
        names = [f"{v:.4g}" for v in distinct]
        codes = np.searchsorted(distinct, values)
    else:
        cuts = np.quantile(values[known], [1 / 3, 2 / 3], method="lower")
        cuts = np.unique(np.minimum(cuts, distinct[-2]))  # so that the highest values have a group
        codes = np.searchsorted(cuts, values, side="left")  # a value equal to a cut lies below it
        ranges = [values[known & (codes == i)] for i in range(len(cuts) + 1)]
        words = ("low", "middle", "high") if len(ranges) == 3 else ("low", "high")
        names = [f"{word} ({r.min():.4g} to {r.max():.4g})" for word, r in zip(words, ranges)]
    if not known.all():
        codes = np.where(known, codes, len(names))
        names = [*names, NOT_GIVEN]
    return Grouping(name, tuple(names), codes.astype(np.int64))
