"""The 20 numbers of a non-gated exam that the second stage of Eng et al. 2021 reads.

npj Digital Medicine 4:88, Methods, 'Algorithm': each axial slice is summed up by four numbers
(predicted calcified area, peak attenuation within it, areas of its lesions weighted by their peak
attenuation, number of lesions); the five slices with most predicted area are put end to end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["FEATURE_NAMES", "N_SLICES", "summarise_exam"]

N_SLICES = 5
"""Slices that are looked at."""

_SLICE_FEATURES = ("area_mm2", "peak_hu", "weighted_area_mm2_hu", "n_lesions")
_N_VESSELS = 4

FEATURE_NAMES: tuple[str, ...] = tuple(
    f"slice_{rank}_{name}" for rank in range(1, N_SLICES + 1) for name in _SLICE_FEATURES
)
"""Names of the features in their order; slice 1 is the one of largest area.

- `slice_K_area_mm2`: area of all voxels of the mask in the slice, mm2.
- `slice_K_peak_hu`: largest attenuation of these voxels, HU.
- `slice_K_weighted_area_mm2_hu`: sum over the slice's lesions of area x the lesion's own peak,
  mm2 x HU.
- `slice_K_n_lesions`: lesions of the slice, 8-connected in the plane, a count.
"""


def summarise_exam(
    hu: NDArray[np.float32],
    vessel_map: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.float64]:
    """Return the features of one exam in the order of `FEATURE_NAMES`, shape (20,).

    An exam without calcium is 20 zeros; slices that lack up to the fifth are zeros. Moving the
    volume and its mask together by whole voxels, or turning the order of the slices round, changes
    nothing.

    Parameters
    ----------
    hu
        Hounsfield units, shape (slices, rows, columns), axial.
    vessel_map
        Same shape: the first stage's mask, 0 outside calcium, 1 to 4 in the order of `Vessel`.
        Every voxel of it counts, so a mask that was cut at 130 HU (as `InferenceEngine` cuts it)
        gives areas over 130 HU.
    spacing_mm
        (slice increment, row, column) in mm. The increment is not used: a slice's features are
        those of that slice, and the trees hold for the increment they were fitted on.

    Raises
    ------
    ValueError
        If the shapes differ, the map holds another value, a spacing is not positive, or a voxel of
        the mask has no finite attenuation.

    Notes
    -----
    Ambiguities of the paper, and what is taken: whether the predicted area is cut at 130 HU, as a
    gated score's is, is left to the mask (calcium that partial volume pulls under 130 HU in thick
    slices is lost to a cut mask, and no tree can bring it back); the unit of area is not said (mm2,
    so that pixel sizes compare); 'maximum intensity' weights an area by HU, not by the density
    factor of 1 to 4; lesions are those of the first stage (8-connectivity) whatever their vessel
    and without a minimum area; 'highest predicted areas' says nothing of ties (the larger weighted
    area, then peak, then number of lesions goes first, so slices still tied are alike) nor of exams
    with fewer than five such slices (zeros). Probabilities enter through the mask alone.
    """
    if hu.shape != vessel_map.shape or hu.ndim != 3:
        raise ValueError(f"hu {hu.shape} and vessel_map {vessel_map.shape} must be one 3-D shape")
    if not min(spacing_mm) > 0:
        raise ValueError("spacing_mm must be positive")
    features = np.zeros((N_SLICES, len(_SLICE_FEATURES)))
    slices = np.flatnonzero(np.any(vessel_map, axis=(1, 2)))
    if slices.size == 0:
        return features.ravel()
    if int(vessel_map.max()) > _N_VESSELS:
        raise ValueError(f"vessel_map may hold 0 to {_N_VESSELS}")
    summaries = _summarise_slices(hu[slices], vessel_map[slices] > 0)
    summaries[:, [0, 2]] *= spacing_mm[1] * spacing_mm[2]
    # lexsort: the last key leads.
    area, peak, weighted, n_lesions = summaries.T
    order = np.lexsort((-n_lesions, -peak, -weighted, -area))[:N_SLICES]
    features[: order.size] = summaries[order]
    return features.ravel()


def _summarise_slices(hu: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (n_slices, 4) features with areas in pixels; every slice of `mask` holds a voxel."""
    rows = _span(np.flatnonzero(mask.any(axis=(0, 2))))
    columns = _span(np.flatnonzero(mask.any(axis=(0, 1))))
    hu, mask = hu[:, rows, columns], mask[:, rows, columns]
    # Only the middle plane is connected: one call labels every slice at once.
    structure = np.zeros((3, 3, 3), dtype=np.bool_)
    structure[1] = True
    labels, n_lesions = ndimage.label(mask, structure)
    flat = np.flatnonzero(mask)
    values = hu.ravel()[flat].astype(np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError("a voxel of the mask has no finite attenuation")
    lesion = labels.ravel()[flat] - 1
    slice_index = flat // (mask.shape[1] * mask.shape[2])
    lesion_peak = np.full(n_lesions, -np.inf)
    np.maximum.at(lesion_peak, lesion, values)
    lesion_slice = np.zeros(n_lesions, dtype=np.int64)
    lesion_slice[lesion] = slice_index
    lesion_area = np.bincount(lesion, minlength=n_lesions)
    n_slices = len(mask)
    peak = np.full(n_slices, -np.inf)
    np.maximum.at(peak, lesion_slice, lesion_peak)
    return np.stack(
        [
            np.bincount(slice_index, minlength=n_slices),
            peak,
            np.bincount(lesion_slice, weights=lesion_area * lesion_peak, minlength=n_slices),
            np.bincount(lesion_slice, minlength=n_slices),
        ],
        axis=1,
    ).astype(np.float64)


def _span(held: NDArray[np.int64]) -> slice:
    return slice(int(held[0]), int(held[-1]) + 1)
