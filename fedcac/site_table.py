"""Site tables: already scored exams, or the clinical half that is joined to exams scored here.

Columns are the site-table contract: `patient_id`, `index_score` (or `index_category`, where a model
answers with a category's label), `reference_score`, optional `index_{lm,lad,lcx,rca}` and
`reference_{...}`, and what the protocol's analyses name: probabilities, further scores, endpoints,
covariates.
Messages name the line and the column, never a patient.
"""

from __future__ import annotations

import csv
import hashlib
import io
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

INDEX_SCORE, CATEGORY = "index_score", "index_category"

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
            f"Used twice: {_columns_words(header, repeated)}.",
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


def _columns_words(header: Sequence[str], names: Sequence[str] | None = None) -> str:
    """Return columns by name, or their number if the first line looks like a patient's."""
    shown = header if names is None else names
    return ", ".join(shown) if "patient_id" in header else f"{len(shown)} column(s)"


class _Reader:
    """Checks a table against a protocol, cell by cell."""

    def __init__(self, path: Path, protocol: Protocol, *, needs_index: bool) -> None:
        self._header, self._lines = _read_lines(path)
        self._name = path.name
        self._protocol = protocol
        self._category_scores: dict[str, float] = {}
        self._parsers = self._plan(needs_index)
        self._require(("patient_id", "every row"))
        self.excluded: set[str] = set()
        used = {"patient_id", *self._parsers, *(c.column for c in protocol.clinical_criteria)}
        self.ignored_columns = tuple(name for name in self._header if name not in used)

    @property
    def value_columns(self) -> tuple[str, ...]:
        """Names of the numeric columns that are read."""
        return tuple(INDEX_SCORE if name == CATEGORY else name for name in self._parsers)

    def rows(self) -> dict[str, Row]:
        """Return every row by patient, and note which patients the criteria exclude."""
        rows: dict[str, Row] = {}
        for line, cells in self._lines:
            patient = cells["patient_id"]
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
            rows[patient] = {
                written: parse(line, name, cells[name])
                for written, (name, parse) in zip(
                    self.value_columns, self._parsers.items(), strict=True
                )
            }
            if self._is_excluded(line, cells):
                self.excluded.add(patient)
        return rows

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
                    cure=f"Add the column; the table has {_columns_words(self._header)}.",
                )

    def _plan(self, needs_index: bool) -> dict[str, Parser]:
        plan: dict[str, Parser] = {}
        self._require(("reference_score", "every analysis"))
        plan["reference_score"] = parse_score if needs_index else parse_score_or_missing
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
