"""Site tables: already scored exams, or the clinical half that is joined to exams scored here.

Columns are the site-table contract: `patient_id`, `index_score` (or `index_category`, where a model
answers with a category's label), `reference_score` (in a clinical table also
`reference_annotation`, the path of what is scored in its place), optional
`index_{lm,lad,lcx,rca}` and `reference_{...}`, and what the protocol's analyses name:
probabilities, further scores, endpoints, covariates. The model's own score and category beside the
platform's are `index_native_score` and `index_native_category`.
Messages name the line and the column, never a patient.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from fedcac.errors import TableError
from fedcac.exams import Exams, vessel_columns
from fedcac.protocol import AnalysisSpec, Protocol
from fedcac.protocol.categories import category_scores
from fedcac.protocol.columns import ColumnKind, columns_of
from fedcac.protocol.header_covariates import header_covariates
from fedcac.table_cells import (
    PARSERS,
    Parser,
    covariate_parser,
    parse_date,
    parse_eligibility,
    parse_score,
    parse_score_or_missing,
)
from fedcac.table_lines import columns_words, read_lines, together
from fedcac.vocabulary import ExclusionReason, Vessel

__all__ = [
    "NATIVE_CATEGORY",
    "NATIVE_SCORE",
    "REFERENCE_ANNOTATION",
    "REFERENCE_DATE",
    "ClinicalTable",
    "JoinedExams",
    "ScoredExam",
    "SiteTable",
    "TableSurvey",
    "assemble_exams",
    "is_answered_by_model",
    "read_clinical_table",
    "read_site_table",
    "survey_clinical_table",
]

INDEX_SCORE, CATEGORY = "index_score", "index_category"
NATIVE_SCORE, NATIVE_CATEGORY = "index_native_score", "index_native_category"
REFERENCE_SCORE, REFERENCE_ANNOTATION = "reference_score", "reference_annotation"
REFERENCE_DATE = "reference_date"

Row = dict[str, float]


@dataclass(frozen=True, eq=False)
class SiteTable:
    """A scored table: the exams that remain, how many the criteria excluded, columns not used."""

    exams: Exams
    n_excluded: int
    ignored_columns: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ClinicalTable:
    """Reference scores, endpoints and covariates by patient; NaN where a value is missing.

    Attributes
    ----------
    annotations
        What the column `reference_annotation` names, by patient; their reference score is NaN.
    reference_dates
        The days of `reference_date`, on which a reference was read whose exam is not here.
    ignored_columns
        Columns that nothing in the protocol asks for.
    """

    rows: Mapping[str, Row] = field(repr=False)
    excluded: frozenset[str] = field(repr=False)
    columns: tuple[str, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, repr=False)
    reference_dates: Mapping[str, date] = field(default_factory=dict, repr=False)
    ignored_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableSurvey:
    """How complete a clinical table is: counts, which stay at the site.

    Attributes
    ----------
    missing
        Empty cells by column; a reference score that an annotation stands for is not missing.
    """

    n_patients: int
    missing: Mapping[str, int]
    n_annotations: int
    ignored_columns: tuple[str, ...]


@dataclass(frozen=True)
class ScoredExam:
    """An index exam that was scored at this site, and the patient it belongs to.

    `further` holds what the model answered beside the score, by column of the site table.
    """

    exam_key: str
    patient_id: str = field(repr=False)
    total: float
    vessels: Mapping[Vessel, float]
    further: Mapping[str, float] = field(default_factory=dict)


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
        For the lines that cannot be used, or a column that an analysis needs and lacks. The code
        is the first problem's.
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


def read_clinical_table(
    path: Path, protocol: Protocol, *, is_reference_scored: bool = False
) -> ClinicalTable:
    """Read the clinical half of a site's table; a patient's reference score may be missing.

    So may a column that the header of the scored series tells (`header_covariates`), and the
    column `reference_score` where there is a `reference_annotation`.

    Parameters
    ----------
    path, protocol
        Which table, and what must be in it.
    is_reference_scored
        Whether the site scores the reference exams itself, so that the column `reference_score`
        may be missing.

    Raises
    ------
    TableError
        As `read_site_table`; `two_references` if a line has a score and an annotation.
    """
    reader = _Reader(path, protocol, needs_index=False, needs_reference=not is_reference_scored)
    rows = reader.rows()
    return ClinicalTable(
        rows=rows,
        excluded=frozenset(reader.excluded),
        columns=reader.value_columns,
        annotations=reader.annotations,
        reference_dates=reader.reference_dates,
        ignored_columns=reader.ignored_columns,
    )


def survey_clinical_table(table: ClinicalTable) -> TableSurvey:
    """Count what is missing in a clinical table, excluded patients included."""
    missing = {
        name: sum(math.isnan(row[name]) for row in table.rows.values()) for name in table.columns
    }
    if REFERENCE_SCORE in missing:
        missing[REFERENCE_SCORE] -= len(table.annotations)
    return TableSurvey(len(table.rows), missing, len(table.annotations), table.ignored_columns)


def assemble_exams(scored: Sequence[ScoredExam], table: ClinicalTable) -> JoinedExams:
    """Join scored exams with the clinical table; one row per exam whose reference is known."""
    exclusions: Counter[ExclusionReason] = Counter()
    kept: list[tuple[ScoredExam, Row]] = []
    for exam in scored:
        row = table.rows.get(exam.patient_id)
        if exam.patient_id in table.excluded:
            exclusions[ExclusionReason.PROTOCOL_EXCLUSION] += 1
        elif row is None or math.isnan(row[REFERENCE_SCORE]):
            exclusions[ExclusionReason.NO_REFERENCE_SCORE] += 1
        else:
            kept.append((exam, row))
    columns = {INDEX_SCORE: [exam.total for exam, _ in kept]}
    for vessel in Vessel:
        column = vessel_columns(vessel)[0]
        columns[column] = [exam.vessels.get(vessel, math.nan) for exam, _ in kept]
    for name in sorted({name for exam in scored for name in exam.further}):
        columns[name] = [exam.further.get(name, math.nan) for exam, _ in kept]
    for name in table.columns:
        columns[name] = [row[name] for _, row in kept]
    exams = Exams(
        columns={name: np.array(values, dtype=np.float64) for name, values in columns.items()},
        keys=tuple(exam.exam_key for exam, _ in kept),
    )
    return JoinedExams(exams, exclusions)


def _pseudonym(patient_id: str) -> str:
    return hashlib.sha256(patient_id.encode("utf-8")).hexdigest()[:32]


class _Reader:
    """Checks a table against a protocol, cell by cell."""

    def __init__(
        self, path: Path, protocol: Protocol, *, needs_index: bool, needs_reference: bool = True
    ) -> None:
        self._header, self._lines = read_lines(path)
        self._name = path.name
        self._protocol = protocol
        self._category_scores = category_scores(protocol.categories)
        self._has_annotations = not needs_index and REFERENCE_ANNOTATION in self._header
        self._needs_reference = needs_reference and not self._has_annotations
        self._parsers = self._plan(needs_index)
        self._require("patient_id", "every row")
        self.excluded: set[str] = set()
        self.annotations: dict[str, str] = {}
        self.reference_dates: dict[str, date] = {}
        self._has_dates = not needs_index and REFERENCE_DATE in self._header
        used = {"patient_id", *self._parsers, *(c.column for c in protocol.clinical_criteria)}
        used |= {REFERENCE_ANNOTATION} if self._has_annotations else set()
        used |= {REFERENCE_DATE} if self._has_dates else set()
        self.ignored_columns = tuple(name for name in self._header if name not in used)

    @property
    def value_columns(self) -> tuple[str, ...]:
        """Names of the numeric columns that are read."""
        return tuple(INDEX_SCORE if name == CATEGORY else name for name in self._parsers)

    def rows(self) -> dict[str, Row]:
        """Return every row by patient, and note who is excluded and who has an annotation."""
        rows: dict[str, Row] = {}
        problems: list[TableError] = []
        for line, cells in self._lines:
            patient = cells["patient_id"]
            try:
                self._check_patient(line, patient, rows)
            except TableError as error:
                problems.append(error)
                continue
            row, faults = self._row(line, cells)
            rows[patient] = row
            problems += faults
            annotation = cells[REFERENCE_ANNOTATION] if self._has_annotations else ""
            if annotation:
                self.annotations[patient] = annotation
            if self._has_dates:
                try:
                    day = parse_date(line, REFERENCE_DATE, cells[REFERENCE_DATE])
                except TableError as error:
                    problems.append(error)
                else:
                    self.reference_dates |= {patient: day} if day else {}
        if problems:
            raise together(problems)
        return rows

    def _check_patient(self, line: int, patient: str, rows: Mapping[str, Row]) -> None:
        if not patient:
            raise TableError(
                f"Line {line} has no patient_id.",
                code="no_patient_id",
                cure="Give every row the site's own pseudonym of the patient.",
            )
        if patient in rows:
            raise TableError(
                f"Line {line} of {self._name}: this patient_id stands on an earlier line.",
                code="duplicate_patient",
                cure="Keep one row per patient: one exam pair each.",
            )

    def _row(self, line: int, cells: Mapping[str, str]) -> tuple[Row, list[TableError]]:
        row: Row = {}
        faults: list[TableError] = []
        for written, (name, parse) in zip(self.value_columns, self._parsers.items(), strict=True):
            try:
                row[written] = parse(line, name, cells.get(name, ""))
            except TableError as error:
                faults.append(error)
        try:
            if self._is_excluded(line, cells):
                self.excluded.add(cells["patient_id"])
        except TableError as error:
            faults.append(error)
        if (
            self._has_annotations
            and cells[REFERENCE_ANNOTATION]
            and not math.isnan(row.get(REFERENCE_SCORE, math.nan))
        ):
            faults.append(
                TableError(
                    f"Line {line}: '{REFERENCE_SCORE}' and '{REFERENCE_ANNOTATION}' are both "
                    "filled in.",
                    code="two_references",
                    cure="Keep the one that is this patient's reference, and empty the other.",
                )
            )
        return row, faults

    def _is_excluded(self, line: int, cells: Mapping[str, str]) -> bool:
        is_excluded = False
        for criterion in self._protocol.clinical_criteria:
            value = parse_eligibility(line, criterion.column, cells[criterion.column])
            is_excluded |= value == criterion.exclude_if
        return is_excluded

    def _require(self, column: str, purpose: str) -> None:
        if column not in self._header:
            raise TableError(
                f"The table {self._name} has no column '{column}', which {purpose} needs.",
                code="missing_column",
                cure=f"Add the column; the table has {columns_words(self._header)}.",
            )

    def _plan(self, needs_index: bool) -> dict[str, Parser]:
        plan: dict[str, Parser] = {}
        if self._needs_reference:
            self._require(REFERENCE_SCORE, "every analysis")
        plan[REFERENCE_SCORE] = parse_score if needs_index else parse_score_or_missing
        for spec in self._protocol.analyses:
            self._plan_analysis(spec, plan, needs_index)
        for vessel in Vessel:
            index, reference = vessel_columns(vessel)
            wanted = (index, reference) if needs_index else (reference,)
            plan.update(
                dict.fromkeys((c for c in wanted if c in self._header), parse_score_or_missing)
            )
        for criterion in self._protocol.clinical_criteria:
            self._require(criterion.column, "an exclusion criterion")
        return plan

    def _plan_analysis(
        self, spec: AnalysisSpec, plan: dict[str, Parser], needs_index: bool
    ) -> None:
        columns = columns_of(spec, self._protocol)
        for name, kind in {**columns.optional, **columns.needed}.items():
            if name in plan or (not needs_index and self._is_made_here(name, kind)):
                continue
            if name == INDEX_SCORE and name not in self._header and CATEGORY in self._header:
                plan[CATEGORY] = self._category
            elif name == NATIVE_CATEGORY and name in self._header:
                plan[name] = self._category_or_missing
            elif name in columns.needed or name in self._header:
                self._require(name, f"analysis '{spec.id}'")
                plan[name] = self._parser(name, kind)

    def _is_made_here(self, name: str, kind: ColumnKind) -> bool:
        is_told = name not in self._header and name in header_covariates(self._protocol)
        return is_told or is_answered_by_model(name, kind)

    def _parser(self, name: str, kind: ColumnKind) -> Parser:
        if kind is ColumnKind.COVARIATE:
            return covariate_parser(self._protocol.covariate(name))
        return parse_score if name == INDEX_SCORE else PARSERS[kind]

    def _category_or_missing(self, line: int, column: str, cell: str) -> float:
        return self._category(line, column, cell) if cell else math.nan

    def _category(self, line: int, column: str, cell: str) -> float:
        score = self._category_scores.get(cell.lower())
        if score is None:
            raise TableError(
                f"Line {line}, column '{column}': not one of "
                f"{', '.join(self._protocol.categories.labels)}.",
                code="unknown_level",
                cure="Use the labels of the protocol's risk categories.",
            )
        return score


def is_answered_by_model(column: str, kind: ColumnKind) -> bool:
    """Say whether a column is the model's answer, which a site that scores exams makes itself."""
    is_answer = column in (INDEX_SCORE, NATIVE_SCORE, NATIVE_CATEGORY)
    return is_answer or kind is ColumnKind.PROBABILITY
