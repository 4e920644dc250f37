"""How a CT series was acquired: gated, non-gated or for attenuation correction, by scored evidence.

Real gated series often carry none of the attributes that say so (PS3.3 C.8.15.3.4); what they do
carry is scored, and every reason is kept. The points were set on real headers of GE, Siemens and
Philips scanners, not fitted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pydicom.multival import MultiValue

from fedcac.imaging.coding import exclusion
from fedcac.imaging.frames import Frame, header_value
from fedcac.imaging.words import Topic, topics_of
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Acquisition", "AcquisitionVerdict", "Evidence", "check_acquisition", "judge"]


class Acquisition(StrEnum):
    """Kinds of chest and heart CT that protocols tell apart."""

    GATED = "gated"
    NON_GATED = "non_gated"
    ATTENUATION_CORRECTION = "attenuation_correction"


@dataclass(frozen=True)
class Evidence:
    """One reason: an attribute, in words of this module, and the points it gives for a kind."""

    kind: Acquisition
    attribute: str
    points: int


@dataclass(frozen=True)
class AcquisitionVerdict:
    """What a series is taken for (None: the header does not tell), and every reason."""

    acquisition: Acquisition | None
    evidence: tuple[Evidence, ...]

    def points(self, kind: Acquisition) -> int:
        """Return the sum of the points for a kind."""
        return sum(evidence.points for evidence in self.evidence if evidence.kind is kind)


_GATED_FROM = 3
_NON_GATED_TO = -2
_ATTENUATION_FROM = 4

_GATED_DIAMETER_MM = 260.0
_CHEST_DIAMETER_MM = 300.0
_WHOLE_BODY_DIAMETER_MM = 500.0
_SCORING_THICKNESS_MM = (2.5, 3.0)
_LOW_EXPOSURE_MAS = 30.0
_LOW_CURRENT_MA = 40.0
_DIAGNOSTIC_CURRENT_MA = 150.0

# Kernels that vendors reserve for calcium scoring (Siemens).
_SCORING_KERNELS = re.compile(r"^(B35f|Qr36|Sa36|I30f)", re.IGNORECASE)

# Kernels of series for attenuation correction: Siemens's smoothest, and those named after PET.
_ATTENUATION_KERNELS = re.compile(r"^[BH](08|18|19)[a-z]?\b|\bPET\b", re.IGNORECASE)

# Hybrid scanners, by the names their makers give: SPECT/CT, then PET/CT.
_HYBRID_SCANNERS = re.compile(
    r"symbia|infinia|hawkeye|millennium|\bnm ?/?-?ct\b|(discovery|optima) ?nm|starguide|"
    r"brightview|precedence|skylight|anyscan|veriton|"
    r"biograph|gemini|vereos|ingenuity tf|discovery (st|ls|rx|vct|iq|610|690|710|mi)|omni legend|"
    r"\bmct\b|\bumi ?\d|uexplorer|celesteion|cartesion|aquiduo|pet[ /-]?ct|spect[ /-]?ct",
    re.IGNORECASE,
)

# Attributes of gating whose mere presence with a value tells, and the points of each: what the
# scanner wrote about its trigger outweighs any field of view.
_SYNCHRONISED = {
    "CardiacRRIntervalSpecified": 5,
    "NominalPercentageOfCardiacPhase": 5,
    "TriggerTime": 5,
    "NominalCardiacTriggerDelayTime": 5,
    "HeartRate": 2,
    "NominalInterval": 2,
    "LowRRValue": 1,
    "HighRRValue": 1,
}

# What a series must not clearly be, for each kind that a protocol asks for. A series for
# attenuation correction is often not labelled as one, so a verdict of non-gated does not contradict
# it.
_CONTRARY = {
    "gated": {Acquisition.NON_GATED, Acquisition.ATTENUATION_CORRECTION},
    "non_gated": {Acquisition.GATED, Acquisition.ATTENUATION_CORRECTION},
    "attenuation_correction": {Acquisition.GATED},
}


def judge(dataset: Dataset, frame: Frame) -> AcquisitionVerdict:
    """Return what a series is, from the header of one of its instances and its first frame."""
    evidence = tuple(item for item in _evidence(dataset, frame) if item.points)
    verdict = AcquisitionVerdict(None, evidence)
    gated = verdict.points(Acquisition.GATED)
    kind = None
    if verdict.points(Acquisition.ATTENUATION_CORRECTION) >= max(_ATTENUATION_FROM, gated):
        kind = Acquisition.ATTENUATION_CORRECTION
    elif gated >= _GATED_FROM:
        kind = Acquisition.GATED
    elif gated <= _NON_GATED_TO:
        kind = Acquisition.NON_GATED
    return AcquisitionVerdict(kind, evidence)


def check_acquisition(dataset: Dataset, frame: Frame, wanted: str) -> None:
    """Check that a series is not clearly of another kind than a protocol's `acquisition`.

    Raises
    ------
    DicomError
        `wrong_acquisition`.
    """
    if wanted == "any":
        return
    found = judge(dataset, frame).acquisition
    if found in _CONTRARY[wanted]:
        raise exclusion(
            ExclusionReason.WRONG_ACQUISITION,
            f"The header says {found}, the protocol asks for {wanted}.",
        )


def _evidence(dataset: Dataset, frame: Frame) -> Iterator[Evidence]:
    for attribute, points in (
        *_synchronisation(dataset),
        *_technique(dataset, frame),
        *_reconstruction(dataset, frame),
        *_descriptions(dataset),
    ):
        yield Evidence(Acquisition.GATED, attribute, points)
    for attribute, points in _attenuation(dataset):
        yield Evidence(Acquisition.ATTENUATION_CORRECTION, attribute, points)


def _synchronisation(dataset: Dataset) -> Iterator[tuple[str, int]]:
    technique = _text(dataset, "CardiacSynchronizationTechnique").upper()
    yield "CardiacSynchronizationTechnique", {"": 0, "NONE": -6}.get(technique, 6)
    for keyword, points in _SYNCHRONISED.items():
        # Scanners write 0 for a beat that was not measured.
        yield keyword, points if _number(dataset, keyword) else 0


def _technique(dataset: Dataset, frame: Frame) -> Iterator[tuple[str, int]]:
    options = _text(dataset, "ScanOptions").upper()
    words = set(re.split(r"[^A-Z]+", options))
    stepped = bool(words & {"CINE", "ECG", "EKG", "GATED", "CARDIAC", "CCTA", "SNAPSHOT"})
    moving = bool(words & {"HELICAL", "HELIX", "SPIRAL"})
    yield "ScanOptions", 2 * stepped - moving
    # Siemens: ImageType value 4 ends in SEQ (step and shoot) or SPI (spiral).
    last = " ".join(frame.image_type)
    yield "ImageType", ("CT_SOM" in last) * ((" SEQ" in last) - (" SPI" in last))


def _reconstruction(dataset: Dataset, frame: Frame) -> Iterator[tuple[str, int]]:
    diameter = _diameter_mm(dataset, frame)
    if diameter is not None:
        is_small, is_large = diameter <= _GATED_DIAMETER_MM, diameter >= _CHEST_DIAMETER_MM
        yield "ReconstructionDiameter", is_small - 2 * is_large
    thickness = frame.thickness_mm
    if thickness is not None:
        low, high = _SCORING_THICKNESS_MM
        yield "SliceThickness", (low <= thickness <= high) - (thickness >= 5)
    yield "ConvolutionKernel", int(bool(_SCORING_KERNELS.match(frame.kernel)))


def _diameter_mm(dataset: Dataset, frame: Frame) -> float | None:
    stated = _number(dataset, "ReconstructionDiameter")
    if stated:
        return stated
    columns = dataset.get("Columns")
    # A thumbnail's pixels say nothing about the field of view.
    return frame.pixel_spacing_mm[1] * columns if columns and columns >= 128 else None


def _descriptions(dataset: Dataset) -> Iterator[tuple[str, int]]:
    for keyword, weight in (("SeriesDescription", 3), ("ProtocolName", 2)):
        topics = topics_of(_text(dataset, keyword))
        if Topic.NOT_GATED in topics:
            yield keyword, -weight
        elif topics & {Topic.CALCIUM_SCORING, Topic.GATED}:
            yield keyword, weight
        elif Topic.HEART in topics:
            yield keyword, 1
        elif Topic.CHEST in topics:
            yield keyword, -1
    part = topics_of(_text(dataset, "BodyPartExamined"))
    yield "BodyPartExamined", 2 * (Topic.HEART in part) - (Topic.CHEST in part)


def _attenuation(dataset: Dataset) -> Iterator[tuple[str, int]]:
    named = topics_of(_text(dataset, "SeriesDescription"), _text(dataset, "ProtocolName"))
    yield "SeriesDescription", 4 * (Topic.ATTENUATION_CORRECTION in named)
    yield (
        "ManufacturerModelName",
        3 * bool(_HYBRID_SCANNERS.search(_text(dataset, "ManufacturerModelName"))),
    )
    modalities = dataset.get("ModalitiesInStudy") or ()
    listed = {modalities} if isinstance(modalities, str) else set(modalities)
    yield "ModalitiesInStudy", 2 * bool(listed & {"NM", "PT"})
    diameter = _number(dataset, "ReconstructionDiameter") or 0.0
    yield "ReconstructionDiameter", int(diameter >= _WHOLE_BODY_DIAMETER_MM)
    exposure, current = _number(dataset, "Exposure"), _number(dataset, "XRayTubeCurrent")
    yield "Exposure", int(exposure is not None and 0 < exposure <= _LOW_EXPOSURE_MAS)
    if current is not None:
        # Hybrid scanners make diagnostic series too, in the same study.
        is_low, is_high = 0 < current <= _LOW_CURRENT_MA, current >= _DIAGNOSTIC_CURRENT_MA
        yield "XRayTubeCurrent", is_low - 3 * is_high
    kernels = _text(dataset, "ConvolutionKernel")
    yield "ConvolutionKernel", int(bool(_ATTENUATION_KERNELS.search(kernels)))


def _text(dataset: Dataset, keyword: str) -> str:
    value = header_value(dataset, keyword)
    if value is None:
        return ""
    if isinstance(value, MultiValue):
        return " ".join(map(str, value))
    return str(value)


def _number(dataset: Dataset, keyword: str) -> float | None:
    try:
        return float(_text(dataset, keyword))
    except ValueError:
        return None
