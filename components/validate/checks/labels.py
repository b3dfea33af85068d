"""Labels: missing ones, labels with too few samples, likely typos, one label only, strong imbalance.

What: counts. Samples without a label are set aside and told (warning). Too few distinct samples of a label, and fewer
than two labels, are errors. Two labels that differ only in case, spaces, hyphens or underscores, and a rare label one
edit (or, from 8 letters, two) from a common one, are warnings; so is a largest label far above the smallest.
When: always.
Not when: names differ by one letter on purpose and one of them is rare (`sedan_a`, `sedan_b`): lower `rare` to 0.
Names of fewer than 3 letters, and names that differ only in digits (`type1`, `type2`), are never called typos.
Settings: min_per_label, rare, max_imbalance.
Cost: pairs of labels of about one length; 100,000 samples of 1,000 labels in 2.2 s (one core, November 2026).
Evidence here: tests/contracts/test_checks.py; none on the ten digits of the default run.
Source: edits are Damerau, A technique for computer detection and correction of spelling errors, 1964 (neighbours
swapped count as one edit).
"""

from __future__ import annotations

import re
import unicodedata
from itertools import combinations
from typing import TYPE_CHECKING

from pydantic import Field

from components import params
from components.contracts import Finding

if TYPE_CHECKING:
    import pandas as pd

NAME = "labels"


class Params(params.Params):
    """Options."""

    min_per_label: int = Field(default=10, ge=1)
    """Fewest distinct samples a label; copies count once."""
    rare: float = Field(default=0.1, ge=0, le=1)
    """A label is rare beside another one if it has at most this share of its samples."""
    max_imbalance: float = Field(default=20, ge=1)
    """Largest label over smallest label, beyond which a warning is given."""


def check(table: pd.DataFrame, params: Params) -> list[Finding]:
    """See above. The table is every row of the manifest; `split` is missing where a row was set aside; `labels`, where
    it is there, holds each sample's labels."""
    found = []
    missing = table[table["label"].isna() | (table["label"].astype(str).str.strip() == "")]
    if len(missing):
        told = f"{len(missing)} of {len(table)} samples have no label and are set aside; label them to use them"
        found.append(Finding(NAME, "warning", told, len(missing), tuple(missing["id"].astype(str)[:20])))
    used = table[table["split"].notna()]
    if "labels" in used:  # a sample may have several, and counts for each
        used = used.assign(label=used["labels"]).explode("label").dropna(subset="label")
    counts = used.groupby("label")["sha256"].nunique()
    distinct = {str(label): int(count) for label, count in counts.items()}
    if len(distinct) < 2:
        told = f"there is one label only ({', '.join(distinct)})" if distinct else "no sample has a label"
        found.append(Finding(NAME, "error", f"{told}; a classifier needs two or more", len(used)))
    found += _few(used, distinct, params.min_per_label)
    found += [_likely_typo(used, *pair) for pair in sorted(_alike(distinct, params.rare))]
    large, small = max(distinct.values(), default=1), min(distinct.values(), default=1)
    if large > params.max_imbalance * small:
        often = ", ".join(f"`{k}` {n}" for k, n in sorted(distinct.items()) if n in (large, small))
        told = f"the largest label has {large / small:.0f} times the samples of the smallest ({often[:120]}); "
        found.append(Finding(NAME, "warning", f"{told}read balanced_accuracy rather than accuracy"))
    return found


def _few(used: pd.DataFrame, distinct: dict[str, int], least: int) -> list[Finding]:
    few = sorted(label for label, count in distinct.items() if count < least)
    if not few:
        return []
    told = ", ".join(f"`{label}` {distinct[label]}" for label in few[:5]) + (", ..." if len(few) > 5 else "")
    rows = used[used["label"].isin(few)]
    message = (
        f"{len(few)} label(s) with fewer than {least} distinct samples ({told}); bring more, take them out, "
        "or lower min_per_label"
    )
    return [Finding(NAME, "error", message, len(rows), tuple(rows["id"][:20]))]


def _alike(distinct: dict[str, int], rare: float) -> set[tuple[str, str, str]]:
    """(suspect, meant, why) for the labels that look like misspellings of others."""
    suspects: set[tuple[str, str, str]] = set()
    ordered = sorted(distinct, key=lambda label: (-distinct[label], label))
    same: dict[str, list[str]] = {}
    for label in ordered:
        same.setdefault(_plain(label), []).append(label)
    for variants in same.values():
        suspects |= {(other, variants[0], "differs only in case, spaces or marks from") for other in variants[1:]}
    by_length: dict[int, list[str]] = {}
    for plain in same:
        by_length.setdefault(len(plain), []).append(plain)
    place = {label: n for n, label in enumerate(ordered)}
    for one, other in _pairs(by_length):
        often, seldom = sorted((same[one][0], same[other][0]), key=place.__getitem__)
        is_rare = rare > 0 and distinct[seldom] < distinct[often] and distinct[seldom] <= max(1, rare * distinct[often])
        allowed = 2 if min(len(one), len(other)) >= 8 else 1
        if is_rare and _letters(one) != _letters(other) and edits(one, other, allowed) <= allowed:
            suspects.add((seldom, often, "is rare and spelt nearly as"))
    return suspects


def _pairs(by_length: dict[int, list[str]]) -> list[tuple[str, str]]:
    lengths = sorted(n for n in by_length if n >= 3)
    pairs = [pair for n in lengths for pair in combinations(by_length[n], 2)]
    near = [(m, n) for m in lengths for n in (m + 1, m + 2) if n in by_length]
    return pairs + [(one, other) for m, n in near for one in by_length[m] for other in by_length[n]]


def _plain(label: str) -> str:
    return re.sub(r"[\s_\-]+", "", unicodedata.normalize("NFKC", label).casefold())


def _letters(plain: str) -> str:
    return re.sub(r"\d+", "", plain)


def edits(one: str, other: str, most: int) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours that turn one into the other; most + 1 if more."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
        before, last = last, row
    return min(last[-1], most + 1)


def _likely_typo(used: pd.DataFrame, suspect: str, meant: str, why: str) -> Finding:
    rows = used[used["label"] == suspect]
    message = f"label `{suspect}` ({len(rows)}) {why} `{meant}`; is it a typo?"
    return Finding(NAME, "warning", message, len(rows), tuple(rows["id"][:20]))
