"""Text, numbers and tables as markdown of pull requests; what a name holds is shown as it is, and does nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

MOST = 20
"""Rows of a table; the rest is counted."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-!|~$^=])")
_WORDS = re.compile(r"([@#])(?=\w)|(://)|\b(www)(?=\.)", re.IGNORECASE)
_GLUE = "\u2060"  # nothing to see, and what stands before and after is no longer one word


def plain(text: object) -> str:
    """Text as itself: no markup, HTML, link, mention of a person or of an issue comes of it."""
    one = " ".join(str(text).split())
    one = _WORDS.sub(lambda m: f"{_GLUE}{m[0]}" if m[2] else f"{m[0]}{_GLUE}", one)
    one = one.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", one)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows[:MOST]]
    more = [f"\n... and {len(rows) - MOST} more"] if len(rows) > MOST else []
    return "\n".join([*([title, ""] if title else []), *lines, *more])


def fenced(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def listed(names: Iterable[str]) -> str:
    return ", ".join(plain(n) for n in names) or "none"


def number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "not measured"


def signed(value: Any) -> str:
    return f"{value:+.3g}" if isinstance(value, int | float) else ""
