"""Generated exams with everything the recipes learn from: vessels, other calcium, the heart.

Not patients: what is trained on them is for trying the software.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedcac.models.blocks import THRESHOLD_HU
from fedcac.phantom.anatomy import (
    EPICARDIAL_FAT_MM,
    HEART_ANGLE,
    HEART_FAT_MM,
    Anatomy,
    paint_anatomy,
    sample_anatomy,
)
from fedcac.phantom.grid import Grid
from fedcac.phantom.pairs import LEAST_PLAQUE_HU, draw_target_score, finish_exam, other_calcium
from fedcac.phantom.plaques import coronary_plaques, move_points, splat_plaques
from fedcac.scoring import profile_named, score_volume
from fedcac.training.exams import TrainingExam

__all__ = ["generate_exam", "generate_radiograph", "heart_map"]

_WATER_PER_MM = 0.02
"""Attenuation of water at a chest radiograph's mean energy, per mm."""


def generate_exam(rng: np.random.Generator, grid: Grid, *, is_moving: bool) -> TrainingExam:
    """Return a generated exam on a grid. The same generator state gives the same exam.

    `is_moving` smears plaques along their vessel's motion, as in an exam without gating.
    """
    target = draw_target_score(rng)
    anatomy = sample_anatomy(rng)
    plaques = coronary_plaques(rng, anatomy.paths_mm, target)
    others = other_calcium(rng, anatomy)
    if is_moving:
        plaques = [move_points(rng, plaque) for plaque in plaques]
    exam = finish_exam(rng, grid, paint_anatomy(grid, anatomy), plaques, others)
    is_other = splat_plaques(grid, others) > LEAST_PLAQUE_HU
    is_other &= (exam.hu >= THRESHOLD_HU) & (exam.vessel_map == 0)
    return TrainingExam(
        hu=exam.hu,
        vessel_map=exam.vessel_map,
        spacing_mm=exam.spacing_mm,
        non_coronary_map=is_other.astype(np.uint8),
        heart_map=heart_map(grid, anatomy),
    )


def heart_map(grid: Grid, anatomy: Anatomy) -> NDArray[np.uint8]:
    """Return the heart with its epicardial fat, uint8 of the grid's shape.

    The silhouette is the ellipse of fat that `paint_anatomy` fills with the heart, and the fat
    around the coronary paths, in which every coronary plaque lies.
    """
    axis = grid.axis_mm()
    x, y = axis[None, :], axis[:, None]
    found = np.zeros(grid.shape, dtype=np.uint8)
    width_mm, height_mm = HEART_FAT_MM
    for index, s in enumerate(grid.slices_mm()):
        centre, girth = anatomy.heart_at(float(s))
        dx, dy = x - centre[0], y - centre[1]
        u = dx * np.cos(HEART_ANGLE) + dy * np.sin(HEART_ANGLE)
        v = dy * np.cos(HEART_ANGLE) - dx * np.sin(HEART_ANGLE)
        found[index] = (u / (width_mm * girth)) ** 2 + (v / (height_mm * girth)) ** 2 <= 1
        for path in anatomy.paths_mm.values():
            near = path[np.abs(path[:, 2] - s) <= grid.increment_mm / 2 + EPICARDIAL_FAT_MM]
            for point in near:
                is_fat = (x - point[0]) ** 2 + (y - point[1]) ** 2 <= EPICARDIAL_FAT_MM**2
                found[index] |= is_fat.astype(np.uint8)
    return found


def generate_radiograph(rng: np.random.Generator, grid: Grid) -> tuple[NDArray[np.float32], float]:
    """Return a projection from front to back of a generated gated exam, and the exam's score.

    The image is (slices, columns), the line integral of attenuation in parallel beams, which rises
    with attenuation; its pixels are (slice increment, column spacing) in size. It shows the part of
    the thorax that the exam covers and is no chest radiograph. The score is Agatston's under the
    true map.
    """
    exam = generate_exam(rng, grid, is_moving=False)
    attenuation = np.clip(1 + exam.hu / 1000.0, 0, None).sum(axis=1, dtype=np.float64)
    image = (attenuation * exam.spacing_mm[1] * _WATER_PER_MM).astype(np.float32)
    profile = profile_named("agatston1990")
    return image, score_volume(exam.hu, exam.vessel_map, exam.spacing_mm, profile).total
