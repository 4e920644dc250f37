"""Bivariate random-effects model of sensitivity and specificity by REML (Reitsma 2005)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from fedcac.statistics.intervals import Z95

__all__ = ["MINIMUM_SITES_BIVARIATE", "Fallback", "Proportion", "Reitsma", "reitsma"]

MINIMUM_SITES_BIVARIATE = 10
"""With fewer sites two variances and a correlation between sites cannot be told apart."""

LARGEST_RHO = 0.995
SMALLEST_TAU = 1e-4
LARGEST_FACTOR = 25.0
"""Bound of the Cholesky elements in the search; no logit of a countable proportion is larger."""
GRADIENT_TOLERANCE = 1e-7
STEPS = 20

Array = NDArray[np.float64]


class Fallback(StrEnum):
    """Why there is no bivariate fit."""

    FEW_SITES = "few_sites"
    SINGULAR = "singular"
    NOT_CONVERGED = "not_converged"


class Proportion(NamedTuple):
    """A proportion with its 95% interval."""

    estimate: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, eq=False)
class Reitsma:
    """The fitted model; pairs are in the order sensitivity, specificity.

    Attributes
    ----------
    sensitivity, specificity
        At the mean site, with Wald intervals built on the logit scale.
    means, covariance
        Mean logits (2,) and the covariance (2, 2) of their estimates.
    tau, rho
        Standard deviations (2,) of the sites' true logits, and their correlation.
    n_sites
        Sites with both diseased and healthy patients.
    """

    sensitivity: Proportion
    specificity: Proportion
    means: Array
    covariance: Array
    tau: Array
    rho: float
    n_sites: int


def reitsma(tables: Sequence[tuple[int, int, int, int]]) -> Reitsma | Fallback:
    """Fit the model to one (tp, fn, fp, tn) per site.

    0.5 is added to all four cells of a site if one of them is empty. Sites without diseased or
    without healthy patients do not count.

    Returns
    -------
    Reitsma or Fallback
        FEW_SITES below `MINIMUM_SITES_BIVARIATE`; SINGULAR if the between-site covariance is
        estimated on, or next to, the edge of its range; NOT_CONVERGED if no maximum was found.
    """
    cells = np.array([t for t in tables if t[0] + t[1] > 0 and t[2] + t[3] > 0], dtype=np.float64)
    if len(cells) < MINIMUM_SITES_BIVARIATE:
        return Fallback.FEW_SITES
    cells[np.any(cells == 0, axis=1)] += 0.5
    tp, fn, fp, tn = cells.T
    model = _Restricted(
        np.stack([np.log(tp / fn), np.log(tn / fp)], axis=1),
        np.stack([1 / tp + 1 / fn, 1 / tn + 1 / fp], axis=1),
    )
    theta = model.maximum()
    sigma = _sigma(theta)
    tau = np.sqrt(np.diag(sigma))
    if np.any(tau < SMALLEST_TAU):
        return Fallback.SINGULAR
    rho = float(sigma[0, 1] / (tau[0] * tau[1]))
    if abs(rho) > LARGEST_RHO:
        return Fallback.SINGULAR
    if np.max(np.abs(model.cost(theta)[1])) > GRADIENT_TOLERANCE:
        return Fallback.NOT_CONVERGED
    means, covariance = model.means(theta)
    half = Z95 * np.sqrt(np.diag(covariance))
    proportions = special.expit(np.stack([means, means - half, means + half], axis=1)).tolist()
    return Reitsma(
        sensitivity=Proportion(*proportions[0]),
        specificity=Proportion(*proportions[1]),
        means=means,
        covariance=covariance,
        tau=tau,
        rho=rho,
        n_sites=len(cells),
    )


def _factor(theta: Array) -> Array:
    """Return the lower triangle with the elements (l11, l21, l22)."""
    return np.array([[theta[0], 0.0], [theta[1], theta[2]]], dtype=np.float64)


def _sigma(theta: Array) -> Array:
    """Return the between-site covariance whose Cholesky elements are `theta`."""
    factor = _factor(theta)
    sigma: Array = factor @ factor.T
    return sigma


class _Restricted:
    """Restricted likelihood of logits `y` (n, 2) with within-site variances `v` (n, 2)."""

    def __init__(self, y: Array, v: Array) -> None:
        self.y, self.v = y, v

    def weights(self, theta: Array) -> tuple[Array, Array]:
        """Return the inverses (n, 2, 2) of the sites' total covariances, and their log |V|."""
        sigma = _sigma(theta)
        a, b = (self.v + np.diag(sigma)).T
        # Not a b - c^2, which cancels if the between-site covariance is large and nearly singular.
        determinant = self.v[:, 0] * b + self.v[:, 1] * sigma[0, 0] + (theta[0] * theta[2]) ** 2
        c = np.full_like(a, -sigma[0, 1])
        adjugate = np.stack([b, c, c, a], axis=1).reshape(-1, 2, 2)
        return adjugate / determinant[:, None, None], np.log(determinant)

    def means(self, theta: Array) -> tuple[Array, Array]:
        """Return the generalised least squares means and their covariance."""
        w, _ = self.weights(theta)
        covariance = np.linalg.inv(w.sum(axis=0))
        return covariance @ np.einsum("nij,nj->i", w, self.y), covariance

    def cost(self, theta: Array) -> tuple[float, Array]:
        """Return minus the restricted log-likelihood and its gradient."""
        w, log_determinants = self.weights(theta)
        means, covariance = self.means(theta)
        residual = self.y - means
        wr = np.einsum("nij,nj->ni", w, residual)
        cost = 0.5 * (
            np.sum(log_determinants) - np.linalg.slogdet(covariance)[1] + np.sum(residual * wr)
        )
        # The means maximise the likelihood at every theta, so they add nothing to the gradient.
        slope = 0.5 * (np.sum(w - w @ covariance @ w, axis=0) - wr.T @ wr)
        by_factor = 2 * slope @ _factor(theta)
        return float(cost), by_factor[np.tril_indices(2)]

    def maximum(self) -> Array:
        """Return the Cholesky elements of the largest restricted likelihood found."""
        sd = np.std(self.y, axis=0, ddof=1) + 0.01
        found = []
        # Where large sites agree and small ones do not there are several maxima; those of a
        # correlation of 1 or -1 are found from there.
        for scale, rho in product((1.0, 0.1), (-1.0, -0.6, 0.0, 0.6, 1.0)):
            start = scale * np.array([sd[0], rho * sd[1], np.sqrt(1 - rho**2) * sd[1]])
            found.append(
                optimize.minimize(
                    self.cost,
                    start,
                    jac=True,
                    method="L-BFGS-B",
                    bounds=[(-LARGEST_FACTOR, LARGEST_FACTOR)] * 3,
                    options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 500},
                )
            )
        return self.polished(np.asarray(min(found, key=lambda fit: fit.fun).x))

    def polished(self, theta: Array) -> Array:
        """Return `theta` after Newton steps, as long as they make the gradient smaller."""
        gradient = self.cost(theta)[1]
        for _ in range(STEPS):
            eye = 1e-5 * np.eye(3)
            hessian = np.array(
                [(self.cost(theta + e)[1] - self.cost(theta - e)[1]) / 2e-5 for e in eye]
            )
            step = np.linalg.lstsq((hessian + hessian.T) / 2, gradient, rcond=1e-10)[0]
            next_gradient = self.cost(theta - step)[1]
            if np.max(np.abs(next_gradient)) >= np.max(np.abs(gradient)):
                break
            theta, gradient = theta - step, next_gradient
        return theta
