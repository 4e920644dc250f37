"""Agatston, volume and mass scores of a calcium mask."""

from __future__ import annotations

from fedcac.scoring.agatston import CalciumScore, Lesion, score_volume
from fedcac.scoring.profiles import ScoringProfile, profile_named, profiles

__all__ = [
    "CalciumScore",
    "Lesion",
    "ScoringProfile",
    "profile_named",
    "profiles",
    "score_volume",
]
