"""What the checks that read text share: the texts of a table, or a clear refusal where it has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.contracts import INPUT, InputError

if TYPE_CHECKING:
    import pandas as pd


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


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
