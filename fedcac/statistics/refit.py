"""Refits of a model on replicates of the patients, from gradients alone.

Near its maximum every replicate has almost the information of the whole, so the first step is
taken with the inverse information that the full fit already released. After that each replicate's
own inverse is learned from its gradients (BFGS): sites release one gradient per replicate and
exchange, and no further matrix.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from fedcac.aggregate import Totals
from fedcac.exchange.messages import Query
from fedcac.statistics.estimator import Answers, QueryError
from fedcac.statistics.fit import Fit
from fedcac.statistics.sums import summed_totals, totals_status
from fedcac.vocabulary import RowStatus, SiteName

__all__ = [
    "REFIT",
    "queried_table",
    "refit",
    "stacked_covariance",
    "table_query",
]

REFIT = "refit"
PARAMETERS = "beta"

TOLERANCE = 1e-3
"""Stop when no parameter of any replicate moves by more than this share of its standard error."""

MAXIMUM_EXCHANGES = 10

Table = NDArray[np.float64]


def table_query(step: str, table: Table) -> Query:
    """Return a query with one row of parameters per replicate, shape (R, p)."""
    flat = tuple(float(value) for value in table.reshape(-1))
    return Query(step=step, values={PARAMETERS: flat})


def queried_table(query: Query, n_rows: int, n_parameters: int) -> Table:
    """Return the parameters of every replicate, shape (n_rows, p); QueryError if they are not."""
    values = query.values.get(PARAMETERS, ())
    if set(query.values) != {PARAMETERS} or len(values) != n_rows * n_parameters:
        raise QueryError(f"expected {n_rows} rows of {n_parameters} parameters")
    return np.array(values, dtype=np.float64).reshape(n_rows, n_parameters)


def stacked_covariance(fits: Sequence[Fit]) -> Table:
    """Return the block-diagonal inverse information of several fits."""
    stacked: Table = linalg.block_diag(*(fit.covariance for fit in fits))
    return stacked


def refit(
    start: Table,
    covariance: Table,
    sites: Sequence[SiteName],
    kind: type[Totals],
    *,
    tolerance: float = TOLERANCE,
    maximum_exchanges: int = MAXIMUM_EXCHANGES,
) -> Generator[Query, Answers, Table | RowStatus]:
    """Yield queries for the replicates' gradients and return their maxima, shape (R, p).

    Parameters
    ----------
    start
        The full fit's parameters once per replicate, shape (R, p).
    covariance
        Inverse information to step with, shape (p, p); a parameter with a zero row stays.

    Returns
    -------
    Table | RowStatus
        The status of what would need the maxima: by the code if a site did not answer, not
        estimable if a replicate runs away, an error if one has not settled after
        `maximum_exchanges`.
    """
    at: Table = start.copy()
    inverse: Table = np.tile(covariance, (len(start), 1, 1))
    se = np.sqrt(np.diag(covariance))
    previous, step = np.zeros_like(start), np.zeros_like(start)
    for _ in range(maximum_exchanges):
        answers = yield table_query(REFIT, at)
        gradients = summed_totals(answers, sites, kind, at.shape)
        if gradients is None:
            return totals_status(answers, sites, kind)
        # Of the first gradients nothing is learned: no step led to them.
        inverse = _learned(inverse, step, previous - gradients)
        step = np.einsum("rij,rj->ri", inverse, gradients)
        if not np.all(np.abs(step) <= 3 * se * np.sqrt(len(at))):
            return RowStatus.NOT_ESTIMABLE
        at, previous = at + step, gradients
        if np.all(np.abs(step) <= tolerance * se):
            return at
    return RowStatus.ERROR


def _learned(inverse: Table, step: Table, change: Table) -> Table:
    """Return inverse informations (R, p, p) that explain how the gradients changed, by BFGS."""
    curvature = np.einsum("ri,ri->r", step, change)
    is_usable = curvature > 1e-12 * np.linalg.norm(step, axis=1) * np.linalg.norm(change, axis=1)
    rho = np.where(is_usable, 1 / np.where(is_usable, curvature, 1.0), 0.0)
    mixed = np.einsum("rij,rj->ri", inverse, change)
    scale = rho + rho**2 * np.einsum("ri,ri->r", change, mixed)
    outer = np.einsum("ri,rj->rij", step, mixed)
    learned: Table = (
        inverse
        - rho[:, None, None] * (outer + outer.transpose(0, 2, 1))
        + scale[:, None, None] * np.einsum("ri,rj->rij", step, step)
    )
    return learned
