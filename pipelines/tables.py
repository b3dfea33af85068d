"""Which column of a user's table holds paths or texts, which the label, and which could be groups."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import plugins
from components.contracts import InputError
from components.ingest.table_files import Row, read
from components.ingest.tables import text_of
from pipelines.survey import ID_NAMES, LABEL_NAMES, SPLIT_NAMES, Survey

MAX_ATTRIBUTES = 8
MAX_GROUPS = 12
MAX_LABELS = 200
"""For a label column that is known by its values alone."""
TEXT_NAMES = (
    "text", "sentence", "content", "body", "message", "review", "reviewtext", "comment", "commenttext", "tweet",
    "document", "post", "utterance", "email", "mail", "sms", "abstract", "article", "description", "headline", "title",
    "question", "query", "caption", "news", "statement", "summary",
)  # fmt: skip
"""Names of text columns, the likeliest first, in small letters without marks."""
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2"),
    ("texta", "textb"), ("sentencea", "sentenceb"), ("text", "textpair"), ("question", "sentence"),
    ("question", "passage"), ("query", "passage"), ("query", "document"), ("claim", "evidence"),
)  # fmt: skip
_DELIMITERS = (",", ";", "\t", "|")
_IMAGES = plugins.load("tasks", "image_classification").SUFFIXES


@dataclass(frozen=True)
class Paths:
    """Where the paths of a table lead."""

    column: str
    data: Path
    """The folder that holds both the table and the images."""
    base: str | None
    share: float
    """Of those looked at, that are files."""


@dataclass(frozen=True)
class Texts:
    """Which columns hold the texts."""

    columns: tuple[str, ...]
    """One, or two of a pair."""
    why: str


def survey_table(place: Path) -> Survey:
    """The source for a table of paths, or of texts.

    Raises:
        InputError: no column holds paths of files or texts, or none can be the label; with the columns that
            there are.
    """
    options = _format(place)
    columns = _columns(place, options)
    paths = _paths(place, columns)
    if isinstance(paths, Paths):
        return _of_paths(place, paths, columns, options)
    texts = _texts(columns)
    if texts is None:
        raise InputError(
            f"--data: no column of {place.name} holds paths of files, and none holds texts.{paths} Its columns: "
            f"{', '.join(columns)}. Paths are absolute, or begin at the table's folder."
        )
    found = _of_texts(place, texts, columns, options)
    found.told += [f"{paths.strip()} So the texts are taken"] if paths else []
    return found


def _of_paths(place: Path, paths: Paths, columns: dict[str, list[str]], options: dict[str, Any]) -> Survey:
    told = [f"the paths stand in column {paths.column!r} of {place.name} (ingest.source.path)"]
    if paths.base is not None:
        told.append(f"relative paths begin in {paths.data / paths.base} (ingest.source.base)")
    if paths.share < 1:
        told.append(f"{1 - paths.share:.0%} of the paths looked at are no files; they will be set aside")
    source: dict[str, Any] = {"name": "table", "file": Path(os.path.relpath(place, paths.data)).as_posix()}
    source |= {"path": paths.column}
    found = _with_rest(Survey(paths.data, source, told=told), place, columns, (paths.column,))
    if paths.base is not None:
        source["base"] = paths.base
    source |= options
    return found


def _of_texts(place: Path, texts: Texts, columns: dict[str, list[str]], options: dict[str, Any]) -> Survey:
    said = "texts stand in column" if len(texts.columns) == 1 else "pairs of texts stand in columns"
    named = " and ".join(map(repr, texts.columns))
    told = [f"the {said} {named} of {place.name}, {texts.why} (ingest.source.text)"]
    source: dict[str, Any] = {"name": "text_table"} | dict(zip(("text", "text_pair"), texts.columns))
    found = _with_rest(Survey(place, source, "text_classification", told=told), place, columns, texts.columns)
    found.attributes = list(dict.fromkeys(["script", *found.attributes]))
    told.append("groups are compared by the script of the texts too (bias.attributes)")
    if options.get("quote", "") is None:
        told.append("quotes are taken for plain characters, as the rows come out whole so (ingest.source.quote)")
    source |= options
    return found


def _with_rest(found: Survey, place: Path, columns: dict[str, list[str]], taken: tuple[str, ...]) -> Survey:
    """Label, id, attributes and split, from the columns that are not the sample's own."""
    source, told = found.source, found.told
    label, why = _label(place.name, columns, taken)
    told.append(f"the label is column {label!r}, {why} (ingest.source.label)")
    source["label"] = label
    rest = {name: values for name, values in columns.items() if name not in (*taken, label)}
    if identity := _identity(rest):
        source["id"] = identity
        told.append(f"column {identity!r} names the samples (ingest.source.id)")
        del rest[identity]
    found.own_split = _is_split(rest.pop("split", []))
    found.attributes = _attributes(rest, columns[label])
    if found.attributes:
        told.append(f"groups are compared by {', '.join(found.attributes)} (ingest.source.attributes, bias.attributes)")
    if found.own_split:
        told.append("column 'split' is taken as your own split (ingest.source.attributes)")
    if found.attributes or found.own_split:
        source["attributes"] = [*found.attributes, *(["split"] if found.own_split else [])]
    return found


def _format(place: Path) -> dict[str, Any]:
    """Delimiter, encoding and quote, where they are not what the suffix says."""
    if place.suffix.lower() not in (".csv", ".tsv"):
        return {}
    with place.open("rb") as handle:
        start = handle.read(65536)
    options: dict[str, Any] = {"encoding": "utf-16"} if start[:2] in (b"\xff\xfe", b"\xfe\xff") else {}
    lines = start.decode(options.get("encoding", "utf-8-sig"), "replace").splitlines()
    usual = "\t" if place.suffix.lower() == ".tsv" else ","
    counts = {d: lines[0].count(d) if lines else 0 for d in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda d: (counts[d], d == usual))
    options |= {"delimiter": best} if counts[best] and not counts[usual] else {}
    return options | _quote(place, options)


def _quote(place: Path, options: dict[str, Any]) -> dict[str, Any]:
    """No quotes, where every row comes out whole without them and more rows do than with them."""

    def rows(quote: str | None) -> tuple[int, int]:
        try:
            found = _read(place, options | {"quote": quote})[1]
        except InputError:
            return 0, -1
        return sum(not row.reason for row in found), sum(bool(row.reason) for row in found)

    with_quotes, without = rows('"'), rows(None)
    # Between tabs quotes seldom stand around fields, and a pair of them may swallow whole rows without a word.
    doubtful = with_quotes[1] or place.suffix.lower() == ".tsv"
    return {"quote": None} if doubtful and without[1] == 0 and without[0] > with_quotes[0] else {}


def _read(place: Path, options: dict[str, Any]) -> tuple[list[str], list[Row]]:
    return read(place, options.get("delimiter"), options.get("encoding", "utf-8"), options.get("quote", '"'))


def _columns(place: Path, options: dict[str, Any]) -> dict[str, list[str]]:
    """Column -> its values as text, "" where missing; rows that cannot be used are left out.

    Raises:
        InputError: no rows.
    """
    names, rows = _read(place, options)

    def text(value: Any) -> str:
        try:
            return text_of(value)
        except ValueError:
            return ""

    values = [row.values for row in rows if not row.reason]
    if not values:
        raise InputError(f"--data: {place.name} has no row that can be used. Its columns: {', '.join(names)}")
    return {name: [text(row.get(name)) for row in values] for name in names}


def _paths(place: Path, columns: dict[str, list[str]]) -> Paths | str:
    """Where the paths are, or what comes nearest to them."""
    best: Paths | None = None
    alike = ""
    for column, values in columns.items():
        some = [v for v in values if v][:: max(1, len(values) // 100)]
        named = sum(v.lower().endswith(_IMAGES) for v in some)
        if not alike and some and named > len(some) / 2:
            alike = f"{column!r} looks like paths, but {some[0]!r} is not a file"
        if not some or (not named and not any("/" in v for v in some) and len({*some}) < len(some)):
            continue
        for data, base in _beginnings(place):
            share = sum(_is_file(data / (base if base is not None else "."), v) for v in some) / len(some)
            if share >= 0.5 and (best is None or share > best.share):
                best = Paths(column, data, base, share)
    if best is None:
        return f" Column {alike}, below {place.parent} or a folder in it." if alike else ""
    return _with_outside(place, best, columns[best.column])


def _beginnings(place: Path) -> list[tuple[Path, str | None]]:
    """(ingest.data, base): where relative paths may begin, likeliest first."""
    folder = place.parent
    inside = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [(folder, None), *((folder, name) for name in inside[:50]), (folder.parent, ".")]


def _is_file(folder: Path, path: str) -> bool:
    """os.path's, because pathlib's raises where the text is too long for a name."""
    return os.path.isfile(folder / path) or ("\\" in path and os.path.isfile(folder / path.replace("\\", "/")))


def _with_outside(place: Path, paths: Paths, values: list[str]) -> Paths:
    """Where paths climb out of the table's folder, the folder above is the data."""
    if paths.base is not None:
        return paths
    folders = {os.path.normpath(place.parent / v) for v in values if v.startswith("..")}
    if not folders:
        return paths
    data = Path(os.path.commonpath([str(place.parent), *(os.path.dirname(f) for f in folders)]))
    return Paths(paths.column, data, None, paths.share)


def _texts(columns: dict[str, list[str]]) -> Texts | None:
    """The columns of texts: by their names, else the one with the longest free text."""
    free = {name: values for name, values in columns.items() if _is_free_text(values)}
    plain = {re.sub(r"[\W_]+", "", name.lower()): name for name in reversed(free)}
    for pair in PAIRS:
        if all(name in plain for name in pair):
            return Texts(tuple(plain[name] for name in pair), "by their names")
    if not free:
        return None
    known = next((plain[name] for name in TEXT_NAMES if name in plain), None)
    best = known or max(free, key=lambda name: sum(map(len, free[name])))
    others = [name for name in free if name != best]
    also = f"; there are texts in {', '.join(others[:4])} too" if others else ""
    return Texts((best,), ("by its name" if known else "as the longest free text") + also)


def _is_free_text(values: list[str]) -> bool:
    """Most are words, several or of a script without blanks between them, and few come again."""
    some = [v for v in values if v][:: max(1, len(values) // 1000)]
    words = sum(" " in v or "\n" in v or (len(v) >= 4 and not v[:100].isascii()) for v in some)
    return bool(some) and words >= len(some) / 2 and len({*some}) > max(2, len(some) / 4)


def _label(table: str, columns: dict[str, list[str]], taken: tuple[str, ...]) -> tuple[str, str]:
    """The label's column, and why it."""
    counts = {name: Counter(v for v in values if v) for name, values in columns.items() if name not in taken}
    fit = {n: c for n, c in counts.items() if c and len(c) <= max(2, c.total() / 2)}
    plain = {name: name.strip().lower().replace(" ", "_").replace("-", "_") for name in fit}
    for known in LABEL_NAMES:
        for name in fit:
            if plain[name] == known:
                return name, "by its name"
    for name in fit:
        if any(word in plain[name] for word in ("label", "class", "category", "species")):
            return name, "by its name"
    few = {n: c for n, c in fit.items() if 2 <= len(c) <= MAX_LABELS and plain[n] != "split"}
    words = {n: c for n, c in few.items() if not all(map(_is_number, c))}
    candidates = words or few
    if not candidates:
        raise InputError(
            f"--data: no column of {table} can be the label: none is called label, class or the like, and none has "
            f"a few values that come again. Its columns: {', '.join(columns)}"
        )
    best = max(candidates, key=lambda n: len(candidates[n]))
    others = [n for n in candidates if n != best]
    instead = f"; it could also be {', '.join(others[:4])}" if others else ""
    return best, f"as it has {len(candidates[best])} values that come again{instead}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _identity(columns: dict[str, list[str]]) -> str | None:
    for name, values in columns.items():
        if name.strip().lower() in ID_NAMES and all(values) and len({*values}) == len(values):
            return name
    return None


def _is_split(values: list[str]) -> bool:
    names = {v.strip().lower() for v in values}
    tested = names & {"test", "testing", "holdout"}
    return bool(names) and names <= SPLIT_NAMES and bool(tested) and bool(names & {"train", "training"})


def _attributes(columns: dict[str, list[str]], labels: Iterable[str]) -> list[str]:
    """Columns with a few values that come again, and that do not say the same as the label."""
    found = []
    for name, values in columns.items():
        counts = Counter(v for v in values if v)
        pairs = {(v, label) for v, label in zip(values, labels) if v and label}
        says_the_same = len(pairs) == len(counts)  # each value goes with one label only
        if name and 2 <= len(counts) <= min(MAX_GROUPS, counts.total() / 10) and not says_the_same:
            found.append(name)
    return found[:MAX_ATTRIBUTES]
