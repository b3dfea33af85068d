"""Rows of a table as samples: what the sources of tables share.

How rows are read and which are set aside stands in table_files.py. Rules, beside those:

- Only an empty value (null and NaN in JSON and Parquet too) is missing: "NA", "None" and "null" are values.
- Numbers become text: 3 and 3.0 are "3". A label, id, attribute or path loses surrounding blanks.
- A list of labels (JSON, Parquet) is written as `run.decision` has it, where that knows several labels a sample;
  where it does not, or where a label holds its separator, the row is set aside (`malformed_value`).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from components import params, plugins
from components.contracts import InputError
from components.ingest.table_files import SUFFIXES, Row, not_of, read
from components.job import Job


class Options(params.Params):
    """What every source of a table can be told."""

    label: str = "label"
    """Column of the labels."""
    attributes: tuple[str, ...] = ()
    """Columns whose values are attributes, for groups."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Between fields; by default a comma in .csv and a tab in .tsv."""
    quote: str | None = Field(default='"', min_length=1, max_length=1)
    """Around fields that hold delimiters or newlines; null: there are none, and a quote is a plain character."""
    encoding: Literal["utf-8", "utf-16", "cp1252", "latin-1"] = "utf-8"
    """Of CSV, TSV and JSON lines."""


@dataclass(frozen=True)
class Cells:
    """The wanted values of one row as text, "" where missing, and why the row cannot be used, if so."""

    texts: dict[str, str]
    reason: str = ""
    detail: str = ""


def place_of(file: str | None, data: Path) -> Path:
    """The table: `file` inside the folder `data`; without it `data` itself, or the one table in it.

    Raises:
        InputError: it is not there, or several could be meant.
    """
    if data.is_file():
        if file is None:
            return data
        raise InputError(
            f"ingest.data: {data.name} is a file; name its folder, and {data.name} in `ingest.source.file`."
        )
    tables = sorted(p.name for p in data.iterdir() if p.suffix.lower() in SUFFIXES)
    there = f"Tables there: {', '.join(tables[:20]) or 'none'}"
    if file is None:
        if len(tables) != 1:
            raise InputError(f"ingest.data: name the table in `ingest.source.file`. {there}")
        return data / tables[0]
    inside = os.path.normpath(file)
    place = data / inside
    if inside.startswith("..") or os.path.isabs(inside) or not place.is_file():
        raise InputError(f"ingest.source.file: {file!r} is not a file inside ingest.data. {there}")
    return place


def rows_of(place: Path, options: Options, wanted: list[str], job: Job) -> list[Row]:
    """The rows of a table that has the wanted columns.

    Raises:
        InputError: it cannot be read as what its suffix says, or a wanted column is missing or there twice.
    """
    columns, rows = read(place, options.delimiter, options.encoding, options.quote)
    _check_columns(wanted, columns, place.name)
    odd = sum(row.reason == not_of(options.encoding) for row in rows)
    if odd:
        whole = [row for row in rows if not row.reason]
        if odd > sum(any(isinstance(v, str) and not v.isascii() for v in row.values.values()) for row in whole):
            job.say(
                f"warning: most of what is beyond ASCII in {place.name} is not {options.encoding} ({odd} rows); is it "
                "in another encoding? Name it in `encoding` of the source."
            )
    decision = plugins.load("decisions", job.run.decision)
    return [_with_label(row, options.label, decision) for row in rows] if hasattr(decision, "joined") else rows


def _with_label(row: Row, column: str, decision: Any) -> Row:
    """The row with its list of labels, if it has one, in the decision's writing."""
    given = row.values.get(column)
    if not isinstance(given, list):
        return row
    try:
        names = {text_of(name) for name in given} - {""}
    except ValueError:
        return row
    text = decision.joined(names)
    return replace(row, values=row.values | {column: text}) if {*decision.split(text)} == names else row


def _check_columns(wanted: list[str], columns: list[str], file: str) -> None:
    missing = [name for name in wanted if name not in columns]
    if missing:
        one = columns[0] if len(columns) == 1 else ""
        split = next((d for d in (";", "\t", "|", ",") if d in one), None)
        hint = f" Is {split!r} its delimiter? Set `ingest.source.delimiter`." if split else ""
        raise InputError(
            f"{file} has no column {', '.join(map(repr, missing))}. Its columns: "
            f"{', '.join(c[:60] for c in columns[:60]) or 'none'}.{hint} Change `ingest.source` in params.yaml."
        )
    twice = [name for name in wanted if columns.count(name) > 1]
    if twice:
        raise InputError(f"{file} has the column {twice[0]!r} twice; rename one of them")


def cells(row: Row, columns: Collection[str], verbatim: Collection[str] = ()) -> Cells:
    """Some columns of a row; those in `verbatim` keep their blanks and are not checked."""
    if row.reason:
        return Cells({}, row.reason, f"line {row.line}: {row.detail}")
    texts: dict[str, str] = {}
    reason, detail = "", ""
    for column in columns:
        try:
            texts[column] = (as_text if column in verbatim else text_of)(row.values.get(column))
        except ValueError as error:
            reason, detail = str(error), f"line {row.line}: column {column}"
            texts[column] = ""
    return Cells(texts, reason, detail)


def as_text(value: Any) -> str:
    """A value as text, nothing taken off, "" if missing.

    Raises:
        ValueError: malformed_value or not_utf8, a reason to set the row aside.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError(not_of("utf-8")) from None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if not isinstance(value, int | float | Decimal | date):
        raise ValueError("malformed_value")
    return str(value)


def text_of(value: Any) -> str:
    """A label, id, attribute or path as text without surrounding blanks, "" if missing.

    Raises:
        ValueError: nul_byte, malformed_value or not_utf8, a reason to set the row aside.
    """
    text = as_text(value).strip()
    if "\0" in text:
        raise ValueError("nul_byte")
    if not text.isprintable() and any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("malformed_value")
    return text
