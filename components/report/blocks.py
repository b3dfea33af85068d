"""What a section of the page is made of. The templates draw these, and escape every text in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

Cell = str | Markup


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    kind: ClassVar[str] = "prose"
    text: str
    tone: str = ""
    """"", quiet, good, bad, warn."""


@dataclass(frozen=True)
class Points:
    """A list of short statements."""

    kind: ClassVar[str] = "points"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """Cells of a table; the first one names the row."""

    cells: tuple[Cell, ...]
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table. Columns: "text", "> number" (right-aligned) or "~ drawing"."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def heads(self) -> list[tuple[str, str]]:
        """(title, class) of each column."""
        classes = {">": "num", "~": "draw"}
        return [(c.lstrip(">~ "), classes.get(c[:1], "")) for c in self.columns]


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption; `legend` names the series in the order of their colours."""

    kind: ClassVar[str] = "figure"
    drawing: Markup
    caption: str
    legend: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """An embedded PNG."""

    kind: ClassVar[str] = "picture"
    png: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: rows are the true labels."""

    kind: ClassVar[str] = "matrix"
    caption: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def heat(self, row: int, column: int) -> int:
        """0 (none) to 5 (all of the row), for the style sheet."""
        total = sum(self.counts[row])
        count = self.counts[row][column]
        return 0 if not count else min(5, 1 + int(5 * count / total * 0.9999))


@dataclass(frozen=True)
class Side:
    """Blocks beside each other where there is room."""

    kind: ClassVar[str] = "side"
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class More:
    """Blocks that unfold."""

    kind: ClassVar[str] = "more"
    summary: str
    blocks: tuple[Block, ...]


Block = Prose | Points | Table | Figure | Picture | Matrix | Side | More


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    id: str
    title: str
    blocks: tuple[Block, ...]


def section(key: str, title: str, *blocks: Block | None) -> Section:
    """A section of those blocks that there are."""
    return Section(key, title, tuple(b for b in blocks if b is not None))


def table(caption: str, columns: Sequence[str], rows: Sequence[Row]) -> Table | None:
    """A table without the columns that have no content, or None without rows."""
    if not rows:
        return None
    kept = [i for i in range(len(columns)) if i == 0 or any(row.cells[i] for row in rows)]
    return Table(
        caption,
        tuple(columns[i] for i in kept),
        tuple(Row(tuple(r.cells[i] for i in kept), r.tone) for r in rows),
    )


def folded(block: Table | None, shown: int, noun: str) -> tuple[Block | None, ...]:
    """A table whose first rows are shown and whose others unfold."""
    if block is None or len(block.rows) <= shown:
        return (block,)
    rest = Table(f"{block.caption}, the others", block.columns, block.rows[shown:])
    more = More(f"The other {len(rest.rows)} {noun}", (rest,))
    return (Table(block.caption, block.columns, block.rows[:shown]), more)


def absent(*files: str) -> Prose:
    """Says that something was not made."""
    named = ", ".join(f"artifacts/{f}" for f in files)
    return Prose(f"Not shown, because it was not made: {named}.", "quiet")
