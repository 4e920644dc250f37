"""What a PACS is asked and what it answers, whichever protocol carries it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from typing import Self

from fedcac.imaging.eligibility import names_agent
from fedcac.imaging.header import parse_study_date
from site_agent.pacs.faults import PacsError, PacsFault
from site_agent.pacs.folder import InstanceFolder

__all__ = [
    "SERIES_KEYS",
    "STUDY_KEYS",
    "PacsClient",
    "SeriesRecord",
    "StudyQuery",
    "StudyRecord",
    "matches_any",
]

# IS (PS3.5 6.2): at most 12 characters.
_COUNT = re.compile(r"[0-9]{1,12}")

Values = Mapping[str, str]
"""One answer of a PACS: values by keyword, several joined by backslash; empty where absent."""

# Return keys of PS3.4 tables C.6-1 to C.6-3. The last four of a series are optional there: an
# archive that does not keep them answers without.
STUDY_KEYS = (
    "StudyInstanceUID",
    "PatientID",
    "AccessionNumber",
    "StudyDate",
    "StudyDescription",
    "ModalitiesInStudy",
)
SERIES_KEYS = (
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
    "NumberOfSeriesRelatedInstances",
    "ImageType",
    "ConvolutionKernel",
    "SliceThickness",
    "ContrastBolusAgent",
)


def matches_any(text: str, patterns: Iterable[str]) -> bool:
    """Say whether a description matches one of the patterns (`*`, `?`; case is ignored)."""
    # A bracket is a character of a description here, not a set.
    return any(
        fnmatchcase(text.strip().casefold(), pattern.casefold().replace("[", "[[]"))
        for pattern in patterns
    )


@dataclass(frozen=True)
class StudyQuery:
    """Studies to look for. What is empty or None matches everything; repr shows no value.

    Attributes
    ----------
    modality
        A study with at least one series of it; empty for any.
    first_day, last_day
        Study dates, both included.
    description
        Pattern of the study description; case is ignored.
    """

    modality: str
    patient_id: str = field(default="", repr=False)
    accession_number: str = field(default="", repr=False)
    first_day: date | None = field(default=None, repr=False)
    last_day: date | None = field(default=None, repr=False)
    description: str = ""

    @property
    def date_range(self) -> str:
        """Return the range as PS3.4 C.2.2.2.5 writes it; empty for any date."""
        if self.first_day and self.first_day == self.last_day:
            return f"{self.first_day:%Y%m%d}"
        first = f"{self.first_day:%Y%m%d}" if self.first_day else ""
        last = f"{self.last_day:%Y%m%d}" if self.last_day else ""
        return f"{first}-{last}" if first or last else ""

    def matches(self, study: StudyRecord) -> bool:
        """Say whether an answer is one: an archive may ignore keys that it does not support."""
        day = study.study_date
        is_dated = self.first_day is not None or self.last_day is not None
        return (
            (not self.patient_id or study.patient_id == self.patient_id)
            and (not self.accession_number or study.accession_number == self.accession_number)
            and (not is_dated or day is not None)
            and (self.first_day is None or day is None or day >= self.first_day)
            and (self.last_day is None or day is None or day <= self.last_day)
            and (not (study.modalities and self.modality) or self.modality in study.modalities)
            and (not self.description or matches_any(study.description, [self.description]))
        )


@dataclass(frozen=True)
class StudyRecord:
    """A study as the PACS describes it. repr shows no identifier or date."""

    study_uid: str = field(repr=False)
    patient_id: str = field(repr=False)
    accession_number: str = field(repr=False)
    study_date: date | None = field(repr=False)
    description: str
    modalities: tuple[str, ...]

    @classmethod
    def from_values(cls, values: Values) -> Self:
        """Read an answer at study level."""
        return cls(
            study_uid=values["StudyInstanceUID"],
            patient_id=values["PatientID"],
            accession_number=values["AccessionNumber"],
            study_date=parse_study_date(values["StudyDate"]),
            description=values["StudyDescription"],
            modalities=tuple(filter(None, values["ModalitiesInStudy"].split("\\"))),
        )


@dataclass(frozen=True)
class SeriesRecord:
    """A series as the PACS describes it. repr shows no identifier.

    Attributes
    ----------
    n_instances
        The PACS's own count (0020,1209); None where it does not say.
    kernel, image_type, has_contrast, slice_thickness_mm
        None or empty where the PACS does not say.
    """

    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    modality: str
    description: str
    n_instances: int | None
    image_type: tuple[str, ...] = ()
    kernel: str = ""
    slice_thickness_mm: float | None = None
    has_contrast: bool = False

    @classmethod
    def from_values(cls, study_uid: str, values: Values) -> Self:
        """Read an answer at series level."""
        count = values["NumberOfSeriesRelatedInstances"]
        return cls(
            study_uid=study_uid,
            series_uid=values["SeriesInstanceUID"],
            modality=values["Modality"],
            description=values["SeriesDescription"],
            n_instances=int(count) if _COUNT.fullmatch(count) else None,
            image_type=tuple(filter(None, values["ImageType"].split("\\"))),
            kernel=values["ConvolutionKernel"].split("\\")[0],
            slice_thickness_mm=_positive(values["SliceThickness"]),
            has_contrast=names_agent(values["ContrastBolusAgent"]),
        )


def _positive(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


class PacsClient(ABC):
    """One PACS. Clients are safe to share between threads.

    Every method raises `PacsError`.
    """

    @abstractmethod
    def check(self) -> None:
        """Connect and ask the least that shows that the PACS answers this computer."""

    @abstractmethod
    def find_studies(self, query: StudyQuery) -> tuple[StudyRecord, ...]:
        """Return every study that matches, sorted by UID."""

    @abstractmethod
    def find_series(self, study_uid: str) -> tuple[SeriesRecord, ...]:
        """Return the series of a study, sorted by UID."""

    @abstractmethod
    def find_instances(self, series: SeriesRecord) -> frozenset[str]:
        """Return the SOP instance UIDs of a series."""

    @abstractmethod
    def _retrieve(
        self, series: SeriesRecord, missing: frozenset[str] | None, keep: Callable[[bytes], None]
    ) -> None:
        """Hand every instance asked for to `keep` as a DICOM file; `missing` None: the series."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the client holds open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fetch_series(self, series: SeriesRecord, folder: InstanceFolder) -> int:
        """Pull what the folder lacks of a series; return how many instances were pulled.

        Whole instances that lie there already are not asked for again. The folder is complete
        when this returns: it holds every instance that the PACS lists, and at least as many as
        the PACS counts.
        """
        listed = self.find_instances(series)
        held = folder.held()
        missing = frozenset(uid for uid in listed if folder.name_of(uid) not in held)
        n_kept = 0

        def keep(content: bytes) -> None:
            nonlocal n_kept
            n_kept += folder.keep(content, series.study_uid, series.series_uid)

        if missing:
            self._retrieve(series, missing if held else None, keep)
        held = folder.held()
        if any(folder.name_of(uid) not in held for uid in listed):
            raise PacsError(PacsFault.INCOMPLETE)
        if not listed or len(listed) < (series.n_instances or 0):
            raise PacsError(PacsFault.INCOMPLETE)
        return n_kept
