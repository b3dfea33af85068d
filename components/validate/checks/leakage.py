"""Leakage: the same sample, or the same group, in two splits.

What: content hashes, and values of the attributes in `groups`, that stand in more than one split. Both are errors: the
test figure would tell how well the network remembers, not how well it sees.
When: always; it is what makes a split that you bring yourself (attribute `split`) safe.
Not when: never; with the line's own split the content part cannot fail, and is checked all the same.
Settings: groups.
Cost: one grouping an attribute; 100,000 samples in 0.4 s (one core, November 2026).
Evidence here: tests/contracts/test_checks.py; none on the digits of the default run.
Source: Kapoor and Narayanan, Leakage and the reproducibility crisis in machine-learning-based science, 2023 (their
types L1.4, duplicates across splits, and L3.2, samples of one subject in both).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components import params
from components.contracts import ATTRIBUTE, Finding, InputError

if TYPE_CHECKING:
    import pandas as pd

NAME = "leakage"


class Params(params.Params):
    """Options."""

    groups: tuple[str, ...] = ()
    """Attributes whose values may not stand in two splits (patient, camera, author)."""


def check(table: pd.DataFrame, params: Params) -> list[Finding]:
    """See above. The table is every row of the manifest; rows set aside (no `split`) are not looked at.

    Raises:
        InputError: an attribute in `groups` that the source does not give.
    """
    used = table[table["split"].notna()]
    found = _torn(used, "sha256", "content(s) stand", "take the copies out of one of the splits")
    for group in params.groups:
        column = ATTRIBUTE + group
        if column not in table:
            known = [str(c).removeprefix(ATTRIBUTE) for c in table.columns if str(c).startswith(ATTRIBUTE)]
            raise InputError(
                f"validate.checks: leakage: groups: the source gives no attribute {group!r}. "
                f"Known: {', '.join(known) or 'none'}"
            )
        named = used[used[column].notna() & (used[column] != "")]
        found += _torn(
            named,
            column,
            f"value(s) of `{group}` stand",
            f"set validate.split.group to {group}, or mend your own split",
        )
    return found


def _torn(used: pd.DataFrame, column: str, what: str, remedy: str) -> list[Finding]:
    torn = used[used.groupby(column)["split"].transform("nunique") > 1]
    if not len(torn):
        return []
    first = torn[torn[column] == torn[column].iloc[0]].drop_duplicates("split")
    told = ", ".join(f"{i} in {split}" for i, split in zip(first["id"], first["split"]))
    message = f"{torn[column].nunique()} {what} in two or more splits (for example {told}); {remedy}"
    return [Finding(NAME, "error", message, len(torn), tuple(torn["id"][:20]))]
