"""The overlay page: what the model marked, slice by slice, for a physician's eyes.

One self-contained HTML file without script, font or request. It names the exam by its pseudonym
and nothing else; no value of a DICOM header is written into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from fedcac.imaging.review_artefacts.content import (
    RESEARCH_USE,
    TERRITORIES,
    ModelIdentity,
    ReviewedLesion,
    ReviewedScore,
    Territory,
    check_pseudonym,
    territories_of,
)
from fedcac.imaging.review_artefacts.drawing import (
    WINDOW_LEVEL_HU,
    WINDOW_WIDTH_HU,
    Mark,
    Outline,
    crop_around,
    marks_of,
    outlines_of,
    picture,
)
from fedcac.vocabulary import VESSEL_UNKNOWN

if TYPE_CHECKING:
    from fedcac.imaging.volume import Volume

__all__ = ["render_overlay"]

_SLICES_WITHOUT_CALCIUM = 12
_MOST_CLOSE_UPS = 4
_MOST_NAMES = 12
_MOST_ROWS = 12
_CLOSE_UP_MM = 30.0
_BY_VESSEL = {territory.vessel: territory for territory in TERRITORIES}


@dataclass(frozen=True)
class _Row:
    """One territory in the table of scores."""

    territory: Territory
    score: float | None
    n_lesions: int


@dataclass(frozen=True)
class _Lesion:
    """One counted lesion with the colour it is drawn in."""

    territory: Territory
    lesion: ReviewedLesion


@dataclass(frozen=True)
class _Slice:
    """One slice of the page."""

    number: int
    z_mm: float
    picture: str
    outlines: list[Outline]
    marks: list[Mark]
    lesions: list[_Lesion]
    description: str


def render_overlay(
    volume: Volume,
    vessel_map: NDArray[np.uint8],
    score: ReviewedScore,
    model: ModelIdentity,
    pseudonym: str,
) -> str:
    """Return the page as HTML.

    Every slice with a marked voxel is shown twice, bare and with outlines along the voxels'
    borders, and its largest marks enlarged; where nothing is marked, slices at even distances are
    shown whole.

    Raises
    ------
    ValueError
        If the pseudonym is not one, the map has another shape than the volume, or an unknown label.
    """
    check_pseudonym(pseudonym)
    if vessel_map.shape != volume.hu.shape:
        raise ValueError(f"vessel_map {vessel_map.shape} and volume {volume.hu.shape} differ")
    territories = territories_of(vessel_map, score)
    crop = crop_around(vessel_map, volume.spacing_mm)
    slices = [
        _Slice(
            number=index + 1,
            z_mm=volume.origin_lps_mm[2] - index * volume.spacing_mm[0],
            picture=picture(crop.of(volume.hu[index])),
            outlines=outlines_of(crop.of(vessel_map[index]), territories, crop),
            marks=marks_of(crop.of(vessel_map[index]), territories, crop),
            lesions=(lesions := _lesions_in(score, index)),
            description=_describe(index, volume.hu.shape[0], lesions),
        )
        for index in _shown(vessel_map)
    ]
    environment = Environment(
        loader=PackageLoader("fedcac.imaging.review_artefacts"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("overlay.html.j2").render(
        research_use=RESEARCH_USE,
        pseudonym=pseudonym,
        model=model,
        score=score,
        rows=[_row_of(territory, score) for territory in territories],
        is_vessel_told=territories[-1].label != VESSEL_UNKNOWN,
        slices=slices,
        has_marks=bool(vessel_map.any()),
        n_slices=volume.hu.shape[0],
        increment_mm=volume.spacing_mm[0],
        thickness_mm=volume.slice_thickness_mm,
        kvp=volume.kvp,
        crop=crop,
        most_close_ups=_MOST_CLOSE_UPS,
        most_names=_MOST_NAMES,
        most_rows=_MOST_ROWS,
        close_up_mm=_CLOSE_UP_MM,
        level=WINDOW_LEVEL_HU,
        width=WINDOW_WIDTH_HU,
    )


def _shown(vessel_map: NDArray[np.uint8]) -> list[int]:
    marked = np.flatnonzero(vessel_map.max(axis=(1, 2)))
    if not marked.size:
        n_slices = vessel_map.shape[0]
        count = min(n_slices, _SLICES_WITHOUT_CALCIUM)
        marked = np.unique(((np.arange(count) + 0.5) * n_slices / count).astype(np.int64))
    return [int(index) for index in marked]


def _lesions_in(score: ReviewedScore, index: int) -> list[_Lesion]:
    return [
        _Lesion(_BY_VESSEL[lesion.vessel], lesion)
        for lesion in sorted(score.lesions, key=lambda lesion: -lesion.score)
        if lesion.slice_index == index
    ]


def _row_of(territory: Territory, score: ReviewedScore) -> _Row:
    if territory.vessel is None:
        # Calcium of no told vessel is only known as the exam's total.
        return _Row(territory, score.total, len(score.lesions))
    n_lesions = sum(lesion.vessel is territory.vessel for lesion in score.lesions)
    return _Row(territory, score.vessels.get(territory.vessel), n_lesions)


def _describe(index: int, n_slices: int, lesions: list[_Lesion]) -> str:
    shown = lesions[:_MOST_ROWS]
    found = "; ".join(
        f"{item.territory.abbreviation} {item.lesion.area_mm2:.1f} square millimetres, "
        f"peak {item.lesion.peak_hu:.0f} HU"
        for item in shown
    )
    if len(lesions) > len(shown):
        found += f"; and {len(lesions) - len(shown)} smaller"
    return (
        f"Axial CT slice {index + 1} of {n_slices}, soft tissue window. "
        f"{f'Counted lesions: {found}' if found else 'No counted lesion'}."
    )
