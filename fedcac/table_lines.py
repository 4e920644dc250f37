"""A site table's lines as text: CSV read once, and what is wrong with it said in one error."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fedcac.errors import TableError

__all__ = ["columns_words", "read_lines", "together"]

_MOST_PROBLEMS = 20
# Several lines, a number as long as a year or an identifier, a path: no name of a column.
_NO_NAME = re.compile(r"[\r\n/\\]|[0-9]{4}|.{61}")


def read_lines(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the header and (line number, cells by column) of every row that is not blank.

    Raises
    ------
    TableError
        `no_such_file`, `not_csv`, `empty_table` or `duplicate_column`.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TableError(
            f"The table {path.name} cannot be read.", code="no_such_file", cure="Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise TableError(
            f"The table {path.name} is not UTF-8 text.",
            code="not_csv",
            cure="Save it as CSV (UTF-8).",
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(cells)]
    except csv.Error as error:
        raise TableError(
            f"The table {path.name} is not CSV near line {reader.line_num}.",
            code="not_csv",
            cure="Look for a quotation mark without its partner.",
        ) from error
    if not lines:
        raise TableError(
            f"The table {path.name} is empty.", code="empty_table", cure="Give one row per patient."
        )
    header = [name.strip() for name in lines[0][1]]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise TableError(
            f"The table {path.name} is not separated by commas.",
            code="not_csv",
            cure="Save it as comma-separated CSV.",
        )
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise TableError(
            f"Used twice: {columns_words(header, repeated)}.",
            code="duplicate_column",
            cure="Give every column a name of its own.",
        )
    if len(lines) == 1:
        raise TableError(
            f"The table {path.name} has a header and no row.",
            code="empty_table",
            cure="Give one row per patient.",
        )
    rows = []
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise TableError(
                f"Line {number} has {len(cells)} cells; the header has {len(header)}.",
                code="not_csv",
                cure="Quote cells that hold a comma.",
            )
        rows.append((number, {n: c.strip() for n, c in zip(header, cells, strict=True)}))
    return header, rows


def columns_words(header: Sequence[str], names: Sequence[str] | None = None) -> str:
    """Return columns by name, or their number if the first line looks like a patient's.

    It does so without a column `patient_id`, and where it runs on into the lines below.
    """
    shown = header if names is None else names
    is_header = "patient_id" in header and not any(map(_NO_NAME.search, header))
    return ", ".join(shown) if is_header else f"{len(shown)} column(s)"


def together(problems: Sequence[TableError]) -> TableError:
    """Return one error of several: a table is mended in one go, not line by line."""
    if len(problems) == 1:
        return problems[0]
    shown = problems[:_MOST_PROBLEMS]
    words = [f"{len(problems)} cells or lines cannot be used."]
    words += [f"  {problem.message}" for problem in shown]
    if len(problems) > len(shown):
        words.append(f"  and {len(problems) - len(shown)} more")
    return TableError(
        "\n".join(words),
        code=problems[0].code.partition(".")[2],
        cure=" ".join(dict.fromkeys(problem.cure for problem in shown)),
    )
