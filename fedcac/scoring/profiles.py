"""Scoring profiles: the choices on which published Agatston implementations differ."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedcac.errors import UsageError

__all__ = ["ScoringProfile", "profile_named", "profiles"]

# Threshold in HU that corresponds to 130 HU at 120 kVp (Graeni et al. 2018).
_KVP_THRESHOLDS_HU = {70: 207.0, 80: 177.0, 100: 147.0, 120: 130.0, 135: 119.0}


class ScoringProfile(BaseModel):
    """How a calcium mask becomes an Agatston score.

    Attributes
    ----------
    threshold_hu, is_inclusive
        A voxel counts at HU >= threshold (inclusive) or HU > threshold.
    connectivity
        4 or 8 neighbours in the axial plane.
    minimum_area_mm2, minimum_pixels
        Lesions smaller than either are dropped.
    is_thickness_scaled
        Multiply by slice increment / 3 mm, so that 1.5 mm slices do not double the score.
    is_kvp_adapted
        Move the threshold with the tube voltage (70, 80, 100, 120, 135 kV).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    threshold_hu: float = 130.0
    is_inclusive: bool = True
    connectivity: Literal[4, 8] = 8
    minimum_area_mm2: Annotated[float, Field(ge=0)] = 1.0
    minimum_pixels: Annotated[int, Field(ge=1)] = 1
    is_thickness_scaled: bool = True
    is_kvp_adapted: bool = False

    def threshold_at(self, kvp: float | None) -> float:
        """Return the threshold in HU for a tube voltage.

        Raises
        ------
        UsageError
            If the profile adapts to the voltage and it is unknown or has no published threshold.
        """
        if not self.is_kvp_adapted:
            return self.threshold_hu
        if kvp is None or round(kvp) not in _KVP_THRESHOLDS_HU:
            raise UsageError(
                f"Profile '{self.name}' has no threshold for tube voltage {kvp}.",
                code="unknown_kvp",
                cure=f"It knows {', '.join(str(kv) for kv in sorted(_KVP_THRESHOLDS_HU))} kV; "
                "use a profile that does not adapt.",
            )
        return _KVP_THRESHOLDS_HU[round(kvp)]


_PROFILES = {
    profile.name: profile
    for profile in (
        # Agatston 1990 as practised: >= 130 HU, at least 1 mm2, per-slice peak, increment / 3 mm.
        ScoringProfile(name="agatston1990"),
        # Eng 2021, Methods: 8-connectivity, pixels > 130 HU; no minimum area nor scaling stated.
        ScoringProfile(
            name="eng2021", is_inclusive=False, minimum_area_mm2=0.0, is_thickness_scaled=False
        ),
        ScoringProfile(name="agatston_kvp", is_kvp_adapted=True),
        # Minimum lesions of vendors' workstations (FQM_Analysis, Med Phys 2021, mp.14912).
        ScoringProfile(name="ge", connectivity=4, minimum_area_mm2=1.0),
        ScoringProfile(name="philips", connectivity=4, minimum_area_mm2=0.5),
        ScoringProfile(name="canon", connectivity=4, minimum_area_mm2=0.0, minimum_pixels=3),
        ScoringProfile(name="siemens", connectivity=4, minimum_area_mm2=0.0),
    )
}


def profiles() -> tuple[ScoringProfile, ...]:
    """Return every named profile."""
    return tuple(_PROFILES.values())


def profile_named(name: str) -> ScoringProfile:
    """Return a profile by name; UsageError with the list of names if there is none."""
    if name not in _PROFILES:
        raise UsageError(
            f"There is no scoring profile '{name}'.",
            code="unknown_profile",
            cure=f"Choose one of: {', '.join(sorted(_PROFILES))}.",
        )
    return _PROFILES[name]
