"""The geometry of a stack of frames: assumptions are checked, never silently repaired."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedcac.imaging.coding import exclusion
from fedcac.imaging.frames import Frame
from fedcac.vocabulary import ExclusionReason

__all__ = [
    "AXIAL_COSINE",
    "COINCIDENT_MM",
    "SPACING_TOLERANCE",
    "TILT_TOLERANCE",
    "check_orientation",
    "check_spacing",
    "slice_positions_mm",
]

AXIAL_COSINE = 0.8
"""Below this |normal . z| an image is not axial at all. Gantries tilt by 30 degrees (0.87)."""

TILT_TOLERANCE = 1e-3
"""Largest 1 - |cosine| between the slice normal, the stacking direction and the z axis."""

SPACING_TOLERANCE = 0.01
"""Largest relative deviation of a slice increment from their median (highdicom's default)."""

MISSING_FACTOR = 1.5
"""An increment of at least this many median increments is a gap, not an irregularity."""

COINCIDENT_MM = 1e-3
"""Slices nearer than this have the same position; ImagePositionPatient is written to 1e-3 mm."""


def slice_positions_mm(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Return the position of each frame along the first frame's normal, shape (n,), mm."""
    positions = np.array([frame.position_lps_mm for frame in frames], dtype=np.float64)
    distances: NDArray[np.float64] = positions @ _normal(frames[0])
    return distances


def check_orientation(frames: Sequence[Frame]) -> None:
    """Check that all frames are parallel, axial, untilted and stacked along their normal.

    Raises
    ------
    DicomError
        `missing_geometry` (not finite), `inconsistent_geometry`, `not_axial` or `gantry_tilt`.
    """
    orientations = np.array([frame.orientation for frame in frames], dtype=np.float64)
    spacings = np.array([frame.pixel_spacing_mm for frame in frames], dtype=np.float64)
    positions = np.array([frame.position_lps_mm for frame in frames], dtype=np.float64)
    _check_numbers(orientations, spacings, positions)
    axial = abs(float(_normal(frames[0])[2]))
    if axial < AXIAL_COSINE:
        raise exclusion(
            ExclusionReason.NOT_AXIAL, f"The slice normal has cosine {axial:.3f} with the z axis."
        )
    if 1 - axial > TILT_TOLERANCE:
        raise exclusion(
            ExclusionReason.GANTRY_TILT, f"The slices are tilted: cosine {axial:.4f} with z."
        )
    _check_stacking(positions, _normal(frames[0]))
    if 1 - float(np.abs(orientations[0, :3]).max()) > TILT_TOLERANCE:
        # A Volume has no direction matrix: rows must run along an axis of the patient.
        raise exclusion(ExclusionReason.NOT_AXIAL, "The slices are rotated in their plane.")


def _check_numbers(
    orientations: NDArray[np.float64],
    spacings: NDArray[np.float64],
    positions: NDArray[np.float64],
) -> None:
    if not all(np.isfinite(values).all() for values in (orientations, spacings, positions)):
        raise exclusion(ExclusionReason.MISSING_GEOMETRY, "A geometry attribute is not finite.")
    if spacings.min() <= 0:
        raise exclusion(ExclusionReason.MISSING_GEOMETRY, "PixelSpacing is not positive.")
    if np.ptp(orientations, axis=0).max() > TILT_TOLERANCE:
        raise exclusion(ExclusionReason.INCONSISTENT_GEOMETRY, "Frames differ in orientation.")
    if np.ptp(spacings, axis=0).max() > 0:
        raise exclusion(ExclusionReason.INCONSISTENT_GEOMETRY, "Frames differ in PixelSpacing.")
    lengths = np.linalg.norm(orientations.reshape(-1, 2, 3), axis=2)
    cosines = np.einsum("ij,ij->i", orientations[:, :3], orientations[:, 3:])
    if np.abs(lengths - 1).max() > TILT_TOLERANCE or np.abs(cosines).max() > TILT_TOLERANCE:
        raise exclusion(
            ExclusionReason.INCONSISTENT_GEOMETRY, "ImageOrientationPatient is not orthonormal."
        )


def _check_stacking(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    # The chord from the first frame measures shear; coincident frames have no direction.
    chords = positions - positions[0]
    lengths = np.linalg.norm(chords, axis=1)
    along = np.abs(chords @ normal)
    sheared = lengths > COINCIDENT_MM
    if np.any(along[sheared] < (1 - TILT_TOLERANCE) * lengths[sheared]):
        raise exclusion(
            ExclusionReason.GANTRY_TILT, "The slices are not stacked along their normal."
        )


def check_spacing(positions_mm: NDArray[np.float64]) -> None:
    """Check that distinct slice positions (mm, any order) are evenly spaced.

    Raises
    ------
    DicomError
        `duplicate_position`, `missing_slice` or `irregular_spacing`.
    """
    increments = np.diff(np.sort(positions_mm))
    if increments.size == 0:
        return
    if increments.min() <= COINCIDENT_MM:
        raise exclusion(ExclusionReason.DUPLICATE_POSITION, "Two slices have the same position.")
    typical = float(np.median(increments))
    if increments.max() >= MISSING_FACTOR * typical:
        raise exclusion(
            ExclusionReason.MISSING_SLICE,
            f"Slices are {typical:.2f} mm apart, but once {increments.max():.2f} mm.",
        )
    if np.abs(increments - typical).max() > SPACING_TOLERANCE * typical:
        raise exclusion(
            ExclusionReason.IRREGULAR_SPACING,
            f"Slice increments run from {increments.min():.3f} to {increments.max():.3f} mm.",
        )


def _normal(frame: Frame) -> NDArray[np.float64]:
    return np.cross(frame.orientation[:3], frame.orientation[3:])
