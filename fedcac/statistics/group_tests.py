"""Tests of several groups, and quantiles, from counts by bin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedcac.statistics.risk_sets import ChiSquare

__all__ = ["binned_quantile", "kruskal_wallis", "pearson_chi2", "quantile_bin"]

Counts = NDArray[np.int64]


def pearson_chi2(table: Counts) -> ChiSquare | None:
    """Return Pearson's chi-square of counts (groups, levels), without continuity correction.

    Empty rows and columns are left out; None if fewer than two of either remain.
    """
    kept = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if min(kept.shape) < 2:
        return None
    expected = np.outer(kept.sum(axis=1), kept.sum(axis=0)) / kept.sum()
    chi2 = float(np.sum((kept - expected) ** 2 / expected))
    df = (kept.shape[0] - 1) * (kept.shape[1] - 1)
    return ChiSquare(chi2, df, float(special.chdtrc(df, chi2)))


def kruskal_wallis(table: Counts) -> ChiSquare | None:
    """Return Kruskal and Wallis's test of values in ordered bins, counts (groups, bins).

    Values of one bin are tied; the statistic is corrected for ties. With two groups it is Mann
    and Whitney's test by the normal approximation without continuity correction. None with fewer
    than two groups, or if all values are in one bin.
    """
    kept = table[table.sum(axis=1) > 0].astype(np.float64)
    sizes, bins = kept.sum(axis=1), kept.sum(axis=0)
    n = float(sizes.sum())
    if len(kept) < 2 or np.count_nonzero(bins) < 2:
        return None
    ranks = np.cumsum(bins) - (bins - 1) / 2
    mean = kept @ ranks / sizes
    h = 12 / (n * (n + 1)) * float(np.sum(sizes * (mean - (n + 1) / 2) ** 2))
    chi2 = h / (1 - float(np.sum(bins**3 - bins)) / (n**3 - n))
    df = len(kept) - 1
    return ChiSquare(chi2, df, float(special.chdtrc(df, chi2)))


def quantile_bin(counts: Counts, share: float) -> int:
    """Return the bin that holds the value below which a share of the patients lies."""
    place = int(np.searchsorted(_cumulative(counts), share, side="left"))
    return min(max(place, 1), len(counts)) - 1


def _cumulative(counts: Counts) -> NDArray[np.float64]:
    return np.asarray(np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum())


def binned_quantile(edges: NDArray[np.float64], counts: Counts, share: float) -> float:
    """Return the value below which a share of the patients lies, values spread evenly in a bin.

    Parameters
    ----------
    edges
        Limits of the bins, shape (bins + 1,), increasing.
    counts
        Patients per bin, shape (bins,), at least one.
    share
        Above 0, so that a patient stands in the bin it falls into.
    """
    place = quantile_bin(counts, share) + 1
    cumulative = _cumulative(counts)
    low, high = float(cumulative[place - 1]), float(cumulative[place])
    part = (share - low) / (high - low)
    found = float(edges[place - 1] + part * (edges[place] - edges[place - 1]))
    # The bin of zeros ends at the smallest number above zero.
    return 0.0 if abs(found) < 1e-300 else found
