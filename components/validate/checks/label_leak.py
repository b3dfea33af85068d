"""Label leak: a word or mark in the texts that gives the label away by itself.

What: looks at the training texts for tokens (words, marks such as `[spam]`, pairs of neighbours such as `label: x`) that
stand in at least `min_share` of a label's texts and nearly nowhere else, and for a label's own name as a word that
stands in `min_name_share` of its texts and seldom elsewhere. The others' share counts at equal weight, whatever the
labels' sizes: precision = own / (own + others), with the low end of own's and the high end of others' 95 % interval.
A warning for each such label; an error where `severity` says so.
When: texts that were gathered by label (folders, mailing lists, exports of a ticket system), where footers, tags and
templates tell the origin rather than the meaning.
Not when: labels are defined by a word (a language's greeting, an intent named after its only verb). What is spread over
many tokens, each seldom, is not found, nor, with fewer than about 100 training texts, what only seems certain.
Settings: min_share, min_precision, min_name_share, min_name_precision, severity.
Cost: at most 10,000 texts are read (or 200 a label), drawn by their hash: TODO
Evidence here: TODO
Source: Wilson, Probable inference, the law of succession, and statistical inference, 1927, for the intervals. Leaks of
this kind: Kapoor and Narayanan, Leakage and the reproducibility crisis, 2023, L2 (illegitimate features).
"""

from __future__ import annotations

import math
import re
from collections import Counter
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
LONGEST, MOST_TOLD = 40, 5
_WORD, _MARKS, _PLAIN = re.compile(r"\w+"), re.compile(r"[^\w\s]+"), re.compile(r"[^\W_]+")


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
    labels = sorted(train["label"].unique())
    most = max(LEAST_TEXTS, MAX_TEXTS // max(1, len(labels)))
    drawn = {label: train[train["label"] == label].head(most) for label in labels}  # hashes lie at random
    names = tuple(_name(label) for label in labels)
    often = {label: _often(rows["_text"], _name(label), names, params) for label, rows in drawn.items()}
    wanted = {token for tokens in often.values() for token in tokens}
    held = {label: _count(rows["_text"], names, wanted) for label, rows in drawn.items()}
    found = []
    for label, tokens in often.items():
        num_others = sum(len(rows) for other, rows in drawn.items() if other != label)
        leaks = []
        for token in tokens:
            own, others = held[label][token], sum(held[other][token] for other in labels if other != label)
            precision = _low(own, len(drawn[label])) / (_low(own, len(drawn[label])) + _high(others, num_others))
            by_name = token == _name(label) and precision >= params.min_name_precision
            if by_name or (own >= params.min_share * len(drawn[label]) and precision >= params.min_precision):
                leaks.append(Leak(token, own, others, precision))
        if leaks:
            found.append(_finding(label, _distinct(leaks), drawn[label], num_others, names, params))
    return found


def _often(given: pd.Series, name: str, names: tuple[str, ...], params: Params) -> list[str]:
    """Tokens in enough texts of one label to be judged."""
    counts: Counter[str] = Counter()
    for text in given:
        counts.update(tokens(text, names))
    least, least_name = params.min_share * len(given), params.min_name_share * len(given)
    return sorted(token for token, n in counts.items() if n >= (least_name if token == name else least))


def _count(given: pd.Series, names: tuple[str, ...], wanted: set[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in given:
        counts.update(tokens(text, names) & wanted)
    return counts


def tokens(text: str, names: tuple[str, ...] = ()) -> set[str]:
    """What stands in a text, without case: words, marks, what blanks divide, two of these in a row, and `names`."""
    text = text.casefold()
    pieces, plain = text.split(), _PLAIN.findall(text)
    found = {*pieces, *_WORD.findall(text), *_MARKS.findall(text), *plain}
    found.update(f"{one} {other}" for one, other in zip(pieces, pieces[1:]))
    line = f" {' '.join(plain)} "
    found.update(name for name in names if f" {name} " in line)
    return {token for token in found if len(token) <= LONGEST}


def _name(label: str) -> str:
    return " ".join(_PLAIN.findall(label.casefold()))


def _distinct(leaks: list[Leak]) -> list[Leak]:
    """The strongest first; what is only a part of a told one, or one with more around it, is left out."""
    told: list[Leak] = []
    for leak in sorted(leaks, key=lambda k: (-k.own, k.others, len(k.token), k.token)):
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
        f"{', ...' if len(leaks) > MOST_TOLD else ''} (precision at least {first.precision:.0%} at equal weight). If it "
        "came with the label (a tag, a footer, a template), take it out of the texts; if texts to come have it too, "
        "it is evidence: raise min_share"
    )
    ids = rows["id"][[first.token in tokens(text, names) for text in rows["_text"]]].sort_values()
    return Finding(NAME, params.severity, told, len(ids), tuple(str(i) for i in ids[:20]))


def _low(found: int, num: int) -> float:
    return _wilson(found, num)[0]


def _high(found: int, num: int) -> float:
    return _wilson(found, num)[1]


def _wilson(found: int, num: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share; from 0 to 1 without any samples."""
    if not num:
        return 0.0, 1.0
    share, square = found / num, z * z / num
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / num + square / (4 * num))
    return max(0.0, middle - half), min(1.0, middle + half)
