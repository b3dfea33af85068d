"""A table with a row a sample: CSV, TSV, JSON lines or Parquet, with a column of paths.

What: one sample a row; columns for the path, the label, and where wanted an id and attributes.
When: labels or attributes stand in a table.
Not when: the folder names are the labels (source `image_folder`), or the table holds the images' own bytes.
Settings: file, path, label, id, attributes, base, delimiter, encoding.
Cost: 2 s for 100,000 rows; reading the images is `ingest`'s own.
Evidence here: tests/components/ingest/test_table.py, tests/contracts/test_sources.py.
Source: RFC 4180 for CSV; the rules are our own and stand below.

Rules, for every row:

- A row with a field too many or too few, or that cannot be parsed, is set aside with its line; no column
  shifts. Empty lines are passed over.
- Values lose surrounding blanks. Only an empty one (null and NaN in JSON and Parquet too) is missing: "NA",
  "None" and "null" are labels.
- Numbers become text: 3 and 3.0 are "3". Labels are brought to one Unicode form (NFC).
- Relative paths begin at the table's own folder, or at `base`; one that leaves `ingest.data` is set aside, as
  DVC watches nothing else. Absolute paths are taken as they are. A backslash is read as a slash
  where that finds a file.
- Without an id column the path is the id; where it comes again, "#2" and so on is added, so that no row is
  lost and `validate` sees the copies.
"""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from components import params, samples
from components.contracts import Found, InputError
from components.job import Job

INPUTS = ("path",)
EXPECTS = "It expects a table with a row for each sample."
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")


class Params(params.Params):
    """Options."""

    file: str
    """The table, inside `ingest.data`."""
    path: str = "path"
    """Column of the samples' paths."""
    label: str = "label"
    """Column of the labels."""
    id: str | None = None
    """Column of names that are unique; by default the path."""
    attributes: tuple[str, ...] = ()
    """Columns whose values are attributes, for groups."""
    base: str | None = None
    """Folder inside `ingest.data` at which relative paths begin; by default the table's own."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Between fields; by default a comma in .csv and a tab in .tsv."""
    encoding: Literal["utf-8", "utf-16", "cp1252", "latin-1"] = "utf-8"
    """Of CSV, TSV and JSON lines."""


@dataclass(frozen=True)
class Row:
    """One row: its line (Parquet: its number), and its values or why it cannot be used."""

    line: int
    values: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    detail: str = ""


def find(params: Params, data: Path, job: Job) -> Iterator[Found]:
    """Yields a sample a row, in the table's order.

    Raises:
        InputError: no such table or column, not the encoding, or an id twice.
    """
    place = _place(params, data)
    columns, rows = read(place, params.delimiter, params.encoding)
    wanted = [params.path, params.label, *([params.id] if params.id else []), *params.attributes]
    _check_columns(wanted, columns, params.file)
    base = os.path.dirname(params.file) if params.base is None else params.base
    seen: Counter[str] = Counter()
    where: dict[str, int] = {}
    for row in rows:
        found = _found(row, params, data, base, job.root)
        if params.id and not found.reason and where.setdefault(found.id, row.line) != row.line:
            first = where[found.id]
            raise InputError(
                f"{params.file}: the id {found.id!r} in column {params.id!r} stands on lines {first} and "
                f"{row.line}; ids must be unique. Without `ingest.source.id` the path is the id."
            )
        seen[found.id] += 1
        again = f"#{seen[found.id]}" if seen[found.id] > 1 else ""
        yield Found(found.id + again, found.label, found.inputs, found.attributes, found.reason, found.detail)


def _place(params: Params, data: Path) -> Path:
    if not data.is_dir():
        raise InputError(
            f"ingest.data: {data.name} is a file; name its folder, and {data.name} in `ingest.source.file`."
        )
    inside = os.path.normpath(params.file)
    place = data / inside
    if inside.startswith("..") or os.path.isabs(inside) or not place.is_file():
        tables = sorted(p.name for p in data.iterdir() if p.suffix.lower() in SUFFIXES)
        raise InputError(
            f"ingest.source.file: {params.file!r} is not a file inside ingest.data. "
            f"Tables there: {', '.join(tables[:20]) or 'none'}"
        )
    return place


def _check_columns(wanted: list[str], columns: list[str], file: str) -> None:
    missing = [name for name in wanted if name not in columns]
    if missing:
        one = columns[0] if len(columns) == 1 else ""
        split = next((d for d in (";", "\t", "|", ",") if d in one), None)
        hint = f" Is {split!r} its delimiter? Set `ingest.source.delimiter`." if split else ""
        raise InputError(
            f"{file} has no column {', '.join(map(repr, missing))}. "
            f"Its columns: {', '.join(columns[:60]) or 'none'}.{hint} Change `ingest.source` in params.yaml."
        )
    twice = [name for name in wanted if columns.count(name) > 1]
    if twice:
        raise InputError(f"{file} has the column {twice[0]!r} twice; rename one of them")


def _found(row: Row, params: Params, data: Path, base: str, root: Path) -> Found:
    nameless = f"{params.file} line {row.line}"
    if row.reason:
        return Found(nameless, None, {"path": ""}, reason=row.reason, detail=f"line {row.line}: {row.detail}")
    columns = [params.path, params.label, *([params.id] if params.id else []), *params.attributes]
    texts: dict[str, str] = {}
    reason, detail = "", ""
    for column in columns:
        try:
            texts[column] = text_of(row.values.get(column))
        except ValueError as error:
            reason, detail = str(error), f"line {row.line}: column {column}"
            texts[column] = ""
    path, name = texts[params.path], texts[params.id] if params.id else texts[params.path]
    if not reason and not (path and name):
        reason, detail = "missing_id" if path else "missing_path", f"line {row.line}"
    where, inside = _locate(path, data, base)
    if not reason and not inside:
        reason, detail = "path_outside_data", f"line {row.line}: {path} leaves ingest.data"
    return Found(
        id=nameless if reason else name,
        label=unicodedata.normalize("NFC", texts[params.label]) or None,
        inputs={"path": samples.named(root, where)},
        attributes={a: texts[a] for a in params.attributes if texts[a]},
        reason=reason,
        detail=detail,
    )


def _locate(path: str, data: Path, base: str) -> tuple[Path, bool]:
    """Where a path of the table leads, and whether it may."""
    if "\\" in path and os.path.lexists(slashed := data / base / path.replace("\\", "/")):
        path = os.path.relpath(slashed, data / base)
    if os.path.isabs(path):
        return Path(path), True
    inside = os.path.normpath(os.path.join(base, path))
    return data / inside, not (os.path.isabs(inside) or inside.split("/")[0] == "..")


def text_of(value: Any) -> str:
    """A value as text, "" if missing.

    Raises:
        ValueError: nul_byte or malformed_value, a reason to set the row aside.
    """
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if not isinstance(value, str | int | float | Decimal | date):
        raise ValueError("malformed_value")
    text = str(value).strip()
    if "\0" in text:
        raise ValueError("nul_byte")
    if not text.isprintable() and any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("malformed_value")
    return text


def read(place: Path, delimiter: str | None = None, encoding: str = "utf-8") -> tuple[list[str], list[Row]]:
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
        return _read_jsonl(text)
    return _read_csv(place.name, text, delimiter or ("\t" if suffix == ".tsv" else ","))


def _decoded(place: Path, encoding: str) -> str:
    content = place.read_bytes()
    if encoding == "utf-8" and content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{place.name} is UTF-16; set `encoding: utf-16` in `ingest.source`, or save it as UTF-8")
    try:
        return content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{place.name}: line {line} is not {encoding} (byte {content[error.start]:#04x}). "
            "Save it as UTF-8, or name its `encoding` in `ingest.source`."
        ) from None


def _read_csv(name: str, text: str, delimiter: str) -> tuple[list[str], list[Row]]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    columns: list[str] | None = None
    rows: list[Row] = []
    while True:
        start = lines.line_num + 1
        try:
            fields = next(lines)
        except StopIteration:
            return columns or [], rows
        except csv.Error as error:
            if columns is None or "unexpected end" in str(error) or "field limit" in str(error):
                raise InputError(
                    f"{name}: from line {start} on it cannot be parsed ({error}); is a quote not closed?"
                ) from None
            rows.append(Row(start, reason="malformed_row", detail=str(error)))
            continue
        if not fields:
            continue
        if columns is None:
            columns = [f.strip() for f in fields]
        elif len(fields) != len(columns):
            told = f"{len(fields)} fields, but the header has {len(columns)}"
            rows.append(Row(start, reason="wrong_number_of_fields", detail=told))
        else:
            rows.append(Row(start, dict(zip(columns, fields))))


def _read_jsonl(text: str) -> tuple[list[str], list[Row]]:
    columns: dict[str, None] = {}
    rows: list[Row] = []
    for line, one in enumerate(text.split("\n"), 1):
        if not one.strip():
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
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{place.name} is not a Parquet file that can be read: {str(error).splitlines()[0]}") from None
    columns = list(table.column_names)
    values = [table.column(i).to_pylist() for i in range(len(columns))]
    return columns, [Row(n, dict(zip(columns, row))) for n, row in enumerate(zip(*values), 1)]
