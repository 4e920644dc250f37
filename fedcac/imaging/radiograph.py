"""From a CR or DX object to a frontal chest radiograph as a reader sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)
from scipy.ndimage import zoom

from fedcac.errors import DicomError
from fedcac.imaging.coding import coded, exclusion, reason_of, told_reason
from fedcac.imaging.display import presented
from fedcac.imaging.eligibility import is_grey
from fedcac.imaging.files import read_located
from fedcac.imaging.pixels import check_pixel_data, check_size, stored_values
from fedcac.imaging.words import Topic, topics_of
from fedcac.protocol import ImageCriteria
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Radiograph", "load_radiograph"]

_CLASSES = frozenset({ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation})
_FRONTAL_VIEWS = ("PA", "AP")
_LATERAL_VIEWS = frozenset({"LL", "RL", "LAT", "LATERAL", "LLD", "RLD", "LLO", "RLO"})
_CHEST = frozenset({"", "CHEST", "THORAX", "LUNG", "LUNGS", "RIBS", "HEART", "PORT CHEST"})

ASPECT_TOLERANCE = 0.01
"""Pixels that deviate less from squares are not resampled."""


@dataclass(frozen=True, eq=False)
class Radiograph:
    """A frontal chest radiograph with square pixels.

    Attributes
    ----------
    intensity
        Displayed intensity from 0 (black) to 1 (white, dense), float32, shape (rows, columns);
        rows run to the patient's left and columns to the feet, where the header tells.
    pixel_spacing_mm
        Side of a pixel in the detector's plane or, where calibrated, the patient's; None where
        the header gives none.
    view
        `PA` or `AP`; empty where the header does not say.
    """

    intensity: NDArray[np.float32]
    pixel_spacing_mm: float | None
    view: str

    def __post_init__(self) -> None:
        if self.intensity.ndim != 2 or self.intensity.dtype != np.float32:
            raise ValueError("intensity must be float32 of shape (rows, columns)")


def load_radiograph(path: Path, criteria: ImageCriteria) -> Radiograph:
    """Read the frontal chest radiograph at a folder or file.

    A folder may hold other images only if the criteria let one be chosen: then what is not a
    frontal chest radiograph is passed over, PA is taken before AP and AP before an unnamed view;
    of equal ones the instance that comes first by UID.

    Raises
    ------
    DicomError
        Its code names the ExclusionReason; no other exception escapes for a bad file.
    """
    with coded(ExclusionReason.UNREADABLE_DICOM, "The radiograph cannot be interpreted"):
        return _present(_choose(read_located(path), criteria))


def _choose(datasets: Sequence[Dataset], criteria: ImageCriteria) -> Dataset:
    if len(datasets) == 1:
        _check(datasets[0])
        return datasets[0]
    if not criteria.choose_series or len({str(one.get("PatientID", "")) for one in datasets}) > 1:
        raise exclusion(ExclusionReason.MIXED_SERIES, "There are several images here.")
    eligible, reasons = [], []
    for dataset in datasets:
        try:
            _check(dataset)
            eligible.append(dataset)
        except DicomError as error:
            reasons.append(reason_of(error))
    if not eligible:
        raise exclusion(told_reason(reasons), f"None of {len(datasets)} images here is eligible.")
    ranks = {view: rank for rank, view in enumerate((*_FRONTAL_VIEWS, ""))}
    return min(eligible, key=lambda one: (ranks[_view(one)], str(one.get("SOPInstanceUID", ""))))


def _check(dataset: Dataset) -> None:
    _check_kind(dataset)
    check_size([dataset])
    check_pixel_data(dataset)
    if not is_grey(dataset) or int(dataset.get("NumberOfFrames") or 1) != 1:
        raise exclusion(ExclusionReason.WRONG_MODALITY, "It is no single grey-scale image.")
    part = str(dataset.get("BodyPartExamined") or "").strip().upper()
    if part not in _CHEST and Topic.CHEST not in topics_of(part):
        raise exclusion(ExclusionReason.WRONG_BODY_PART, "It is of another part of the body.")
    described = topics_of(str(dataset.get("SeriesDescription") or ""))
    view = str(dataset.get("ViewPosition") or "").strip().upper()
    if view in _LATERAL_VIEWS or (view not in _FRONTAL_VIEWS and Topic.LATERAL in described):
        raise exclusion(ExclusionReason.WRONG_VIEW, "It is a lateral view.")


def _check_kind(dataset: Dataset) -> None:
    if dataset.SOPClassUID == DigitalXRayImageStorageForProcessing or (
        str(dataset.get("PresentationIntentType") or "").upper() == "FOR PROCESSING"
    ):
        raise exclusion(ExclusionReason.NOT_FOR_PRESENTATION, "It is a raw detector image.")
    if dataset.SOPClassUID not in _CLASSES:
        raise exclusion(ExclusionReason.WRONG_MODALITY, "It is neither CR nor DX.")
    image_type = [str(value).upper() for value in dataset.get("ImageType") or ()]
    # Processing and lossy compression make every presented radiograph DERIVED (PS3.3 C.7.6.1.1.2);
    # SECONDARY is made from other images, such as one with the bones subtracted.
    if image_type[1:2] == ["SECONDARY"]:
        raise exclusion(ExclusionReason.DERIVED_IMAGE, "It is made from other images.")


def _view(dataset: Dataset) -> str:
    view = str(dataset.get("ViewPosition") or "").strip().upper()
    return view if view in _FRONTAL_VIEWS else ""


def _present(dataset: Dataset) -> Radiograph:
    with coded(ExclusionReason.CORRUPT_PIXELS, "The pixels cannot be decoded"):
        intensity = presented(dataset, stored_values(dataset))
        spacing = _spacing_mm(dataset)
        row, column = spacing or _aspect(dataset)
        if abs(row / column - 1) > ASPECT_TOLERANCE:
            # The finer side stays, so that nothing is lost.
            side = min(row, column)
            intensity = np.clip(zoom(intensity, (row / side, column / side), order=1), 0, 1)
        upright = _upright(intensity, dataset.get("PatientOrientation") or ())
        return Radiograph(
            intensity=np.ascontiguousarray(upright, dtype=np.float32),
            pixel_spacing_mm=min(row, column) if spacing else None,
            view=_view(dataset),
        )


def _upright(intensity: NDArray[np.float32], orientation: Sequence[str]) -> NDArray[np.float32]:
    """Turn an image so that rows run to the patient's left and columns to the feet.

    Patient Orientation (PS3.3 C.7.6.1.1.1) gives the directions of row and column; where it is
    absent, or names neither side nor end, the image stays as it is.
    """
    if len(orientation) != 2:
        return intensity
    row, column = (str(direction)[:1].upper() for direction in orientation)
    if row in ("H", "F") and column in ("L", "R"):
        intensity, row, column = intensity.T, column, row
    if row == "R":
        intensity = intensity[:, ::-1]
    if column == "H":
        intensity = intensity[::-1]
    return intensity


def _spacing_mm(dataset: Dataset) -> tuple[float, float] | None:
    # Some devices write zeros for a spacing they do not know.
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        value = dataset.get(keyword)
        if value and len(value) == 2 and all(0 < float(side) < np.inf for side in value):
            return float(value[0]), float(value[1])
    return None


def _aspect(dataset: Dataset) -> tuple[float, float]:
    """Return the relative height and width of a pixel (PS3.3 C.7.6.3.1.7)."""
    value = dataset.get("PixelAspectRatio")
    if not value:
        return 1.0, 1.0
    row, column = (float(side) for side in value)
    if min(row, column) <= 0:
        raise exclusion(ExclusionReason.MISSING_GEOMETRY, "PixelAspectRatio is not positive.")
    return row, column
