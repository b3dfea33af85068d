"""Label leak: a word or mark in the texts that gives the label away by itself.

What: looks in the training texts for tokens (words, marks such as `~~` and `[spam]`, neighbours such as `label: x`)
that stand in at least `min_share` of a label's texts and nearly nowhere else, and for tokens that hold the label's own
name and stand in `min_name_share` of its texts and seldom elsewhere. One finding a label, a warning unless `severity`
says error; of samples with several labels, each label is held against the texts without it. Precision is the lower of
two: own / (own + others) as shares at equal weight, with the low end of own's and the high end of the others' 95 %
interval; and (own + 1) / (own + others + 2) as counted.
When: texts that were gathered by label (folders, mailing lists, exports of a ticket system), where footers, tags and
templates tell the origin rather than the meaning.
Not when: labels are defined by a word (a greeting's language, an intent named after its only verb): read the warning as
a count. A leak spread over many seldom tokens is not found, nor one inside of words, nor, with fewer than about 100
training texts, what only seems certain.
Settings: min_share, min_precision, min_name_share, min_name_precision, severity.
Cost: at most 10,000 texts (or 200 a label), drawn by their hash, 6,000 characters of each: 20,000 texts of 2,000
characters take 7 s of processor time (November 2026).
Evidence here: tests/contracts/test_checks.py, and a trial on the SpamAssassin corpus of examples/spam (a script that
was not kept, November 2026): nothing, in 3 s. With min_precision 0.95 the most common honest tokens stand in up to
39 % of ham ("wrote", of quotes) and 29 % of spam ("be removed"), so min_share is 0.5; at 0.9 it is 66 % of ham ("re:"),
so that is too low. The price: of mails with all their headers, the recipient's address (33 % of spam, 0.2 % of ham) is
not told. Of the label's own name, "spam" is in 6 % of spam and 11 % of ham. With groups as labels, "rights reserved."
(55 % of hard ham, 2 % of others) is not told, because as counted it is right in 56 %. Planted in spam, each was told
and nothing else: "[SPAM]" in 30 and 100 % of it, "~~" in 70 %, "sent by x17" in 60 %.
Source: Wilson, Probable inference, the law of succession, and statistical inference, 1927, for the intervals. Leaks of
this kind: Kapoor and Narayanan, Leakage and the reproducibility crisis, 2023, L2 (illegitimate features).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from components import params
from components.contracts import Finding
from components.validate import texts

if TYPE_CHECKING:
    import pandas as pd

NAME = "label_leak"
TASKS = ("text_classification",)
MAX_TEXTS, LEAST_TEXTS = 10_000, 200
MOST_TOLD = 5


class Params(params.Params):
    """Options."""

    min_share: float = Field(default=0.5, gt=0, le=1)
    """Share of a label's training texts in which a token must stand to be told."""
    min_precision: float = Field(default=0.95, gt=0.5, lt=1)
    """Least precision, at equal weight of label and others, low end."""
    min_name_share: float = Field(default=0.2, gt=0, le=1)
    """The same share for the label's own name."""
    min_name_precision: float = Field(default=0.9, gt=0.5, lt=1)
    """The same precision for the label's own name."""
    severity: Literal["warning", "error"] = "warning"
    """What a leak is."""


@dataclass(frozen=True)
class Leak:
    """A token that tells a label: in how many texts of it, and of the others, it stands."""

    token: str
    own: int
    others: int
    precision: float


def check(table: pd.DataFrame, params: Params) -> list[Finding]:
    """See above. The table is every row of the manifest; only rows of the split `train` are looked at.

    Raises:
        InputError: the table has no texts.
    """
    given = table.assign(_text=texts.joined(table, NAME))
    train = given[given["split"] == "train"].drop_duplicates("sha256").sort_values("sha256", kind="stable")
    own = train["labels"] if "labels" in train else train["label"].map(lambda label: (label,))
    labels = sorted(set(own.explode().dropna()))
    has = {label: own.map({label}.issubset) for label in labels}
    drawn = _draw(train, [*has.values(), own.map(len) == 0])
    of = {label: drawn[has[label][drawn.index]] for label in labels}
    names = tuple(texts.plain(label) for label in labels)
    often = {label: _often(rows["_text"], texts.plain(label), names, params) for label, rows in of.items()}
    wanted = {token for tokens in often.values() for token in tokens}
    held, every = _count(drawn["_text"], own[drawn.index], names, wanted)
    found = []
    for label, tokens in often.items():
        num, num_others = len(of[label]), len(drawn) - len(of[label])
        leaks = []
        for token in tokens:
            inside, others = held[label][token], every[token] - held[label][token]
            leak = Leak(token, inside, others, _precision(inside, num, others, num_others))
            if _is_told(leak, texts.plain(label), num, params):
                leaks.append(leak)
        if leaks:
            found.append(_finding(label, _distinct(leaks), of[label], num_others, names, params))
    return found


def _draw(train: pd.DataFrame, parts: list[pd.Series]) -> pd.DataFrame:
    """At most so many texts of each part; the rows are in the order of their hashes, which lie at random."""
    most = max(LEAST_TEXTS, MAX_TEXTS // max(1, sum(part.any() for part in parts)))
    wanted = {row for part in parts for row in train.index[part.to_numpy(dtype=bool)][:most]}
    return train[train.index.isin(wanted)]


def _often(given: pd.Series, name: str, names: tuple[str, ...], params: Params) -> list[str]:
    """Tokens in enough texts of one label to be judged."""
    counts: Counter[str] = Counter()
    for text in given:
        counts.update(texts.tokens(text, names))
    shares = (params.min_share, min(params.min_share, params.min_name_share))
    return sorted(token for token, n in counts.items() if n >= shares[_says(token, name)] * len(given))


def _count(
    given: pd.Series, labels: pd.Series, names: tuple[str, ...], wanted: set[str]
) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """In how many texts each token stands: a label's, and all."""
    held: defaultdict[str, Counter[str]] = defaultdict(Counter)
    every: Counter[str] = Counter()
    for text, own in zip(given, labels):
        found = texts.tokens(text, names) & wanted
        every.update(found)
        for label in own:
            held[label].update(found)
    return held, every


def _says(token: str, name: str) -> bool:
    return name in token and bool(name) and f" {name} " in f" {texts.plain(token)} "


def _precision(own: int, num: int, others: int, num_others: int) -> float:
    """The lower of two: at equal weight of label and others and at the ends of the intervals, so that neither a large
    label nor a small sample makes a leak; and as counted, smoothed, so that a rare label's own words make none."""
    low, high = _wilson(own, num)[0], _wilson(others, num_others)[1]
    return min(low / (low + high), (own + 1) / (own + others + 2))


def _is_told(leak: Leak, name: str, num: int, params: Params) -> bool:
    limits = [(params.min_share, params.min_precision)]
    if _says(leak.token, name):
        limits.append((params.min_name_share, params.min_name_precision))
    return any(leak.own >= share * num and leak.precision >= precision for share, precision in limits)


def _distinct(leaks: list[Leak]) -> list[Leak]:
    """The strongest first; what is only a part of a told one, or one with more around it, is left out."""
    told: list[Leak] = []
    for leak in sorted(leaks, key=lambda k: (-k.own, k.others, -len(k.token), k.token)):
        if not any(leak.token in other.token or other.token in leak.token for other in told):
            told.append(leak)
    return told


def _finding(
    label: str, leaks: list[Leak], rows: pd.DataFrame, num_others: int, names: tuple[str, ...], params: Params
) -> Finding:
    first = leaks[0]
    counts = ", ".join(f"`{k.token}` in {k.own} and {k.others}" for k in leaks[:MOST_TOLD])
    told = (
        f"a token gives label `{label}` away: of its {len(rows)} training texts and {num_others} others, {counts}"
        f"{', ...' if len(leaks) > MOST_TOLD else ''} (precision at least {math.floor(100 * first.precision)} %). If "
        "it came with the label (a tag, a footer, a template), take it out of the texts; if texts to come have it too, "
        "it is evidence: raise min_share"
    )
    ids = rows["id"][[first.token in texts.tokens(text, names) for text in rows["_text"]]].sort_values()
    return Finding(NAME, params.severity, told, len(ids), tuple(str(i) for i in ids[:20]))


def _wilson(found: int, num: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share; from 0 to 1 without any samples."""
    if not num:
        return 0.0, 1.0
    share, square = found / num, z * z / num
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / num + square / (4 * num))
    return max(0.0, middle - half), min(1.0, middle + half)
