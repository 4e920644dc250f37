"""Area under the ROC curve from binned counts of both classes, and DeLong's variance of it.

Bins of the two classes need not be the same: a disclosure gate may have merged them. Two patients
whose bins overlap count one half, and `error_bound` says how far the AUC of the unbinned values
can be from the estimate because of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedcac.statistics.rows import two_sided_p

__all__ = [
    "LARGEST_BOUND",
    "Auc",
    "Bins",
    "PairedAuc",
    "auc_of_bins",
    "auc_of_values",
    "pair_sums",
    "paired_auc",
    "placements",
]

Vector = NDArray[np.float64]
Integers = NDArray[np.int64]

LARGEST_BOUND = 0.05
"""Where binning alone can move an AUC by more than this, the AUC says nothing."""

N_PAIR_SUMS = 6
"""Per class: patients, sums of both tests' placement values, of their squares, of the product."""


@dataclass(frozen=True)
class Auc:
    """AUC with DeLong's variance; `variance` is None with fewer than two patients in a class."""

    estimate: float
    variance: float | None
    error_bound: float
    n_positive: int
    n_negative: int

    @property
    def se(self) -> float | None:
        """Standard error."""
        return None if self.variance is None else float(np.sqrt(max(self.variance, 0.0)))


@dataclass(frozen=True)
class Bins:
    """Counts of one class on merged bins of a grid of `n_grid` bins, each from `starts` on.

    `is_first_single`: the grid's first bin holds a single value, so that patients of both classes
    in it are tied for certain.
    """

    starts: Integers
    counts: Integers
    n_grid: int
    is_first_single: bool = False

    @property
    def n(self) -> int:
        """Number of patients."""
        return int(self.counts.sum())

    @property
    def ends(self) -> Integers:
        """The first grid bin after each bin."""
        return np.append(self.starts[1:], self.n_grid)

    @classmethod
    def on_grid(cls, counts: Integers) -> Self:
        """Return bins that are the grid itself."""
        return cls(np.arange(len(counts)), counts, len(counts))

    def below(self, starts: Integers) -> Integers:
        """Return how many patients are in bins that end at or before each position."""
        cumulative = np.concatenate([[0], np.cumsum(self.counts)])
        return np.asarray(cumulative[np.searchsorted(self.ends, starts, side="right")])

    def above(self, ends: Integers) -> Integers:
        """Return how many patients are in bins that start at or after each position."""
        cumulative = np.concatenate([[0], np.cumsum(self.counts)])
        return np.asarray(self.n - cumulative[np.searchsorted(self.starts, ends, side="left")])


def auc_of_bins(positives: Bins, negatives: Bins) -> Auc | None:
    """Return the AUC of binned values; None if a class is empty.

    AUC = (pairs surely ordered rightly + pairs not surely wrong) / 2 pairs. The variance is
    DeLong, DeLong and Clarke-Pearson's (Biometrics 1988;44:837) with the bins as the values.
    """
    p, n = positives.n, negatives.n
    if p == 0 or n == 0:
        return None
    v_positive, spread = _placement(positives.starts, positives.ends, negatives)
    v_negative, _ = _placement(negatives.starts, negatives.ends, positives)
    estimate = float(positives.counts @ v_positive) / p
    variance = None
    if p > 1 and n > 1:
        # A negative's placement counts positives below it; the AUC is one minus that.
        s_positive = float(positives.counts @ (v_positive - estimate) ** 2) / (p - 1)
        s_negative = float(negatives.counts @ (1 - v_negative - estimate) ** 2) / (n - 1)
        variance = s_positive / p + s_negative / n
    bound = float(positives.counts @ spread) / p
    return Auc(estimate, variance, bound, p, n)


def auc_of_values(values: Vector, is_positive: NDArray[np.bool_]) -> Auc | None:
    """Return the exact AUC of values of shape (n,); None if a class is empty."""
    rank = np.unique(values, return_inverse=True)[1].reshape(-1)
    size = int(rank.max()) + 1 if len(rank) else 0
    classes = [
        Bins.on_grid(np.bincount(rank[chosen], minlength=size))
        for chosen in (is_positive, ~is_positive)
    ]
    found = auc_of_bins(*classes)
    if found is None:
        return None
    # Ties are ties here: nothing inside a bin could be ordered.
    return Auc(found.estimate, found.variance, 0.0, found.n_positive, found.n_negative)


def placements(
    bins: Integers, is_positive: NDArray[np.bool_], positives: Bins, negatives: Bins
) -> Vector:
    """Return each patient's placement value against the pooled other class, shape (n,).

    `bins` are positions on the full grid. A positive's value is the share of negatives below it,
    a negative's the share of positives above it; overlapping bins count one half.
    """
    against_negatives, _ = _placement(bins, bins + 1, negatives)
    against_positives, _ = _placement(bins, bins + 1, positives)
    return np.where(is_positive, against_negatives, 1 - against_positives)


def _placement(starts: Integers, ends: Integers, other: Bins) -> tuple[Vector, Vector]:
    """Return the share of the other class below, and half the share that may be on either side."""
    below = other.below(starts)
    not_above = other.n - other.above(ends)
    spread = (not_above - below) / (2 * other.n)
    if other.is_first_single and other.ends[0] == 1:
        spread = np.where(ends == 1, 0.0, spread)
    return (below + not_above) / (2 * other.n), spread


@dataclass(frozen=True)
class PairedAuc:
    """Two AUCs of the same patients and their difference, first minus second."""

    first: Auc
    second: Auc
    difference: float
    se: float | None
    p_value: float | None


def pair_sums(v1: Vector, v2: Vector, is_positive: NDArray[np.bool_]) -> Vector:
    """Return a site's sums for `paired_auc`: positives in row 0, negatives in row 1, (2, 6)."""
    return np.array(
        [
            [
                float(np.count_nonzero(chosen)),
                v1[chosen].sum(),
                v2[chosen].sum(),
                v1[chosen] @ v1[chosen],
                v2[chosen] @ v2[chosen],
                v1[chosen] @ v2[chosen],
            ]
            for chosen in (is_positive, ~is_positive)
        ]
    )


def paired_auc(sums: Vector, error_bounds: tuple[float, float]) -> PairedAuc | None:
    """Return both AUCs and DeLong's test of their difference from sums over sites, (2, 6).

    None if a class is empty. Standard errors need two patients in each class.
    """
    n_positive, n_negative = round(float(sums[0, 0])), round(float(sums[1, 0]))
    if n_positive == 0 or n_negative == 0:
        return None
    means = sums[0, 1:3] / n_positive
    covariance: Vector | None = None
    if n_positive > 1 and n_negative > 1:
        covariance = np.zeros((2, 2))
        for n, s1, s2, s11, s22, s12 in sums:
            products = np.array([[s11, s12], [s12, s22]])
            totals = np.array([s1, s2])
            covariance += (products - np.outer(totals, totals) / n) / (n - 1) / n
    aucs = [
        Auc(
            float(means[test]),
            None if covariance is None else float(covariance[test, test]),
            error_bounds[test],
            n_positive,
            n_negative,
        )
        for test in (0, 1)
    ]
    difference = float(means[0] - means[1])
    se = None
    if covariance is not None:
        variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        se = float(np.sqrt(max(variance, 0.0)))
    return PairedAuc(aucs[0], aucs[1], difference, se, two_sided_p(difference, se) if se else None)
