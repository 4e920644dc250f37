"""Life tables, Kaplan-Meier curves and the log-rank test of one stratum, and their sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedcac.statistics.intervals import Z95
from fedcac.statistics.risk_sets import ChiSquare

__all__ = [
    "Curve",
    "binned_table",
    "kaplan_meier_at",
    "kaplan_meier_variance",
    "life_table_curve",
    "log_rank_terms",
    "log_rank_test",
    "product_limit",
]

Vector = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

_NO_SPREAD = 1e-9
"""A share of the variance below this is what rounding leaves of a difference that is zero."""


@dataclass(frozen=True)
class Curve:
    """Survival at the end of every bin with Greenwood's SE and a log-log 95 % interval, (m,).

    Where nobody has had the event the interval is the point 1; where nobody is left, se and
    limits are NaN.
    """

    survival: Vector
    se: Vector
    ci_low: Vector
    ci_high: Vector


def binned_table(
    time: Vector, event: Flags, edges: NDArray[np.int64]
) -> tuple[Integers, Integers, Integers]:
    """Return at risk at the start, events, and censored, per bin (edge j, edge j + 1], shape (m,).

    The first bin also holds time 0. Follow-up beyond the last edge ends there without an event.
    """
    m = len(edges) - 1
    place = np.searchsorted(edges[1:], time, side="left")
    inside = place < m
    events = np.bincount(place[inside & event], minlength=m)
    censored = np.bincount(place[inside & ~event], minlength=m)
    left_before = np.concatenate([[0], np.cumsum(events + censored)[:-1]])
    return len(time) - left_before, events, censored


def life_table_curve(
    at_risk: Integers, events: Integers, censored: Integers, width_days: Integers
) -> Curve:
    """Return the curve of counts per bin (m,).

    In a bin of one day events come before censorings, which for follow-up in whole days is
    Kaplan and Meier's estimator. In a wider one half of the censored count as at risk
    (the actuarial estimator).
    """
    exposed = at_risk - np.where(width_days > 1, censored / 2, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(events > 0, events / exposed, 0.0)
        survival = np.cumprod(1 - share)
        variance = np.cumsum(np.where(events > 0, events / (exposed * (exposed - events)), 0.0))
        se = survival * np.sqrt(variance)
        log = np.log(survival)
        half = np.where(variance > 0, Z95 * np.sqrt(variance) / -log, 0.0)
        low, high = survival ** np.exp(half), survival ** np.exp(-half)
    # Where nobody is left these three are NaN: 0 times infinity, and infinity by infinity.
    return Curve(survival, se, low, high)


def kaplan_meier_at(time: Vector, event: Flags, horizon: float) -> float:
    """Return the Kaplan-Meier survival at the horizon, events at it included; 1 without events."""
    return float(product_limit(time, event, np.array([horizon]), is_left_limit=False)[0])


def kaplan_meier_variance(time: Vector, event: Flags, horizon: float) -> float:
    """Return Greenwood's variance of `kaplan_meier_at`; 0 without events or survivors."""
    early = event & (time <= horizon)
    times, deaths = np.unique(time[early], return_counts=True)
    at_risk = len(time) - np.searchsorted(np.sort(time), times, side="left")
    left = at_risk - deaths
    if len(times) == 0 or left[-1] == 0:
        return 0.0
    survival = kaplan_meier_at(time, event, horizon)
    return survival**2 * float(np.sum(deaths / (at_risk * left)))


def product_limit(time: Vector, event: Flags, at: Vector, *, is_left_limit: bool) -> Vector:
    """Return the Kaplan-Meier estimate at times, or just before them, shape of `at`."""
    times, deaths = np.unique(time[event], return_counts=True)
    at_risk = len(time) - np.searchsorted(np.sort(time), times, side="left")
    curve = np.concatenate([[1.0], np.cumprod(1 - deaths / at_risk)])
    if is_left_limit:
        return np.asarray(curve[np.searchsorted(times, at, side="left")])
    return np.asarray(curve[np.searchsorted(times, at, side="right")])


def log_rank_terms(
    time: Vector, event: Flags, group: Integers, n_groups: int
) -> tuple[Vector, Vector, Vector]:
    """Return observed and expected events per group (g,) and their covariance (g, g).

    Exact sums over the event times of one stratum (Mantel-Haenszel).
    """
    times = np.unique(time[event])
    ordered = np.sort(time)
    at_risk = (len(time) - np.searchsorted(ordered, times, side="left")).astype(np.float64)
    groups = np.zeros((len(times), n_groups))
    deaths = np.zeros((len(times), n_groups))
    for number in range(n_groups):
        own = group == number
        own_times = np.sort(time[own])
        groups[:, number] = len(own_times) - np.searchsorted(own_times, times, side="left")
        own_events = np.sort(time[own & event])
        deaths[:, number] = np.searchsorted(own_events, times, side="right") - np.searchsorted(
            own_events, times, side="left"
        )
    d = deaths.sum(axis=1)
    share = groups / at_risk[:, None]
    # Of one patient at risk the numerator is 0.
    scale = d * (at_risk - d) / np.maximum(at_risk - 1, 1)
    variance = np.diag(scale @ share) - share.T @ (scale[:, None] * share)
    return deaths.sum(axis=0), d @ share, variance


def log_rank_test(observed: Vector, expected: Vector, variance: Vector) -> ChiSquare | None:
    """Return the log-rank test from sums over strata; None if no two groups are compared.

    A group that is never at risk beside another is left out, as `survdiff` leaves out one that is
    never at risk. Groups that no stratum has side by side are not compared: each further set of
    groups that are costs one degree of freedom more.
    """
    spread = np.diag(variance)
    present = np.flatnonzero(spread > _NO_SPREAD * expected)
    size = np.sqrt(spread[present])
    values, vectors = np.linalg.eigh(variance[np.ix_(present, present)] / np.outer(size, size))
    kept = values > _NO_SPREAD
    df = int(np.count_nonzero(kept))
    if df == 0:
        return None
    difference = (observed - expected)[present] / size
    chi2 = float(np.sum((vectors[:, kept].T @ difference) ** 2 / values[kept]))
    return ChiSquare(chi2, df, float(special.chdtrc(df, chi2)))
