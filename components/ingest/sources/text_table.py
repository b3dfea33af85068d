"""A table with a text a row: CSV, TSV, JSON lines or Parquet.

What: one sample a row; columns for the text and the label, and where wanted a second text, an id and attributes.
When: the texts stand in the table itself.
Not when: the table names files (source `table`), or labels stand for words inside the text.
Settings: file, text, text_pair, label, id, attributes, delimiter, quote, encoding.
Cost: 1.8 s of a processor and 0.4 GB for 100,000 rows of 500 characters; the whole table is held in memory.
Evidence here: tests/components/ingest/test_text_table.py, tests/contracts/test_sources.py.
Source: RFC 4180 for CSV; the rules are our own and stand in components/ingest/tables.py and below.

Rules, beside those of every table:

- A text keeps its case, its newlines and the blanks inside it; what is taken off, for every text alike, stands
  in components/preprocessing. "NA" and "null" are texts. An empty text is the task's to refuse; of a pair, one of
  the two may be empty.
- Without an id column the id is the row's line (Parquet: its number), so order by id is the table's order, and
  rows added at the end change no id.
- With an id column the first row with an id stands, and every further one is set aside (`duplicate_id`) with both
  lines; a row without an id is set aside (`missing_id`).
- Labels are brought to one Unicode form (NFC).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import model_validator

from components.contracts import Found
from components.ingest import tables
from components.job import Job

INPUTS = ("text",)
EXPECTS = "It expects a table with a row for each sample and a column of texts."


class Params(tables.Options):
    """Options."""

    file: str | None = None
    """The table, inside `ingest.data`; by default `ingest.data` itself, or the one table in it."""
    text: str = "text"
    """Column of the texts."""
    text_pair: str | None = None
    """Column of the second texts, where a sample is a pair."""
    id: str | None = None
    """Column of names that are unique; by default the row's line."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        columns = [self.text, self.label, *([self.text_pair] if self.text_pair else [])]
        if len({*columns}) < len(columns):
            raise ValueError(f"text, text_pair and label must be different columns, not {', '.join(columns)}")
        return self


def find(params: Params, data: Path, job: Job) -> Iterator[Found]:
    """Yields a sample a row, in the table's order.

    Raises:
        InputError: no such table or column, or it cannot be read.
    """
    place = tables.place_of(params.file, data)
    texts = {"text": params.text} | ({"text_pair": params.text_pair} if params.text_pair else {})
    columns = [*texts.values(), params.label, *([params.id] if params.id else []), *params.attributes]
    first: dict[str, int] = {}
    for row in tables.rows_of(place, params, columns, job):
        cells = tables.cells(row, columns, verbatim=texts.values())
        reason, detail = cells.reason, cells.detail
        name = cells.texts.get(params.id, "") if params.id else f"{row.line:09d}"
        if not reason and not name:
            reason, detail = "missing_id", f"line {row.line}"
        if not reason and first.setdefault(name, row.line) != row.line:
            reason, detail = "duplicate_id", f"line {row.line}: the id {name[:80]!r} stands on line {first[name]} too"
        if reason and params.id:
            name = f"{place.name} line {row.line}"
            first.setdefault(name, row.line)
        yield Found(
            id=name,
            label=unicodedata.normalize("NFC", cells.texts.get(params.label, "")) or None,
            inputs={key: cells.texts.get(column, "") for key, column in texts.items()},
            attributes={a: cells.texts[a] for a in params.attributes if cells.texts.get(a)},
            reason=reason,
            detail=detail,
        )
