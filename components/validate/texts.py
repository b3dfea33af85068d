"""What the checks of texts share: the texts of a table (or a clear refusal where it has none), and what is in them."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from components.contracts import INPUT, InputError

if TYPE_CHECKING:
    import pandas as pd

ENDS = (5_000, 1_000)
"""Characters of a text that `tokens` reads, at its beginning and at its end."""
LONGEST = 40
_WORD, _MARKS, _PLAIN = re.compile(r"\w+"), re.compile(r"[^\w\s]+"), re.compile(r"[^\W_]+")


def _read_wrongly(first: int, last: int) -> str:
    """A class of the characters that these bytes become, read as Windows-1252 (as Latin-1 where it has none)."""
    found = {bytes([b]).decode(c, "ignore") for b in range(first, last + 1) for c in ("cp1252", "latin-1")}
    return "[" + "".join(f"\\u{ord(c):04x}" for c in sorted(found - {""})) + "]"


_NEXT = _read_wrongly(0x80, 0xBF)
MOJIBAKE = (
    # Latin letters and signs (é: Ã©, £: Â£), not after a capital: CAFÉ» and MANHÃ” are words with a quote
    rf"(?<![A-ZÀ-Þ])[ÂÃ]{_NEXT}"
    # quotes and dashes (â€™), a byte-order mark or U+FFFD (ï»¿, ï¿½), emoji (ðŸ˜€)
    rf"|â€|[âï]{_NEXT}{{2}}|ð{_read_wrongly(0x9F, 0x9F)}{_NEXT}{{2}}"
    # any other letters, two or more in a row (Cyrillic: Ð¿Ñ€; Chinese: ä¸­æ–‡)
    rf"|(?:[Ä-ß]{_NEXT}){{2}}|(?:[à-ï]{_NEXT}{{2}}){{2}}"
)
"""A pattern: UTF-8 that was read as Windows-1252. Finds most other character sets that were so read, too."""


def pairs(table: pd.DataFrame, check: str) -> list[tuple[str, str | None]]:
    """(text, second text) of every row; "" where it is missing, None where the table has no second texts.

    Raises:
        InputError: the table has no `input.text`.
    """
    text, second = f"{INPUT}text", f"{INPUT}text_pair"
    if text not in table:
        has = [str(c) for c in table.columns if str(c).startswith(INPUT)]
        raise InputError(
            f"validate.checks: {check} reads texts (`{text}`, as run.task text_classification gives them), but the "
            f"manifest has {', '.join(has) or 'no column ' + INPUT + '*'}. Take {check} out of validate.checks."
        )
    first = [_string(v) for v in table[text]]
    others = [_string(v) for v in table[second]] if second in table else [None] * len(first)
    return list(zip(first, others))


def joined(table: pd.DataFrame, check: str) -> list[str]:
    """The text of every row, the second one of a pair below it."""
    return [text if second is None else f"{text}\n{second}" for text, second in pairs(table, check)]


def tokens(text: str, names: tuple[str, ...] = ()) -> set[str]:
    """What stands in a text, without case: words, marks, what blanks divide, two of these in a row, and those of
    `names` (in their plain form) that it holds."""
    text = (text if len(text) <= sum(ENDS) else f"{text[: ENDS[0]]}\n{text[-ENDS[1] :]}").casefold()
    pieces, words = text.split(), _PLAIN.findall(text)
    found = {*pieces, *_WORD.findall(text), *_MARKS.findall(text), *words}
    found.update(f"{one} {other}" for one, other in itertools.pairwise(pieces))
    line = f" {' '.join(words)} "
    found.update(name for name in names if f" {name} " in line)
    return {token for token in found if len(token) <= LONGEST}


def plain(text: str) -> str:
    """Words and numbers alone, without case: `Card_arrival:` is "card arrival"."""
    return " ".join(_PLAIN.findall(text.casefold()))


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
