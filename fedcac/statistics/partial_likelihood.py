"""The Cox partial likelihood of one stratum with its first two derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcac.vocabulary import TieMethod

__all__ = ["PartialLikelihood", "partial_likelihood"]

_SEGMENT = 300.0
"""Risk sets whose largest linear predictors differ by more than this do not share one shift.

exp(-300) is far above the smallest double, and what underflows beside it weighs less than 1e-190.
"""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class PartialLikelihood:
    """Log-likelihood, gradient (p,), information (p, p), and the number of events."""

    log_likelihood: float
    gradient: Vector
    information: Vector
    n_events: int


@dataclass(frozen=True)
class _RiskSets:
    """One row per event (Efron: per place among its ties), latest time first.

    `end` is the position of the risk set's last patient among patients sorted by falling time;
    `tie` the number of the distinct event time; `fraction` the share of the tied events that is
    taken out of the risk set.
    """

    end: NDArray[np.int64]
    tie: NDArray[np.int64]
    fraction: Vector


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
    order = np.argsort(-time, kind="stable")
    # The likelihood does not change when a stratum's covariates are shifted; centred, their
    # second moments do not cancel, and a constant column becomes exactly zero.
    x, time, event = _centred(x[order]), time[order], event[order]
    with np.errstate(over="ignore", invalid="ignore"):
        eta = x @ beta
    if not np.all(np.isfinite(eta)):
        raise ValueError("a linear predictor is not finite")
    sets, tie_of = _risk_sets(time, event, ties)
    peak = np.maximum.accumulate(eta)[sets.end]
    segment = np.floor((peak - peak.min()) / _SEGMENT)
    log_likelihood = float(np.sum(eta[event]))
    gradient = np.sum(x[event], axis=0)
    information = np.zeros((p, p))
    for part in np.unique(segment):
        chosen = segment == part
        rows = _RiskSets(sets.end[chosen], sets.tie[chosen], sets.fraction[chosen])
        lost, moved, added = _segment_terms(x, eta, event, tie_of, rows, float(peak[chosen].max()))
        log_likelihood -= lost
        gradient -= moved
        information += added
    if not np.isfinite(log_likelihood):
        raise ValueError("the log-likelihood is not finite")
    return PartialLikelihood(log_likelihood, gradient, (information + information.T) / 2, n_events)


def _centred(x: Vector) -> Vector:
    from_first = x - x[0]
    centred: Vector = from_first - from_first.mean(axis=0)
    return centred


def _risk_sets(
    time: Vector, event: NDArray[np.bool_], ties: TieMethod
) -> tuple[_RiskSets, NDArray[np.int64]]:
    """Return the risk sets, and per patient the number of its event time (-1 if censored)."""
    times = np.unique(time[event])[::-1]
    end = np.searchsorted(-time, -times, side="right") - 1
    tie_of = np.where(event, np.searchsorted(-times, -time), -1)
    tied = np.bincount(tie_of[event], minlength=len(times))
    tie = np.repeat(np.arange(len(times)), tied)
    place = np.arange(len(tie)) - np.repeat(np.cumsum(tied) - tied, tied)
    is_efron = ties is TieMethod.EFRON
    fraction = place / tied[tie] if is_efron else np.zeros(len(tie))
    return _RiskSets(end[tie], tie, fraction), tie_of


def _segment_terms(
    x: Vector,
    eta: Vector,
    event: NDArray[np.bool_],
    tie_of: NDArray[np.int64],
    sets: _RiskSets,
    shift: float,
) -> tuple[float, Vector, Vector]:
    """Return sum log S0, sum of risk-set means and sum of risk-set covariances over some sets."""
    last = int(sets.end.max()) + 1
    n_ties = int(sets.tie.max()) + 1
    x, event, tie_of = x[:last], event[:last], tie_of[:last]
    weight = np.exp(eta[:last] - shift)
    weighted = weight[:, None] * x
    died = event & (tie_of < n_ties)
    tied0 = np.bincount(tie_of[died], weights=weight[died], minlength=n_ties)
    tied1 = np.zeros((n_ties, x.shape[1]))
    np.add.at(tied1, tie_of[died], weighted[died])
    fraction = sets.fraction[:, None]
    s0 = np.cumsum(weight)[sets.end] - sets.fraction * tied0[sets.tie]
    s1 = np.cumsum(weighted, axis=0)[sets.end] - fraction * tied1[sets.tie]
    means = s1 / s0[:, None]
    # Sum over risk sets of S2/S0 is X' diag(weight * hazard) X, with each patient's hazard summed
    # over the sets that hold it; no array of shape (n, p, p) is needed.
    hazard = np.cumsum(np.bincount(sets.end, weights=1 / s0, minlength=last)[::-1])[::-1].copy()
    taken = np.bincount(sets.tie, weights=sets.fraction / s0, minlength=n_ties)
    hazard[died] -= taken[tie_of[died]]
    second = x.T @ ((weight * hazard)[:, None] * x)
    log_s0 = float(np.sum(np.log(s0) + shift))
    return log_s0, means.sum(axis=0), second - means.T @ means
