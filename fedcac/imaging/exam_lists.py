"""Lists of exams that people write as CSV: a manifest, a worklist for the PACS. Read strictly."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from fedcac.errors import TableError

__all__ = ["line_error", "read_exam_list"]


def read_exam_list(
    csv_path: Path,
    what: str,
    *,
    check_header: Callable[[list[str]], None],
    no_file_cure: str,
) -> list[tuple[int, dict[str, str]]]:
    """Return (line number, stripped cells by column) of every line that is not blank.

    No error quotes a cell: any of them may name a patient.

    Parameters
    ----------
    csv_path
        Comma-separated, UTF-8 with or without a byte order mark; the first line names columns.
    what
        `manifest` or `worklist`, for words and codes.
    check_header
        Raises TableError where the columns, none for an empty file, are not those of such a list.
    no_file_cure
        What to write where there is no file.

    Raises
    ------
    TableError
        `no_manifest` or `no_worklist`, `unreadable_manifest` or `unreadable_worklist`,
        `malformed_line`, and what `check_header` raises.
    """
    lines = _lines(csv_path, what, no_file_cure)
    header = [name.strip() for name in lines[0][1]] if lines else []
    check_header(header)
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            wrong = f"has {len(cells)} cells, not {len(header)}"
            raise line_error(what, line, wrong, "malformed_line", "Mend or remove")
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        rows.append((line, row))
    return rows


def line_error(what: str, line: int, wrong: str, code: str, cure: str) -> TableError:
    """Return the error of one line; `cure` ends before the words `line N`."""
    return TableError(f"Line {line} of the {what} {wrong}.", code=code, cure=f"{cure} line {line}.")


def _lines(csv_path: Path, what: str, no_file_cure: str) -> list[tuple[int, list[str]]]:
    try:
        with csv_path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            return [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except FileNotFoundError as error:
        raise TableError(
            f"There is no {what} at the given path.", code=f"no_{what}", cure=no_file_cure
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(
            f"The {what} cannot be read as CSV.",
            code=f"unreadable_{what}",
            cure="Save it as comma-separated values in UTF-8.",
        ) from error
