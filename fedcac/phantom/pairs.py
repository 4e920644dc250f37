"""Generated exam pairs: a gated and a non-gated exam of one virtual patient with known truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedcac.phantom.anatomy import Anatomy, paint_anatomy, sample_anatomy
from fedcac.phantom.grid import GATED, NON_GATED, Grid, PhantomExam, PhantomPair
from fedcac.phantom.plaques import Plaque, coronary_plaques, move_points, splat_plaques
from fedcac.scoring import profile_named, score_volume
from fedcac.vocabulary import VESSEL_LABELS, Vessel

__all__ = [
    "LEAST_PLAQUE_HU",
    "draw_target_score",
    "finish_exam",
    "generate_pair",
    "other_calcium",
    "pair_of",
]

_THRESHOLD_HU = 130.0

LEAST_PLAQUE_HU = 30.0
"""A voxel is calcium only if plaque, not bone beside it, lifts it over the threshold."""


def draw_target_score(rng: np.random.Generator) -> float:
    """Draw a patient's calcium burden: 30 % none, otherwise log-normal over all risk categories."""
    if rng.random() < 0.3:
        return 0.0
    return float(np.clip(rng.lognormal(np.log(90.0), 2.0), 2.0, 3500.0))


def generate_pair(rng: np.random.Generator, target_score: float | None = None) -> PhantomPair:
    """Return a fully synthetic pair. The same generator state gives the same pair.

    `target_score` asks for a burden near a score; None draws one from the population.
    """
    target = draw_target_score(rng) if target_score is None else target_score
    anatomy = sample_anatomy(rng)
    plaques = coronary_plaques(rng, anatomy.paths_mm, target)
    others = other_calcium(rng, anatomy)
    gated = finish_exam(rng, GATED, paint_anatomy(GATED, anatomy), plaques, others)
    moved = [move_points(rng, plaque) for plaque in plaques]
    background = paint_anatomy(NON_GATED, anatomy)
    non_gated = finish_exam(rng, NON_GATED, background, moved, others)
    return pair_of(gated, non_gated, plaques)


def pair_of(gated: PhantomExam, non_gated: PhantomExam, plaques: Sequence[Plaque]) -> PhantomPair:
    """Return the pair with its reference score and the mass placed."""
    reference = score_volume(
        gated.hu, gated.vessel_map, gated.spacing_mm, profile_named("agatston1990")
    )
    mass = dict.fromkeys(Vessel, 0.0)
    for plaque in plaques:
        if plaque.vessel is not None:
            mass[plaque.vessel] += float(plaque.mass_mg.sum())
    return PhantomPair(gated=gated, non_gated=non_gated, mass_mg=mass, reference=reference)


def finish_exam(
    rng: np.random.Generator,
    grid: Grid,
    background_hu: NDArray[np.float32],
    plaques: Sequence[Plaque],
    others: Sequence[Plaque],
    *,
    blur_mm: float = 0.55,
) -> PhantomExam:
    """Put calcium and noise into a background, and record which voxels are coronary calcium.

    `blur_mm` softens painted edges as a reconstruction would; 0 for a real background.
    """
    hu = background_hu
    if blur_mm:
        sigma = blur_mm / grid.pixel_mm
        hu = ndimage.gaussian_filter(hu, (0.0, sigma, sigma), truncate=2.5)
    hu = hu + splat_plaques(grid, others)
    added = {
        vessel: splat_plaques(grid, [plaque for plaque in plaques if plaque.vessel is vessel])
        for vessel in {plaque.vessel for plaque in plaques if plaque.vessel is not None}
    }
    vessel_map = np.zeros(grid.shape, dtype=np.uint8)
    strongest = np.full(grid.shape, LEAST_PLAQUE_HU, dtype=np.float32)
    for plaque_hu in added.values():
        hu += plaque_hu
    for vessel, plaque_hu in added.items():
        is_strongest = plaque_hu > strongest
        vessel_map[is_strongest] = VESSEL_LABELS[vessel]
        strongest = np.maximum(strongest, plaque_hu)
    vessel_map[hu < _THRESHOLD_HU] = 0
    hu = hu + _noise(rng, grid)
    return PhantomExam(
        hu=np.clip(np.rint(hu), -1024, 3071).astype(np.float32),
        vessel_map=vessel_map,
        spacing_mm=grid.spacing_mm,
        slice_thickness_mm=grid.increment_mm,
    )


def _noise(rng: np.random.Generator, grid: Grid) -> NDArray[np.float32]:
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(white, (0.0, 0.8, 0.8), truncate=2.5)
    level = grid.noise_hu * rng.uniform(0.7, 1.3)
    scaled: NDArray[np.float32] = noise * np.float32(level / noise.std())
    return scaled


def other_calcium(rng: np.random.Generator, anatomy: Anatomy) -> list[Plaque]:
    """Return calcium that is not coronary: aortic wall, aortic valve, mitral annulus, a lead."""
    found: list[Plaque] = []
    for centre, radius in (anatomy.aorta_mm, anatomy.descending_aorta_mm):
        for _ in range(int(rng.poisson(0.9))):
            angle = rng.uniform(0, 2 * np.pi)
            wall = centre + radius * np.array([np.cos(angle), np.sin(angle)])
            found.append(_spot(rng, np.array([*wall, rng.uniform(0, 42)]), 9.0, 1.5))
    valve = np.array([*(anatomy.aorta_mm[0] + np.array([8.0, 6.0])), 44.0])
    if rng.random() < 0.2:
        found.append(_spot(rng, valve + rng.normal(0, 3, 3), 12.0, 2.0))
    if rng.random() < 0.15:
        annulus = valve + np.array([20.0, 18.0, 14.0]) + rng.normal(0, 3, 3)
        found.append(_spot(rng, annulus, 20.0, 2.5))
    if rng.random() < 0.04:
        # A pacing lead through the right heart: thin, long, very dense.
        start = np.array([*(anatomy.shift_mm[:2] + np.array([-30.0, 0.0])), 0.0])
        end = start + np.array([38.0, -12.0, 90.0])
        points = start + (end - start) * np.linspace(0, 1, 240)[:, None]
        found.append(Plaque(points, np.full(240, 0.9), None))
    return found


def _spot(
    rng: np.random.Generator, centre_mm: NDArray[np.float64], mean_mg: float, spread_mm: float
) -> Plaque:
    mass_mg = rng.lognormal(np.log(mean_mg), 0.6)
    points = centre_mm + rng.normal(0, spread_mm, (60, 3)) * np.array([1.0, 1.0, 0.8])
    return Plaque(points, np.full(60, mass_mg / 60), None)
