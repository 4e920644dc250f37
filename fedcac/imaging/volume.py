"""A volume in Hounsfield units with its geometry in the patient's coordinate system."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ORIENTATION", "Volume"]

ORIENTATION = "FPL"
"""A `Volume`'s axes in highdicom's letters: to the feet, to posterior, to the patient's left."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A regularly spaced axial CT volume.

    Attributes
    ----------
    hu
        Hounsfield units, float32, shape (slices, rows, columns); slices run from superior to
        inferior, rows towards posterior, columns towards the patient's left.
    spacing_mm
        (slice increment, row spacing, column spacing). The increment is the distance between
        slice positions, not SliceThickness (PS3.3 C.7.6.2.1.1).
    slice_thickness_mm
        SliceThickness (0018,0050), or the increment where the header gives none.
    origin_lps_mm
        Centre of voxel (0, 0, 0) in LPS millimetres.
    kvp
        Tube voltage in kV, None where the header gives none.
    """

    hu: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    slice_thickness_mm: float
    origin_lps_mm: tuple[float, float, float]
    kvp: float | None = None

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.dtype != np.float32:
            raise ValueError("hu must be float32 of shape (slices, rows, columns)")
        if min(self.spacing_mm) <= 0:
            raise ValueError("spacing_mm must be positive")
