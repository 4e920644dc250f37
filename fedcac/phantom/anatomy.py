"""A virtual patient's thorax at the heart, painted slice by slice from simple shapes.

Positions are (x, y, s) in mm as in `fedcac.phantom.grid`. The shapes are not anatomy to learn
from; they give the network what a calcium detector must tell apart: fat around vessels, blood,
bone, lung, aortic wall.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedcac.phantom.grid import Grid
from fedcac.phantom.plaques import path_points
from fedcac.vocabulary import Vessel

__all__ = [
    "EPICARDIAL_FAT_MM",
    "HEART_ANGLE",
    "HEART_FAT_MM",
    "Anatomy",
    "paint_anatomy",
    "sample_anatomy",
]

LUNG_HU, FAT_HU, MUSCLE_HU, BLOOD_HU = -860.0, -95.0, 50.0, 42.0
CANCELLOUS_HU, CORTICAL_HU = 170.0, 550.0

EPICARDIAL_FAT_MM = 5.5
"""Radius of the fat around every coronary path."""

HEART_FAT_MM, _HEART_MM = (58.0, 50.0), (50.0, 42.0)
"""Half axes, where the heart is widest, of the ellipse of fat and of the blood within it."""

HEART_ANGLE = -0.5
"""Turn of both ellipses in their plane, in radians."""

# Control points (x, y, s) of the coronary paths of an average heart, proximal first.
_PATHS_MM: dict[Vessel, list[tuple[float, float, float]]] = {
    Vessel.LM: [(3, -20, 24), (10, -25, 26), (17, -27, 28)],
    Vessel.LAD: [(17, -27, 28), (26, -42, 36), (33, -52, 50), (39, -55, 68), (44, -52, 86)],
    Vessel.LCX: [(17, -27, 28), (31, -21, 34), (43, -6, 46), (47, 9, 62), (44, 21, 78)],
    Vessel.RCA: [(-13, -28, 26), (-27, -36, 34), (-38, -28, 50), (-36, -8, 66), (-22, 12, 80)],
}


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One patient: size and place of the organs, and the coronary paths (n, 3) in mm."""

    scale: float
    shift_mm: NDArray[np.float64]
    ribs_mm: NDArray[np.float64]
    fat_hu: float
    bone_gain: float
    paths_mm: dict[Vessel, NDArray[np.float64]] = field(repr=False)

    @property
    def aorta_mm(self) -> tuple[NDArray[np.float64], float]:
        """Centre (x, y) and radius of the ascending aorta."""
        return np.array([-6.0, -18.0]) * self.scale + self.shift_mm[:2], 15.0 * self.scale

    @property
    def descending_aorta_mm(self) -> tuple[NDArray[np.float64], float]:
        """Centre (x, y) and radius of the descending aorta."""
        return np.array([22.0, 50.0]) * self.scale + self.shift_mm[:2], 11.5 * self.scale

    def heart_at(self, s_mm: float) -> tuple[NDArray[np.float64], float]:
        """Centre (x, y) of the heart in the plane at s, and its size there, 1 where it is widest.

        Wide in the middle, narrow at the base and the apex.
        """
        depth = np.clip((s_mm - self.shift_mm[2]) / 96.0, 0.0, 1.0)
        girth = float(np.sin(np.pi * np.clip(0.28 + 0.62 * depth, 0, 1)) ** 0.6) * self.scale
        centre = np.array([8.0 + 10.0 * depth, -12.0 + 4.0 * depth]) * self.scale
        return centre + self.shift_mm[:2], girth


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient."""
    scale = rng.uniform(0.9, 1.12)
    shift_mm = rng.normal(0.0, [4.0, 4.0, 2.0])
    paths = {}
    for vessel, points in _PATHS_MM.items():
        control = np.array(points, dtype=np.float64)
        wobble = rng.normal(0.0, 1.5, control.shape)
        wobble[0] *= 0.3
        control = (control + wobble) * np.array([scale, scale, 1.0]) + shift_mm
        paths[vessel] = path_points(control, np.linspace(0.0, 1.0, 60))
    angles = rng.uniform(0.0, 2 * np.pi, 10)
    ribs = np.stack(
        [
            101 * np.cos(angles),
            95 * np.sin(angles),
            rng.uniform(0, 96, 10),
            rng.uniform(0, np.pi, 10),
        ],
        axis=1,
    )
    return Anatomy(
        scale=scale,
        shift_mm=shift_mm,
        ribs_mm=ribs,
        fat_hu=FAT_HU + rng.normal(0, 6),
        bone_gain=rng.uniform(0.7, 1.2),
        paths_mm=paths,
    )


def paint_anatomy(grid: Grid, anatomy: Anatomy) -> NDArray[np.float32]:
    """Return the noise-free Hounsfield units of a patient; float32 of the grid's shape."""
    axis = grid.axis_mm()
    x, y = axis[None, :], axis[:, None]
    hu = np.empty(grid.shape, dtype=np.float32)
    for index, s in enumerate(grid.slices_mm()):
        hu[index] = _paint_slice(anatomy, x, y, float(s))
    _paint_vessels(hu, grid, anatomy)
    return hu


def _inside(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    centre: NDArray[np.float64] | tuple[float, float],
    radii: tuple[float, float],
    angle: float = 0.0,
) -> NDArray[np.float32]:
    # Soft-edged (about one pixel) membership 0..1 of an ellipse, so that edges are not stairs.
    dx, dy = x - float(centre[0]), y - float(centre[1])
    u = dx * np.float32(np.cos(angle)) + dy * np.float32(np.sin(angle))
    v = dy * np.float32(np.cos(angle)) - dx * np.float32(np.sin(angle))
    radius = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2)
    edge = (1.0 - radius) * min(radii) / 1.2 + 0.5
    clipped: NDArray[np.float32] = np.clip(edge, 0.0, 1.0).astype(np.float32)
    return clipped


def _blend(hu: NDArray[np.float32], inside: NDArray[np.float32], value: float) -> None:
    hu += inside * (value - hu)


def _paint_slice(
    anatomy: Anatomy, x: NDArray[np.float32], y: NDArray[np.float32], s: float
) -> NDArray[np.float32]:
    k, shift = anatomy.scale, anatomy.shift_mm
    hu = np.full((y.shape[0], x.shape[1]), MUSCLE_HU, dtype=np.float32)
    _blend(hu, _inside(x, y, (0, 0), (108, 92)), anatomy.fat_hu)
    _blend(hu, _inside(x, y, (0, 0), (101, 84)), MUSCLE_HU)
    for side in (-1.0, 1.0):
        _blend(hu, _inside(x, y, (52 * side, 8), (46, 76)), LUNG_HU)
    _paint_bones(hu, anatomy, x, y, s)
    centre, girth = anatomy.heart_at(s)
    fat_mm, heart_mm = ((a * girth, b * girth) for a, b in (HEART_FAT_MM, _HEART_MM))
    _blend(hu, _inside(x, y, centre, fat_mm, HEART_ANGLE), anatomy.fat_hu)
    _blend(hu, _inside(x, y, (0, 38), (34, 30)), anatomy.fat_hu)
    _blend(hu, _inside(x, y, centre, heart_mm, HEART_ANGLE), BLOOD_HU)
    _blend(hu, _inside(x, y, (8 + shift[0], 30), (7, 5)), MUSCLE_HU)
    if s < 44:
        aorta, radius = anatomy.aorta_mm
        _blend(hu, _inside(x, y, aorta, (radius + 3, radius + 3)), anatomy.fat_hu)
        _blend(hu, _inside(x, y, aorta, (radius, radius)), BLOOD_HU + 4)
        trunk = aorta + np.array([20.0, -14.0]) * k
        _blend(hu, _inside(x, y, trunk, (12 * k, 11 * k)), BLOOD_HU)
    descending, radius = anatomy.descending_aorta_mm
    _blend(hu, _inside(x, y, descending, (radius, radius)), BLOOD_HU + 4)
    return hu


def _paint_bones(
    hu: NDArray[np.float32],
    anatomy: Anatomy,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    s: float,
) -> None:
    gain = anatomy.bone_gain
    # A vertebra with its disc: dense cortex, spongy core, weaker every 28 mm where the disc is.
    is_disc = (s % 28.0) < 6.0
    core, cortex = (90.0, 110.0) if is_disc else (CANCELLOUS_HU * gain, CORTICAL_HU * gain)
    _blend(hu, _inside(x, y, (0, 74), (19, 16)), cortex)
    _blend(hu, _inside(x, y, (0, 74), (17, 14)), core)
    for side in (-1.0, 1.0):
        _blend(hu, _inside(x, y, (18 * side, 90), (9, 4), 0.4 * side), cortex * 0.8)
    _blend(hu, _inside(x, y, (0, -80), (17, 6)), CORTICAL_HU * 0.6 * gain)
    _blend(hu, _inside(x, y, (0, -80), (15, 4.2)), CANCELLOUS_HU * 0.8 * gain)
    for rib_x, rib_y, rib_s, angle in anatomy.ribs_mm:
        if abs(s - rib_s) < 12:
            at = (rib_x * 0.94, rib_y * 0.86)
            _blend(hu, _inside(x, y, at, (13, 5), angle), CORTICAL_HU * gain)
            _blend(hu, _inside(x, y, at, (11, 3), angle), CANCELLOUS_HU * gain)


def _paint_vessels(hu: NDArray[np.float32], grid: Grid, anatomy: Anatomy) -> None:
    # Fat first along every path, then blood: a vessel never hides under another's fat.
    for radius_mm, value in ((EPICARDIAL_FAT_MM, anatomy.fat_hu), (1.7, BLOOD_HU)):
        reach = int(np.ceil(radius_mm / grid.pixel_mm)) + 1
        for path in anatomy.paths_mm.values():
            for point in path:
                _stamp(hu, grid, point, radius_mm, reach, value)


def _stamp(
    hu: NDArray[np.float32],
    grid: Grid,
    point_mm: NDArray[np.float64],
    radius_mm: float,
    reach: int,
    value: float,
) -> None:
    centre = (grid.matrix - 1) / 2
    column, row = point_mm[0] / grid.pixel_mm + centre, point_mm[1] / grid.pixel_mm + centre
    index = int(point_mm[2] // grid.increment_mm)
    top, left = int(row) - reach, int(column) - reach
    size = 2 * reach + 1
    if not 0 <= index < grid.n_slices or min(top, left) < 0:
        return
    if max(top, left) + size > grid.matrix:
        return
    rows = (np.arange(top, top + size) - row)[:, None]
    columns = (np.arange(left, left + size) - column)[None]
    distance = np.sqrt(rows**2 + columns**2) * grid.pixel_mm
    inside = np.clip((radius_mm - distance) / grid.pixel_mm + 0.5, 0.0, 1.0).astype(np.float32)
    patch = hu[index, top : top + size, left : left + size]
    patch += inside * (value - patch)
