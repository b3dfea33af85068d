"""Reading a table: CSV, TSV, JSON lines or Parquet, row by row.

Rules, for every row:

- A row with a field too many or too few, or that cannot be parsed, is set aside with its line; no column
  shifts. Empty lines are passed over. Where a broken row leaves a quote open and a later line closes it, the
  rows from one to the other are set aside too: nobody can tell whether they are rows or lines of one text.
- Quotes, and newlines between them, are those of RFC 4180; without `quote` they are plain characters. A quote
  that is open at the end of the file is refused.
- A row with bytes that are not of the encoding is set aside (`not_utf8`); a UTF-16 file that was not named as
  such is refused. A byte-order mark is dropped.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.contracts import InputError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")
MAX_FIELD = 2**31 - 1
"""Characters of one field; the csv module's own limit of 131,072 would end the whole table."""
_NOT_DECODED = re.compile("[\udc80-\udcff]")  # bytes that are no text, as `surrogateescape` keeps them
_MEND = "Save it as UTF-8, or name its `encoding` in `ingest.source`."


@dataclass(frozen=True)
class Row:
    """One row: its line (Parquet: its number), and its values or why it cannot be used."""

    line: int
    values: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    detail: str = ""


def read(
    place: Path, delimiter: str | None = None, encoding: str = "utf-8", quote: str | None = '"'
) -> tuple[list[str], list[Row]]:
    """The columns and the rows of a table.

    Raises:
        InputError: another suffix, empty, or not what its suffix says; with the line where there is one.
    """
    suffix = place.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{place.name}: a table ends in one of {', '.join(SUFFIXES)}")
    if suffix in (".parquet", ".pq"):
        return _read_parquet(place)
    text = _decoded(place, encoding)
    if not text.strip():
        raise InputError(f"{place.name} is empty")
    if suffix in (".jsonl", ".ndjson"):
        return _read_jsonl(text, encoding)
    records = _records(text, delimiter or ("\t" if suffix == ".tsv" else ","), quote)
    return _read_csv(place.name, records, encoding)


def _decoded(place: Path, encoding: str) -> str:
    """The text; bytes that are none are kept as lone surrogates, so that the rows of the others can be used."""
    content = place.read_bytes()
    head = content[:200]
    if encoding != "utf-16" and (head[:2] in (b"\xff\xfe", b"\xfe\xff") or 3 * head.count(0) > max(len(head), 1)):
        raise InputError(f"{place.name} is UTF-16; set `encoding: utf-16` in `ingest.source`, or save it as UTF-8")
    try:
        if encoding == "utf-16":
            without_mark = head[:2] not in (b"\xff\xfe", b"\xfe\xff")
            big = without_mark and head[::2].count(0) > head[1::2].count(0)
            return content.decode("utf-16-be" if big else "utf-16")
        return content.decode("utf-8-sig" if encoding == "utf-8" else encoding, "surrogateescape")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n\0") + 1
        raise InputError(f"{place.name}: line {line} is not {encoding} (byte {error.start}). {_MEND}") from None


def not_of(encoding: str) -> str:
    """The reason to set a row aside whose bytes are not of the encoding."""
    return f"not_{encoding.replace('-', '')}"


def _undecoded(line: int, lines: Iterable[str], encoding: str) -> Row | None:
    """The row as one to set aside, if bytes in its lines are not of the encoding."""
    for one in lines:
        if not one.isascii() and (odd := _NOT_DECODED.search(one)):
            told = f"byte {ord(odd.group()) - 0xDC00:#04x} is not {encoding}"
            return Row(line, reason=not_of(encoding), detail=told)
    return None


@dataclass(frozen=True)
class _Record:
    """One record of a CSV file: its first and last line, its raw lines, and its fields or what is wrong."""

    line: int
    last: int
    raw: list[str]
    fields: list[str]
    wrong: str
    odd_quotes: bool


def _records(text: str, delimiter: str, quote: str | None) -> Iterator[_Record]:
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    quoting: Any = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    reader = csv.reader(
        lines(), delimiter=delimiter, quotechar=quote, quoting=quoting, skipinitialspace=True, strict=True
    )
    limit = csv.field_size_limit(MAX_FIELD)
    try:
        while True:
            start, fields, wrong = reader.line_num + 1, [], ""
            taken.clear()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                wrong = str(error)
            odd = quote is not None and sum(line.count(quote) for line in taken) % 2 == 1
            yield _Record(start, reader.line_num, list(taken), fields, wrong, odd)
    finally:
        csv.field_size_limit(limit)


def _read_csv(name: str, records: Iterable[_Record], encoding: str) -> tuple[list[str], list[Row]]:
    columns: list[str] | None = None
    rows: list[Row] = []
    broken: int | None = None  # index of the broken row that leaves a quote open
    for record in records:
        if record.wrong and (columns is None or "unexpected end" in record.wrong):
            raise InputError(
                f"{name}: from line {record.line} on it cannot be parsed ({record.wrong}); is a quote not closed? If "
                "quotes are plain characters there, set `quote: null` in `ingest.source`."
            )
        if columns is None:
            if _undecoded(record.line, record.raw, encoding):
                raise InputError(f"{name}: its header, line {record.line}, is not {encoding}. {_MEND}")
            columns = [f.strip() for f in record.fields] or None
        elif record.fields or record.wrong:
            rows.append(_undecoded(record.line, record.raw, encoding) or _row(record, columns))
        if record.odd_quotes and broken is not None:
            told = f"line {rows[broken].line} leaves a quote open and line {record.last} closes it"
            between = rows[broken + 1 :]
            rows[broken + 1 :] = [r if r.reason else Row(r.line, reason="malformed_row", detail=told) for r in between]
            broken = None
        elif record.odd_quotes and record.wrong:
            broken = len(rows) - 1
    return columns or [], rows


def _row(record: _Record, columns: list[str]) -> Row:
    until = f"; it goes on to line {record.last}" if record.last > record.line else ""
    if record.wrong:
        return Row(record.line, reason="malformed_row", detail=record.wrong + until)
    if len(record.fields) != len(columns):
        told = f"{len(record.fields)} fields, but the header has {len(columns)}{until}"
        return Row(record.line, reason="wrong_number_of_fields", detail=told)
    return Row(record.line, dict(zip(columns, record.fields)))


def _read_jsonl(text: str, encoding: str) -> tuple[list[str], list[Row]]:
    columns: dict[str, None] = {}
    rows: list[Row] = []
    for line, one in enumerate(text.split("\n"), 1):
        if not one.strip():
            continue
        if odd := _undecoded(line, [one], encoding):
            rows.append(odd)
            continue
        try:
            value = json.loads(one)
        except (ValueError, RecursionError) as error:
            rows.append(Row(line, reason="malformed_row", detail=str(error)[:200]))
            continue
        if not isinstance(value, dict):
            rows.append(Row(line, reason="malformed_row", detail="not a JSON object"))
            continue
        columns |= dict.fromkeys(value)
        rows.append(Row(line, value))
    return list(columns), rows


def _read_parquet(place: Path) -> tuple[list[str], list[Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(place).read()
        values = [_values(table.column(i)) for i in range(table.num_columns)]
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{place.name} is not a Parquet file that can be read: {str(error).splitlines()[0]}") from None
    columns = list(table.column_names)
    return columns, [Row(n, dict(zip(columns, row))) for n, row in enumerate(zip(*values), 1)]


def _values(column: Any) -> list[Any]:
    """Its values; a column of text that is not all UTF-8 as bytes, so that each row is judged by itself."""
    import pyarrow

    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return list(column.cast(pyarrow.large_binary()).to_pylist())
