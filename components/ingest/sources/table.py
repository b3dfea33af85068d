"""A table with a row a sample: CSV, TSV, JSON lines or Parquet, with a column of paths.

What: one sample a row; columns for the path, the label, and where wanted an id and attributes.
When: labels or attributes stand in a table.
Not when: the folder names are the labels (source `image_folder`), the table holds the images' own bytes, or texts
(source `text_table`).
Settings: file, path, label, id, attributes, base, delimiter, quote, encoding.
Cost: 2 s for 100,000 rows; reading the images is `ingest`'s own.
Evidence here: tests/components/ingest/test_table.py, tests/contracts/test_sources.py.
Source: RFC 4180 for CSV; the rules are our own and stand in components/ingest/tables.py and below.

Rules, beside those of every table:

- Labels are brought to one Unicode form (NFC).
- Relative paths begin at the table's own folder, or at `base`; one that leaves `ingest.data` is set aside, as
  DVC watches nothing else. Absolute paths are taken as they are. A backslash is read as a slash
  where that finds a file.
- Without an id column the path is the id; where it comes again, "#2" and so on is added, so that no row is
  lost and `validate` sees the copies.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from components import samples
from components.contracts import Found, InputError
from components.ingest import tables
from components.job import Job

INPUTS = ("path",)
EXPECTS = "It expects a table with a row for each sample."


class Params(tables.Options):
    """Options."""

    file: str
    """The table, inside `ingest.data`."""
    path: str = "path"
    """Column of the samples' paths."""
    id: str | None = None
    """Column of names that are unique; by default the path."""
    base: str | None = None
    """Folder inside `ingest.data` at which relative paths begin; by default the table's own."""


def find(params: Params, data: Path, job: Job) -> Iterator[Found]:
    """Yields a sample a row, in the table's order.

    Raises:
        InputError: no such table or column, not the encoding, or an id twice.
    """
    rows = tables.rows_of(tables.place_of(params.file, data), params, _columns(params), job)
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


def _columns(params: Params) -> list[str]:
    return [params.path, params.label, *([params.id] if params.id else []), *params.attributes]


def _found(row: tables.Row, params: Params, data: Path, base: str, root: Path) -> Found:
    nameless = f"{params.file} line {row.line}"
    cells = tables.cells(row, _columns(params))
    if row.reason:
        return Found(nameless, None, {"path": ""}, reason=cells.reason, detail=cells.detail)
    texts, reason, detail = cells.texts, cells.reason, cells.detail
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
