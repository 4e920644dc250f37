"""What review artefacts say: plain values, so that no other room of the house is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedcac.imaging.segmentation import VESSEL_CODES
from fedcac.vocabulary import VESSEL_UNKNOWN, Vessel

__all__ = [
    "RESEARCH_USE",
    "TERRITORIES",
    "ModelIdentity",
    "ReviewedLesion",
    "ReviewedScore",
    "Territory",
    "check_pseudonym",
    "territories_of",
]

RESEARCH_USE = "Research use. Not for clinical use."
"""Stands in every artefact."""

_PSEUDONYM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_CODES = {vessel: code for code, vessel in VESSEL_CODES.items()}


@dataclass(frozen=True)
class Territory:
    """One label of a vessel map: where the calcium lies, and how it is drawn.

    Attributes
    ----------
    label
        Value in the vessel map.
    vessel
        None for coronary calcium of no told vessel.
    abbreviation, name
        As a reader knows it.
    snomed_code
        SNOMED CT code of the anatomy (PS3.16 CID 3015; 41801008 for a coronary artery).
    colour
        sRGB, after Okabe and Ito's palette, whose colours stay apart for colour-blind readers.
    """

    label: int
    vessel: Vessel | None
    abbreviation: str
    name: str
    snomed_code: str
    colour: str


TERRITORIES = (
    Territory(1, Vessel.LM, "LM", "Left main coronary artery", _CODES[Vessel.LM], "#D55E00"),
    Territory(
        2, Vessel.LAD, "LAD", "Left anterior descending artery", _CODES[Vessel.LAD], "#56B4E9"
    ),
    Territory(3, Vessel.LCX, "LCX", "Left circumflex artery", _CODES[Vessel.LCX], "#F0E442"),
    Territory(4, Vessel.RCA, "RCA", "Right coronary artery", _CODES[Vessel.RCA], "#CC79A7"),
    Territory(
        VESSEL_UNKNOWN, None, "Coronary", "Coronary artery, vessel not told", "41801008", "#FFFFFF"
    ),
)
"""Every label of a vessel map, in the order of the labels."""


@dataclass(frozen=True)
class ModelIdentity:
    """The model package that made the mask."""

    name: str
    version: str
    digest: str
    is_demonstration: bool


@dataclass(frozen=True)
class ReviewedLesion:
    """One counted lesion in one slice (index from the top of the volume). `score` is its share."""

    slice_index: int
    vessel: Vessel | None
    area_mm2: float
    peak_hu: float
    factor: int
    score: float


@dataclass(frozen=True)
class ReviewedScore:
    """The scores of one exam.

    Attributes
    ----------
    total
        Agatston score.
    vessels
        Agatston score per vessel; empty where the model tells none.
    volume_mm3
        Volume of the counted voxels.
    mass_mg
        Calcium mass; None, never 0, without a calibration.
    lesions
        Counted lesions, per slice.
    profile
        Name of the scoring profile.
    category
        Label of the risk category, None where no scheme is in force.
    native_score
        The model's own score, where its package gives one.
    """

    total: float
    vessels: Mapping[Vessel, float]
    volume_mm3: float
    mass_mg: float | None
    lesions: tuple[ReviewedLesion, ...] = field(repr=False)
    profile: str
    category: str | None = None
    native_score: float | None = None


def territories_of(vessel_map: NDArray[np.uint8], score: ReviewedScore) -> tuple[Territory, ...]:
    """Return the territories that the model looked for, found or not.

    A model that tells vessels looked for all four; one that tells none for coronary calcium.

    Raises
    ------
    ValueError
        If the map holds another label, or calcium of no vessel although vessels have scores.
    """
    present = {int(label) for label in np.flatnonzero(np.bincount(vessel_map.ravel()))} - {0}
    if not present <= {territory.label for territory in TERRITORIES}:
        raise ValueError(f"vessel_map may hold 0 to {VESSEL_UNKNOWN}")
    if score.vessels:
        if VESSEL_UNKNOWN in present:
            raise ValueError("vessels have scores, and the map holds calcium of no told vessel")
        present |= {territory.label for territory in TERRITORIES if territory.vessel}
    else:
        present.add(VESSEL_UNKNOWN)
    return tuple(territory for territory in TERRITORIES if territory.label in present)


def check_pseudonym(pseudonym: str) -> str:
    """Return a pseudonym that is fit for a page and a folder name.

    Raises
    ------
    ValueError
        If it is anything but 1 to 64 letters, digits, hyphens and underscores.
    """
    if not _PSEUDONYM.fullmatch(pseudonym):
        raise ValueError("a pseudonym is 1 to 64 letters, digits, hyphens and underscores")
    return pseudonym
