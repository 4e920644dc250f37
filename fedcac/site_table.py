"""Site tables: already scored exams, or the clinical half that is joined to exams scored here.

Columns are the site-table contract: `patient_id`, `index_score`, `reference_score`, optional
`index_{lm,lad,lcx,rca}` and `reference_{...}`, endpoint columns, and the protocol's covariates.
Messages name the line and the column, never a patient.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedcac.errors import TableError
from fedcac.exams import Exams, vessel_columns
from fedcac.protocol import Covariate, CoxSpec, Protocol
from fedcac.vocabulary import ExclusionReason, Vessel

__all__ = [
    "ClinicalTable",
    "JoinedExams",
    "ScoredExam",
    "SiteTable",
    "assemble_exams",
    "read_clinical_table",
    "read_site_table",
]

_MISSING = frozenset({"", "na", "nan", "null", "none", "."})
# float() also reads '1_0' as 10 and digits of other scripts: not what whoever typed it meant.
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_TRUE, _FALSE = frozenset({"1", "yes", "true", "y"}), frozenset({"0", "no", "false", "n"})

Row = dict[str, float]


@dataclass(frozen=True, eq=False)
class SiteTable:
    """A scored table: the exams that remain, how many the criteria excluded, columns not used."""

    exams: Exams
    n_excluded: int
    ignored_columns: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ClinicalTable:
    """Reference scores, endpoints and covariates by patient; NaN where a value is missing."""

    rows: Mapping[str, Row] = field(repr=False)
    excluded: frozenset[str] = field(repr=False)
    columns: tuple[str, ...]


@dataclass(frozen=True)
class ScoredExam:
    """An index exam that was scored at this site, and the patient it belongs to."""

    exam_key: str
    patient_id: str = field(repr=False)
    total: float
    vessels: Mapping[Vessel, float]


@dataclass(frozen=True, eq=False)
class JoinedExams:
    """Scored exams with their clinical row, and how many had none."""

    exams: Exams
    exclusions: Counter[ExclusionReason]


def read_site_table(path: Path, protocol: Protocol) -> SiteTable:
    """Read a table of scored exams.

    Raises
    ------
    TableError
        For the first line that cannot be used, or a column that an analysis needs and lacks.
    """
    reader = _Reader(path, protocol, needs_index=True)
    rows = reader.rows()
    kept = {patient: row for patient, row in rows.items() if patient not in reader.excluded}
    keys = tuple(_pseudonym(patient) for patient in kept)
    exams = Exams(
        columns={
            name: np.array([row[name] for row in kept.values()], dtype=np.float64)
            for name in reader.value_columns
        },
        keys=keys,
    )
    return SiteTable(exams, len(rows) - len(kept), reader.ignored_columns)


def read_clinical_table(path: Path, protocol: Protocol) -> ClinicalTable:
    """Read the clinical half of a site's table; a patient's reference score may be missing.

    Raises
    ------
    TableError
        As `read_site_table`.
    """
    reader = _Reader(path, protocol, needs_index=False)
    rows = reader.rows()
    return ClinicalTable(rows, frozenset(reader.excluded), reader.value_columns)


def assemble_exams(scored: Sequence[ScoredExam], table: ClinicalTable) -> JoinedExams:
    """Join scored exams with the clinical table; one row per exam whose reference is known."""
    exclusions: Counter[ExclusionReason] = Counter()
    kept: list[tuple[ScoredExam, Row]] = []
    for exam in scored:
        row = table.rows.get(exam.patient_id)
        if exam.patient_id in table.excluded:
            exclusions[ExclusionReason.PROTOCOL_EXCLUSION] += 1
        elif row is None or math.isnan(row["reference_score"]):
            exclusions[ExclusionReason.NO_REFERENCE_SCORE] += 1
        else:
            kept.append((exam, row))
    columns = {"index_score": [exam.total for exam, _ in kept]}
    for vessel in Vessel:
        columns[vessel_columns(vessel)[0]] = [exam.vessels[vessel] for exam, _ in kept]
    for name in table.columns:
        columns[name] = [row[name] for _, row in kept]
    exams = Exams(
        columns={name: np.array(values, dtype=np.float64) for name, values in columns.items()},
        keys=tuple(exam.exam_key for exam, _ in kept),
    )
    return JoinedExams(exams, exclusions)


def _pseudonym(patient_id: str) -> str:
    return hashlib.sha256(patient_id.encode("utf-8")).hexdigest()[:32]


def _read_lines(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the header and (line number, cells by column) of every row that is not blank."""
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
            f"The table {path.name} is not CSV near line {reader.line_num}.", code="not_csv"
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
        raise TableError(f"Column used twice: {', '.join(repeated)}.", code="duplicate_column")
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


class _Reader:
    """Checks a table against a protocol, cell by cell."""

    def __init__(self, path: Path, protocol: Protocol, *, needs_index: bool) -> None:
        self._header, self._lines = _read_lines(path)
        self._name = path.name
        self._protocol = protocol
        self._parsers = self._plan(needs_index)
        self._require(("patient_id", "every row"))
        self.excluded: set[str] = set()
        used = {"patient_id", *self._parsers, *(c.column for c in protocol.clinical_criteria)}
        self.ignored_columns = tuple(name for name in self._header if name not in used)

    @property
    def value_columns(self) -> tuple[str, ...]:
        """Names of the numeric columns that are read."""
        return tuple(self._parsers)

    def rows(self) -> dict[str, Row]:
        """Return every row by patient, and note which patients the criteria exclude."""
        rows: dict[str, Row] = {}
        for line, cells in self._lines:
            patient = cells["patient_id"]
            if not patient:
                raise TableError(f"Line {line} has no patient_id.", code="no_patient_id")
            if patient in rows:
                raise TableError(
                    f"Line {line} of {self._name}: this patient_id stands on an earlier line.",
                    code="duplicate_patient",
                    cure="Keep one row per patient: one exam pair each.",
                )
            rows[patient] = {
                name: parse(line, name, cells[name]) for name, parse in self._parsers.items()
            }
            if self._is_excluded(line, cells):
                self.excluded.add(patient)
        return rows

    def _is_excluded(self, line: int, cells: Mapping[str, str]) -> bool:
        is_excluded = False
        for criterion in self._protocol.clinical_criteria:
            value = _number(line, criterion.column, cells[criterion.column])
            if math.isnan(value):
                raise TableError(
                    f"Line {line}, column '{criterion.column}': empty, so it is unknown whether "
                    "the patient may take part.",
                    code="unknown_eligibility",
                    cure="Fill in the cell, or leave the patient out of the table.",
                )
            is_excluded |= value == criterion.exclude_if
        return is_excluded

    def _require(self, *needs: tuple[str, str]) -> None:
        for column, purpose in needs:
            if column not in self._header:
                raise TableError(
                    f"The table {self._name} has no column '{column}', which {purpose} needs.",
                    code="missing_column",
                    cure=f"Add the column; the table has {', '.join(self._header)}.",
                )

    def _plan(self, needs_index: bool) -> dict[str, Callable[[int, str, str], float]]:
        plan: dict[str, Callable[[int, str, str], float]] = {}
        if needs_index:
            self._require(("index_score", "every analysis"))
            plan["index_score"] = _score
        self._require(("reference_score", "every analysis"))
        plan["reference_score"] = _score if needs_index else _score_or_missing
        for vessel in Vessel:
            index, reference = vessel_columns(vessel)
            wanted = (index, reference) if needs_index else (reference,)
            plan.update(dict.fromkeys((c for c in wanted if c in self._header), _score_or_missing))
        for criterion in self._protocol.clinical_criteria:
            self._require((criterion.column, "an exclusion criterion"))
        for spec in self._protocol.analyses:
            if isinstance(spec, CoxSpec):
                self._plan_survival(spec, plan)
        return plan

    def _plan_survival(
        self, spec: CoxSpec, plan: dict[str, Callable[[int, str, str], float]]
    ) -> None:
        purpose = f"analysis '{spec.id}'"
        endpoint = self._protocol.endpoint(spec.endpoint)
        self._require((endpoint.time_column, purpose), (endpoint.event_column, purpose))
        plan[endpoint.time_column] = _time
        plan[endpoint.event_column] = _event
        for name in spec.covariates:
            self._require((name, purpose))
            plan[name] = _covariate_parser(self._protocol.covariate(name))


def _number(line: int, column: str, cell: str) -> float:
    if cell.lower() in _MISSING:
        return math.nan
    value = float(cell) if _NUMBER.fullmatch(cell) else math.inf
    if math.isinf(value):
        raise TableError(
            f"Line {line}, column '{column}': not a finite number.",
            code="not_a_number",
            cure="Write numbers with a decimal point, and leave a missing value empty.",
        )
    return value


def _score_or_missing(line: int, column: str, cell: str) -> float:
    value = _number(line, column, cell)
    if value < 0:
        raise TableError(
            f"Line {line}, column '{column}': a score cannot be negative.", code="negative_score"
        )
    return value


def _score(line: int, column: str, cell: str) -> float:
    value = _score_or_missing(line, column, cell)
    if math.isnan(value):
        raise TableError(
            f"Line {line}, column '{column}': the score is missing.",
            code="nan_score",
            cure="Leave patients without both scores out of the table.",
        )
    return value


def _time(line: int, column: str, cell: str) -> float:
    value = _number(line, column, cell)
    if value < 0:
        raise TableError(
            f"Line {line}, column '{column}': follow-up cannot be negative.", code="negative_time"
        )
    return value


def _event(line: int, column: str, cell: str) -> float:
    value = _number(line, column, cell)
    if value not in (0.0, 1.0) and not math.isnan(value):
        raise TableError(
            f"Line {line}, column '{column}': an event is 0 or 1.",
            code="bad_event",
            cure="Write 1 for a patient with the event and 0 for one without.",
        )
    return value


def _covariate_parser(covariate: Covariate) -> Callable[[int, str, str], float]:
    def continuous(line: int, column: str, cell: str) -> float:
        value = _number(line, column, cell)
        low = -math.inf if covariate.minimum is None else covariate.minimum
        high = math.inf if covariate.maximum is None else covariate.maximum
        if not math.isnan(value) and not low <= value <= high:
            raise TableError(
                f"Line {line}, column '{column}': not in the protocol's range {low:g} to {high:g}.",
                code="out_of_range",
                cure="Correct the value or its unit, or leave it empty.",
            )
        return value

    def level(line: int, column: str, cell: str) -> float:
        word = cell.lower()
        if word in _MISSING:
            return math.nan
        levels = [name.lower() for name in covariate.levels]
        if covariate.type == "binary":
            if word in _TRUE | _FALSE:
                return float(word in _TRUE)
        elif word in levels:
            return float(levels.index(word))
        known = ", ".join(covariate.levels) if covariate.levels else "0, 1"
        raise TableError(
            f"Line {line}, column '{column}': not one of {known}.",
            code="unknown_level",
            cure="Use the protocol's levels, or leave a missing value empty.",
        )

    return continuous if covariate.type == "continuous" else level
