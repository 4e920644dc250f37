"""Coronary calcium outlined in Horos or OsiriX: an XML property list as polygons, and pixels.

The list holds, per annotated image, regions of interest with a vessel's name and points in pixels
(COCA's `calcium_xml`). Read with `plistlib`, whose parser refuses entity declarations and fetches
nothing; what it yields is checked value by value before it is believed.
"""

from __future__ import annotations

import math
import plistlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.parsers.expat import ExpatError

import numpy as np
from numpy.typing import NDArray

from fedcac.errors import CohortError
from fedcac.vocabulary import Vessel

__all__ = ["VESSEL_NAMES", "RoiAnnotation", "RoiPolygon", "rasterise_polygon", "read_annotation"]

VESSEL_NAMES = {
    "left coronary artery": Vessel.LM,
    "left main": Vessel.LM,
    "left anterior descending artery": Vessel.LAD,
    "left circumflex artery": Vessel.LCX,
    "right coronary artery": Vessel.RCA,
}
"""Names of regions, in lower case; COCA's readers call the left main 'Left Coronary Artery'."""

_MAXIMUM_BYTES = 64 * 1024**2
_MAXIMUM_POINTS = 100_000
_FEWEST_POINTS = 3
_POINT = re.compile(r"\(\s*([^,()\s]{1,40})\s*,\s*([^,()\s]{1,40})\s*\)")

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RoiPolygon:
    """One outlined region.

    Attributes
    ----------
    image_index
        ImageIndex as stored, from 0. Which slice that is, the list does not say.
    vessel
        The coronary vessel its name stands for.
    points_px
        Corners (n, 2), n >= 3, as (x, y): x along a row, y down the columns, in the convention of
        `rasterise_polygon`.
    maximum
        Largest pixel value inside, as the annotating software measured it; None if not stored.
    """

    image_index: int
    vessel: Vessel
    points_px: Points
    maximum: float | None


@dataclass(frozen=True)
class RoiAnnotation:
    """All regions of one file; `n_empty` regions had fewer than three points and enclose nothing.

    COCA's files have them: about every fourth region has no point.
    """

    polygons: tuple[RoiPolygon, ...]
    n_empty: int


def read_annotation(content: bytes) -> RoiAnnotation:
    """Read the XML property list of one exam.

    Raises
    ------
    CohortError
        `bad_annotation` if it is no XML property list of this layout, declares an entity, is larger
        than 64 MiB, or holds a number that is none; `unknown_vessel` if a region with points has
        another name than those of `VESSEL_NAMES`. Messages quote nothing of the file.
    """
    if len(content) > _MAXIMUM_BYTES:
        raise _bad("is larger than any annotation")
    try:
        document = plistlib.loads(content, fmt=plistlib.FMT_XML)
    except (ExpatError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise _bad("is no XML property list") from error
    polygons: list[RoiPolygon] = []
    n_empty = n_points = 0
    for image in _listed(document, "Images"):
        index = image.get("ImageIndex")
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise _bad("has an image without an index")
        for region in _listed(image, "ROIs"):
            points = _points_of(region)
            n_points += len(points)
            if n_points > _MAXIMUM_POINTS:
                raise _bad("has more points than any annotation")
            if len(points) < _FEWEST_POINTS:
                n_empty += 1
                continue
            polygons.append(RoiPolygon(index, _vessel_of(region), points, _maximum_of(region)))
    return RoiAnnotation(tuple(polygons), n_empty)


def rasterise_polygon(points_px: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels of an image (rows, columns) have their centre inside a polygon.

    Points are as Horos and OsiriX store them: (0, 0) is the outer corner of the first pixel, so the
    centre of the pixel in row r and column c is (c + 0.5, r + 0.5) (DCMPix, conversion of pixel to
    DICOM coordinates: half a pixel is taken off first). Inside is by the even-odd rule; of two
    polygons that share an edge, exactly one has a centre that lies on it. The part of a polygon
    beyond the image is not seen.

    Parameters
    ----------
    points_px
        Corners (n, 2) as (x, y), finite, the last joined to the first.
    shape
        (rows, columns).

    Raises
    ------
    ValueError
        If the points are not (n, 2) or not finite.
    """
    if points_px.ndim != 2 or points_px.shape[1] != 2 or not bool(np.isfinite(points_px).all()):
        raise ValueError("points_px must be (n, 2) and finite")
    inside = np.zeros(shape, dtype=np.bool_)
    if not len(points_px):
        return inside
    # Only centres in the polygon's box are asked about.
    (left, top), (right, bottom) = points_px.min(axis=0), points_px.max(axis=0)
    rows = slice(*_range(top, bottom, shape[0]))
    columns = slice(*_range(left, right, shape[1]))
    y = np.arange(rows.start, rows.stop)[:, None] + 0.5
    x = np.arange(columns.start, columns.stop)[None, :] + 0.5
    box = inside[rows, columns]
    for (x0, y0), (x1, y1) in zip(points_px, np.roll(points_px, -1, axis=0), strict=True):
        # Half open in y, so that a corner at a centre's height is crossed once.
        crosses = (y0 > y) != (y1 > y)
        if crosses.any():
            # From the lower end always: both polygons along an edge compute the same crossing.
            (xa, ya), (xb, yb) = sorted(((x0, y0), (x1, y1)), key=lambda point: point[1])
            box ^= crosses & (x < xa + (y - ya) * (xb - xa) / (yb - ya))
    return inside


def _range(low: float, high: float, size: int) -> tuple[int, int]:
    first = int(np.clip(math.floor(low) - 1, 0, size))
    return first, max(first, int(np.clip(math.ceil(high) + 1, 0, size)))


def _listed(parent: Any, name: str) -> list[Mapping[str, Any]]:
    entries = parent.get(name) if isinstance(parent, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise _bad(f"has no list of {name}")
    return entries


def _points_of(region: Mapping[str, Any]) -> Points:
    texts = region.get("Point_px", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _bad("has points that are not text")
    points = []
    for text in texts[: _MAXIMUM_POINTS + 1]:
        match = _POINT.fullmatch(text.strip())
        if match is None:
            raise _bad("has a point that is not (x, y)")
        points.append([_number(word) for word in match.groups()])
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError as error:
        raise _bad("has a coordinate that is not a number") from error
    if not math.isfinite(value):
        raise _bad("has a coordinate that is not finite")
    return value


def _vessel_of(region: Mapping[str, Any]) -> Vessel:
    name = region.get("Name")
    vessel = VESSEL_NAMES.get(name.strip().lower()) if isinstance(name, str) else None
    if vessel is None:
        raise CohortError(
            "A region of the annotation is named after no known coronary vessel.",
            code="unknown_vessel",
            cure=f"Name regions {', '.join(sorted(VESSEL_NAMES))}.",
        )
    return vessel


def _maximum_of(region: Mapping[str, Any]) -> float | None:
    value = region.get("Max")
    if value is None:
        return None
    try:
        maximum = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise _bad("has a maximum that is not a number") from error
    if isinstance(value, str) or not math.isfinite(maximum):
        raise _bad("has a maximum that is not a number")
    return maximum


def _bad(what: str) -> CohortError:
    return CohortError(
        f"The annotation {what}.",
        code="bad_annotation",
        cure="Export the regions of interest again, as an XML property list.",
    )
