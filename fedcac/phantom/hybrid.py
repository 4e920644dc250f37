"""Hybrid pairs: plaques of known mass in a real chest CT (attribution in data/ATTRIBUTION.md).

The heart region of one real series is cut out at its native resolution, and plaques are splatted
along coronary paths that were marked by hand in its fat grooves. The non-gated exam keeps the
series' own 5 mm slices; the gated-like one interpolates them to 3 mm.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcac.imaging import load_volume
from fedcac.phantom.grid import Grid, PhantomPair
from fedcac.phantom.pairs import draw_target_score, finish_exam, pair_of
from fedcac.phantom.plaques import coronary_plaques, move_points, path_points
from fedcac.protocol import ImageCriteria
from fedcac.vocabulary import Vessel

__all__ = ["chest_ct_folder", "generate_hybrid_pair"]

_PIXEL_MM = 0.841796875
_MATRIX = 256
_FIRST_SLICE, _N_SLICES = 29, 20
_TOP, _LEFT = 145, 147  # of the cut-out, in pixels of the series

# Added to the series' own noise, so that no two exams share it.
_EXTRA_NOISE_HU = 7.0
_NON_GATED = Grid(_N_SLICES, _MATRIX, _PIXEL_MM, 5.0, psf_sigma_mm=0.7, noise_hu=_EXTRA_NOISE_HU)
_GATED = Grid(33, _MATRIX, _PIXEL_MM, 3.0, psf_sigma_mm=0.6, noise_hu=_EXTRA_NOISE_HU)

# Control points (column, row, slice) of the coronary paths in the series, marked by hand.
_PATHS: dict[Vessel, list[tuple[float, float, float]]] = {
    Vessel.LM: [(285, 238, 32.0), (300, 243, 32.5), (308, 248, 33.0)],
    Vessel.LAD: [
        (308, 248, 33.0),
        (325, 240, 35.0),
        (333, 225, 37.5),
        (338, 205, 40.0),
        (338, 195, 43.0),
    ],
    Vessel.LCX: [
        (308, 248, 33.0),
        (325, 262, 34.0),
        (330, 275, 35.5),
        (322, 285, 37.0),
        (315, 290, 39.0),
    ],
    Vessel.RCA: [
        (262, 218, 33.0),
        (255, 215, 35.0),
        (248, 225, 37.5),
        (245, 240, 40.0),
        (240, 262, 43.0),
    ],
}

# The heart in the series: centre (column, row) and radii in pixels.
_HEART = ((288.0, 238.0), (64.0, 74.0))
_CALCIUM_HU, _BLOOD_HU = 130.0, 45.0


def chest_ct_folder() -> Path:
    """Return the folder of the real chest CT series that ships with this release."""
    return Path(__file__).parent / "data" / "lung-pet-ct-dx-a0001"


@lru_cache(maxsize=1)
def _series_hu() -> NDArray[np.float32]:
    hu = load_volume(chest_ct_folder(), ImageCriteria()).hu.copy()
    # The patient's own calcium would be unknown truth: within the heart it becomes blood.
    (column, row), (half_width, half_height) = _HEART
    rows, columns = np.mgrid[0 : hu.shape[1], 0 : hu.shape[2]]
    is_heart = ((columns - column) / half_width) ** 2 + ((rows - row) / half_height) ** 2 < 1
    region = hu[_FIRST_SLICE : _FIRST_SLICE + _N_SLICES]
    region[is_heart[None] & (region > _CALCIUM_HU)] = _BLOOD_HU
    hu.setflags(write=False)
    return hu


def generate_hybrid_pair(
    rng: np.random.Generator, target_score: float | None = None
) -> PhantomPair:
    """Return a pair with real anatomy and known calcium. The same state gives the same pair."""
    target = draw_target_score(rng) if target_score is None else target_score
    down, right = (int(step) for step in rng.integers(-14, 15, 2))
    top, left = _TOP + down, _LEFT + right
    hu = _series_hu()[
        _FIRST_SLICE : _FIRST_SLICE + _N_SLICES, top : top + _MATRIX, left : left + _MATRIX
    ]
    hu = hu + np.float32(rng.normal(0, 3))
    centre = (_MATRIX - 1) / 2
    paths = {}
    for vessel, points in _PATHS.items():
        control = np.array(points) + rng.normal(0, 1.2, (len(points), 3)) * [1, 1, 0.2]
        millimetres = np.stack(
            [
                (control[:, 0] - left - centre) * _PIXEL_MM,
                (control[:, 1] - top - centre) * _PIXEL_MM,
                (control[:, 2] - _FIRST_SLICE + 0.5) * _NON_GATED.increment_mm,
            ],
            axis=1,
        )
        paths[vessel] = path_points(millimetres, np.linspace(0, 1, 60))
    plaques = coronary_plaques(rng, paths, target)
    gated = finish_exam(rng, _GATED, _resample(hu), plaques, [], blur_mm=0.0)
    moved = [move_points(rng, plaque) for plaque in plaques]
    non_gated = finish_exam(rng, _NON_GATED, hu, moved, [], blur_mm=0.0)
    return pair_of(gated, non_gated, plaques)


def _resample(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    # Linear between slice centres; the outermost 3 mm slices lie inside the outermost 5 mm ones.
    position = _GATED.slices_mm() / _NON_GATED.increment_mm - 0.5
    position = np.clip(position, 0, hu.shape[0] - 1)
    lower = np.minimum(position.astype(np.int64), hu.shape[0] - 2)
    share = (position - lower)[:, None, None].astype(np.float32)
    resampled: NDArray[np.float32] = hu[lower] * (1 - share) + hu[lower + 1] * share
    return resampled
