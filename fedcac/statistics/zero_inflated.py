"""Zero-inflated Poisson likelihood of calcium scores, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = [
    "EXPONENT_CAP",
    "PREDICTOR_LIMIT",
    "ZipRows",
    "ZipTerms",
    "predictors",
    "row_terms",
    "zip_start",
    "zip_terms",
]

Vector = NDArray[np.float64]
Codes = NDArray[np.int64]

PREDICTOR_LIMIT = 300.0

EXPONENT_CAP = 310.0
"""Above every permitted linear predictor; the square of its exponential is still a double."""
_MEAN_CAP = 1100.0
"""Beyond this mean a zero is structural at any permitted inflation predictor: exp(-800) is 0."""


@dataclass(frozen=True)
class ZipTerms:
    """Log-likelihood, gradient (p,) and information (p, p), the negative second derivative."""

    log_likelihood: float
    gradient: Vector
    information: Vector


@dataclass(frozen=True)
class ZipRows:
    """A row's log-likelihood and its derivatives by eta = log mu and zeta = logit pi, each (n,)."""

    value: Vector
    eta: Vector
    zeta: Vector
    eta2: Vector
    cross: Vector
    zeta2: Vector
    eta3: Vector
    eta2_zeta: Vector


def zip_start(
    n_rows: int, n_zeros: int, total: float, n_x: int, n_z: int, random: bool = False
) -> Vector | None:
    """Return parameters to start from, out of sums that add up over sites; None without positives.

    Parameters
    ----------
    n_rows, n_zeros, total
        Number of responses, how many of them are 0, and their sum.
    n_x, n_z
        Columns of the two designs; the first of each is the intercept, and all slopes start at 0.
    random
        Whether log sigma follows; it starts at 0, and beta_0 makes room for it by sigma^2 / 2.

    Returns
    -------
    parameters
        beta_0 is the log mean of the positive responses, gamma_0 the logit of
        (n_zeros + 1/2) / (n_rows + 1), finite at any counts.

    Raises
    ------
    ValueError
        If the counts are impossible or a design has no column.
    """
    if not 0 <= n_zeros <= n_rows or not 0 <= total < np.inf or min(n_x, n_z) < 1:
        raise ValueError("a start needs 0 <= n_zeros <= n_rows, a total >= 0 and two intercepts")
    n_positive = n_rows - n_zeros
    if total < n_positive or (n_positive == 0 and total > 0):
        raise ValueError("the total does not fit the number of positive responses")
    if n_positive == 0:
        return None
    start = np.zeros(n_x + n_z + random)
    start[0] = np.log(total / n_positive) - (0.5 if random else 0.0)
    start[n_x] = np.log((n_zeros + 0.5) / (n_positive + 0.5))
    return start


def zip_terms(y: Vector, x: Vector, z: Vector, parameters: Vector) -> ZipTerms:
    """Return the exact terms of zero-inflated Poisson regression.

    P(y = 0) = pi + (1 - pi) exp(-mu), otherwise (1 - pi) Poisson(y; mu), with log mu = x beta and
    logit pi = z gamma (Lambert, Technometrics 1992;34:1). Rows are taken to be independent.

    Parameters
    ----------
    y
        Responses, shape (n,): whole numbers >= 0.
    x, z
        Designs of the mean and of the inflation, shapes (n, q) and (n, r).
    parameters
        (beta, gamma), shape (q + r,).

    Notes
    -----
    What an optimiser can rely on: the terms are sums over rows, hence add up over sites; the
    gradient and the information are analytic and finite wherever a value is returned; the
    log-likelihood is bounded above by 0 and smooth. It is not concave: the information may be
    indefinite away from a maximum, there may be more than one, and if no zero is in excess
    gamma_0 tends to minus infinity.

    Raises
    ------
    ValueError
        If shapes do not match, a response is not a whole number >= 0, or a linear predictor is not
        within [-300, 300]; a search treats the latter as a step too long.
    """
    eta, zeta = predictors(y, x, z, parameters, 0)
    rows = row_terms(y, eta, zeta)
    cross = -(x.T @ (rows.cross[:, None] * z))
    information = np.block(
        [
            [-(x.T @ (rows.eta2[:, None] * x)), cross],
            [cross.T, -(z.T @ (rows.zeta2[:, None] * z))],
        ]
    )
    gradient = np.concatenate([x.T @ rows.eta, z.T @ rows.zeta])
    return ZipTerms(float(np.sum(rows.value)), gradient, (information + information.T) / 2)


def predictors(
    y: Vector, x: Vector, z: Vector, parameters: Vector, n_extra: int
) -> tuple[Vector, Vector]:
    """Return log mu and logit pi of every row, both (n,); `n_extra` parameters follow theirs.

    Raises
    ------
    ValueError
        If shapes do not fit, a response is no whole number >= 0, or a predictor is out of range.
    """
    if x.ndim != 2 or z.ndim != 2 or y.shape != (len(x),) or len(x) != len(z):
        raise ValueError("y, x and z need the same number of rows")
    if parameters.shape != (x.shape[1] + z.shape[1] + n_extra,):
        raise ValueError("one parameter per column is needed")
    if not np.all(np.isfinite(y) & (y >= 0) & (y == np.floor(y))):
        raise ValueError("a response is not a whole number >= 0")
    with np.errstate(over="ignore", invalid="ignore"):
        eta = x @ parameters[: x.shape[1]]
        zeta = z @ parameters[x.shape[1] : x.shape[1] + z.shape[1]]
    # Written so that NaN fails too.
    if not (np.all(np.abs(eta) <= PREDICTOR_LIMIT) and np.all(np.abs(zeta) <= PREDICTOR_LIMIT)):
        raise ValueError("a linear predictor is not within [-300, 300]")
    return eta, zeta


def row_terms(y: Vector, eta: Vector, zeta: Vector) -> ZipRows:
    """Return every row's log-likelihood at its log mean and logit of inflation, and derivatives."""
    zero = y == 0
    mu = np.exp(np.minimum(eta, EXPONENT_CAP))
    m = np.minimum(mu, _MEAN_CAP)
    w, structural = special.expit(-m - zeta), special.expit(m + zeta)
    both = w * structural
    skew = both * (structural - w)
    pi = special.expit(zeta)
    pi2 = pi * special.expit(-zeta)
    log_zero = np.logaddexp(zeta, -m)
    value = np.where(zero, log_zero, y * eta - mu - special.gammaln(y + 1))
    return ZipRows(
        value=value - np.logaddexp(0, zeta),
        eta=np.where(zero, -m * w, y - mu),
        zeta=np.where(zero, structural, 0) - pi,
        eta2=np.where(zero, m * (m * both - w), -mu),
        cross=np.where(zero, m * both, 0),
        zeta2=np.where(zero, both, 0) - pi2,
        eta3=np.where(zero, m * (3 * m * both - w - m**2 * skew), -mu),
        eta2_zeta=np.where(zero, m * both - m**2 * skew, 0),
    )
