"""Calcium as point clouds of exact mass, and their splatting onto a grid.

Each point carries a mass; an in-plane Gaussian point-spread function and a box slice profile turn
it into Hounsfield units with exact total mass and partial volume, without a fine grid.
HU = 1.25 x (mg hydroxyapatite / cm3) at 120 kVp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcac.phantom.grid import Grid
from fedcac.vocabulary import Vessel

__all__ = ["Plaque", "coronary_plaques", "move_points", "path_points", "splat_plaques"]

HU_MM3_PER_MG = 1250.0  # 1.25 HU per mg/cm3, in mm3

# Agatston units per mg, from the QRM insert (168 mg score 633): a start for the burden to place.
_SCORE_PER_MG = 3.8

# How far a vessel travels during the exposure of a non-gated exam, in mm.
MOTION_MM = {Vessel.LM: 2.0, Vessel.LAD: 3.0, Vessel.LCX: 5.0, Vessel.RCA: 8.0}
_MOTION_STEPS = 7

# Where calcium sits: proximal vessels first, as in patients.
_VESSEL_SHARES = {Vessel.LM: 0.1, Vessel.LAD: 0.42, Vessel.LCX: 0.2, Vessel.RCA: 0.28}


@dataclass(frozen=True, eq=False)
class Plaque:
    """Points of shape (n, 3) as (x, y, s) in mm, and the mass in mg of each, shape (n,).

    `vessel` is None for calcium that is not coronary.
    """

    points_mm: NDArray[np.float64]
    mass_mg: NDArray[np.float64]
    vessel: Vessel | None


def path_points(
    path_mm: NDArray[np.float64], fractions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the points at fractions 0..1 of a polyline's length; shape (n, 3)."""
    steps = np.linalg.norm(np.diff(path_mm, axis=0), axis=1)
    length = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.clip(fractions, 0.0, 1.0) * length[-1]
    return np.stack([np.interp(at, length, path_mm[:, axis]) for axis in range(3)], axis=1)


def coronary_plaques(
    rng: np.random.Generator,
    paths_mm: dict[Vessel, NDArray[np.float64]],
    target_score: float,
) -> list[Plaque]:
    """Return plaques along the coronary paths whose score comes near a target (0 gives none)."""
    remaining_mg = target_score / _SCORE_PER_MG
    plaques: list[Plaque] = []
    vessels = list(_VESSEL_SHARES)
    shares = np.array(list(_VESSEL_SHARES.values()))
    while remaining_mg > 0.05:
        vessel = vessels[int(rng.choice(len(vessels), p=shares))]
        path = paths_mm[vessel]
        path_mm = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
        density = rng.uniform(250.0, 900.0)  # mg/cm3
        radius_mm = rng.uniform(0.6, 1.7)
        mass_mg = min(remaining_mg, rng.lognormal(np.log(7.0), 0.9))
        length_mm = np.clip(mass_mg * 1000.0 / (density * np.pi * radius_mm**2), 1.0, path_mm * 0.6)
        centre = rng.beta(1.2, 2.2)
        n_points = int(np.clip(length_mm * radius_mm**2 * 8, 12, 160))
        fractions = centre + rng.uniform(-0.5, 0.5, n_points) * length_mm / path_mm
        offsets = rng.normal(0.0, radius_mm / 1.8, (n_points, 3))
        points = path_points(path, fractions) + offsets
        plaques.append(Plaque(points, np.full(n_points, mass_mg / n_points), vessel))
        remaining_mg -= mass_mg
    return plaques


def move_points(rng: np.random.Generator, plaque: Plaque) -> Plaque:
    """Return a plaque smeared along its vessel's motion arc, as a non-gated exam sees it."""
    if plaque.vessel is None:
        return plaque
    travel_mm = MOTION_MM[plaque.vessel] * rng.uniform(0.4, 1.0)
    angle = rng.uniform(0.0, 2 * np.pi)
    along = np.linspace(-0.5, 0.5, _MOTION_STEPS) * travel_mm
    bend = 0.15 * travel_mm * (np.linspace(-1.0, 1.0, _MOTION_STEPS) ** 2)
    arc = np.stack(
        [
            along * np.cos(angle) - bend * np.sin(angle),
            along * np.sin(angle) + bend * np.cos(angle),
            0.3 * along,
        ],
        axis=1,
    )
    points = (plaque.points_mm[:, None, :] + arc[None]).reshape(-1, 3)
    mass = np.repeat(plaque.mass_mg / _MOTION_STEPS, _MOTION_STEPS)
    return Plaque(points, mass, plaque.vessel)


def splat_plaques(grid: Grid, plaques: Sequence[Plaque]) -> NDArray[np.float32]:
    """Return the Hounsfield units that plaques add; float32 of the grid's shape.

    Mass is exact: the sum of the result times the voxel volume is 1250 HU mm3 per mg, but for
    points that lie outside the grid.
    """
    added = np.zeros(grid.shape, dtype=np.float32)
    if not plaques:
        return added
    points = np.concatenate([plaque.points_mm for plaque in plaques])
    mass = np.concatenate([plaque.mass_mg for plaque in plaques])
    centre = (grid.matrix - 1) / 2
    column = points[:, 0] / grid.pixel_mm + centre
    row = points[:, 1] / grid.pixel_mm + centre
    index = np.floor(points[:, 2] / grid.increment_mm).astype(np.int64)
    reach = int(np.ceil(3 * grid.psf_sigma_mm / grid.pixel_mm))
    is_inside = (
        (index >= 0)
        & (index < grid.n_slices)
        & (np.minimum(row, column) >= reach)
        & (np.maximum(row, column) <= grid.matrix - 1 - reach)
    )
    row, column = row[is_inside], column[is_inside]
    index, mass = index[is_inside], mass[is_inside]
    sigma = grid.psf_sigma_mm / grid.pixel_mm
    rows, row_weights = _kernel(row, reach, sigma)
    columns, column_weights = _kernel(column, reach, sigma)
    voxel_mm3 = grid.pixel_mm**2 * grid.increment_mm
    amount = mass * HU_MM3_PER_MG / voxel_mm3
    weights = amount[:, None, None] * row_weights[:, :, None] * column_weights[:, None, :]
    flat = (index[:, None, None] * grid.matrix + rows[:, :, None]) * grid.matrix
    flat = flat + columns[:, None, :]
    total = np.bincount(flat.ravel(), weights.ravel(), minlength=added.size)
    return total.reshape(grid.shape).astype(np.float32)


def _kernel(
    position: NDArray[np.float64], reach: int, sigma: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    nearest = np.rint(position).astype(np.int64)
    pixels = nearest[:, None] + np.arange(-reach, reach + 1)[None]
    weights = np.exp(-0.5 * ((pixels - position[:, None]) / sigma) ** 2)
    return pixels, weights / weights.sum(axis=1, keepdims=True)
