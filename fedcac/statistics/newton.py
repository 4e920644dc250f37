"""One Newton-Raphson engine for every likelihood that is a sum over sites.

Sites state the log-likelihood, its gradient and its information (negative Hessian) at the queried
parameters; the engine adds them up and asks again. Used with `yield from` inside an estimator's
`pool`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from fedcac.aggregate import Aggregate, LikelihoodTerms
from fedcac.exchange.messages import Query
from fedcac.statistics.estimator import Answers, QueryError
from fedcac.statistics.fit import Fit, FitStatus
from fedcac.vocabulary import RefusalCode, SiteName

__all__ = [
    "MAXIMUM_EXCHANGES",
    "maximise",
    "newton_query",
    "queried_parameters",
]

MAXIMUM_EXCHANGES = 15

DECREMENT_TOLERANCE = 1e-18
"""Stop when U' I^-1 U is below this: the parameters are within 1e-9 standard errors."""

DEPENDENCE_TOLERANCE = 1e-9
"""A column whose information is explained by earlier columns up to this share is dependent.

Releases carry 12 significant digits, so a dependence that is exact arrives with about 1e-12 left.
"""

LIKELIHOOD_NOISE = 1e-10
"""Relative loss of log-likelihood that rounding can explain; a larger one halves the step."""

CURVATURE_FLOOR = 1e-3
"""Where a likelihood is flat, a step is at most this much longer than along its steepest bend."""

STEP = "newton"
PARAMETERS = "beta"

Vector = NDArray[np.float64]


def newton_query(parameters: Vector) -> Query:
    """Return the query for the likelihood's terms at parameters of shape (p,)."""
    return Query(step=STEP, values={PARAMETERS: tuple(float(value) for value in parameters)})


def queried_parameters(query: Query, n_parameters: int) -> Vector:
    """Return the parameters a site is asked at, shape (p,); QueryError if it is another query."""
    if query.step != STEP or set(query.values) != {PARAMETERS}:
        raise QueryError(f"a likelihood is asked by the step '{STEP}' with '{PARAMETERS}' alone")
    parameters = np.array(query.values[PARAMETERS], dtype=np.float64)
    if parameters.shape != (n_parameters,):
        raise QueryError(f"expected {n_parameters} parameters, not {len(parameters)}")
    return parameters


@dataclass
class _Search:
    """Where the search stands: the terms of the sites that still answer, at zero and at `at`."""

    null: dict[SiteName, LikelihoodTerms]
    here: dict[SiteName, LikelihoodTerms]
    at: Vector
    refused: dict[SiteName, RefusalCode]

    def drop(self, site: SiteName, code: RefusalCode) -> None:
        """Forget a site, also at zero: what is left is the fit without it."""
        self.refused[site] = code
        del self.null[site], self.here[site]

    def move(self, to: Vector, terms: Mapping[SiteName, LikelihoodTerms]) -> bool:
        """Go to a point if the likelihood of the sites that still answer does not fall there."""
        now, then = _log_likelihood(self.here), _log_likelihood(terms)
        if then < now - LIKELIHOOD_NOISE * (1 + abs(now)):
            return False
        self.at, self.here = to, dict(terms)
        return True


def maximise(
    sites: Sequence[SiteName],
    n_parameters: int,
    aggregate_type: type[LikelihoodTerms],
    *,
    start: Vector | None = None,
    is_concave: bool = True,
    maximum_exchanges: int = MAXIMUM_EXCHANGES,
) -> Generator[Query, Answers, Fit]:
    """Yield queries, receive every site's answer, and return the fit.

    The first query is at `start`, by default zero, which gives the null log-likelihood. A site
    that refuses is left out, at the start too, and the search goes on from where it stands: a
    concave likelihood has one maximum, that of a fit started without the site. A site that only
    finds the parameters out of its bounds stays, and the step is halved. At most
    `maximum_exchanges` queries are asked.

    Where the likelihood is not concave (`is_concave=False`), steps follow the information with
    its eigenvalues made positive, so that they always climb, and every parameter counts as
    identified; a point at which the true information is not positive is no maximum.
    """
    zero = np.zeros(n_parameters) if start is None else start
    first, refused = _split((yield newton_query(zero)), sites, n_parameters, aggregate_type)
    search = _Search(null=dict(first), here=first, at=zero, refused=refused)
    scale, is_bounded = 1.0, False
    for exchange in range(1, maximum_exchanges + 1):
        if not search.here:
            return _failed(search, FitStatus.NO_ANSWER, exchange)
        information = _information(search.here)
        if is_concave:
            identified = _independent(_information(search.null))
            inverse = _inverse(information, identified)
        else:
            identified = np.ones(n_parameters, dtype=np.bool_)
            inverse = _inverse(information, identified)
            is_maximum = inverse is not None
            inverse = inverse if is_maximum else _climbing_inverse(information)
        if inverse is None:
            return _failed(search, FitStatus.NOT_IDENTIFIED, exchange)
        gradient = _gradient(search.here)
        step = inverse @ gradient
        if gradient @ step < DECREMENT_TOLERANCE:
            if not is_concave and not is_maximum:
                return _failed(search, FitStatus.NOT_IDENTIFIED, exchange)
            return _converged(search, step, inverse, identified, exchange)
        if exchange == maximum_exchanges:
            break
        trial = search.at + scale * step
        answers = yield newton_query(trial)
        terms, codes = _split(answers, tuple(search.here), n_parameters, aggregate_type)
        is_within = _leave_out(search, codes)
        is_bounded |= not is_within
        scale = 1.0 if is_within and search.move(trial, terms) else scale / 2
    if is_bounded:
        return _failed(search, FitStatus.OUT_OF_BOUNDS, maximum_exchanges)
    # Steps towards a maximum shrink quadratically: where the likelihood still rises by the last
    # one, there is no maximum before it.
    is_rising = scale == 1.0
    status = FitStatus.UNBOUNDED if is_rising else FitStatus.NOT_CONVERGED
    return _failed(search, status, maximum_exchanges)


def _climbing_inverse(information: Vector) -> Vector | None:
    if not np.any(information):
        return None
    size = np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-300))
    values, vectors = np.linalg.eigh(information / np.outer(size, size))
    curvature = np.maximum(np.abs(values), CURVATURE_FLOOR * np.abs(values).max())
    climbing: Vector = (vectors / curvature) @ vectors.T / np.outer(size, size)
    return climbing


def _split(
    answers: Answers,
    sites: Sequence[SiteName],
    n_parameters: int,
    aggregate_type: type[LikelihoodTerms],
) -> tuple[dict[SiteName, LikelihoodTerms], dict[SiteName, RefusalCode]]:
    terms: dict[SiteName, LikelihoodTerms] = {}
    refused: dict[SiteName, RefusalCode] = {}
    for site in sites:
        answer: Aggregate | RefusalCode = answers[site]
        if isinstance(answer, aggregate_type) and len(answer.gradient) == n_parameters:
            terms[site] = answer
        elif isinstance(answer, RefusalCode):
            refused[site] = answer
        else:
            # An answer of another shape is a fault at the site, like one that cannot be read.
            refused[site] = RefusalCode.INTERNAL
    return terms, refused


def _leave_out(search: _Search, codes: Mapping[SiteName, RefusalCode]) -> bool:
    """Drop the sites that refused; say whether the point was within every other site's bounds."""
    is_within = True
    for site, code in codes.items():
        if code is RefusalCode.PARAMETERS_OUT_OF_BOUNDS:
            is_within = False
        else:
            search.drop(site, code)
    return is_within


def _log_likelihood(terms: Mapping[SiteName, LikelihoodTerms]) -> float:
    return sum(answer.log_likelihood for answer in terms.values())


def _information(terms: Mapping[SiteName, LikelihoodTerms]) -> Vector:
    total: Vector = np.sum(
        [answer.information for answer in terms.values()], axis=0, dtype=np.float64
    )
    return total


def _independent(information: Vector) -> NDArray[np.bool_]:
    """Say which columns are not linear combinations of earlier ones, by a stepwise Cholesky."""
    p = len(information)
    size = np.sqrt(np.maximum(np.diag(information), 0.0))
    kept: list[int] = []
    root = np.zeros((p, p))
    for j in np.flatnonzero(size > 0):
        k = len(kept)
        cross = information[kept, j] / (size[kept] * size[j])
        row = linalg.solve_triangular(root[:k, :k], cross, lower=True) if k else cross
        left = 1.0 - float(row @ row)
        if left > DEPENDENCE_TOLERANCE:
            root[k, :k], root[k, k] = row, left**0.5
            kept.append(int(j))
    keep = np.zeros(p, dtype=np.bool_)
    keep[kept] = True
    return keep


def _block(information: Vector, keep: NDArray[np.bool_]) -> Vector:
    block: Vector = information[np.ix_(keep, keep)]
    return block


def _gradient(terms: Mapping[SiteName, LikelihoodTerms]) -> Vector:
    total: Vector = np.sum([answer.gradient for answer in terms.values()], axis=0, dtype=np.float64)
    return total


def _inverse(information: Vector, identified: NDArray[np.bool_]) -> Vector | None:
    """Return the inverse on the identified parameters, 0 elsewhere; None if it is singular."""
    block = _block(information, identified)
    size = np.sqrt(np.maximum(np.diag(block), 0.0))
    if len(block) == 0 or np.any(size == 0):
        return None
    # Scaled to ones on the diagonal, so that the covariates' units do not decide what is singular.
    try:
        root = linalg.cho_factor(block / np.outer(size, size))
    except linalg.LinAlgError:
        return None
    inverse = np.zeros_like(information)
    inverse[np.ix_(identified, identified)] = linalg.cho_solve(root, np.eye(len(block))) / np.outer(
        size, size
    )
    return inverse


def _converged(
    search: _Search,
    step: Vector,
    inverse: Vector,
    identified: NDArray[np.bool_],
    n_exchanges: int,
) -> Fit:
    parameters = np.where(identified, search.at + step, np.nan)
    return _fit(search, FitStatus.OK, parameters, inverse, identified, n_exchanges)


def _failed(search: _Search, status: FitStatus, n_exchanges: int) -> Fit:
    p = len(search.at)
    nothing, none = np.full(p, np.nan), np.zeros(p, dtype=np.bool_)
    return _fit(search, status, nothing, np.zeros((p, p)), none, n_exchanges)


def _fit(
    search: _Search,
    status: FitStatus,
    parameters: Vector,
    covariance: Vector,
    identified: NDArray[np.bool_],
    n_exchanges: int,
) -> Fit:
    return Fit(
        status=status,
        parameters=parameters,
        standard_errors=np.where(identified, np.sqrt(np.diag(covariance)), np.nan),
        covariance=covariance,
        identified=identified,
        log_likelihood=_log_likelihood(search.here),
        null_log_likelihood=_log_likelihood(search.null),
        n_patients=sum(answer.n_patients for answer in search.null.values()),
        n_events=sum(answer.n_events for answer in search.null.values()),
        sites=tuple(search.here),
        refused=dict(search.refused),
        n_exchanges=n_exchanges,
    )
