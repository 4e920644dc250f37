"""The sampling grid of a generated exam, and what an exam and a pair of them are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcac.scoring import CalciumScore
from fedcac.vocabulary import Vessel

__all__ = ["GATED", "NON_GATED", "Grid", "PhantomExam", "PhantomPair"]


@dataclass(frozen=True)
class Grid:
    """A regular axial grid centred on the heart.

    Positions are (x, y, s) in mm: x towards the patient's left, y towards posterior, both from the
    centre of the image; s downwards from the first slice's upper face.
    """

    n_slices: int
    matrix: int
    pixel_mm: float
    increment_mm: float
    psf_sigma_mm: float
    noise_hu: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return (self.n_slices, self.matrix, self.matrix)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(increment, row, column) in mm."""
        return (self.increment_mm, self.pixel_mm, self.pixel_mm)

    def axis_mm(self) -> NDArray[np.float32]:
        """In-plane pixel centres in mm, the same for rows and columns; shape (matrix,)."""
        centres = (np.arange(self.matrix) - (self.matrix - 1) / 2) * self.pixel_mm
        return centres.astype(np.float32)

    def slices_mm(self) -> NDArray[np.float32]:
        """Slice centres in mm from the first slice's upper face; shape (n_slices,)."""
        return ((np.arange(self.n_slices) + 0.5) * self.increment_mm).astype(np.float32)


# Cardiac reconstructions of about 200 mm: a calcium-scoring series and a routine chest series.
GATED = Grid(32, 256, 0.78125, 3.0, psf_sigma_mm=0.6, noise_hu=16.0)
NON_GATED = Grid(20, 256, 0.78125, 5.0, psf_sigma_mm=0.7, noise_hu=18.0)


@dataclass(frozen=True, eq=False)
class PhantomExam:
    """One generated exam with its truth.

    Attributes
    ----------
    hu
        float32, shape (slices, rows, columns), superior to inferior.
    vessel_map
        uint8, same shape: voxels of coronary plaque over 130 HU before noise, 1 to 4 in the order
        of `Vessel`, 0 elsewhere (so also in calcium that is not coronary).
    """

    hu: NDArray[np.float32]
    vessel_map: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    slice_thickness_mm: float


@dataclass(frozen=True, eq=False)
class PhantomPair:
    """A gated and a non-gated exam of one virtual patient.

    `reference` is the Agatston score of the gated exam under its true vessel map; `mass_mg` the
    calcium truly placed in each vessel.
    """

    gated: PhantomExam
    non_gated: PhantomExam
    mass_mg: Mapping[Vessel, float]
    reference: CalciumScore

    @property
    def reference_score(self) -> float:
        """Total Agatston score of the gated exam under its true map."""
        return self.reference.total
