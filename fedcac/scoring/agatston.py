"""The Agatston score of a calcium mask, per vessel, with volume and mass.

Agatston et al. 1990 as practised (written out in FQM_Analysis, Med Phys 2021, mp.14912): in every
axial slice, connected voxels over the threshold make a lesion; its area times a factor from its
peak in that slice, times increment / 3 mm, is summed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedcac.scoring.profiles import ScoringProfile
from fedcac.vocabulary import VESSEL_UNKNOWN, Vessel

__all__ = ["CalciumScore", "Lesion", "score_volume"]

_REFERENCE_INCREMENT_MM = 3.0
_REFERENCE_THRESHOLD_HU = 130.0
_FACTOR_EDGES_HU = (200.0, 300.0, 400.0)
_VESSELS = tuple(Vessel)


@dataclass(frozen=True)
class Lesion:
    """One lesion in one slice. `score` is its share of the Agatston score.

    `vessel` is None where the map does not tell it.
    """

    slice_index: int
    vessel: Vessel | None
    area_mm2: float
    peak_hu: float
    factor: int
    score: float


@dataclass(frozen=True)
class CalciumScore:
    """The scores of one exam.

    `vessels` is empty where the map does not tell the vessel of some calcium: a share of it could
    belong to each. `volume_mm3` is the volume of counted voxels; `mass_mg` needs a calibration and
    is None, never 0, without one.
    """

    total: float
    vessels: Mapping[Vessel, float]
    volume_mm3: float
    mass_mg: float | None
    lesions: tuple[Lesion, ...]

    @property
    def n_lesions(self) -> int:
        """Number of lesions, counted per slice."""
        return len(self.lesions)


def score_volume(
    hu: NDArray[np.float32],
    vessel_map: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    profile: ScoringProfile,
    *,
    kvp: float | None = None,
    calibration_mg_per_hu_mm3: float | None = None,
) -> CalciumScore:
    """Score a volume under a vessel map.

    Parameters
    ----------
    hu
        Hounsfield units, shape (slices, rows, columns), axial.
    vessel_map
        Same shape; 0 outside calcium, 1 to 4 in the order of `Vessel` (LM, LAD, LCX, RCA), 5
        (`VESSEL_UNKNOWN`) for coronary calcium of no told vessel, which counts in the total.
    spacing_mm
        (slice increment, row, column) in mm. Overlapping slices count by increment.
    profile
        Thresholds and minimum sizes. A lesion belongs to the vessel of most of its voxels.
    kvp
        Tube voltage in kV, for profiles that adapt their threshold.
    calibration_mg_per_hu_mm3
        Calibration factor of the mass score; None gives no mass.

    Raises
    ------
    ValueError
        If the shapes differ or the map holds another value.
    UsageError
        As `ScoringProfile.threshold_at`.
    """
    if hu.shape != vessel_map.shape or hu.ndim != 3:
        raise ValueError(f"hu {hu.shape} and vessel_map {vessel_map.shape} must be one 3-D shape")
    box = _bounding_box(vessel_map)
    if box is None:
        return _score_of((), 0.0, 0.0, calibration_mg_per_hu_mm3)
    offset = box[0].start
    hu, vessel_map = hu[box], vessel_map[box]
    highest = int(vessel_map.max())
    if highest > VESSEL_UNKNOWN:
        raise ValueError(f"vessel_map may hold 0 to {VESSEL_UNKNOWN}")
    if highest == VESSEL_UNKNOWN:
        # Which voxels make a lesion does not depend on the vessel: one label leaves the total.
        vessel_map = (vessel_map > 0).astype(np.uint8)
    threshold_hu = profile.threshold_at(kvp)
    is_over = hu >= threshold_hu if profile.is_inclusive else hu > threshold_hu
    is_over &= vessel_map > 0
    voxels = np.unravel_index(np.flatnonzero(is_over), is_over.shape)
    if voxels[0].size == 0:
        return _score_of((), 0.0, 0.0, calibration_mg_per_hu_mm3)
    # Everything per lesion in one pass over the lesion voxels alone.
    label, n_labels = _labels_of(is_over, voxels, profile.connectivity)
    values = hu[voxels].astype(np.float64)
    n_pixels = np.bincount(label, minlength=n_labels)
    peak = np.full(n_labels, -np.inf)
    np.maximum.at(peak, label, values)
    ballots = label * len(_VESSELS) + vessel_map[voxels] - 1
    votes = np.bincount(ballots, minlength=n_labels * len(_VESSELS)).reshape(n_labels, -1)
    slice_index = np.zeros(n_labels, dtype=np.int64)
    slice_index[label] = voxels[0]
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    area_mm2 = n_pixels * pixel_mm2
    # A tolerance of one part in 10^9: 0.5 x 0.5 mm pixels make exactly 1 mm2 of four.
    is_kept = (area_mm2 >= profile.minimum_area_mm2 * (1 - 1e-9)) & (
        n_pixels >= profile.minimum_pixels
    )
    factor = _density_factor(peak, threshold_hu)
    scale = spacing_mm[0] / _REFERENCE_INCREMENT_MM if profile.is_thickness_scaled else 1.0
    lesions = tuple(
        Lesion(
            slice_index=int(slice_index[i]) + offset,
            vessel=None if highest == VESSEL_UNKNOWN else _VESSELS[int(votes[i].argmax())],
            area_mm2=float(area_mm2[i]),
            peak_hu=float(peak[i]),
            factor=int(factor[i]),
            score=float(area_mm2[i] * factor[i] * scale),
        )
        for i in np.flatnonzero(is_kept)
    )
    voxel_mm3 = pixel_mm2 * spacing_mm[0]
    is_kept_voxel = is_kept[label]
    return _score_of(
        lesions,
        float(is_kept_voxel.sum()) * voxel_mm3,
        float(values[is_kept_voxel].sum()) * voxel_mm3,
        calibration_mg_per_hu_mm3,
    )


def _score_of(
    lesions: tuple[Lesion, ...],
    volume_mm3: float,
    hu_mm3: float,
    calibration_mg_per_hu_mm3: float | None,
) -> CalciumScore:
    scores: dict[Vessel | None, float] = {
        vessel: sum(lesion.score for lesion in lesions if lesion.vessel is vessel)
        for vessel in (*_VESSELS, None)
    }
    is_vessel_told = all(lesion.vessel is not None for lesion in lesions)
    mass = None if calibration_mg_per_hu_mm3 is None else calibration_mg_per_hu_mm3 * hu_mm3
    return CalciumScore(
        total=float(sum(scores.values())),
        vessels={vessel: scores[vessel] for vessel in _VESSELS} if is_vessel_told else {},
        volume_mm3=volume_mm3,
        mass_mg=mass,
        lesions=lesions,
    )


def _density_factor(peak_hu: NDArray[np.float64], threshold_hu: float) -> NDArray[np.int64]:
    # 130-199 -> 1, 200-299 -> 2, 300-399 -> 3, >= 400 -> 4. An adapted threshold moves the edges
    # in proportion, so that a factor keeps its meaning in density.
    ratio = threshold_hu / _REFERENCE_THRESHOLD_HU
    edges = np.array(_FACTOR_EDGES_HU) * ratio
    return 1 + np.searchsorted(edges, peak_hu, side="right").astype(np.int64)


def _labels_of(
    is_over: NDArray[np.bool_], voxels: tuple[NDArray[np.intp], ...], connectivity: int
) -> tuple[NDArray[np.intp], int]:
    """Label lesions, and return the label (from 0) of each voxel, and how many there are."""
    # Labelling visits every voxel of its box, so the box is drawn around the candidates anew.
    first = [int(index.min()) for index in voxels]
    box = tuple(slice(low, int(index.max()) + 1) for low, index in zip(first, voxels, strict=True))
    labels, n_labels = ndimage.label(is_over[box], _structure(connectivity))
    inside = tuple(index - low for low, index in zip(first, voxels, strict=True))
    return labels[inside].astype(np.intp) - 1, n_labels


def _structure(connectivity: int) -> NDArray[np.bool_]:
    # Only the middle plane is connected: one call labels every slice at once.
    structure = np.zeros((3, 3, 3), dtype=np.bool_)
    structure[1] = True if connectivity == 8 else ndimage.generate_binary_structure(2, 1)
    return structure


def _bounding_box(vessel_map: NDArray[np.uint8]) -> tuple[slice, slice, slice] | None:
    # A maximum of bytes runs in vector instructions; `any` would first make every byte a Boolean.
    slices = np.flatnonzero(vessel_map.max(axis=(1, 2), initial=0))
    if slices.size == 0:
        return None
    first, last = int(slices[0]), int(slices[-1]) + 1
    plane = vessel_map[first:last].max(axis=0)
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    return (
        slice(first, last),
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )
