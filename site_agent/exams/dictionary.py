"""The data dictionary of a site's clinical table: what a protocol asks for, column by column.

It follows from the signed protocol alone, so it can be filled in before anything is approved.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedcac.errors import UsageError
from fedcac.exams import vessel_columns
from fedcac.protocol.analyses import BlandAltmanSpec
from fedcac.protocol.columns import ColumnKind, columns_of
from fedcac.protocol.header_covariates import HEADER_COVARIATES, header_covariates
from fedcac.site_table import REFERENCE_ANNOTATION, REFERENCE_DATE, is_answered_by_model
from fedcac.vocabulary import Vessel

if TYPE_CHECKING:
    from fedcac.protocol import Covariate, Protocol

__all__ = [
    "DICTIONARY_FILE",
    "TEMPLATE_FILE",
    "ColumnEntry",
    "data_dictionary",
    "dictionary_csv",
    "dictionary_text",
    "template_csv",
    "write_dictionary",
]

TEMPLATE_FILE = "clinical-template.csv"
DICTIONARY_FILE = "clinical-dictionary.csv"

_EVERY = "every analysis"
_CRITERION = "exclusion criterion"
# What a spreadsheet would take for a formula; a description is free text of the protocol.
_FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True)
class ColumnEntry:
    """One column of the clinical table.

    Attributes
    ----------
    column
        Its name in the first line of the table.
    description
        What it holds, in the protocol's words where it has any.
    type
        `text`, `path`, `date`, `number`, `integer 0 or 1`, `yes or no`, or `level`.
    unit
        The unit, empty where there is none.
    allowed
        The levels or the range; anything else is refused.
    is_required
        Whether the table is refused without the column.
    may_be_empty
        Whether a cell may be left empty where the value is not known.
    needed_by
        The analyses that read it.
    example
        A cell that is accepted.
    is_in_template
        Whether the template has the column: one that a DICOM header tells it has not, because an
        empty column would stand before the header.
    """

    column: str
    description: str
    type: str
    unit: str
    allowed: str
    is_required: bool
    may_be_empty: bool
    needed_by: tuple[str, ...]
    example: str
    is_in_template: bool = True


def data_dictionary(protocol: Protocol) -> tuple[ColumnEntry, ...]:
    """Return every column that `read_clinical_table` reads under a protocol.

    First the patient and the reference score, then columns in the order in which the analyses and
    the criteria name them; what stands in place of a reference exam or score comes last.
    """
    asked = _Asked(protocol)
    dates = () if protocol.pairing is None else (_DATE,)
    return (*_fixed(), *asked.entries(), *dates, _ANNOTATION)


def template_csv(entries: Sequence[ColumnEntry]) -> str:
    """Return the first line of a clinical table: every column but the alternative ones."""
    return _csv([[entry.column for entry in entries if entry.is_in_template]])


def dictionary_csv(entries: Sequence[ColumnEntry]) -> str:
    """Return the data dictionary as CSV, one line per column."""
    rows: list[list[str]] = []
    for entry in entries:
        fields = asdict(entry)
        del fields["is_in_template"]
        fields["is_required"] = "required" if entry.is_required else "optional"
        fields["may_be_empty"] = _yes(entry.may_be_empty)
        fields["needed_by"] = "; ".join(entry.needed_by)
        rows.append([_cell(str(value)) for value in fields.values()])
    header = ["column", "description", "type", "unit", "allowed", "required", "may_be_empty"]
    return _csv([[*header, "needed_by", "example"], *rows])


def dictionary_text(entries: Sequence[ColumnEntry]) -> str:
    """Return the data dictionary for a person at a terminal."""
    lines = []
    for entry in entries:
        need = "required" if entry.is_required else "optional"
        empty = "may be empty" if entry.may_be_empty else "never empty"
        unit = f" [{entry.unit}]" if entry.unit else ""
        lines += [
            f"{entry.column}{unit}: {entry.description}",
            f"  {entry.type}, {entry.allowed}; column {need}, {empty}; example {entry.example}",
            f"  for {', '.join(entry.needed_by)}",
        ]
    return "\n".join(lines)


def write_dictionary(folder: Path, entries: Sequence[ColumnEntry]) -> tuple[Path, Path]:
    """Write the template and the dictionary into a folder, and return their paths.

    Raises
    ------
    UsageError
        `file_exists` if one of them is there already: a template may hold patients by now.
        `cannot_write` if the folder cannot be written to.
    """
    paths = folder / TEMPLATE_FILE, folder / DICTIONARY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            if path.exists():
                raise UsageError(
                    f"{path} is there already.",
                    code="file_exists",
                    cure="Move it away, or give another folder.",
                )
        for path, text in zip(paths, (template_csv(entries), dictionary_csv(entries)), strict=True):
            # The mark tells a spreadsheet that the file is UTF-8; tables are read with or without.
            with path.open("x", encoding="utf-8-sig", newline="") as stream:
                stream.write(text)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written to.", code="cannot_write", cure="Give another folder."
        ) from error
    return paths


class _Asked:
    """Which columns a protocol's analyses and criteria read, and who asks for each."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._told_by_header = frozenset(header_covariates(protocol))
        # As the reader of the table: what the first analysis takes a column for, it is.
        self._kinds: dict[str, ColumnKind] = {}
        self._required: set[str] = set()
        self._askers: dict[str, list[str]] = {}
        for spec in protocol.analyses:
            columns = columns_of(spec, protocol)
            self._required |= columns.needed.keys()
            for name, kind in {**columns.optional, **columns.needed}.items():
                self._ask(name, kind, spec.id)
            if isinstance(spec, BlandAltmanSpec) and spec.per_vessel:
                for vessel in Vessel:
                    self._ask(vessel_columns(vessel)[1], ColumnKind.SCORE, spec.id)
        self._criteria = {c.column: c for c in protocol.clinical_criteria}
        for name in self._criteria:
            self._ask(name, ColumnKind.NUMBER, _CRITERION)
            self._required.add(name)

    def _ask(self, name: str, kind: ColumnKind, asker: str) -> None:
        self._kinds.setdefault(name, kind)
        askers = self._askers.setdefault(name, [])
        if asker not in askers:
            askers.append(asker)

    def entries(self) -> Iterable[ColumnEntry]:
        for name, kind in self._kinds.items():
            # The model's answers are made here, and the reference score has its own entry.
            if name != "reference_score" and not is_answered_by_model(name, kind):
                yield self._entry(name, kind)

    def _entry(self, name: str, kind: ColumnKind) -> ColumnEntry:
        if kind is ColumnKind.COVARIATE:
            covariate = self._protocol.covariate(name)
            description = covariate.description
            kind_word, unit, allowed, example = _of_covariate(covariate)
            if name in self._told_by_header:
                source = HEADER_COVARIATES[name].source
                description += f"; without the column taken from the DICOM header: {source}"
        else:
            description = self._description(name, kind)
            kind_word, unit, allowed, example = _OF_KIND[kind]
        excluding = self._excluding(name)
        if excluding:
            if kind is not ColumnKind.COVARIATE:
                example = "1" if 0.0 in excluding else "0"
            description += "; " + "; ".join(
                f"{value:g} excludes the patient: {statement}"
                for value, statement in excluding.items()
            )
        is_eligibility = kind is ColumnKind.NUMBER or name in self._criteria
        return ColumnEntry(
            column=name,
            description=description,
            type=kind_word,
            unit=unit,
            allowed=allowed,
            is_required=name in self._required - self._told_by_header,
            may_be_empty=not is_eligibility,
            needed_by=tuple(self._askers[name]),
            example=example,
            is_in_template=name not in self._told_by_header,
        )

    def _excluding(self, name: str) -> dict[float, str]:
        found = [*self._protocol.clinical_criteria]
        found += [e.exclusion for e in self._protocol.endpoints if e.exclusion is not None]
        return {c.exclude_if: c.statement for c in found if c.column == name}

    def _description(self, name: str, kind: ColumnKind) -> str:
        if kind is ColumnKind.SCORE:
            for score in (self._protocol.comparator, self._protocol.second_reference):
                if score is not None and score.column == name:
                    return score.description
            return f"Reference score of one vessel, {name.removeprefix('reference_').upper()}"
        if kind is ColumnKind.PROBABILITY:
            return "The index test's probability of a score above the cut-off in the name"
        endpoints = self._protocol.endpoints
        if kind is ColumnKind.TIME:
            words = [e.definition for e in endpoints if e.time_column == name]
            return f"Time from the index exam to the event or the last follow-up ({_join(words)})"
        if kind is ColumnKind.EVENT:
            words = [e.definition for e in endpoints if e.event_column == name]
            return f"Whether the event happened ({_join(words)})"
        return "Decides whether the patient takes part"


_OF_KIND = {
    ColumnKind.SCORE: ("number", "Agatston units", "0 or more", "120.5"),
    ColumnKind.PROBABILITY: ("number", "", "0 to 1", "0.12"),
    ColumnKind.TIME: ("number", "days", "0 or more", "730"),
    ColumnKind.EVENT: ("integer 0 or 1", "", "0 (no event), 1 (event)", "0"),
    ColumnKind.NUMBER: ("number", "", "any finite number", "0"),
}


def _of_covariate(covariate: Covariate) -> tuple[str, str, str, str]:
    """Return type, unit, allowed values and an example of a covariate's cells."""
    if covariate.type == "binary":
        return "yes or no", covariate.unit, "0 or 1; yes, no, true and false are read too", "1"
    if covariate.type == "categorical":
        allowed = "one of " + " | ".join(covariate.levels)
        return "level", covariate.unit, allowed, covariate.levels[0]
    low, high = covariate.minimum, covariate.maximum
    if low is not None and high is not None:
        return "number", covariate.unit, f"{low:g} to {high:g}", f"{(low + high) / 2:.10g}"
    if low is not None:
        return "number", covariate.unit, f"{low:g} or more", f"{low:g}"
    if high is not None:
        return "number", covariate.unit, f"{high:g} or less", f"{high:g}"
    return "number", covariate.unit, "any finite number", "1"


def _fixed() -> tuple[ColumnEntry, ColumnEntry]:
    return (
        ColumnEntry(
            column="patient_id",
            description="The patient as the DICOM header or the manifest's patient_id names them; "
            "one line per patient",
            type="text",
            unit="",
            allowed="any text, each once",
            is_required=True,
            may_be_empty=False,
            needed_by=(_EVERY,),
            example="P001",
        ),
        ColumnEntry(
            column="reference_score",
            description="The reference standard's Agatston score; a patient without one is not "
            f"analysed. A column {REFERENCE_ANNOTATION} may stand in its place",
            type="number",
            unit="Agatston units",
            allowed="0 or more",
            is_required=True,
            may_be_empty=True,
            needed_by=(_EVERY,),
            example="120.5",
        ),
    )


_DATE = ColumnEntry(
    column=REFERENCE_DATE,
    description="Day of the reference exam of a patient whose reference exam the manifest does not "
    "list, because its score alone is known; index exams are paired by it. Not in the template",
    type="date",
    unit="",
    allowed="YYYYMMDD or YYYY-MM-DD",
    is_required=False,
    may_be_empty=True,
    needed_by=("pairing",),
    example="2024-03-31",
    is_in_template=False,
)

_ANNOTATION = ColumnEntry(
    column=REFERENCE_ANNOTATION,
    description="In place of reference_score: an expert's annotation of the reference exam, which "
    "is scored here; fill in one of the two for a patient. Not in the template",
    type="path",
    unit="",
    allowed="DICOM SEG, DICOM RTSTRUCT, NIfTI, or Horos or OsiriX XML; absolute or below the "
    "table's folder",
    is_required=False,
    may_be_empty=True,
    needed_by=(_EVERY,),
    example="annotations/P001.dcm",
    is_in_template=False,
)


def _join(words: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(words))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()
