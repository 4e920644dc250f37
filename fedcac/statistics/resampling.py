"""Secret groups and samples of a site's patients, and what the replicates say of a statistic.

Who is in which group follows from a secret that never leaves the site: with seeds that the
coordinator knew, B replicates would be B known equations about single patients. Deleting a group
of at least k patients keeps the difference of any two replicates a sum over at least k patients.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedcac.exams import Exams
from fedcac.statistics.rows import Value
from fedcac.vocabulary import Resampling

__all__ = ["deal_groups", "replicate_rows", "replicate_spread"]

Rows = NDArray[np.int64]

_MINIMUM_PERCENTILE = 200
"""With fewer bootstrap samples the 2.5th percentile is one of the outermost few."""


def deal_groups(exams: Exams, purpose: str, n_groups: int) -> Rows:
    """Return a group 0 .. n_groups - 1 for every patient, shape (n,); sizes differ by at most one.

    The order in which patients are dealt is that of HMAC(secret, purpose and key), so it does not
    depend on the order of rows.

    Raises
    ------
    ValueError
        If the site has no secret.
    """
    tags = [_tag(exams.secret, f"{purpose}|{key}") for key in exams.keys]
    groups = np.empty(exams.n, dtype=np.int64)
    groups[np.array(sorted(range(exams.n), key=tags.__getitem__), dtype=np.int64)] = (
        np.arange(exams.n) % n_groups
    )
    return groups


def replicate_rows(exams: Exams, purpose: str, method: Resampling, replicates: int) -> list[Rows]:
    """Return the increasing row numbers of every replicate.

    Jackknife: all rows but a group's. Bootstrap: n rows drawn with replacement by a generator
    that is seeded from the site's secret, in the order of the patients' keys.

    Raises
    ------
    ValueError
        If the site has no secret, or nothing is to be resampled.
    """
    if method is Resampling.JACKKNIFE:
        groups = deal_groups(exams, purpose, replicates)
        return [np.flatnonzero(groups != group) for group in range(replicates)]
    if method is not Resampling.BOOTSTRAP:
        raise ValueError("there is nothing to resample")
    by_key = np.array(sorted(range(exams.n), key=exams.keys.__getitem__), dtype=np.int64)
    rows = []
    for number in range(replicates):
        seed = int.from_bytes(_tag(exams.secret, f"{purpose}|{number}"), "big")
        drawn = np.random.default_rng(seed).integers(0, exams.n, exams.n)
        rows.append(np.sort(by_key[drawn]))
    return rows


def _tag(secret: bytes, message: str) -> bytes:
    if not secret:
        raise ValueError("resampling needs the site's secret")
    # The secret serves for pseudonyms too: the prefix keeps the two apart.
    return hmac.new(secret, f"resampling|{message}".encode(), hashlib.sha256).digest()


def replicate_spread(
    estimate: float, replicates: NDArray[np.float64], method: Resampling
) -> Value | None:
    """Return an estimate with its spread over replicates, or None if one has no value.

    Delete-a-group jackknife (Kott 2001): SE^2 = (G - 1)/G sum (theta_g - mean)^2, a t interval
    with G - 1 degrees of freedom. Bootstrap: SE is the standard deviation of the B samples; the
    interval is the percentile interval from B = 200 on, else normal.
    """
    size = len(replicates)
    if size < 2 or not np.all(np.isfinite(replicates)) or not np.isfinite(estimate):
        return None
    squares = float(np.sum((replicates - replicates.mean()) ** 2))
    if method is Resampling.JACKKNIFE:
        se = (squares * (size - 1) / size) ** 0.5
        half = float(special.stdtrit(size - 1, 0.975)) * se
        p = float(2 * special.stdtr(size - 1, -abs(estimate) / se)) if se > 0 else None
        return Value(estimate, se, estimate - half, estimate + half, "jackknife_t", p)
    se = (squares / (size - 1)) ** 0.5
    p = float(2 * special.ndtr(-abs(estimate) / se)) if se > 0 else None
    if size >= _MINIMUM_PERCENTILE:
        low, high = np.quantile(replicates, (0.025, 0.975))
        return Value(estimate, se, float(low), float(high), "bootstrap_percentile", p)
    half = float(special.ndtri(0.975)) * se
    return Value(estimate, se, estimate - half, estimate + half, "bootstrap_normal", p)
