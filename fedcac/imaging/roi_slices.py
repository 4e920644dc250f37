"""Which slice of a volume a region belongs to, whose annotation names images by a number alone.

Numbers count slices from the lowest one up (ascending z from 0), and a copy sorted by another tool
may count downwards: a mistake that no shape would show. So the largest value that the annotating
software measured in each region is looked for in the slice that either order points to.
"""

from __future__ import annotations

import numpy as np

from fedcac.errors import CohortError
from fedcac.imaging.roi_annotation import RoiAnnotation, RoiPolygon, rasterise_polygon
from fedcac.imaging.volume import Volume

__all__ = ["check_regions", "is_counted_down", "slice_of"]

_MAXIMUM_TOLERANCE_HU = 1.0
_LEAST_AGREEMENT = 0.5


def check_regions(annotation: RoiAnnotation, volume: Volume) -> None:
    """Check that every region lies within the volume.

    Raises
    ------
    CohortError
        `index_outside` or `point_outside`.
    """
    n_slices, rows, columns = volume.hu.shape
    for polygon in annotation.polygons:
        if polygon.image_index >= n_slices:
            raise _refused("index_outside", "An image's index lies beyond the series.")
        low, high = polygon.points_px.min(axis=0), polygon.points_px.max(axis=0)
        if low.min() < 0 or high[0] > columns or high[1] > rows:
            raise _refused("point_outside", "A point lies beyond the image.")


def slice_of(polygon: RoiPolygon, n_slices: int, *, is_reversed: bool) -> int:
    """Return the slice of a volume that a region's number means, upwards or `is_reversed`."""
    # Volumes run from superior to inferior: rank 0 in ascending z is their last slice.
    return polygon.image_index if is_reversed else n_slices - 1 - polygon.image_index


def is_counted_down(annotation: RoiAnnotation, volume: Volume) -> bool | None:
    """Say whether the measured values are found with slices counted downwards.

    Each is looked for to 1 HU in its region grown by a pixel. None where both orders find equally
    many, or nothing was measured. The regions must have passed `check_regions`.

    Raises
    ------
    CohortError
        `slice_order_unclear` if even the better order finds fewer than half of them.
    """
    measured = [polygon for polygon in annotation.polygons if polygon.maximum is not None]
    if not measured:
        return None
    upwards, downwards = (
        sum(_shows_maximum(polygon, volume, is_reversed) for polygon in measured)
        for is_reversed in (False, True)
    )
    if max(upwards, downwards) < _LEAST_AGREEMENT * len(measured):
        raise _refused(
            "slice_order_unclear", "The measured values are found in neither order of the slices."
        )
    return None if upwards == downwards else downwards > upwards


def _shows_maximum(polygon: RoiPolygon, volume: Volume, is_reversed: bool) -> bool:
    hu = volume.hu[slice_of(polygon, volume.hu.shape[0], is_reversed=is_reversed)]
    inside = rasterise_polygon(polygon.points_px, (hu.shape[0], hu.shape[1]))
    # Programs disagree about pixels on the outline, so its neighbours may hold the maximum too.
    grown = np.pad(inside, 1)
    grown = grown[:-2] | grown[1:-1] | grown[2:]
    grown = grown[:, :-2] | grown[:, 1:-1] | grown[:, 2:]
    if polygon.maximum is None or not grown.any():
        return False
    return bool(np.any(np.abs(hu[grown] - polygon.maximum) <= _MAXIMUM_TOLERANCE_HU))


def _refused(code: str, message: str) -> CohortError:
    return CohortError(message, code=code, cure="Compare annotation and series in a viewer.")
