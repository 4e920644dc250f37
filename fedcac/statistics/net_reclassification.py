"""Net reclassification improvement from sums over patients, binary and under censoring."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fedcac.protocol import ReclassificationSpec
from fedcac.statistics.life_table import kaplan_meier_at, product_limit
from fedcac.vocabulary import ReclassificationType, RiskEstimator

__all__ = ["Reclassified", "directions", "net_reclassification", "reclassified"]

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]
Directions = NDArray[np.int64]

TIE = 1e-12
"""Two risks closer than this are the same risk: sums in another order differ by less."""


@dataclass(frozen=True)
class Reclassified:
    """Patients with higher and lower risk under the new model; every number adds over sites.

    `event_*` is the number with the event by the horizon, `nonevent_*` without: counts if
    nothing is censored, otherwise estimates of them (Kaplan-Meier) or sums of weights (IPW).
    `smallest_group` is the smallest number of patients that any of them stands for at a site.
    """

    N_NUMBERS: ClassVar[int] = 6

    event_all: float
    event_up: float
    event_down: float
    nonevent_all: float
    nonevent_up: float
    nonevent_down: float
    smallest_group: int = 0

    def numbers(self) -> tuple[float, ...]:
        """Return the six numbers in the order of the fields."""
        return tuple(float(number) for number in astuple(self)[: self.N_NUMBERS])

    @classmethod
    def from_numbers(cls, numbers: Vector) -> Self:
        """Return what `numbers` described, or a sum of such arrays."""
        all_, up, down, none, none_up, none_down = (float(number) for number in numbers)
        return cls(all_, up, down, none, none_up, none_down)


def directions(old: Vector, new: Vector, spec: ReclassificationSpec) -> Directions:
    """Return 1 where the new risk is higher, -1 where it is lower, else 0, shape (n,).

    A risk equal to a cut belongs to the category above it. The difference type counts changes
    larger than `delta`.
    """
    if spec.type is ReclassificationType.CATEGORICAL:
        cuts = np.array(spec.cuts)
        old_category, new_category = (np.searchsorted(cuts, r, side="right") for r in (old, new))
        return np.asarray(np.sign(new_category - old_category), dtype=np.int64)
    least = spec.delta if spec.type is ReclassificationType.DIFFERENCE else 0.0
    change = new - old
    moved = np.where(np.abs(change) > max(least, TIE), np.sign(change), 0.0)
    return np.asarray(moved, dtype=np.int64)


def reclassified(
    old: Vector, new: Vector, time: Vector, event: Flags, spec: ReclassificationSpec
) -> Reclassified:
    """Return a site's sums for the protocol's estimator.

    - binary: the event at any time against none.
    - km: of each group g of {all, up, down}, n_g (1 - S_g(t)) and n_g S_g(t) with the site's
      Kaplan-Meier curve of the group (Pencina, Stat Med 2011;30:11).
    - ipw: 1/G(u-) for events at u <= t and 1/G(t) for patients followed beyond t, G the site's
      Kaplan-Meier curve of the censoring (Uno, Stat Med 2013;32:2430).

    Parameters
    ----------
    old, new
        Predicted risks at the horizon, shape (n,).
    time, event
        Follow-up and whether the event happened then, shape (n,).
    """
    moved = directions(old, new, spec)
    masks = (np.ones(len(moved), dtype=np.bool_), moved > 0, moved < 0)
    has_event = (
        event if spec.estimator is RiskEstimator.BINARY else event & (time <= spec.horizon_days)
    )
    cells = [
        int(np.count_nonzero(mask & kind)) for mask in masks[1:] for kind in (has_event, ~has_event)
    ]
    unmoved = int(np.count_nonzero(moved == 0))
    smallest = min([*cells, unmoved] if unmoved else cells)
    if spec.estimator is RiskEstimator.BINARY:
        sums = [float(np.count_nonzero(mask & kind)) for kind in (event, ~event) for mask in masks]
    elif spec.estimator is RiskEstimator.KM:
        survivors = [
            np.count_nonzero(mask) * kaplan_meier_at(time[mask], event[mask], spec.horizon_days)
            for mask in masks
        ]
        lost = [np.count_nonzero(m) - s for m, s in zip(masks, survivors, strict=True)]
        sums = [*lost, *survivors]
    else:
        early, late = _censoring_weights(time, event, spec.horizon_days)
        sums = [float(weight[mask].sum()) for weight in (early, late) for mask in masks]
    return replace(Reclassified.from_numbers(np.array(sums)), smallest_group=smallest)


def _censoring_weights(time: Vector, event: Flags, horizon: float) -> tuple[Vector, Vector]:
    """Return the weights of events up to the horizon, and of patients followed beyond it."""
    # As survfit(Surv(time, 1 - event)): whoever has the event at a censoring's time is at risk.
    survival = product_limit(time, ~event, np.minimum(time, horizon), is_left_limit=True)
    at_horizon = float(product_limit(time, ~event, np.array([horizon]), is_left_limit=False)[0])
    early = np.zeros(len(time))
    is_early = event & (time <= horizon)
    early[is_early] = 1 / survival[is_early]
    late = np.zeros(len(time))
    if at_horizon > 0:
        late[time > horizon] = 1 / at_horizon
    return early, late


def net_reclassification(sums: Reclassified) -> tuple[float, float, float] | None:
    """Return event, non-event and overall NRI; None without events or non-events."""
    if sums.event_all <= 0 or sums.nonevent_all <= 0:
        return None
    event = (sums.event_up - sums.event_down) / sums.event_all
    nonevent = (sums.nonevent_down - sums.nonevent_up) / sums.nonevent_all
    return event, nonevent, event + nonevent
