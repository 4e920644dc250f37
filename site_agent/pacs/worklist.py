"""The worklist CSV: which patients or studies a site wants pulled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedcac.errors import TableError
from fedcac.imaging import Role
from fedcac.imaging.exam_lists import line_error, read_exam_list
from fedcac.imaging.header import parse_study_date
from site_agent.pacs.query import StudyQuery

__all__ = ["Wish", "read_worklist"]

_COLUMNS = ("patient_id", "accession_number", "study_date", "role")
_KEYS = ("patient_id", "accession_number")
_LONGEST_KEY = 64
"""PatientID is LO: at most 64 characters (PS3.5 6.2)."""


@dataclass(frozen=True)
class Wish:
    """What to look for, and on whose behalf.

    Attributes
    ----------
    line
        The worklist's line; None for a range of dates.
    role
        The role asked for; None: every role that has a rule.
    """

    line: int | None
    query: StudyQuery
    role: Role | None = None


def read_worklist(csv_path: Path, modality: str) -> tuple[Wish, ...]:
    """Read a worklist: patient_id, accession_number or both; optional study_date and role.

    study_date is YYYYMMDD; role is index or reference.

    Raises
    ------
    TableError
        `no_worklist`, `unreadable_worklist`, `unknown_column`, `missing_column`,
        `repeated_column`, `malformed_line`, `missing_key`, `bad_key`, `bad_study_date`,
        `unknown_role` or `empty_worklist`. The cure names the line.
    """
    rows = read_exam_list(
        csv_path,
        "worklist",
        check_header=_check_header,
        no_file_cure=f"Write a CSV file with columns among {', '.join(_COLUMNS)}.",
    )
    wishes = tuple(_wish(line, row, modality) for line, row in rows)
    if not wishes:
        raise TableError(
            "The worklist has no line.",
            code="empty_worklist",
            cure="From line 2 on, write one line per patient or study.",
        )
    return wishes


def _check_header(header: list[str]) -> None:
    cure = f"Line 1 names patient_id, accession_number or both, and may name others of {_COLUMNS}."
    unknown = set(header) - set(_COLUMNS)
    if unknown:
        # Not quoted: without a header the first line is a patient's.
        raise TableError(
            f"{len(unknown)} of the worklist's {len(header)} columns are unknown.",
            code="unknown_column",
            cure=cure,
        )
    if len(set(header)) != len(header):
        raise TableError("The worklist repeats a column.", code="repeated_column", cure=cure)
    if not set(header) & set(_KEYS):
        raise TableError(
            "The worklist names no patients.",
            code="missing_column" if header else "empty_worklist",
            cure=cure,
        )


def _wish(line: int, row: Mapping[str, str], modality: str) -> Wish:
    keys = {name: row.get(name, "") for name in _KEYS}
    if not any(keys.values()):
        raise _error(line, "names neither patient nor accession number", "missing_key")
    # Wildcards and lists (PS3.4 C.2.2.2) would ask for other patients too.
    if any(set(key) & set("*?\\") or len(key) > _LONGEST_KEY for key in keys.values()):
        raise _error(line, "has an identifier with *, ? or \\, or a very long one", "bad_key")
    day = parse_study_date(row.get("study_date", ""))
    if row.get("study_date") and day is None:
        raise _error(line, "has a study_date that is no date YYYYMMDD", "bad_study_date")
    role = row.get("role", "")
    if role and role not in tuple(Role):
        raise _error(line, "has a role other than index and reference", "unknown_role")
    query = StudyQuery(
        modality=modality,
        patient_id=keys["patient_id"],
        accession_number=keys["accession_number"],
        first_day=day,
        last_day=day,
    )
    return Wish(line, query, Role(role) if role else None)


def _error(line: int, wrong: str, code: str) -> TableError:
    return line_error("worklist", line, wrong, code, "Mend or remove")
