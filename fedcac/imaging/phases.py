"""Several phases or acquisitions in one series: told apart, and one chosen by a stated rule."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedcac.imaging.coding import exclusion
from fedcac.imaging.frames import header_value
from fedcac.imaging.geometry import COINCIDENT_MM
from fedcac.vocabulary import ExclusionReason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Place", "choose_phase", "phase_percent"]


Place = tuple["Dataset", int]
"""A data set and the number of a frame in it, 0 for a single-frame instance."""


def phase_percent(place: Place) -> float | None:
    """Return the cardiac phase of a frame as a percentage of R-R; None if it is not stated.

    NominalPercentageOfCardiacPhase (0020,9241), or TriggerTime over NominalInterval.
    """
    nominal = _number(place, "NominalPercentageOfCardiacPhase")
    if nominal is not None:
        return nominal
    trigger, interval = _number(place, "TriggerTime"), _number(place, "NominalInterval")
    if trigger is None or not interval:
        return None
    return float(round(100 * trigger / interval))


def _number(place: Place, keyword: str) -> float | None:
    value = header_value(place[0], keyword, place[1])
    return None if value is None else float(value)


def _attribute(keyword: str) -> Callable[[Place], Hashable]:
    return lambda place: str(header_value(place[0], keyword, place[1]))


# In this order: the first by which the series falls into whole stacks is what tells them apart.
_SPLITS: tuple[Callable[[Place], Hashable], ...] = (
    phase_percent,
    _attribute("TriggerTime"),
    _attribute("TemporalPositionIdentifier"),
    _attribute("TemporalPositionIndex"),
    _attribute("AcquisitionNumber"),
)


def choose_phase(
    places: Sequence[Place],
    positions_mm: NDArray[np.float64],
    preferred_percent: float | None,
) -> list[int]:
    """Return the indices of the frames of one phase; all if the series has but one.

    Frames that share positions are split by cardiac phase, trigger time, temporal position or
    acquisition number, whichever first yields stacks of which one covers the whole extent. Of
    several such stacks the one nearest to `preferred_percent` of R-R is taken (the earlier of
    two); without a preference or a stated phase there is no rule to choose by. Where nothing
    separates the frames all are returned.

    Raises
    ------
    DicomError
        `several_phases`.
    """
    everything = list(range(len(places)))
    if np.diff(np.sort(positions_mm)).min(initial=np.inf) > COINCIDENT_MM:
        return everything
    for key_of in _SPLITS:
        groups: dict[Hashable, list[int]] = {}
        for index, place in enumerate(places):
            groups.setdefault(key_of(place), []).append(index)
        whole = [group for group in groups.values() if _covers(group, positions_mm)]
        if len(groups) > 1 and whole:
            return _nearest(whole, places, preferred_percent)
    return everything


def _covers(group: Sequence[int], positions_mm: NDArray[np.float64]) -> bool:
    own = np.unique(positions_mm[list(group)])
    if own.size < 2:
        return False
    slack = float(np.median(np.diff(own))) * 1.01
    starts = own[0] <= positions_mm.min() + slack
    return bool(starts and own[-1] >= positions_mm.max() - slack)


def _nearest(
    whole: Sequence[list[int]], places: Sequence[Place], preferred_percent: float | None
) -> list[int]:
    if len(whole) == 1:
        return whole[0]
    percents = [phase_percent(places[group[0]]) for group in whole]
    if preferred_percent is None or None in percents or len(set(percents)) < len(percents):
        raise exclusion(
            ExclusionReason.SEVERAL_PHASES,
            f"The series holds {len(whole)} whole stacks of slices: phases or acquisitions.",
        )
    stated = [percent for percent in percents if percent is not None]
    best = min(range(len(stated)), key=lambda n: (abs(stated[n] - preferred_percent), stated[n]))
    return whole[best]
