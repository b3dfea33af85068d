"""Near duplicates: texts that are almost the same, in two splits, with different labels, or several times over.

What: pairs of accepted texts whose runs of words overlap by `min_similarity` or more, case and punctuation aside. Told
are: validation and test texts with such a twin in train (error above `max_leaked`, else warning), twins with different
labels (error above `max_conflicting`, else warning), and what else is there several times (warning). Copies to the
letter are left to `duplicates` and `leakage`.
When: texts that people forward, quote, generate from templates or scrape: mail, news, reviews, tickets, logs.
Not when: near copies are the task (paraphrases, versions of one contract): raise the limits and read the counts.
Paraphrases in other words are not found; a text within a longer one is only found if it is most of it.
Settings: min_similarity, shingle_words, min_words, max_leaked, max_conflicting.
Cost: linear; 20,000 texts of 260 words take 8 s of processor time; at worst, 20,000 copies of one form letter with a
few words changed, 20 s and 1.1 GB (November 2026). In so large a group not every pair is compared, see twins.py.
Evidence here: tests/contracts/test_checks.py, and a trial on the SpamAssassin corpus of examples/spam (a script that
was not kept, November 2026). Its 5,919 distinct mails, random split: 910 have a twin, 234 of 1,776 held-out ones
(13.2 %) have one in train, no twin has another label; 3 s. These are all of the 1,316 pairs that comparing every mail
with every other finds. With TF-IDF and a logistic regression, held-out mails with a twin were all right, others to
97.9 %: errors were understated by about the share of twins (1.9 % for 2.1 %). Split by thread, 8.6 % remain. So any is
told, and a fifth is refused.
Source: components/validate/twins.py; runs of words and the limit of 0.8 after Lee and others, Deduplicating training
data makes language models better, 2022, 4.2 (they take runs of 5
words; on that corpus, runs of 3 find an eighth more held-out twins).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from components import params
from components.contracts import Finding
from components.validate import texts

if TYPE_CHECKING:
    import pandas as pd

    from components.validate.twins import Twins

NAME = "near_duplicates"
TASKS = ("text_classification",)


class Params(params.Params):
    """Options."""

    min_similarity: float = Field(default=0.8, ge=0.5, le=1)
    """Runs of words in common over all of the two texts (Jaccard); of samples with two texts, both must reach it."""
    shingle_words: int = Field(default=3, ge=1, le=10)
    """Words in a run."""
    min_words: int = Field(default=5, ge=1)
    """Shorter texts are not compared: "Thank you!" is said twice without being copied."""
    max_leaked: float = Field(default=0.2, ge=0, le=1)
    """Largest share of validation and test with a twin in train that is a warning; more is an error."""
    max_conflicting: float = Field(default=0.01, ge=0, le=1)
    """Largest share of samples with a twin of another label that is a warning; more is an error."""


def check(table: pd.DataFrame, params: Params) -> list[Finding]:
    """See above. The table is every row of the manifest; rows set aside (no `split`) are not looked at.

    Raises:
        InputError: the table has no texts.
    """
    given = texts.pairs(table, NAME)
    rows = table.assign(_place=np.arange(len(table)))
    used = rows[rows["split"].notna()].sort_values("id", kind="stable").drop_duplicates("sha256")
    if not len(used):
        return []
    from components.validate import twins

    compared = [given[place] for place in used["_place"]]
    found = twins.find(compared, params.min_similarity, params.shingle_words, params.min_words)
    train, label = (used["split"] == "train").to_numpy(), used["label"].to_numpy()
    leaked = train[found.one] != train[found.other]
    conflict = label[found.one] != label[found.other]
    return [
        *_leaked(used, found, leaked, params.max_leaked),
        *_conflicting(used, found, conflict, params.max_conflicting),
        *_repeated(used, found, leaked | conflict),
    ]


def _leaked(used: pd.DataFrame, found: Twins, which: np.ndarray, most: float) -> list[Finding]:
    held_out = (used["split"] != "train").to_numpy()
    rows = found.rows(which)
    rows = rows[held_out[rows]]
    if not len(rows):
        return []
    share = len(rows) / int(held_out.sum())
    told = (
        f"{len(rows)} of {held_out.sum()} validation and test texts ({share:.1%}) have a near twin in train "
        f"({_examples(used, found, which, 'split', ' in {}')}), so what is measured there is partly memory. Take one "
        "of each pair out, or keep them together (an attribute with one value for all twins, as validate.split.group)"
    )
    return [_finding("error" if share > most else "warning", told, used, rows)]


def _conflicting(used: pd.DataFrame, found: Twins, which: np.ndarray, most: float) -> list[Finding]:
    rows = found.rows(which)
    if not len(rows):
        return []
    share = len(rows) / len(used)
    told = (
        f"{len(rows)} of {len(used)} texts ({share:.1%}) have a near twin with another label "
        f"({_examples(used, found, which, 'label', ' is `{}`')}); look which label is right, and mend the other"
    )
    return [_finding("error" if share > most else "warning", told, used, rows)]


def _repeated(used: pd.DataFrame, found: Twins, told_already: np.ndarray) -> list[Finding]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    known = found.rows(told_already)
    which = ~np.isin(found.one, known) & ~np.isin(found.other, known)
    rows = found.rows(which)
    if not len(rows):
        return []
    one, other = found.one[which], found.other[which]
    edges = coo_array((np.ones(len(one)), (one, other)), shape=(len(used), len(used)))
    sizes = np.bincount(connected_components(edges, directed=False)[1][rows])
    told = (
        f"{len(rows)} texts are near copies of {np.count_nonzero(sizes)} ({_examples(used, found, which)}; the largest "
        f"group has {sizes.max()}); they weigh more than others: keep one of each, or read this as a count"
    )
    return [_finding("warning", told, used, rows)]


def _finding(severity: str, told: str, used: pd.DataFrame, rows: np.ndarray) -> Finding:
    return Finding(NAME, severity, told, len(rows), tuple(str(i) for i in used["id"].iloc[rows[:20]]))


def _examples(used: pd.DataFrame, found: Twins, which: np.ndarray, column: str = "id", how: str = "") -> str:
    told = []
    for pair in np.flatnonzero(which)[:3]:
        rows = used.iloc[[found.one[pair], found.other[pair]]]
        names = " ~ ".join(f"{i}{how.format(value)}" for i, value in zip(rows["id"], rows[column]))
        told.append(f"{names}, {found.similarity[pair]:.0%} alike")
    return "; ".join(told) + ("; ..." if which.sum() > 3 else "")
