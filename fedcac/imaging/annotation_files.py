"""An expert's annotation of calcium as a file: which format it is, and whose exam it is of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from fedcac.errors import CohortError
from fedcac.imaging.coding import silent
from fedcac.imaging.label_map import is_label_map, read_label_map
from fedcac.imaging.segmentation import read_vessel_map
from fedcac.imaging.structure_set import map_of_contours, read_structure_set

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedcac.imaging.label_meanings import LabelMeanings
    from fedcac.imaging.series import Series
    from fedcac.imaging.volume import Volume

__all__ = [
    "AnnotationFormat",
    "AnnotationHeader",
    "annotated_map",
    "annotation_content",
    "empty_annotation",
    "no_such_annotation",
    "read_annotation_header",
]


class AnnotationFormat(StrEnum):
    """How an annotation is stored."""

    SEGMENTATION = "segmentation"
    STRUCTURE_SET = "structure_set"
    REGIONS = "regions"
    LABEL_MAP = "label_map"


@dataclass(frozen=True)
class AnnotationHeader:
    """What an annotation says of itself.

    Attributes
    ----------
    format
        DICOM SEG, DICOM RT Structure Set, the XML regions of Horos and OsiriX, or a NIfTI label
        map.
    frame_uid
        A SEG's frame of reference. A structure set has one per region, XML and NIfTI none: then
        it is "".
    is_fractional
        Whether a SEG holds probabilities or occupancies (PS3.3 C.8.20.2.3).
    is_automatic
        Whether a SEG has a segment that no person had a hand in (Segment Algorithm Type AUTOMATIC).
    """

    format: AnnotationFormat
    frame_uid: str = ""
    is_fractional: bool = False
    is_automatic: bool = False


def annotation_content(path: Path) -> bytes:
    """Return the bytes of an annotation.

    Raises
    ------
    CohortError
        `no_such_annotation`.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise no_such_annotation() from error


def read_annotation_header(path: Path) -> AnnotationHeader:
    """Return the format of an annotation and what its header says.

    Raises
    ------
    CohortError
        `no_such_annotation`; `unknown_annotation` if it is of no format that is read.
    """
    content = annotation_content(path)
    if is_label_map(path):
        return AnnotationHeader(AnnotationFormat.LABEL_MAP)
    if content.lstrip()[:1] == b"<":
        return AnnotationHeader(AnnotationFormat.REGIONS)
    try:
        with silent():
            return _dicom_header(path)
    except CohortError:
        raise
    except Exception as error:
        # What a damaged file makes pydicom raise has no common class.
        raise _unknown() from error


def _dicom_header(path: Path) -> AnnotationHeader:
    tags = ["SOPClassUID", "FrameOfReferenceUID", "SegmentationType", "SegmentSequence"]
    dataset = pydicom.dcmread(path, specific_tags=tags, stop_before_pixels=True)
    if dataset.get("SOPClassUID") == RTStructureSetStorage:
        return AnnotationHeader(AnnotationFormat.STRUCTURE_SET)
    if dataset.get("SOPClassUID") != SegmentationStorage:
        raise _unknown()
    segments = dataset.get("SegmentSequence") or ()
    return AnnotationHeader(
        AnnotationFormat.SEGMENTATION,
        frame_uid=str(dataset.get("FrameOfReferenceUID", "")),
        is_fractional=dataset.get("SegmentationType") == "FRACTIONAL",
        is_automatic=any(s.get("SegmentAlgorithmType") == "AUTOMATIC" for s in segments),
    )


def annotated_map(
    path: Path,
    header: AnnotationHeader,
    series: Series,
    volume: Volume,
    meanings: LabelMeanings | None = None,
) -> NDArray[np.uint8]:
    """Return the vessel map, uint8 of the volume's shape, of a SEG, structure set or label map.

    `meanings` are those of a label map's integers.

    Raises
    ------
    CohortError
        `other_series` if it is in another frame of reference, `empty_annotation`, or
        `bad_annotation` for a fractional SEG; else as `read_structure_set`, `map_of_contours`,
        `read_label_map`.
    UsageError
        As `read_vessel_map`.
    """
    if header.format is AnnotationFormat.LABEL_MAP:
        vessel_map = read_label_map(path, volume, meanings)
        if not vessel_map.any():
            # A SEG lists the vessels that were looked at; a map of zeros says nothing of the kind.
            raise empty_annotation()
        return vessel_map
    frame_uid = str(series.datasets[0].FrameOfReferenceUID)
    if header.format is AnnotationFormat.STRUCTURE_SET:
        structure_set = read_structure_set(path)
        if not structure_set.contours:
            raise empty_annotation()
        _check_frame(structure_set.frame_uids, frame_uid)
        return map_of_contours(structure_set, volume)
    if header.is_fractional:
        raise CohortError(
            "The segmentation is fractional: which voxels belong to it is open.",
            code="bad_annotation",
            cure="Export it as a binary DICOM SEG.",
        )
    _check_frame(frozenset({header.frame_uid}), frame_uid)
    return read_vessel_map(path, volume)


def no_such_annotation() -> CohortError:
    """Return the error of a path at which there is no file."""
    return CohortError(
        "There is no annotation at the given path, or it cannot be read.",
        code="no_such_annotation",
        cure="Correct the path in the column reference_annotation.",
    )


def empty_annotation() -> CohortError:
    """Return the error of an annotation without a region."""
    return CohortError(
        "The annotation encloses nothing, and that is no statement that there is no calcium.",
        code="empty_annotation",
        cure="If the reader found none, write 0 as reference_score; else export the regions again.",
    )


def _check_frame(found: frozenset[str], wanted: str) -> None:
    # Two exams of one scanner share a grid often; only this says that they are the same exam.
    if found != {wanted}:
        raise CohortError(
            "The annotation is in another frame of reference than the series.",
            code="other_series",
            cure="Name the series in the manifest on which the annotation was drawn.",
        )


def _unknown() -> CohortError:
    return CohortError(
        "The annotation is no DICOM SEG or RT Structure Set, no NIfTI label map (.nii, .nii.gz), "
        "no Horos or OsiriX XML file.",
        code="unknown_annotation",
        cure="Export it as DICOM SEG on the series that is scored.",
    )
