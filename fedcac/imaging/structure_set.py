"""A DICOM RT Structure Set of coronary calcium as a vessel map (PS3.3 A.19, C.8.8.5, C.8.8.6)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from numpy.typing import NDArray

from fedcac.errors import CohortError
from fedcac.imaging.coding import silent
from fedcac.imaging.roi_annotation import VESSEL_NAMES, rasterise_polygon
from fedcac.vocabulary import VESSEL_LABELS, Vessel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset

    from fedcac.imaging.volume import Volume

__all__ = ["PlanarContour", "StructureSet", "map_of_contours", "read_structure_set"]

_MAXIMUM_BYTES = 64 * 1024**2
_MAXIMUM_POINTS = 1_000_000
_FEWEST_POINTS = 3
# A contour lies on the plane it was drawn on; positions are decimal text of 16 characters.
_TOLERANCE_MM = 0.1
_NAMES = VESSEL_NAMES | {vessel.value: vessel for vessel in Vessel}
_UNION, _XOR = "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"


@dataclass(frozen=True, eq=False)
class PlanarContour:
    """One closed contour.

    Attributes
    ----------
    roi_number
        Of the region it belongs to.
    vessel
        The coronary vessel that the region's name stands for.
    points_mm
        Corners (n, 3), n >= 3, in LPS millimetres, the last joined to the first.
    is_exclusive
        CLOSEDPLANAR_XOR: within its region, what two contours of a plane enclose both is outside.
    """

    roi_number: int
    vessel: Vessel
    points_mm: NDArray[np.float64]
    is_exclusive: bool


@dataclass(frozen=True)
class StructureSet:
    """The contours of one file and the frames of reference they are in."""

    contours: tuple[PlanarContour, ...]
    frame_uids: frozenset[str]


def read_structure_set(path: Path) -> StructureSet:
    """Read every closed contour of a structure set.

    A region is named as `VESSEL_NAMES` or `LM`, `LAD`, `LCX`, `RCA`, in any case. Regions without
    a contour are passed over.

    Raises
    ------
    CohortError
        `bad_annotation` if it is no structure set, has too many points, or a contour that is not
        closed and planar; `unknown_vessel` if a region with contours has another name. Messages
        quote nothing of the file.
    """
    try:
        if path.stat().st_size > _MAXIMUM_BYTES:
            raise _bad("is larger than any annotation")
        with silent():
            dataset = pydicom.dcmread(path)
            listed = dataset.get("StructureSetROISequence", ())
            regions = {int(region.ROINumber): region for region in listed}
            contours = tuple(_contours(dataset, regions))
            used = {contour.roi_number for contour in contours}
            frames = {str(regions[number].ReferencedFrameOfReferenceUID) for number in used}
    except CohortError:
        raise
    except Exception as error:
        # What a damaged file makes pydicom raise has no common class.
        raise _bad("cannot be read as a structure set") from error
    return StructureSet(contours, frozenset(frames))


def map_of_contours(structure_set: StructureSet, volume: Volume) -> NDArray[np.uint8]:
    """Return the vessel map, uint8 of the volume's shape: 1 to 4 for LM, LAD, LCX, RCA.

    A voxel belongs to a contour if its centre lies inside (`rasterise_polygon`). Contours of a
    region are united, or combined by exclusive or where they say so; where regions of two vessels
    overlap, the later one counts.

    Raises
    ------
    CohortError
        `other_series` if a contour is not on one of the volume's planes or leaves the image.
    """
    n_slices, rows, columns = volume.hu.shape
    origin = np.array(volume.origin_lps_mm)
    regions: dict[tuple[int, int, Vessel], NDArray[np.bool_]] = {}
    for contour in structure_set.contours:
        # Rows run towards posterior, columns towards left, slices towards the feet.
        offset_mm = (contour.points_mm - origin) * (1, 1, -1)
        depth_mm, increment_mm = offset_mm[:, 2], volume.spacing_mm[0]
        number = int(np.rint(depth_mm[0] / increment_mm))
        if (
            np.abs(depth_mm - number * increment_mm).max() > _TOLERANCE_MM
            or not 0 <= number < n_slices
        ):
            raise _off_series("is not on a plane of the series")
        # Pixel (0, 0) has its centre at (0.5, 0.5) for the rasteriser.
        points_px = offset_mm[:, :2] / (volume.spacing_mm[2], volume.spacing_mm[1]) + 0.5
        if points_px.min() < 0 or (points_px.max(axis=0) > (columns, rows)).any():
            raise _off_series("leaves the image")
        inside = rasterise_polygon(points_px, (rows, columns))
        key = (contour.roi_number, number, contour.vessel)
        drawn = regions.setdefault(key, np.zeros((rows, columns), dtype=np.bool_))
        if contour.is_exclusive:
            drawn ^= inside
        else:
            drawn |= inside
    vessel_map = np.zeros(volume.hu.shape, dtype=np.uint8)
    for (_, number, vessel), drawn in regions.items():
        vessel_map[number][drawn] = VESSEL_LABELS[vessel]
    return vessel_map


def _contours(dataset: Dataset, regions: dict[int, Dataset]) -> Iterator[PlanarContour]:
    n_points = 0
    for region in dataset.get("ROIContourSequence", ()):
        sequence = region.get("ContourSequence") or ()
        if not sequence:
            continue
        number = int(region.ReferencedROINumber)
        vessel = _vessel_of(regions[number])
        for contour in sequence:
            geometry = contour.ContourGeometricType
            if geometry not in (_UNION, _XOR):
                raise _bad("has a contour that is not closed and planar")
            points = np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
            n_points += len(points)
            if n_points > _MAXIMUM_POINTS:
                raise _bad("has more points than any annotation")
            if len(points) < _FEWEST_POINTS or not bool(np.isfinite(points).all()):
                raise _bad("has a contour that encloses nothing")
            yield PlanarContour(number, vessel, points, geometry == _XOR)


def _vessel_of(region: Dataset) -> Vessel:
    vessel = _NAMES.get(str(region.get("ROIName", "")).strip().lower())
    if vessel is None:
        raise CohortError(
            "A region of the annotation is named after no known coronary vessel.",
            code="unknown_vessel",
            cure=f"Name regions {', '.join(sorted(_NAMES))}; remove other regions.",
        )
    return vessel


def _bad(what: str) -> CohortError:
    return CohortError(
        f"The annotation {what}.",
        code="bad_annotation",
        cure="Export the regions again, as a DICOM RT Structure Set of closed planar contours.",
    )


def _off_series(what: str) -> CohortError:
    return CohortError(
        f"A contour {what}.",
        code="other_series",
        cure="Name the series in the manifest on which the annotation was drawn.",
    )
