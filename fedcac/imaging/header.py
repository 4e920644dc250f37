"""The header of one exam's series: read and kept at the site, never logged, never sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fedcac.imaging.coding import coded, exclusion
from fedcac.imaging.files import read_located
from fedcac.imaging.frames import header_value
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["ExamHeader", "parse_study_date", "read_header"]

_EARLIEST_YEAR = 1900
"""Earlier dates are a de-identifier's blank, such as 00010101."""


@dataclass(frozen=True)
class ExamHeader:
    """What pairing and quality control read of one series. repr shows no identifier or date.

    Attributes
    ----------
    patient_id, issuer
        PatientID and IssuerOfPatientID, stripped; empty where blank or absent.
    study_date
        None where blank, malformed or before 1900.
    study_uid, series_uid
        StudyInstanceUID (empty where absent) and SeriesInstanceUID (empty for several series).
    modality, manufacturer, kernel
        As stored; empty where absent.
    slice_thickness_mm, kvp
        None where absent.
    n_instances
        DICOM files of the series.
    """

    patient_id: str = field(repr=False)
    issuer: str = field(repr=False)
    study_date: date | None = field(repr=False)
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    modality: str
    manufacturer: str
    kernel: str
    slice_thickness_mm: float | None
    kvp: float | None
    n_instances: int


def parse_study_date(text: str) -> date | None:
    """Return a DICOM date YYYYMMDD; None if it is blank, malformed or before 1900."""
    if len(text) != 8 or not text.isdecimal():
        return None
    try:
        day = datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None
    return day if day.year >= _EARLIEST_YEAR else None


def read_header(path: Path, *, is_study: bool = False) -> ExamHeader:
    """Read the header of the one series at a folder or file, without its pixels.

    A path may name one of several series (`locate_series`). With `is_study` a folder may hold
    several series of one study; where it does, what differs between them (UID, modality, kernel,
    thickness) is left empty.

    Raises
    ------
    DicomError
        `no_such_path`, `no_dicom`, `unreadable_dicom`, `truncated_dicom`, `series_not_found`;
        `mixed_series` if the files name more than one series, study or patient.
    """
    with coded(ExclusionReason.UNREADABLE_DICOM, "The header cannot be interpreted"):
        return _header(read_located(path, stop_before_pixels=True), is_study=is_study)


def _header(datasets: Sequence[Dataset], *, is_study: bool) -> ExamHeader:
    keywords = ["StudyInstanceUID", "PatientID", "StudyDate"]
    if not is_study:
        keywords.append("SeriesInstanceUID")
    if any(len({_text(dataset, keyword) for dataset in datasets}) > 1 for keyword in keywords):
        raise exclusion(
            ExclusionReason.MIXED_SERIES, "The files belong to more than one series or patient."
        )
    # By identifier, not by file name, so that renaming changes nothing.
    first = min(datasets, key=lambda dataset: _text(dataset, "SOPInstanceUID"))
    header = ExamHeader(
        patient_id=_text(first, "PatientID"),
        issuer=_text(first, "IssuerOfPatientID"),
        study_date=parse_study_date(_text(first, "StudyDate")),
        study_uid=_text(first, "StudyInstanceUID"),
        series_uid=_text(first, "SeriesInstanceUID"),
        modality=_text(first, "Modality"),
        manufacturer=_text(first, "Manufacturer"),
        kernel=_text(first, "ConvolutionKernel"),
        slice_thickness_mm=_number(first, "SliceThickness"),
        kvp=_number(first, "KVP"),
        n_instances=len(datasets),
    )
    if len({_text(dataset, "SeriesInstanceUID") for dataset in datasets}) == 1:
        return header
    return replace(header, series_uid="", modality="", kernel="", slice_thickness_mm=None, kvp=None)


def _text(dataset: Dataset, keyword: str) -> str:
    value = header_value(dataset, keyword)
    if value is None:
        return ""
    if not isinstance(value, str) and hasattr(value, "__getitem__"):
        value = value[0] if len(value) else ""
    return str(value).strip()


def _number(dataset: Dataset, keyword: str) -> float | None:
    try:
        return float(_text(dataset, keyword)) or None
    except ValueError:
        return None
