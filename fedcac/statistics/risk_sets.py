"""Sums over the risk sets of one stratum at given log hazard ratios, beside the likelihood's.

Score residuals for the robust variance, the terms of the proportional-hazards test, and the
baseline hazard. All are sums over event times; Efron's ties are handled as in the likelihood: of d
tied events, the l-th risk set lacks l/d of their weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special

from fedcac.vocabulary import TieMethod

__all__ = [
    "ChiSquare",
    "ProportionalityTerms",
    "baseline_hazard",
    "proportionality_terms",
    "proportionality_test",
    "score_residuals",
]

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class ChiSquare:
    """A chi-square statistic with its degrees of freedom and p-value."""

    chi2: float
    df: int
    p_value: float


@dataclass(frozen=True)
class _Sets:
    """Patients by rising time, and one row per event place (Efron) in the same order.

    `order` sorts the input; `x`, `weight`, `event` are sorted. Of every row: `time`, `inverse` =
    1 / s0, `mean` = s1 / s0 (rows, p), `fraction` of the tied weight taken out. `first_row` and
    `end_row` of a patient say which rows stand at the patient's own time.
    """

    order: NDArray[np.intp]
    x: Vector
    weight: Vector
    event: Flags
    time: Vector
    inverse: Vector
    mean: Vector
    fraction: Vector
    first_row: NDArray[np.intp]
    end_row: NDArray[np.intp]


def _sets(x: Vector, time: Vector, event: Flags, beta: Vector, ties: TieMethod) -> _Sets:
    order = np.argsort(time, kind="stable")
    x, time, event = x[order], time[order], event[order]
    predictor = x @ beta
    if not np.all(np.isfinite(predictor)):
        raise ValueError("a linear predictor is not finite")
    weight = np.exp(predictor - predictor.max())
    times, tied = np.unique(time[event], return_counts=True)
    start = np.searchsorted(time, times, side="left")
    end = np.searchsorted(time, times, side="right")
    weighted = weight[:, None] * x
    at_risk0 = np.cumsum(weight[::-1])[::-1][start]
    at_risk1 = np.cumsum(weighted[::-1], axis=0)[::-1][start]
    died0, died1 = np.where(event, weight, 0.0), np.where(event[:, None], weighted, 0.0)
    cumulative0 = np.concatenate([[0.0], np.cumsum(died0)])
    cumulative1 = np.vstack([np.zeros(x.shape[1]), np.cumsum(died1, axis=0)])
    tied0, tied1 = cumulative0[end] - cumulative0[start], cumulative1[end] - cumulative1[start]
    tie = np.repeat(np.arange(len(times)), tied)
    place = np.arange(len(tie)) - np.repeat(np.cumsum(tied) - tied, tied)
    fraction = place / tied[tie] if ties is TieMethod.EFRON else np.zeros(len(tie))
    s0 = at_risk0[tie] - fraction * tied0[tie]
    if np.any(s0 <= 0):
        raise ValueError("a risk set weighs nothing at these parameters")
    s1 = at_risk1[tie] - fraction[:, None] * tied1[tie]
    return _Sets(
        order=order,
        x=x,
        weight=weight,
        event=event,
        time=times[tie],
        inverse=1 / s0,
        mean=s1 / s0[:, None],
        fraction=fraction,
        first_row=np.searchsorted(times[tie], time, side="left"),
        end_row=np.searchsorted(times[tie], time, side="right"),
    )


def score_residuals(x: Vector, time: Vector, event: Flags, beta: Vector, ties: TieMethod) -> Vector:
    """Return every patient's score residual, shape (n, p), as `residuals(coxph, "score")`.

    The sum of their outer products is the middle of the sandwich variance (Lin and Wei, JASA
    1989;84:1074).

    Raises
    ------
    ValueError
        If a linear predictor is not finite or a risk set weighs nothing.
    """
    if not np.any(event):
        return np.zeros_like(x)
    sets = _sets(_centred(x), time, event, beta, ties)
    hazard = np.concatenate([[0.0], np.cumsum(sets.inverse)])
    drift = _cumulative(sets.inverse[:, None] * sets.mean)
    last = sets.end_row
    expected = sets.x * hazard[last][:, None] - drift[last]
    # Whoever has the event is at risk at it with what the tie's places leave.
    taken = np.concatenate([[0.0], np.cumsum(sets.fraction * sets.inverse)])
    taken_drift = _cumulative((sets.fraction * sets.inverse)[:, None] * sets.mean)
    first = sets.first_row
    share = (taken[last] - taken[first])[:, None] * sets.x - (
        taken_drift[last] - taken_drift[first]
    )
    expected -= np.where(sets.event[:, None], share, 0.0)
    mean = _cumulative(sets.mean)
    n_tied = np.maximum(last - first, 1)[:, None]
    observed = np.where(sets.event[:, None], sets.x - (mean[last] - mean[first]) / n_tied, 0.0)
    residuals = np.empty_like(sets.x)
    residuals[sets.order] = observed - sets.weight[:, None] * expected
    return residuals


@dataclass(frozen=True)
class ProportionalityTerms:
    """Sums over event times of u, t u (p,) and of V, t V, t^2 V (p, p); they add over strata."""

    u: Vector
    tu: Vector
    v: Vector
    tv: Vector
    ttv: Vector


def proportionality_terms(
    x: Vector, time: Vector, event: Flags, beta: Vector, ties: TieMethod, time_scale: float
) -> ProportionalityTerms:
    """Return one stratum's terms of the test for a coefficient that is linear in time.

    u is the score of an event time, V its information, t = time / time_scale. Raises as
    `score_residuals`.
    """
    p = x.shape[1]
    if not np.any(event):
        zero, none = np.zeros(p), np.zeros((p, p))
        return ProportionalityTerms(zero, zero, none, none, none)
    sets = _sets(_centred(x), time, event, beta, ties)
    at_event, at_set = time[sets.order] / time_scale, sets.time / time_scale
    scores = [
        (sets.event * at_event**power) @ sets.x - at_set**power @ sets.mean for power in (0, 1)
    ]
    tables = []
    for power in (0, 1, 2):
        share = at_set**power * sets.inverse
        hazard = np.concatenate([[0.0], np.cumsum(share)])[sets.end_row]
        taken = np.concatenate([[0.0], np.cumsum(share * sets.fraction)])
        hazard = hazard - np.where(sets.event, taken[sets.end_row] - taken[sets.first_row], 0.0)
        second = sets.x.T @ ((sets.weight * hazard)[:, None] * sets.x)
        tables.append(second - sets.mean.T @ (at_set[:, None] ** power * sets.mean))
    return ProportionalityTerms(*scores, *tables)


def proportionality_test(
    u: Vector, tu: Vector, v: Vector, tv: Vector, ttv: Vector
) -> list[ChiSquare | None]:
    """Return the score test per covariate and, last, the global one, from sums over strata.

    Grambsch and Therneau (Biometrika 1994;81:515) as `cox.zph(transform = "identity")` of
    survival 3: the score of x_j t in the model that holds x and x_j t. None where the added term
    is not identified, as with events at a single time.
    """
    p = len(u)
    tests = [_score_test(tu[[j]], v, tv[:, [j]], ttv[np.ix_([j], [j])], u) for j in range(p)]
    return [*tests, _score_test(tu, v, tv, ttv, u)]


def _score_test(tu: Vector, v: Vector, tv: Vector, ttv: Vector, u: Vector) -> ChiSquare | None:
    inverse = _inverse(v, np.diag(v))
    if inverse is None:
        return None
    # Centring t at the mean event time changes nothing but this subtraction's accuracy.
    score = tu - tv.T @ inverse @ u
    added = _inverse(ttv - tv.T @ inverse @ tv, np.diag(ttv))
    if added is None:
        return None
    chi2 = float(score @ added @ score)
    return ChiSquare(chi2, len(tu), float(special.chdtrc(len(tu), chi2)))


def _inverse(table: Vector, scale: Vector) -> Vector | None:
    """Return the inverse of a symmetric table, or None if it is singular beside its scale (p,)."""
    if np.any(scale <= 0):
        return None
    size = np.sqrt(scale)
    try:
        root = linalg.cholesky(table / np.outer(size, size), lower=True)
    except linalg.LinAlgError:
        return None
    # A pivot is the share of a column that the columns before it leave.
    if np.any(np.diag(root) ** 2 <= 1e-10):
        return None
    inverse: Vector = linalg.cho_solve((root, True), np.eye(len(table))) / np.outer(size, size)
    return inverse


def baseline_hazard(
    x: Vector, time: Vector, event: Flags, beta: Vector, horizon: float, ties: TieMethod
) -> float:
    """Return the cumulative hazard at x = 0 up to and including the horizon; 0 without events.

    A step function: `basehaz(centered = FALSE)` with the fit's ties. Raises as `score_residuals`.
    """
    if not np.any(event & (time <= horizon)):
        return 0.0
    sets = _sets(x, time, event, beta, ties)
    shift = float((x @ beta).max())
    return float(np.sum(sets.inverse[sets.time <= horizon]) * np.exp(-shift))


def _centred(x: Vector) -> Vector:
    # From the first row: then a constant column is exactly zero.
    from_first = x - x[0]
    centred: Vector = from_first - from_first.mean(axis=0)
    return centred


def _cumulative(rows: Vector) -> Vector:
    return np.vstack([np.zeros(rows.shape[1]), np.cumsum(rows, axis=0)])
