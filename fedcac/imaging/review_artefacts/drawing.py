"""Slices as pictures and marks as outlines: what the overlay page draws."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from fedcac.imaging.review_artefacts.content import Territory

__all__ = [
    "WINDOW_LEVEL_HU",
    "WINDOW_WIDTH_HU",
    "Crop",
    "Mark",
    "Outline",
    "crop_around",
    "marks_of",
    "outline",
    "outlines_of",
    "picture",
]

WINDOW_LEVEL_HU = 40.0
WINDOW_WIDTH_HU = 400.0
"""The usual soft tissue window: calcium over 240 HU is white, fat and lung are dark."""

_MARGIN_MM = 30.0
_LEAST_SIDE_MM = 130.0


@dataclass(frozen=True)
class Crop:
    """The part of every slice that is shown: pixels [top, bottom) x [left, right), and their size.

    Positions in a picture are millimetres from its upper left corner, so that pixels need not be
    square.
    """

    top: int
    bottom: int
    left: int
    right: int
    row_mm: float
    column_mm: float

    @property
    def width_mm(self) -> float:
        """Width in mm."""
        return (self.right - self.left) * self.column_mm

    @property
    def height_mm(self) -> float:
        """Height in mm."""
        return (self.bottom - self.top) * self.row_mm

    def of(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Return the cropped part of a slice."""
        return plane[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class Outline:
    """All voxels of a territory in one slice, as an SVG path in mm."""

    territory: Territory
    path: str


@dataclass(frozen=True)
class Mark:
    """One group of connected voxels of a territory in one slice: where its name stands, in mm.

    `right_mm` is its right edge, (`x_mm`, `y_mm`) the middle of the box around it.
    """

    territory: Territory
    right_mm: float
    x_mm: float
    y_mm: float
    n_pixels: int


def crop_around(vessel_map: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> Crop:
    """Return one crop for all slices: all marked voxels with the tissue around them.

    The whole slice where nothing is marked.
    """
    _, row_mm, column_mm = spacing_mm
    marked = vessel_map.max(axis=0) > 0
    if not marked.any():
        return Crop(0, marked.shape[0], 0, marked.shape[1], row_mm, column_mm)
    top, bottom = _range(marked.any(axis=1), row_mm)
    left, right = _range(marked.any(axis=0), column_mm)
    return Crop(top, bottom, left, right, row_mm, column_mm)


def _range(is_marked: NDArray[np.bool_], pixel_mm: float) -> tuple[int, int]:
    places = np.flatnonzero(is_marked)
    first, last = int(places[0]), int(places[-1]) + 1
    side = max((last - first) * pixel_mm + 2 * _MARGIN_MM, _LEAST_SIDE_MM) / pixel_mm
    low = max(0, round((first + last - side) / 2))
    return low, min(is_marked.size, round(low + side))


def picture(plane_hu: NDArray[np.float32]) -> str:
    """Return a slice in the soft tissue window as a PNG in a data URI, 8 bits, without metadata."""
    low = WINDOW_LEVEL_HU - WINDOW_WIDTH_HU / 2
    grey = np.clip((plane_hu - low) / WINDOW_WIDTH_HU, 0, 1) * 255
    buffer = io.BytesIO()
    Image.fromarray(np.rint(grey).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def outlines_of(
    labels: NDArray[np.uint8], territories: tuple[Territory, ...], crop: Crop
) -> list[Outline]:
    """Return the outline of every territory that is marked in a cropped slice."""
    return [
        Outline(territory, outline(labels == territory.label, crop.row_mm, crop.column_mm))
        for territory in territories
        if (labels == territory.label).any()
    ]


def marks_of(
    labels: NDArray[np.uint8], territories: tuple[Territory, ...], crop: Crop
) -> list[Mark]:
    """Return the groups of voxels of a cropped slice, the largest first."""
    marks = []
    for territory in territories:
        groups, n_groups = ndimage.label(labels == territory.label, np.ones((3, 3)))
        n_pixels = np.bincount(groups.ravel(), minlength=n_groups + 1)[1:]
        for (rows, columns), size in zip(ndimage.find_objects(groups), n_pixels, strict=True):
            marks.append(
                Mark(
                    territory=territory,
                    right_mm=columns.stop * crop.column_mm,
                    x_mm=(columns.start + columns.stop) / 2 * crop.column_mm,
                    y_mm=(rows.start + rows.stop) / 2 * crop.row_mm,
                    n_pixels=int(size),
                )
            )
    return sorted(marks, key=lambda mark: -mark.n_pixels)


def outline(mask: NDArray[np.bool_], row_mm: float, column_mm: float) -> str:
    """Return the edges between marked and unmarked pixels as an SVG path in mm.

    The path runs along pixel borders: what lies inside is exactly what was marked. Each straight
    run is one piece of it.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    pieces = []
    for row, start, stop in _runs(np.diff(padded, axis=0) != 0):
        x = (start - 1) * column_mm
        pieces.append(f"M{x:.2f} {row * row_mm:.2f}h{(stop - start) * column_mm:.2f}")
    for column, start, stop in _runs(np.diff(padded, axis=1).T != 0):
        y = (start - 1) * row_mm
        pieces.append(f"M{column * column_mm:.2f} {y:.2f}v{(stop - start) * row_mm:.2f}")
    return "".join(pieces)


def _runs(is_edge: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Return (line, start, stop) of every run of True along the second axis."""
    steps = np.diff(np.pad(is_edge, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    line, start = np.nonzero(steps == 1)
    _, stop = np.nonzero(steps == -1)
    return [(int(a), int(b), int(c)) for a, b, c in zip(line, start, stop, strict=True)]
