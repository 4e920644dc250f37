"""Tests and differences of paired classifications: equal margins, paired proportions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedcac.statistics.intervals import wilson
from fedcac.statistics.risk_sets import ChiSquare
from fedcac.statistics.rows import Value, wald

__all__ = [
    "bhapkar",
    "mcnemar_exact",
    "newcombe_difference",
    "ratio_difference",
    "stuart_maxwell",
]

Vector = NDArray[np.float64]


def stuart_maxwell(matrix: NDArray[np.int64]) -> ChiSquare | None:
    """Return the test that rows and columns of counts (k, k) have the same margins.

    Stuart (Biometrika 1955;42:412) and Maxwell (Br J Psychiatry 1970;116:651). None if no patient
    is classified in two ways. A category in which both agree always says nothing and costs no
    degree of freedom.
    """
    difference = (matrix.sum(axis=1) - matrix.sum(axis=0)).astype(np.float64)
    covariance = -(matrix + matrix.T).astype(np.float64)
    np.fill_diagonal(covariance, 0.0)
    np.fill_diagonal(covariance, -covariance.sum(axis=1))
    # The differences sum to zero, so the covariance is singular by at least one.
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-9 * values.max()
    df = int(np.count_nonzero(kept))
    if df == 0:
        return None
    chi2 = float(np.sum((vectors[:, kept].T @ difference) ** 2 / values[kept]))
    return ChiSquare(chi2, df, float(special.chdtrc(df, chi2)))


def bhapkar(matrix: NDArray[np.int64]) -> ChiSquare | None:
    """Return Bhapkar's test of the same (J Am Stat Assoc 1966;61:228): W = Q / (1 - Q / n).

    None as `stuart_maxwell`, or if all margins differ as much as they can (Q = n).
    """
    test = stuart_maxwell(matrix)
    n = int(matrix.sum())
    if test is None or test.chi2 >= n * (1 - 1e-12):
        return None
    chi2 = test.chi2 / (1 - test.chi2 / n)
    return ChiSquare(chi2, test.df, float(special.chdtrc(test.df, chi2)))


def mcnemar_exact(first_only: int, second_only: int) -> float:
    """Return the two-sided binomial p-value of equal proportions; 1 without discordant pairs."""
    n = first_only + second_only
    return min(1.0, 2 * float(special.bdtr(min(first_only, second_only), n, 0.5)))


def newcombe_difference(both: int, first_only: int, second_only: int, neither: int) -> Value | None:
    """Return the difference of two paired proportions, first minus second; None without patients.

    Newcombe's hybrid score interval (Stat Med 1998;17:2635, method 10), the exact McNemar p-value
    and Wald's standard error.
    """
    n = both + first_only + second_only + neither
    if n == 0:
        return None
    p1, p2 = (both + first_only) / n, (both + second_only) / n
    low1, high1 = (float(limit) for limit in wilson(both + first_only, n))
    low2, high2 = (float(limit) for limit in wilson(both + second_only, n))
    margins = (both + first_only, second_only + neither, both + second_only, first_only + neither)
    product = float(np.prod(np.array(margins, dtype=np.float64)))
    cross = float(both * neither - first_only * second_only)
    # The continuity correction applies to a positive association only.
    if cross > 0:
        cross = max(cross - n / 2, 0.0)
    phi = cross / product**0.5 if product > 0 else 0.0
    estimate = p1 - p2

    def reach(a: float, b: float) -> float:
        return float(np.sqrt(a**2 - 2 * phi * a * b + b**2))

    discordant = first_only + second_only
    se = (discordant - (first_only - second_only) ** 2 / n) ** 0.5 / n
    return Value(
        estimate,
        se,
        estimate - reach(p1 - low1, high2 - p2),
        estimate + reach(high1 - p1, p2 - low2),
        "newcombe",
        mcnemar_exact(first_only, second_only),
    )


def ratio_difference(
    cells: Vector, first: tuple[Vector, Vector], second: tuple[Vector, Vector]
) -> Value | None:
    """Return a/b - c/d for counts that are sums of a multinomial's cells; None if b or d is 0.

    The variance is the delta method's, so it holds whether the two ratios share patients wholly,
    partly or not at all: PPVs of two tests of one cohort, say.

    Parameters
    ----------
    cells
        Counts, shape (m,).
    first, second
        Weights of the cells in numerator and denominator, each (m,).
    """
    ratios, gradient = [], np.zeros(len(cells))
    for sign, (top, bottom) in ((1, first), (-1, second)):
        denominator = float(bottom @ cells)
        if denominator <= 0:
            return None
        ratio = float(top @ cells) / denominator
        ratios.append(ratio)
        gradient += sign * (top - ratio * bottom) / denominator
    estimate = ratios[0] - ratios[1]
    # Sum g^2 n - (Sum g n)^2 / n, of which the second term is zero for ratios.
    se = float(np.sqrt(gradient**2 @ cells))
    return wald(estimate, se, method="delta", is_tested=True)
