"""Site tables: already scored exams, or the clinical half that is joined to exams scored here.

Columns are the site-table contract: `patient_id`, `index_score` (or `index_category`, where a model
answers with a category's label), `reference_score` (in a clinical table also
`reference_annotation`, the path of what is scored in its place), optional
`index_{lm,lad,lcx,rca}` and `reference_{...}`, and what the protocol's analyses name:
probabilities, further scores, endpoints, covariates.
Messages name the line and the column, never a patient.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from fedcac.errors import TableError
from fedcac.exams import Exams, vessel_columns
from fedcac.protocol import (
    AnalysisSpec,
    CategoryScheme,
    Protocol,
)
from fedcac.protocol.columns import ColumnKind, columns_of
from fedcac.table_cells import (
    PARSERS,
    Parser,
    covariate_parser,
    parse_eligibility,
    parse_score,
    parse_score_or_missing,
)
from fedcac.table_lines import columns_words, read_lines, together
from fedcac.vocabulary import ExclusionReason, Vessel

__all__ = [
    "REFERENCE_ANNOTATION",
    "ClinicalTable",
    "JoinedExams",
    "ScoredExam",
    "SiteTable",
    "TableSurvey",
    "assemble_exams",
    "read_clinical_table",
    "read_site_table",
    "survey_clinical_table",
]

INDEX_SCORE, CATEGORY = "index_score", "index_category"
REFERENCE_SCORE, REFERENCE_ANNOTATION = "reference_score", "reference_annotation"

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
    ignored_columns
        Columns that nothing in the protocol asks for.
    """

    rows: Mapping[str, Row] = field(repr=False)
    excluded: frozenset[str] = field(repr=False)
    columns: tuple[str, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, repr=False)
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


def read_clinical_table(path: Path, protocol: Protocol) -> ClinicalTable:
    """Read the clinical half of a site's table; a patient's reference score may be missing.

    The column `reference_score` may be missing too where there is a `reference_annotation`.

    Raises
    ------
    TableError
        As `read_site_table`; `two_references` if a line has a score and an annotation.
    """
    reader = _Reader(path, protocol, needs_index=False)
    rows = reader.rows()
    return ClinicalTable(
        rows=rows,
        excluded=frozenset(reader.excluded),
        columns=reader.value_columns,
        annotations=reader.annotations,
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


class _Reader:
    """Checks a table against a protocol, cell by cell."""

    def __init__(self, path: Path, protocol: Protocol, *, needs_index: bool) -> None:
        self._header, self._lines = read_lines(path)
        self._name = path.name
        self._protocol = protocol
        self._category_scores: dict[str, float] = {}
        self._has_annotations = not needs_index and REFERENCE_ANNOTATION in self._header
        self._parsers = self._plan(needs_index)
        self._require(("patient_id", "every row"))
        self.excluded: set[str] = set()
        self.annotations: dict[str, str] = {}
        used = {"patient_id", *self._parsers, *(c.column for c in protocol.clinical_criteria)}
        used |= {REFERENCE_ANNOTATION} if self._has_annotations else set()
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

    def _require(self, *needs: tuple[str, str]) -> None:
        for column, purpose in needs:
            if column not in self._header:
                raise TableError(
                    f"The table {self._name} has no column '{column}', which {purpose} needs.",
                    code="missing_column",
                    cure=f"Add the column; the table has {columns_words(self._header)}.",
                )

    def _plan(self, needs_index: bool) -> dict[str, Parser]:
        plan: dict[str, Parser] = {}
        if not self._has_annotations:
            self._require((REFERENCE_SCORE, "every analysis"))
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
            self._require((criterion.column, "an exclusion criterion"))
        return plan

    def _plan_analysis(
        self, spec: AnalysisSpec, plan: dict[str, Parser], needs_index: bool
    ) -> None:
        columns = columns_of(spec, self._protocol)
        for name, kind in {**columns.optional, **columns.needed}.items():
            if name in plan or (name == INDEX_SCORE and not needs_index):
                continue
            if name == INDEX_SCORE and name not in self._header and CATEGORY in self._header:
                self._category_scores = _category_scores(self._protocol.categories)
                plan[CATEGORY] = self._category
            elif name in columns.needed or name in self._header:
                self._require((name, f"analysis '{spec.id}'"))
                plan[name] = self._parser(name, kind)

    def _parser(self, name: str, kind: ColumnKind) -> Parser:
        if kind is ColumnKind.COVARIATE:
            return covariate_parser(self._protocol.covariate(name))
        return parse_score if name == INDEX_SCORE else PARSERS[kind]

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


def _category_scores(scheme: CategoryScheme) -> dict[str, float]:
    """Return a score inside every category, by label: a model may answer with the category."""
    edges = [0.0, *scheme.cut_offs, 2 * scheme.cut_offs[-1]]
    middles = [0.0, *((low + high) / 2 for low, high in pairwise(edges[1:]))]
    return {label.lower(): score for label, score in zip(scheme.labels, middles, strict=True)}
