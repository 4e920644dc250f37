"""Confidence intervals of proportions, vectorised."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fedcac.vocabulary import Interval

__all__ = ["Z95", "clopper_pearson", "eng2021", "proportion_interval", "wilson"]

Z95 = float(special.ndtri(0.975))
"""The normal quantile of a two-sided 95 % interval, 1.959964."""

Limits = tuple[NDArray[np.float64], NDArray[np.float64]]


def _check_counts(successes: ArrayLike, n: ArrayLike) -> Limits:
    k, total = np.broadcast_arrays(
        np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    )
    if np.any(total <= 0) or np.any(k < 0) or np.any(k > total):
        raise ValueError("a proportion needs n > 0 and 0 <= successes <= n")
    return k, total


def wilson(successes: ArrayLike, n: ArrayLike) -> Limits:
    """Return the 95 % score interval without continuity correction (Wilson 1927).

    Parameters
    ----------
    successes, n
        Counts, broadcast against each other; n > 0.

    Returns
    -------
    low, high
        Arrays of the broadcast shape, within [0, 1].

    Raises
    ------
    ValueError
        If a count is impossible.
    """
    k, total = _check_counts(successes, n)
    p = k / total
    spread = Z95 * np.sqrt(p * (1 - p) / total + Z95**2 / (4 * total**2))
    centre = p + Z95**2 / (2 * total)
    scale = 1 + Z95**2 / total
    # At 0 and n the limit is the bound itself; the difference of equal roots leaves 1e-17.
    low = np.where(k == 0, 0.0, (centre - spread) / scale)
    high = np.where(k == total, 1.0, (centre + spread) / scale)
    return low, high


def clopper_pearson(successes: ArrayLike, n: ArrayLike) -> Limits:
    """Return the 95 % exact interval (Clopper and Pearson 1934); arguments as `wilson`."""
    k, total = _check_counts(successes, n)
    low = np.where(k == 0, 0.0, special.betaincinv(np.maximum(k, 0.5), total - k + 1, 0.025))
    high = np.where(k == total, 1.0, special.betaincinv(k + 1, np.maximum(total - k, 0.5), 0.975))
    return low, high


def eng2021(proportion: ArrayLike, n_total: ArrayLike) -> Limits:
    """Return the interval printed in Eng 2021, Table 3: p +- 1.96 sqrt(p(1-p)/n_total).

    `n_total` is the number of all patients of the cohort, not the proportion's own denominator, so
    the interval is too narrow; it serves to reproduce the paper. Clipped to [0, 1].

    Raises
    ------
    ValueError
        If a proportion is outside [0, 1] or n_total is not positive.
    """
    p, total = np.broadcast_arrays(
        np.asarray(proportion, dtype=np.float64), np.asarray(n_total, dtype=np.float64)
    )
    if np.any(total <= 0) or np.any(p < 0) or np.any(p > 1):
        raise ValueError("eng2021 needs 0 <= proportion <= 1 and n_total > 0")
    half = 1.96 * np.sqrt(p * (1 - p) / total)
    return np.clip(p - half, 0.0, 1.0), np.clip(p + half, 0.0, 1.0)


def proportion_interval(
    method: Interval, successes: int, n: int, n_total: int
) -> tuple[float, float]:
    """Return the 95 % interval of one proportion; `n_total` matters to `eng2021` alone."""
    if method is Interval.ENG2021:
        low, high = eng2021(successes / n, n_total)
    elif method is Interval.CLOPPER_PEARSON:
        low, high = clopper_pearson(successes, n)
    else:
        low, high = wilson(successes, n)
    return float(low), float(high)
