"""Text quality: texts that are empty, were broken on their way, or are far too short or long.

What: counts accepted texts that are empty, hold a NUL byte or half a character (errors), or hold replacement characters
(U+FFFD), letters read in the wrong character set ("cafÃ©", "itâ€™s"), control characters or remains of HTML, or are
shorter than `min_chars` or longer than `max_chars` (warnings). Each kind has a share above which it is an error. A
finding names samples by their ids and says what was found, never in the words of a text: findings go on a card.
When: always for text. `ingest` has set aside what is empty or holds NUL; that they are not there is checked here again.
Not when: HTML or control codes are what is to be classified: read those warnings as counts.
Settings: max_empty, max_half_empty, max_nul, max_invalid, max_replaced, max_mojibake, max_control, max_html, max_short,
max_long (shares), min_chars, max_chars.
Cost: one pass over the characters; 20,000 texts of 2,000 characters in 1.3 s of processor time (November 2026).
Evidence here: tests/contracts/test_checks.py, and a trial on the 6,045 mails of SpamAssassin as examples/spam decodes
them (a script that was not kept, November 2026): 194 with remains of HTML, 27 mojibake, 16 with control characters, 12
with U+FFFD, 10 over 50,000 characters, all warnings; 1 s. All 27 called mojibake are broken (each was looked at): 3
are UTF-8, 22 Chinese, Japanese, Korean or Thai read as Windows-1252, 2 binary. Of the 194, 65 are markup that nobody
turned into text in mails of mailing lists (easy ham), some of them on purpose: they talk of HTML.
Source: the bytes of UTF-8 (RFC 3629) as Windows-1252 has them, after the idea of ftfy (Speer, 2019).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.entities import name2codepoint
from typing import TYPE_CHECKING

from pydantic import Field

from components import params
from components.contracts import Finding
from components.validate import texts

if TYPE_CHECKING:
    import pandas as pd

NAME = "text_quality"
TASKS = ("text_classification",)
_TAGS = (
    "a abbr b big blockquote body br center code dd div dl dt em font form h1 h2 h3 h4 h5 h6 head hr html i iframe img "
    "input li link meta nobr ol option p pre script select small span strong style sub sup table tbody td th thead "
    "title tr tt u ul"
)
_TAG = rf"</?(?:{_TAGS.replace(' ', '|')})(?:\s[^<>]{{0,2000}})?/?>|<!--|<!DOCTYPE\b"
_ENTITY = rf"&(?:#\d{{1,6}}|#x[0-9a-f]{{1,5}}|{'|'.join(sorted(name2codepoint))});"
_PATTERNS = {
    "nul": re.compile("\0"),
    "invalid": re.compile("[\ud800-\udfff]"),
    "replaced": re.compile("\ufffd"),
    "mojibake": re.compile(texts.MOJIBAKE),
    "control": re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"),
    "html": re.compile(f"{_TAG}|{_ENTITY}", re.IGNORECASE),
}
_BEYOND_ASCII = ("invalid", "replaced", "mojibake")


class Params(params.Params):
    """Options. Shares: more than that is an error, less a warning; 0 makes any an error, 1 none."""

    max_empty: float = Field(default=0.0, ge=0, le=1)
    """Blank texts (of two texts, both)."""
    max_half_empty: float = Field(default=1.0, ge=0, le=1)
    """Samples with one of their two texts blank."""
    max_nul: float = Field(default=0.0, ge=0, le=1)
    """NUL bytes."""
    max_invalid: float = Field(default=0.0, ge=0, le=1)
    """Halves of a character, which no UTF-8 can hold."""
    max_replaced: float = Field(default=1.0, ge=0, le=1)
    """Replacement characters, U+FFFD: what stood there is lost."""
    max_mojibake: float = Field(default=1.0, ge=0, le=1)
    """Letters read in the wrong character set."""
    max_control: float = Field(default=1.0, ge=0, le=1)
    """Control characters beside tab and line ends."""
    max_html: float = Field(default=1.0, ge=0, le=1)
    """Tags, comments, entities."""
    max_short: float = Field(default=1.0, ge=0, le=1)
    """Texts shorter than min_chars."""
    max_long: float = Field(default=1.0, ge=0, le=1)
    """Texts longer than max_chars."""
    min_chars: int = Field(default=3, ge=1)
    """Characters, blanks at the ends aside."""
    max_chars: int = Field(default=50_000, ge=1)
    """Characters; no encoder here reads the end of a longer one."""


REMEDIES = {
    "empty": ("are empty", "take them out of the source, or find out where the text was lost"),
    "half_empty": ("have only one of their two texts", "give both, or take them out"),
    "nul": ("hold NUL bytes", "it may be no text (UTF-16, a binary file): decode it before it becomes a table"),
    "invalid": ("hold half a character", "write the table again as UTF-8"),
    "replaced": ("hold U+FFFD, where a character was lost", "decode the original with its own character set"),
    "mojibake": ("hold letters read in the wrong character set", "decode the original with its own (often UTF-8)"),
    "control": ("hold control characters", "take them out, unless they are what is to be classified"),
    "html": ("hold remains of HTML", "turn HTML into text before it becomes a table, entities too"),
    "short": ("are shorter than {min_chars} characters", "look whether they say anything; min_chars sets the limit"),
    "long": ("are longer than {max_chars} characters", "cut them into samples, or know that the end is not read"),
}  # fmt: skip
"""Kind -> (what it is, what to do). The same order as they are told in."""


def check(table: pd.DataFrame, params: Params) -> list[Finding]:
    """See above. The table is every row of the manifest; rows set aside (no `split`) are not looked at.

    Raises:
        InputError: the table has no texts.
    """
    given = texts.pairs(table, NAME)
    used = [row for row, split in enumerate(table["split"].notna()) if split]
    wrong: dict[str, list[tuple[int, str]]] = {kind: [] for kind in REMEDIES}
    for row in used:
        for kind, shown in _faults(*given[row], params):
            wrong[kind].append((row, shown))
    return [_finding(table, kind, rows, len(used), params) for kind, rows in wrong.items() if rows]


def _faults(text: str, second: str | None, params: Params) -> Iterator[tuple[str, str]]:
    """(kind, what it is more exactly) of what is wrong with a sample; no piece of the text itself."""
    both = text if second is None else f"{text}\n{second}"
    length = len(both.strip())
    if not length:
        yield "empty", ""
        return
    if second is not None and not (text.strip() and second.strip()):
        yield "half_empty", ""
    if length < params.min_chars:
        yield "short", f"{length} characters"
    if length > params.max_chars:
        yield "long", f"{length} characters"
    for kind, pattern in _PATTERNS.items():
        found = None if kind in _BEYOND_ASCII and both.isascii() else pattern.search(both)
        if found:
            yield kind, _more_exactly(kind, found[0])


def _more_exactly(kind: str, found: str) -> str:
    if kind == "html":
        return "entity" if found[0] == "&" else "comment" if found.startswith("<!--") else "tag"
    return f"U+{ord(found):04X}" if kind in ("invalid", "control") else ""


def _finding(table: pd.DataFrame, kind: str, wrong: list[tuple[int, str]], num: int, params: Params) -> Finding:
    what, remedy = REMEDIES[kind]
    ids = [str(table["id"].iloc[row]) for row, _ in wrong[:20]]
    examples = ", ".join(f"{i} {shown}" if shown else i for i, (_, shown) in zip(ids[:3], wrong))
    share = len(wrong) / num
    told = (
        f"{len(wrong)} of {num} texts ({share:.1%}) {what.format(**params.model_dump())} ({examples}"
        f"{', ...' if len(wrong) > 3 else ''}); {remedy}"
    )
    severity = "error" if share > getattr(params, f"max_{kind}") else "warning"
    return Finding(NAME, severity, told, len(wrong), tuple(ids))
