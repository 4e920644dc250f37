"""The manifest CSV: which series a site submits, and in which role."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from functools import partial
from pathlib import Path

from fedcac.errors import TableError
from fedcac.imaging.exam_lists import line_error, read_exam_list
from fedcac.imaging.header import parse_study_date

__all__ = ["ManifestEntry", "Role", "read_manifest"]

_REQUIRED = ("path", "role")
_OPTIONAL = ("patient_id", "study_date")

_error = partial(line_error, "manifest")


class Role(StrEnum):
    """What a series is to the protocol."""

    INDEX = "index"
    REFERENCE = "reference"


@dataclass(frozen=True)
class ManifestEntry:
    """One line of the manifest. repr shows only the line and the role.

    Attributes
    ----------
    path
        The series' folder or file, absolute or joined to the manifest's folder; a series without
        a folder of its own is named by its SeriesInstanceUID below that of its study
        (`locate_series`). It need not exist: a missing one is a coded exclusion, not an error of
        the manifest.
    patient_id, study_date
        Override the header's; None where the cell is empty.
    """

    line: int
    path: Path = field(repr=False)
    role: Role
    patient_id: str | None = field(default=None, repr=False)
    study_date: date | None = field(default=None, repr=False)


def read_manifest(csv_path: Path) -> tuple[ManifestEntry, ...]:
    """Read a manifest with columns path, role and, optionally, patient_id, study_date (YYYYMMDD).

    Raises
    ------
    TableError
        `no_manifest`, `unreadable_manifest`, `unknown_column`, `missing_column`,
        `repeated_column`, `malformed_line`, `missing_path`, `path_escapes`, `repeated_path`,
        `unknown_role`, `bad_study_date` or `empty_manifest`. The cure names the line.
    """
    rows = read_exam_list(
        csv_path,
        "manifest",
        check_header=_check_columns,
        no_file_cure="Write a CSV file with the columns path and role, one line per series.",
    )
    folder = Path(os.path.abspath(csv_path)).parent
    entries: dict[Path, ManifestEntry] = {}
    for line, row in rows:
        entry = _entry(line, row, folder)
        if entry.path in entries:
            first = entries[entry.path].line
            raise _error(line, f"repeats the path of line {first}", "repeated_path", "Remove")
        entries[entry.path] = entry
    if not entries:
        raise TableError(
            "The manifest lists no series.",
            code="empty_manifest",
            cure="From line 2 on, write one line per series: its path and its role.",
        )
    return tuple(entries.values())


def _check_columns(header: list[str]) -> None:
    cure = f"Line 1 must name {', '.join(_REQUIRED)} and may name {', '.join(_OPTIONAL)}."
    unknown = sorted(set(header) - set(_REQUIRED) - set(_OPTIONAL))
    if unknown:
        # Without a header, or with a header that runs on, the first line is a patient's.
        is_header = all(name.isascii() and name.replace("_", "").islower() for name in header)
        is_header = is_header and any(name in header for name in _REQUIRED)
        words = ", ".join(unknown) if is_header else f"{len(unknown)} of {len(header)}"
        raise TableError(
            f"The manifest has unknown columns: {words}.",
            code="unknown_column",
            cure=cure,
        )
    if len(set(header)) != len(header):
        raise TableError("The manifest repeats a column.", code="repeated_column", cure=cure)
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        code = "missing_column" if header else "empty_manifest"
        raise TableError(
            f"The manifest lacks the columns {', '.join(missing)}.", code=code, cure=cure
        )


def _entry(line: int, row: Mapping[str, str], folder: Path) -> ManifestEntry:
    if row["role"] not in tuple(Role):
        raise _error(line, "has an unknown role", "unknown_role", f"Write {' or '.join(Role)} in")
    day_text = row.get("study_date", "")
    day = parse_study_date(day_text)
    if day_text and day is None:
        raise _error(
            line, "has a study_date that is no date", "bad_study_date", "Write YYYYMMDD in"
        )
    return ManifestEntry(
        line=line,
        path=_resolve(line, row["path"], folder),
        role=Role(row["role"]),
        patient_id=row.get("patient_id") or None,
        study_date=day,
    )


def _resolve(line: int, text: str, folder: Path) -> Path:
    if not text or "\0" in text:
        raise _error(line, "has no path", "missing_path", "Write the series' folder in")
    if Path(text).is_absolute():
        return Path(os.path.normpath(text))
    # Lexically: a symbolic link inside the folder is the site's own decision.
    path = Path(os.path.normpath(folder / text))
    if not path.is_relative_to(folder):
        raise _error(
            line,
            "has a relative path that leaves the manifest's folder",
            "path_escapes",
            "Write an absolute path, or one below the manifest, in",
        )
    return path
