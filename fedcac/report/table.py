"""A table as rows of words."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Row", "Table"]


@dataclass(frozen=True)
class Row:
    """One line: its header cell and its cells. A row without cells is a heading within the body."""

    head: str
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A caption, the column headers (the first heads the row headers), the rows and a note.

    `has_summary` marks the last column as the pooled one, which is printed in bold. `note` stands
    below the table, wherever it goes: it says what a reader of the table alone must know.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    has_summary: bool = False
    note: str = ""
