"""The Cox partial likelihood of one stratum with its first two derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from fedcac.vocabulary import TieMethod

__all__ = ["PartialLikelihood", "partial_likelihood"]

_SEGMENT = 300.0
"""Risk sets whose largest linear predictors differ by more than this do not share one shift.

exp(-300) is far above the smallest double, and what underflows beside it weighs less than 1e-190.
"""

_BLOCK = 8192
"""Least number of rows worked on at a time; so few stay in the cache."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class PartialLikelihood:
    """Log-likelihood, gradient (p,), information (p, p), and the number of events."""

    log_likelihood: float
    gradient: Vector
    information: Vector
    n_events: int


@dataclass(frozen=True)
class _Covariates:
    """Covariates less `origin` and then less `mean`, made a block of rows at a time."""

    values: Vector
    origin: Vector
    mean: Vector

    def blocks(self, size: int = _BLOCK) -> Iterator[tuple[slice, Vector]]:
        """Yield the blocks with the rows they stand for; the caller may overwrite a block."""
        for start in range(0, len(self.values), size):
            rows = slice(start, start + size)
            block: Vector = np.subtract(self.values[rows], self.origin, dtype=np.float64)
            block -= self.mean
            yield rows, block


@dataclass(frozen=True)
class _EventTimes:
    """The k distinct event times, latest first, and where each patient stands among them.

    A patient joins the risk sets at `joins`, the first event time not later than the own follow-up
    (k: none). `group` is `joins` for who stays on after that time and `joins` + k + 1 for who dies
    at it; `deaths` counts the latter.
    """

    joins: NDArray[np.int64]
    group: NDArray[np.int64]
    deaths: NDArray[np.int64]


def partial_likelihood(
    x: Vector, time: Vector, event: NDArray[np.bool_], beta: Vector, ties: TieMethod
) -> PartialLikelihood:
    """Return the exact terms at beta in O(n p^2) time and O(n p) memory.

    Parameters
    ----------
    x
        Covariates, shape (n, p).
    time, event
        Follow-up and whether the event happened then, shape (n,). A patient censored at an event
        time is at risk at it.
    beta
        Log hazard ratios, shape (p,). Any finite value: sums are taken relative to the largest
        linear predictor of the risk set, so that nothing overflows.
    ties
        Efron's or Breslow's treatment of equal event times.

    Raises
    ------
    ValueError
        If a linear predictor or their sum is not finite.
    """
    p = x.shape[1]
    n_events = int(np.count_nonzero(event))
    if n_events == 0:
        return PartialLikelihood(0.0, np.zeros(p), np.zeros((p, p)), 0)
    covariates = _centred(x)
    eta = np.empty(len(x))
    gradient = np.zeros(p)
    for rows, block in covariates.blocks():
        with np.errstate(over="ignore", invalid="ignore"):
            eta[rows] = block @ beta
        gradient += event[rows].astype(np.float64) @ block
    # No sum below is larger than this.
    if not np.isfinite(4.0 * len(eta) * float(np.abs(eta).max())):
        raise ValueError("a linear predictor, or their sum, is not finite")
    times = _event_times(time, event)
    peak = np.full(len(times.deaths) + 1, -np.inf)
    np.maximum.at(peak, times.joins, eta)
    peak = np.maximum.accumulate(peak[:-1])
    segment = np.floor((peak - peak[0]) / _SEGMENT)
    starts = np.flatnonzero(np.diff(segment, prepend=-1.0))
    log_likelihood = float(np.sum(eta[event]))
    information = np.zeros((p, p))
    for first, stop in pairwise([*starts.tolist(), len(peak)]):
        lost, moved, added = _segment_terms(
            covariates, eta, times, range(first, stop), float(peak[stop - 1]), ties
        )
        log_likelihood -= lost
        gradient -= moved
        information += added
    return PartialLikelihood(log_likelihood, gradient, (information + information.T) / 2, n_events)


def _centred(x: Vector) -> _Covariates:
    """Take off the mean: the likelihood does not change, and second moments do not cancel.

    The first row is taken off before, so that a constant column becomes exactly zero.
    """
    from_first = _Covariates(x, x[0], np.zeros(x.shape[1]))
    total = sum((block.sum(axis=0) for _, block in from_first.blocks()), from_first.mean)
    return _Covariates(x, x[0], total / len(x))


def _event_times(time: Vector, event: NDArray[np.bool_]) -> _EventTimes:
    latest_first = -np.unique(time[event])[::-1]
    joins = np.searchsorted(latest_first, -time)
    k = len(latest_first)
    group = np.where(event, joins + k + 1, joins)
    return _EventTimes(joins, group, np.bincount(joins[event]))


def _at_risk(sums: Vector, segment: slice) -> tuple[Vector, Vector]:
    """Turn sums by group into sums over who is at risk and stays on, and over who dies.

    Kept apart, they are only ever added, so that nothing cancels where most of a risk set dies.
    """
    staying, dying = np.split(sums, 2)
    staying = np.cumsum(staying, axis=0)
    staying[1:] += np.cumsum(dying[:-1], axis=0)
    return staying[segment], dying[segment]


def _segment_terms(
    x: _Covariates,
    eta: Vector,
    times: _EventTimes,
    chosen: range,
    shift: float,
    ties: TieMethod,
) -> tuple[float, Vector, Vector]:
    """Return sum log S0, sum of risk-set means and of risk-set covariances over chosen times."""
    k = len(times.deaths)
    segment = slice(chosen.start, chosen.stop)
    weight = np.exp(np.where(times.joins < chosen.stop, eta - shift, -np.inf))
    by_group = np.bincount(times.group, weight, 2 * (k + 1)).astype(np.float64, copy=False)
    staying0, dying0 = _at_risk(by_group, segment)
    # One entry per event: which time, and the share of those dying that is still counted.
    deaths = times.deaths[segment]
    tie = np.repeat(np.arange(len(chosen)), deaths)
    place = np.arange(len(tie)) - np.repeat(np.cumsum(deaths) - deaths, deaths)
    share = 1 - place / deaths[tie] if ties is TieMethod.EFRON else np.ones(len(tie))
    s0 = staying0[tie] + share * dying0[tie]

    def per_time(values: Vector) -> Vector:
        return np.bincount(tie, values, len(chosen)).astype(np.float64, copy=False)

    # Sum over risk sets of S2/S0 is X' diag(weight * hazard) X, with each patient's hazard summed
    # over the sets that hold it; no array of shape (n, p, p) is needed.
    hazard, hazard_dying = per_time(1 / s0), per_time(share / s0)
    summed = np.zeros((2, k + 1))
    summed[0, segment] = hazard
    summed[0] = np.cumsum(summed[0, ::-1])[::-1]
    summed[1, :-1] = summed[0, 1:]
    summed[1, segment] += hazard_dying
    first, second = _moments(x, weight, times.group, summed.ravel())
    staying1, dying1 = _at_risk(first, segment)
    means = hazard @ staying1 + hazard_dying @ dying1
    # A mean is (staying1 + share * dying1) / s0: the sum over events of its square needs only
    # three sums per time. Relative to the whole risk set, they stay within range.
    whole = staying0 + dying0
    relative = whole[tie] / s0
    staying1, dying1 = staying1 / whole[:, None], dying1 / whole[:, None]
    both, mixed, own = (per_time(share**power * relative**2)[:, None] for power in range(3))
    second -= staying1.T @ (both * staying1 + mixed * dying1)
    second -= dying1.T @ (mixed * staying1 + own * dying1)
    return float(np.sum(np.log(s0) + shift)), means, second


def _moments(
    x: _Covariates, weight: Vector, group: NDArray[np.int64], hazard: Vector
) -> tuple[Vector, Vector]:
    """Return the sums of weight * x by group and of weight * hazard[group] * x' x over all."""
    p, n_groups = x.values.shape[1], len(hazard)
    scale = np.sqrt(weight * hazard[group])
    first, second = np.zeros((n_groups, p)), np.zeros((p, p))
    # Each block adds to every group, so it must not hold fewer rows than there are groups.
    for rows, block in x.blocks(max(_BLOCK, 2 * n_groups)):
        ends = np.arange(len(block) + 1)
        by_group = csc_array((weight[rows], group[rows], ends), shape=(n_groups, len(block)))
        first += np.asarray(by_group @ block)
        block *= scale[rows, None]
        second += block.T @ block
    return first, second
